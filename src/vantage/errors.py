"""The one exception for bad input: it names the thing, the value and the remedy."""

import math
from numbers import Integral, Real
from typing import Any

LARGEST = (1 << 63) - 1  # that tensors count to


class InputError(ValueError):
    """Something the caller gave cannot be used. The message says what, and what to do instead."""


def refuse_unless(condition: object, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def refuse_unless_whole(count: Any, least: int, call: str, name: str) -> None:
    """Refuse anything but a whole number of `least` or more that fits into 64 bits.

    Raises:
        InputError: as "train(steps=1.5): must be a whole number."
    """
    shown = f"{call}({name}={str(count)[:40] if isinstance(count, Integral) else repr(count)[:40]})"
    whole = isinstance(count, Integral) and not isinstance(count, bool)
    refuse_unless(whole, f"{shown}: must be a whole number.")
    refuse_unless(count >= least, f"{shown}: must be at least {least}.")
    refuse_unless(count <= LARGEST, f"{shown}: must be at most {LARGEST}, 2^63 − 1.")


def refuse_unless_positive(amount: Any, call: str, name: str) -> None:
    """Refuse anything but a positive, finite number.

    Raises:
        InputError: as "train(lr=nan): must be positive."
    """
    real = isinstance(amount, Real) and not isinstance(amount, bool)
    refuse_unless(real, f"{call}({name}={repr(amount)[:40]}): must be a number.")
    fits = amount > 0 and math.isfinite(amount)
    refuse_unless(fits, f"{call}({name}={amount}): must be positive.")
