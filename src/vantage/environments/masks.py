"""Masks of actions: which of them are allowed, as a part of what the policy sees.

Environments tell it in `info["action_mask"]` or in an entry "action_mask" of a Dict observation. A
mask in `info` is made an entry of the observation too: the record of a rollout then holds all that
the probabilities depend on, and scores, entropy and audits are right without knowing of masks.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vantage.environments.spaces import Part, parts
from vantage.errors import InputError, refuse_unless

KEY = "action_mask"


def mask_key(asked: bool | str | None) -> str:
    """The entry that `action_mask=` names."""
    return asked if isinstance(asked, str) else KEY


def mask_part(
    observation: gymnasium.Space, action: gymnasium.Space, asked: bool | str | None, name: str
) -> Part | None:
    """Where the mask lies in the flat observation; None where there is none.

    Args:
        observation, action: spaces of one lane.
        asked: None: the entry "action_mask", where there is one that fits the actions; True or the
            name of an entry: it must be there; False: an entry of the observation like any other.
        name: the name of the environment.

    Raises:
        InputError: an entry asked for that is not there or does not fit; actions other than
            Discrete.
    """
    if asked is False:
        return None
    key = mask_key(asked)
    place = next((part for part in parts(observation, name) if part.path == (key,)), None)
    choices = int(action.n) if isinstance(action, spaces.Discrete) else 0
    fits = place is not None and choices > 0 and place.last - place.first == choices
    if asked is None:
        return place if fits else None
    refuse_unless(
        choices > 0,
        f"{name}: action_mask={asked!r} is for Discrete actions; its actions are {action}.",
    )
    refuse_unless(
        place is not None,
        f"{name}: action_mask={asked!r}, but its observations {observation} have no entry {key!r}.",
    )
    assert place is not None
    refuse_unless(
        fits,
        f"{name}: its {key!r} has {place.last - place.first} numbers for {choices} actions; give "
        "one each, 1 where the action is allowed.",
    )
    return place


def with_mask(env: gymnasium.Env, asked: bool | str | None) -> gymnasium.Env:
    """The environment with the mask of `info` in its observations, where it is asked for there."""
    space = env.observation_space
    if not asked or (isinstance(space, spaces.Dict) and mask_key(asked) in space.spaces):
        return env
    return MaskFromInfo(env, mask_key(asked))


def beside(observation: Any, mask: object, key: str, within: bool) -> dict[str, Any]:
    """An observation and its mask as one, as `MaskFromInfo` shows them."""
    return {**observation, key: mask} if within else {"observation": observation, key: mask}


class MaskFromInfo(gymnasium.Wrapper):
    """Shows the mask of `info` in the observation: {"observation": ..., "action_mask": ...}.

    Where observations are a Dict already, the mask becomes one entry more.

    Args:
        env: with Discrete actions.
        key: the key of the mask in `info`.

    Raises:
        InputError: no mask in `info`; one of another size; one that allows nothing.
    """

    def __init__(self, env: gymnasium.Env, key: str = KEY):
        super().__init__(env)
        actions = env.action_space
        if not isinstance(actions, spaces.Discrete):
            raise InputError(f"action_mask={key!r}: {env} has {actions}; Discrete can be masked.")
        self.key, self.choices = key, int(actions.n)
        self.within = isinstance(env.observation_space, spaces.Dict)
        space: object = env.observation_space.spaces if self.within else env.observation_space  # type: ignore[attr-defined]
        allowed = spaces.MultiBinary(self.choices)
        self.observation_space = spaces.Dict(beside(space, allowed, key, self.within))

    def reset(self, **settings: Any) -> tuple[object, dict[str, object]]:
        observation, info = self.env.reset(**settings)
        return self._shown(observation, info, "at reset"), info

    def step(self, action: object) -> tuple[object, Any, bool, bool, dict[str, object]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated or truncated
        return (
            self._shown(observation, info, "at a step", ended),
            reward,
            terminated,
            truncated,
            info,
        )

    def _shown(
        self, observation: object, info: dict[str, object], when: str, ended: bool = False
    ) -> object:
        mask = info.get(self.key)
        if mask is None and ended:  # nothing will be done there
            mask = np.ones(self.choices, np.int8)
        refuse_unless(
            mask is not None,
            f"{self.env}: info has no {self.key!r} {when}; give it at reset and every step, or "
            "leave action_mask out.",
        )
        allowed = (np.asarray(mask) > 0).astype(np.int8).reshape(-1)
        refuse_unless(
            allowed.size == self.choices and (ended or bool(allowed.any())),
            f"{self.env}: info[{self.key!r}] is {np.asarray(mask).tolist()} {when}; {self.choices} "
            "actions need a number each, one of them at least not 0.",
        )
        if not allowed.any():
            allowed = np.ones_like(allowed)
        return beside(observation, allowed, self.key, self.within)
