"""The exceptions for bad input: they name the thing, the value and the remedy."""

LARGEST = (1 << 63) - 1  # that tensors count to


class InputError(ValueError):
    """Something the caller gave cannot be used. The message says what, and what to do instead."""


class NonFiniteError(InputError):
    """A gradient, a parameter or what an optimiser keeps is NaN or infinite."""


def refuse_unless(condition: object, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def refuse_unless_within(count: int, least: int, call: str, name: str) -> None:
    """Refuse a whole number below `least`, or one that does not fit into 64 bits.

    Raises:
        InputError: as "train(steps=0): must be at least 1."
    """
    shown = f"{call}({name}={str(count)[:40]})"
    refuse_unless(count >= least, f"{shown}: must be at least {least}.")
    refuse_unless(count <= LARGEST, f"{shown}: must be at most {LARGEST}, 2^63 − 1.")


def refuse_unless_positive(amount: float, call: str, name: str) -> None:
    """Refuse anything but a positive number.

    Raises:
        InputError: as "train(lr=0): must be positive."
    """
    refuse_unless(amount > 0, f"{call}({name}={amount}): must be positive.")
