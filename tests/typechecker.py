"""The run-time type checker of the tests: beartype, with the numeric tower of PEP 484.

A type checker lets an int pass where a float is asked for, and so does this.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
