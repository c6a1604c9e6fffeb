"""Lanes of one environment in one process, at the cost of the environment."""

from copy import deepcopy
from typing import Any

import numpy as np
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

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As in Gymnasium; `info` holds "final_obs" where an episode ended, and nothing else."""
        seen = self._env_obs
        reward, terminated, truncated = [], [], []
        final: dict[int, Any] = {}
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            seen[i], gained, ended, cut, _ = env.step(action)
            reward.append(gained)
            terminated.append(ended)
            truncated.append(cut)
            if ended or cut:
                final[i] = deepcopy(seen[i])  # the reset may write into the same array
                seen[i], _ = env.reset()
        info: dict[str, Any] = {}
        if final:
            info["final_obs"] = np.full(self.num_envs, None, dtype=object)
            for i, observation in final.items():
                info["final_obs"][i] = observation
        return (
            batched(self.single_observation_space, seen),
            np.array(reward, np.float64),
            np.array(terminated, bool),
            np.array(truncated, bool),
            info,
        )
