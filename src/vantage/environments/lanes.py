"""Lanes of one environment in one process, at the cost of the environment."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vantage.environments.spaces import batched


class Lanes(SyncVectorEnv):
    """Gymnasium's synchronous vector environment without the collection of `info`.

    Vantage reads nothing from `info` but the final observations; gathering the rest lane by lane
    and copying every array twice costs more than many an environment. Episodes that end start
    anew in the same step.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self._plain = isinstance(self.single_observation_space, Box)
        self._no_end = np.zeros(self.num_envs, bool)  # most steps end nothing: they share this
        self._no_end.flags.writeable = False

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As in Gymnasium; `info` holds "final_obs" where an episode ended, and nothing else."""
        seen, rewards = self._env_obs, []
        ended: list[tuple[int, bool, bool]] = []
        final: list[Any] = []
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            seen[i], reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            if terminated or truncated:
                ended.append((i, terminated, truncated))
                final.append(deepcopy(seen[i]))  # the reset may write into the same array
                seen[i], _ = env.reset()
        space = self.single_observation_space
        # a reader of observations copies: rows of an array that the environments own would do
        observation = np.array(seen, space.dtype) if self._plain else batched(space, seen)
        if not ended:
            return observation, np.array(rewards, np.float64), self._no_end, self._no_end, {}
        terminations, truncations = self._no_end.copy(), self._no_end.copy()
        last = np.full(self.num_envs, None, dtype=object)
        for (i, terminated, truncated), one in zip(ended, final, strict=True):
            terminations[i], truncations[i], last[i] = terminated, truncated, one
        info = {"final_obs": last}
        return observation, np.array(rewards, np.float64), terminations, truncations, info
