"""Small environments with known answers, and the slow, obvious way to collect from them."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import vantage as vt


class Scripted(gymnasium.Env):
    """Episodes of random length (1 to 6) and a random kind of end, different in every lane.

    The observation is (episode number, time in the episode, a random mark of the episode), the
    reward a function of all three and of the action, so that a step taken from the wrong place
    cannot go unnoticed. Ends cycle through terminated, truncated and both at once.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.number = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.number = 0 if seed is not None else self.number + 1
        self.time = 0
        self.length = int(self.np_random.integers(1, 7))
        self.kind = int(self.np_random.integers(3))
        self.mark = float(self.np_random.normal())
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        reward = self.mark + 10 * self.time + 100 * self.number + 0.5 * int(action)
        ended = self.time >= self.length
        terminated = ended and self.kind in (0, 2)
        truncated = ended and self.kind in (1, 2)
        return self._observation(), reward, terminated, truncated, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.number, self.time, self.mark], np.float32)


class Marked(vt.Policy):
    """A deterministic policy: the action is a function of the observation."""

    def sample(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        action = (observation.sum(-1) * 7).long().abs() % 3
        return action, -observation.sum(-1).abs()

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        return -observation.sum(-1).abs()

    def entropy(self, observation: Tensor) -> Tensor:
        return torch.zeros_like(observation.sum(-1))


class SumValue(nn.Module):
    """V(s) = 1 + the sum of the observation."""

    def forward(self, observation: Tensor) -> Tensor:
        return 1 + observation.sum(-1)


def scripted_lanes(lanes: int, mode: AutoresetMode) -> vt.Gymnasium:
    """Scripted in a synchronous vector environment with the given autoreset mode."""
    vector = SyncVectorEnv([Scripted for _ in range(lanes)], autoreset_mode=mode)
    return vt.Gymnasium(vector, discount=0.9)


def one_at_a_time(seed: int, steps: int) -> list[dict[str, Any]]:
    """The reference: one environment, one step at a time, reset by hand at every end."""
    env = Scripted()
    observation, _ = env.reset(seed=seed)
    policy, value = Marked(), SumValue()
    rows: list[dict[str, Any]] = []
    episode = 0
    for _ in range(steps):
        seen = torch.from_numpy(observation)
        action, log_prob = policy.sample(seen)
        observation, reward, terminated, truncated, _ = env.step(action.item())
        final = torch.from_numpy(observation)
        rows.append(
            {
                "observation": seen,
                "action": action,
                "reward": reward,
                "log_prob": log_prob,
                "terminated": terminated,
                "ended": terminated or truncated,
                "final_value": value(final).item(),
                "value": value(seen).item(),
                "episode": episode,
            }
        )
        if terminated or truncated:
            observation, _ = env.reset()
            episode += 1
    return rows


class OneStep(gymnasium.Env):
    """One step; the reward is drawn from N(3, 2²) whatever the action."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), self.np_random.normal(3, 2), True, False, {}


class Broken(OneStep):
    """Episodes of five steps; what `fault` names is NaN at the third step where `lane_fault`."""

    def __init__(self, fault: str = "") -> None:
        self.fault, self.time = fault, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.time += 1
        bad = float("nan") if self.time == 3 else 0.0
        observation = np.full(1, bad if self.fault == "observation" else 0.0, np.float32)
        reward = bad if self.fault == "reward" else 1.0
        return observation, reward, self.time == 5, False, {}
