"""Who steps the lanes of an environment from one batch to the next."""

import weakref
from contextlib import suppress
from typing import Any


def hold(env: object, collector: object | None) -> None:
    """Say who steps these lanes from one batch to the next: nobody, where None.

    Every adapter says None when it is reset: whoever was in the middle of an episode has lost it.
    """
    with suppress(AttributeError):  # a user's own environment may have no room for it
        innermost(env)._collector = None if collector is None else weakref.ref(collector)


def is_held(env: object, by: object | None = None) -> bool:
    """Whether these lanes are in the middle of what somebody collects: anybody, or `by`.

    Where an environment has no room to write that down, nothing speaks against it.
    """
    lanes = innermost(env)
    if not hasattr(lanes, "_collector"):
        return by is not None
    reference = lanes._collector
    holder = None if reference is None else reference()
    return holder is not None if by is None else holder is by


def position(env: object) -> int | None:
    """Steps of these lanes since their reset, counted by their adapter; None where none counts."""
    return getattr(_adapter(env), "taken", None)


def innermost(env: object) -> Any:
    """What steps the lanes: several adapters may read one vector environment."""
    adapter = _adapter(env)
    return getattr(adapter, "vector", adapter)


def _adapter(env: object) -> Any:
    """What normalisers stand around."""
    while hasattr(env, "statistics") and hasattr(env, "env"):
        env = env.env
    return env
