"""Sizes of memory, as people write them."""

import re

from vantage.errors import InputError


def size_in_bytes(text: str) -> int:
    """A size such as 500MB or 4GB.

    Raises:
        InputError: not such a size.

    >>> size_in_bytes("4GB"), size_in_bytes("1.5 MB")
    (4294967296, 1572864)
    """
    match = re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise InputError(f"memory {text}: give a size such as 500MB or 4GB.")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))
