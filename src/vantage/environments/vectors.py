"""Vector environments from what names one lane: made all at once, or lane by lane."""

from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from vantage.environments.lanes import Lanes, RealNumbers
from vantage.environments.sources import Source, lane, remedy
from vantage.errors import refuse_unless

NATIVE_FROM = 8  # lanes from which array operations on all of them beat a call for each


def vector(origin: Source, lanes: int, settings: dict[str, Any]) -> VectorEnv:
    """The vector environment of `lanes` lanes, made at once where that is faster.

    Args:
        origin: what a lane comes from.
        settings: as `Gymnasium` takes them.

    Raises:
        InputError: what cannot be made, with the remedy.
    """
    limit = settings.get("max_episode_steps")
    refuse_unless(
        limit is None or (isinstance(limit, int) and limit >= 1),
        f"{origin.name}: max_episode_steps={limit!r} must be a whole number from 1, or None.",
    )
    if origin.id is not None and not _stepped_here(origin.id, lanes, settings):
        try:
            return gymnasium.make_vec(origin.id, num_envs=lanes, **settings)
        except (gymnasium.error.Error, ImportError) as error:
            raise remedy(origin.id, error) from error
    rest = dict(settings)
    mode = rest.pop("vectorization_mode", "sync")
    refuse_unless(
        mode in ("sync", "async"),
        f"{origin.name}: vectorization_mode={mode!r}; lanes that are made one by one are stepped "
        "'sync' or 'async'.",
    )
    if mode == "sync":
        return Lanes([partial(lane, origin, rest)] * lanes)
    return AsyncVectorEnv([partial(_apart, origin, rest)] * lanes)


def _apart(origin: Source, settings: dict[str, Any]) -> gymnasium.Env:
    """One lane for a process of its own."""
    return RealNumbers(lane(origin, settings))


def _stepped_here(name: str, lanes: int, settings: dict[str, Any]) -> bool:
    """Whether lanes are made one by one: unless somebody says how, or all at once is faster."""
    spec = gymnasium.registry.get(name)
    if spec is None or "action_mask" in settings or _wrapped_by_name(settings):
        return True
    explicit = {"vectorization_mode", "vector_kwargs"} & (settings.keys() | spec.kwargs.keys())
    return not explicit and (spec.vector_entry_point is None or lanes < NATIVE_FROM)


def _wrapped_by_name(settings: dict[str, Any]) -> bool:
    wrappers = settings.get("wrappers") or ()
    return isinstance(wrappers, str) or any(isinstance(wrapper, str) for wrapper in wrappers)
