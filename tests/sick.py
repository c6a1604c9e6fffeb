"""Environments with one fault each, and the healthy one that they are made of."""

import random
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces


class Healthy(gymnasium.Env):
    """Three numbers that move at random; a reward with noise; episodes of 3 to 8 steps."""

    observation_space: gymnasium.Space = spaces.Box(-50, 50, (3,), np.float32)
    action_space: gymnasium.Space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time, self.length = 0, int(self.noise().integers(3, 9))
        self.state = self.noise().normal(size=3).astype(np.float32)
        return self.shown(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        self.state = self.state + self.noise().normal(size=3).astype(np.float32)
        reward = float((2 * action - 1) * self.noise().normal())
        return self.shown(), reward, self.time >= self.length, False, {}

    def noise(self) -> Any:
        return self.np_random

    def shown(self) -> Any:
        return self.state.copy()

    @property
    def last(self) -> bool:
        return self.time >= self.length


class OwnReseeded(Healthy):
    """A generator of its own that every reset puts back."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.rng = np.random.default_rng(7)
        return super().reset(seed=seed)

    def noise(self) -> Any:
        return self.rng


class OwnSeedKept(OwnReseeded):
    """As above, from the seed it was given first."""

    kept = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.kept = self.kept if seed is None else seed
        self.rng = np.random.default_rng(self.kept)
        return Healthy.reset(self, seed=seed)


class SeedAlwaysPassed(Healthy):
    """np_random itself is put back by every reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=3 if seed is None else seed)


class HiddenReseeded(OwnSeedKept):
    """The generator is nowhere to be seen: only its numbers show."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        returned = super().reset(seed=seed)
        drawn = self.rng.normal(size=1000).tolist()
        del self.rng
        self.numbers = [iter(drawn)]
        return returned

    def noise(self) -> Any:
        if hasattr(self, "rng"):
            return self.rng
        return self

    def normal(self, size: int = 1) -> Any:
        out = np.array([next(self.numbers[0]) for _ in range(size)])
        return out if size > 1 else out[0]


class OwnSeeded(Healthy):
    """A generator of its own, seeded as it should be."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None or not hasattr(self, "rng"):
            self.rng = np.random.default_rng(seed)
        return super().reset(seed=seed)

    def noise(self) -> Any:
        return self.rng


class OwnUnseeded(Healthy):
    """A generator made once and never seeded."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def noise(self) -> Any:
        return self.rng


class OwnFromNothing(OwnUnseeded):
    """Seeded from the argument even where that is None: the second episode cannot be repeated."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.rng = np.random.default_rng(seed)
        return super().reset(seed=seed)


class GlobalNumpy(Healthy):
    def noise(self) -> Any:
        class Legacy:
            normal = staticmethod(np.random.normal)

            @staticmethod
            def integers(low: int, high: int) -> int:
                return int(np.random.randint(low, high))  # noqa: NPY002

        return Legacy


class GlobalPython(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + random.random(), *rest


class GlobalTorch(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + torch.randn(()).item(), *rest


class SharedClock(Healthy):
    """What should be on self is on the class."""

    clock: ClassVar[list[int]] = [0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.clock[0] = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.clock[0] += 1
        observation, reward, *rest = super().step(action)
        return observation, reward + self.clock[0], *rest


class ReusedArray(Healthy):
    def __init__(self) -> None:
        self.array = np.zeros(3, np.float32)

    def shown(self) -> Any:
        self.array[:] = self.state
        return self.array


class TwoArrays(Healthy):
    """Two arrays in turns: each is overwritten a step later than one would look."""

    def __init__(self) -> None:
        self.arrays, self.turn = np.zeros((2, 3), np.float32), 0

    def shown(self) -> Any:
        self.turn = 1 - self.turn
        self.arrays[self.turn] = self.state
        return self.arrays[self.turn]


class OwnState(Healthy):
    """Shows its state itself, and goes on from it."""

    def shown(self) -> Any:
        return self.state


class SpoilsAction(Healthy):
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action: Any) -> Any:
        returned = super().step(float(action[0]))
        action -= action
        return returned


class KeepsAction(Healthy):
    """Writes into an action a step after it was given."""

    action_space = spaces.MultiDiscrete([4, 4])
    kept: Any = None

    def step(self, action: Any) -> Any:
        if self.kept is not None:
            self.kept += 1
        self.kept = action
        return super().step(int(action[0]) % 2)


class NaNAtEnd(Healthy):
    def shown(self) -> Any:
        return self.state * np.nan if self.time and self.last else self.state.copy()


class InfinityOnTheWay(Healthy):
    def shown(self) -> Any:
        return np.where([1, 0, 0], np.inf, self.state) if self.time == 2 else self.state.copy()


class IdOut(Healthy):
    observation_space = spaces.Discrete(5)

    def shown(self) -> Any:
        return self.time  # 0 to 8


class IdsOut(Healthy):
    observation_space = spaces.MultiDiscrete([3, 3])

    def shown(self) -> Any:
        return np.array([self.time % 4, 1])


class IdBelow(Healthy):
    observation_space = spaces.Dict({"place": spaces.Discrete(9), "x": spaces.Box(-9, 9, (1,))})

    def shown(self) -> Any:
        return {"place": self.time - 1, "x": np.zeros(1, np.float32)}


class MissingPart(IdBelow):
    def shown(self) -> Any:
        return {"place": self.time}


class WrongShape(Healthy):
    def shown(self) -> Any:
        return self.state[:2].copy()


class Listed(Healthy):
    """Strings where numbers should be."""

    def shown(self) -> Any:
        return np.array(["a", "b", "c"])


class FloatIds(Healthy):
    observation_space = spaces.MultiDiscrete([10, 10])

    def shown(self) -> Any:
        return np.array([float(self.time), 1.0])


class OutOfBounds(Healthy):
    observation_space = spaces.Box(-0.1, 0.1, (3,), np.float32)


class LargeTimes(Healthy):
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def shown(self) -> Any:
        return 1.7e9 + 10 * self.state.astype(np.float64)


class RewardArray(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, self.given(reward), *rest

    def given(self, reward: float) -> Any:
        return np.array([reward])


class RewardVector(RewardArray):
    def given(self, reward: float) -> Any:
        return np.array([reward, 1.0])


class RewardNone(RewardArray):
    def given(self, reward: float) -> Any:
        return None


class RewardNaN(RewardArray):
    def given(self, reward: float) -> Any:
        return float("nan") if self.time == 3 else reward


class RewardTooLarge(RewardArray):
    def given(self, reward: float) -> Any:
        return 1e39


class RewardLarge(RewardArray):
    def given(self, reward: float) -> Any:
        return 1e18 * reward


class FlagsAsNumbers(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, int(terminated), truncated, info


class FlagNone(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, None, info


class OldStep(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class OldReset(Healthy):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class Raises(Healthy):
    def step(self, action: Any) -> Any:
        if self.time == 2:
            raise RuntimeError("the simulator lost its licence")
        return super().step(action)


class Endless(Healthy):
    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return np.clip(observation, -50, 50), reward, False, False, info


class Clocked(Healthy):
    """Says terminated where a time limit cuts it off."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        returned = super().reset(seed=seed)
        self.length = 10
        return returned


class Hoards(Healthy):
    """Keeps every observation for ever."""

    def __init__(self) -> None:
        self.hoard: list[Any] = []

    def step(self, action: Any) -> Any:
        returned = super().step(action)
        self.hoard.append(returned[0].copy())
        return returned


class Worded(Healthy):
    observation_space = spaces.Text(5)

    def shown(self) -> Any:
        return "abc"


class Masked(Healthy):
    """Only even actions are possible at even times, and `info` says so."""

    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0], self.mask()

    def step(self, action: Any) -> Any:
        assert action % 2 == self.time % 2, f"action {action} is not possible now"
        *returned, _ = super().step(action % 2)
        return *returned, self.mask()

    def mask(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, 0, 1, 0] if self.time % 2 == 0 else [0, 1, 0, 1])}
