"""Losses as people write them, examined: what does this one climb?"""

from vantage.conformance.losses.verdict import Examination
from vantage.conformance.losses.verify import verify

__all__ = ["Examination", "verify"]
