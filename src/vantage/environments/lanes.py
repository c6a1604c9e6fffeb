"""Lanes of one environment in one process, at the cost of the environment."""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vantage.environments.spaces import batched


class End(NamedTuple):
    """A lane whose episode ended, whether at an end of its own, and its last observation."""

    lane: int
    terminated: bool
    observation: Any


class Lanes(SyncVectorEnv):
    """Gymnasium's synchronous vector environment with a `play` in place of its `step`.

    Nothing is read of `info`, and nothing gathered lane by lane but observations and rewards: with
    few lanes that costs more than many an environment. Episodes that end start anew in the same
    step.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        # what `spaces.observation_reader` can read off a list
        self._listed = isinstance(self.single_observation_space, Box | Discrete)

    def play(self, actions: np.ndarray) -> tuple[Any, list[float], list[End]]:
        """Act in every lane: a batch of observations, to be copied, rewards, and who ended."""
        seen: Any = self._env_obs
        rewards: list[float] = []
        ends: list[End] = []
        for lane, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            seen[lane], reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)  # type: ignore[arg-type]
            if terminated or truncated:
                # a copy: the reset may write into the same array
                ends.append(End(lane, bool(terminated), deepcopy(seen[lane])))
                seen[lane], _ = env.reset()
        return self.batch(seen), rewards, ends

    def batch(self, observations: list[Any]) -> Any:
        """Observations of lanes, as `spaces.observation_reader` takes them."""
        return (
            observations if self._listed else batched(self.single_observation_space, observations)
        )
