"""The one exception for bad input: it names the thing, the value and the remedy."""


class InputError(ValueError):
    """Something the caller gave cannot be used. The message says what, and what to do instead."""


def refuse_unless(condition: object, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)
