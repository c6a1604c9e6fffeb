"""Arguments, held to the kinds that their annotations say: whole numbers, numbers, truth values."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from vantage.errors import refuse_unless

T = TypeVar("T", bound=Callable[..., Any])

KINDS = {bool: "True or False", int: "a whole number", float: "a number", NoneType: "None"}


def check_kinds(
    owner: str, settings: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse a setting of another kind than its parameter is annotated with, NaN and infinity.

    Only parameters that are plain numbers, truth values, literals or None are looked at. A `seed`
    is a whole number from 0.

    Args:
        owner: how the message calls what is set.
        settings: by name; all among the parameters.
        parameters: the parameters of the function that takes them.

    Raises:
        InputError: naming the setting, its value and what it may be.

    >>> def f(epsilon: float | None = 0.2): ...
    >>> check_kinds("f", {"epsilon": "nan"}, inspect.signature(f).parameters)
    Traceback (most recent call last):
    vantage.errors.InputError: f: epsilon='nan' must be a number or None.
    """
    for name, value in settings.items():
        kinds = kinds_of(parameters[name].annotation)
        right = any(_is(value, kind) for kind in kinds)
        finite = not isinstance(value, Real) or _is_finite(value)
        refuse_unless(
            not kinds or (right and finite),
            f"{owner}: {name}={value!r} must be {' or '.join(_word(kind) for kind in kinds)}"
            f"{'' if finite else ', finite'}.",
        )
        refuse_unless(
            name != "seed" or not right or value is None or value >= 0,
            f"{owner}: seed={value!r} must be a whole number from 0.",
        )


def checked(function: T) -> T:
    """A function, or a class, whose arguments are held to their kinds before anything is done.

    NumPy's numbers become Python's, and 1e6 a whole number where one is asked for.

    >>> @checked
    ... def walk(steps: int): ...
    >>> walk(1.5)
    Traceback (most recent call last):
    vantage.errors.InputError: walk: steps=1.5 must be a whole number.
    """
    if isinstance(function, type):
        function.__init__ = _checked(function.__init__, function.__name__)  # type: ignore[misc]
        return function
    return _checked(function, function.__qualname__.split("<locals>.")[-1])


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The kinds an annotation allows; none where it allows anything else, such as an array."""
    union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    numeric = any(kind in (int, float, bool) for kind in kinds)
    plain = all(kind in tuple(KINDS) or get_origin(kind) is Literal for kind in kinds)
    return kinds if numeric and plain else ()


def _checked(function: T, owner: str) -> T:
    signature = inspect.signature(function)
    kinds = {name: kinds_of(each.annotation) for name, each in signature.parameters.items()}
    numbers = {name: allowed for name, allowed in kinds.items() if allowed}

    @wraps(function)
    def held(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:  # Python says best what is missing or too much
            return function(*args, **kwargs)
        settings = {
            name: _plain(value, numbers[name])
            for name, value in given.arguments.items()
            if name in numbers
        }
        check_kinds(owner, settings, signature.parameters)
        given.arguments.update(settings)
        return function(*given.args, **given.kwargs)

    return held  # type: ignore[return-value]


def _is(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if isinstance(value, bool | np.bool_):
        return kind is bool
    return isinstance(value, {int: Integral, float: Real}.get(kind, kind))


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _plain(value: Any, kinds: tuple[Any, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    whole = isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds
    return int(value) if whole else value


def _word(kind: Any) -> str:
    return KINDS[kind] if kind in KINDS else " or ".join(repr(word) for word in get_args(kind))
