"""The run-time type checker of the tests: beartype, with the numeric tower of PEP 484.

A type checker lets an int pass where a float is asked for, and so does this. Each test checks every
function of the package on its first CALLS calls: a training calls the same ones ten thousand times
with the same shapes, and would spend most of its time on checking them again.
"""

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

CALLS = 50

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_counts: Counter[tuple[str, str]] = Counter()
_resting: list[Any] = []


def check(signature: Callable[..., Any]) -> Callable[..., Any]:
    """Check a signature; jaxtyping asks twice a call: of the arguments and of what returns."""
    checked = _checked(signature)
    name = signature.__module__, signature.__qualname__

    @functools.wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _counts[name] += 1
        if _counts[name] == 2 * CALLS:
            _rest(*name)
        return checked(*args, **kwargs) if _counts[name] <= 2 * CALLS else None

    return counted


def pytest_runtest_setup() -> None:
    """Begin anew, before the fixtures of a test."""
    _counts.clear()
    while _resting:
        del _resting.pop().__no_type_check__


def _rest(module: str, qualname: str) -> None:
    """Let jaxtyping pass a function by; one that has no name of its own goes on being checked."""
    place: Any = sys.modules.get(module)
    for part in qualname.split("."):
        place = inspect.getattr_static(place, part, None)
    for inner in ("__func__", "fget", "func"):  # a method of the class, a property, a cached one
        place = getattr(place, inner, place)
    function = inspect.unwrap(place) if callable(place) else None
    if inspect.isfunction(function) and function.__qualname__ == qualname:
        function.__no_type_check__ = True  # type: ignore[attr-defined]
        _resting.append(function)
