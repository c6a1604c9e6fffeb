"""Settings that come as text, such as `--set epsilon=0.1`, held to the kinds that are asked for."""

import inspect
import math
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from vantage.errors import refuse_unless

KINDS = {bool: "True or False", int: "a whole number", float: "a number", NoneType: "None"}


def check_kinds(
    owner: str, settings: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse a setting of another kind than its parameter is annotated with, and NaN or infinity.

    Only parameters that are plain numbers, truth values or None are looked at.

    Args:
        owner: how the message calls what is set.
        settings: by name; all among the parameters.
        parameters: of the function that takes them.

    Raises:
        InputError: naming the setting, its value and what it may be.

    >>> def f(epsilon: float | None = 0.2): ...
    >>> check_kinds("f", {"epsilon": "nan"}, inspect.signature(f).parameters)
    Traceback (most recent call last):
    vantage.errors.InputError: f: epsilon='nan' must be a number or None.
    """
    for name, value in settings.items():
        annotation = parameters[name].annotation
        kinds = get_args(annotation) or (annotation,)
        if not set(kinds) <= set(KINDS):
            continue
        right = type(value) in kinds or (type(value) is int and float in kinds)
        finite = not isinstance(value, float) or math.isfinite(value)
        refuse_unless(
            right and finite,
            f"{owner}: {name}={value!r} must be {' or '.join(KINDS[kind] for kind in kinds)}"
            f"{'' if finite else ', finite'}.",
        )
