"""What a column of the estimator table must declare about itself, beside its formula.

A column is a plain function over a `Batch`. Two facts cannot be read off its values and are declared
where it is defined: which inputs it needs, so that a missing one is refused with a remedy, and which
rows it couples, so that an interval or a signal-to-noise ratio takes the right unit of independence.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

Coupling = Literal["none", "group", "batch"]
F = TypeVar("F", bound=Callable[..., Any])


def declares(*, needs: tuple[str, ...] = (), couples: Coupling = "none") -> Callable[[F], F]:
    """Mark a column with the inputs it needs and the rows it couples.

    Args:
        needs: names of optional inputs: "value" (a value function), "group" (more than one row per
            group).
        couples: "none" if a trajectory's weights depend on that trajectory alone, "group" if on its
            group, "batch" if on the whole batch.
    """

    def mark(function: F) -> F:
        function.needs = needs  # type: ignore[attr-defined]
        function.couples = couples  # type: ignore[attr-defined]
        return function

    return mark


def needs(column: Callable[..., Any]) -> tuple[str, ...]:
    """The optional inputs a column declares, looking through `functools.partial`."""
    return getattr(_function(column), "needs", ())


def couples(column: Callable[..., Any]) -> Coupling:
    """The rows a column declares that it couples, looking through `functools.partial`."""
    return getattr(_function(column), "couples", "none")


def describe(column: Callable[..., Any] | None) -> str:
    """A column as a user would write it: `gae(lambda_=0.95)`."""
    if column is None:
        return "–"
    function = _function(column)
    settings = column.keywords if isinstance(column, partial) else {}
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return function.__name__ + (f"({arguments})" if arguments else "")


def _function(column: Callable[..., Any]) -> Callable[..., Any]:
    return column.func if isinstance(column, partial) else column
