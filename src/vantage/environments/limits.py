"""How long an environment may take for one step, or reset, of all lanes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

from vantage.environments.holding import innermost
from vantage.environments.lanes import silent_lanes
from vantage.errors import InputError
from vantage.runs.limits import Overdue, TimeLimit, time_limit

F = TypeVar("F", bound=Callable[..., Any])
_limit: ContextVar[TimeLimit | None] = ContextVar("environment_timeout", default=None)


@contextmanager
def answering_within(seconds: float | None) -> Iterator[None]:
    """Hold environments that are stepped in the block to a time limit; None: to none."""
    with time_limit(seconds) as limit:
        token = _limit.set(limit)
        try:
            yield
        finally:
            _limit.reset(token)


class LateError(InputError):
    """An environment took longer than it may."""


def limited(call: F, env: object) -> F:
    """`env.step`, say, held to the limit that holds now, where there is one.

    Raises:
        InputError: it took longer, naming the environment, and lanes where they can be told.
    """
    limit = _limit.get()
    if limit is None:
        return call

    @wraps(call)
    def held(*args: Any, **kwargs: Any) -> Any:
        try:
            with limit:
                return call(*args, **kwargs)
        except Overdue as late:
            name = getattr(env, "name", "The environment")
            what = getattr(call, "__name__", "a call")
            told = [
                f"{name} had not returned from {what} after {limit.seconds:g} s "
                f"(environment_timeout={limit.seconds:g}).",
                *getattr(late, "__notes__", []),
                silent_lanes(innermost(env)),
                "Mend what hangs, or allow it more time.",
            ]
            raise LateError(" ".join(text for text in told if text)) from None

    return held  # type: ignore[return-value]
