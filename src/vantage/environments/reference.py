"""The slow reference: one environment stepped by hand, and running statistics by plain sums.

Nothing here is fast, and nothing here is shared with what it is compared to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from torch import Tensor

from vantage.environments.interface import Environment, Step
from vantage.environments.normalise import Normalized
from vantage.environments.spaces import is_picture


class Answer(NamedTuple):
    """What one lane should return; fields as those of `Step`."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: np.ndarray


class LaneReference:
    """One environment in a lane's place, reset by hand when an episode ends.

    Args:
        env: stepped by hand.
        seed: the seed of its first reset.
        place: puts it into the state that an observation shows; None: it starts by itself.

    Attributes:
        stale: whether the lane went on from the last observation of an episode that had ended,
            without ever showing where the new one starts.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        seed: int,
        place: Callable[[gymnasium.Env, np.ndarray], None] | None,
    ):
        self.env, self.seed, self.place = env, seed, place
        self.stale = self.begins = self.waits = False
        # the first observation of the new episode and the last of the old, and how that was shown
        self.fresh = self.last = self.last_shown = self.started_at = np.zeros(0)

    def start(self, shown: Tensor) -> np.ndarray:
        """The first observation of all; `shown` is that of the lane, for `place`."""
        observation, _ = self.env.reset(seed=self.seed)
        self.fresh = self.last = flat(self.env.observation_space, observation)
        return self._begin(self.fresh, _array(shown))

    def step(self, action: Tensor, real: bool, shown: Tensor, shown_final: Tensor) -> Answer:
        """What a lane should return for a raw action, or for a dummy step.

        Whether a lane starts anew in the step that ends its episode, or after dummy steps that
        repeat the last observation, is its own choice: `shown` and `shown_final` tell.
        """
        now, final_now = _array(shown), _array(shown_final)
        if not real:
            repeats = self.waits and np.array_equal(now, self.last_shown)
            following = self.last if repeats else self._begin(self.fresh, now)
            nothing = np.zeros(())
            return Answer(following, nothing, nothing, nothing, following)
        self.stale = self.waits and not np.array_equal(self.fresh, self.last)
        if self.begins and self.place is not None:
            self.place(self.env, self.started_at)
        self.begins = self.waits = False
        given = written(self.env.action_space, action)
        observation, reward, terminated, truncated, _ = self.env.step(given)
        final = following = flat(self.env.observation_space, observation)
        if terminated or truncated:
            fresh, _ = self.env.reset()
            self.fresh = flat(self.env.observation_space, fresh)
            self.last, self.last_shown = final, final_now
            self.waits = np.array_equal(now, final_now)
            if not self.waits:
                following = self._begin(self.fresh, now)
        return Answer(
            following,
            np.asarray(reward, np.float64).reshape(()),
            np.asarray(bool(terminated)),
            np.asarray(bool(truncated) and not terminated),
            final,
        )

    def _begin(self, observation: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """A new episode: placed where the lane shows it to be before the next step."""
        self.begins, self.waits, self.started_at = True, False, shown
        return observation if self.place is None else shown


class _Recorded:
    """An environment that remembers what it returned last, as it was before any normaliser."""

    def __init__(self, env: Environment):
        self.env, self.lanes, self.discount, self.name = env, env.lanes, env.discount, env.name

    def __getattr__(self, name: str) -> Any:
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        self.first = self.env.reset(seed, shared)
        return self.first

    def step(self, action: Tensor) -> Step:
        self.last = self.env.step(action)
        return self.last


class SlowNormaliser:
    """What `Normalized` should make of its environment: every number kept, every mean taken anew.

    Args:
        env: whose statistics so far are where this begins; what it wraps is recorded from now on.
    """

    def __init__(self, env: Normalized):
        self.recorded = env.env = _Recorded(env.env)
        self.settings, self.discount = env.normalised, env.discount
        self.before = env.statistics.table.clone().numpy()
        self.shown: list[np.ndarray] = []  # every observation that counts
        self.gains: list[float] = []  # every return that counts
        self.running = np.zeros(env.lanes)

    def reset(self, starts: list[np.ndarray]) -> list[np.ndarray]:
        """First observations, normalised."""
        self.running[:] = 0
        self.shown += starts
        return [self._observation(start) for start in starts]

    def step(self, answers: list[Answer], step: Step) -> list[Answer]:
        """The answers, normalised, once all that they show has been counted."""
        for lane, answer in enumerate(answers):
            ended = bool(answer.terminated or answer.truncated)
            if step.idle is None or not bool(step.idle[lane]):
                self.shown.append(answer.final_observation)
            if ended and not np.array_equal(answer.observation, answer.final_observation):
                self.shown.append(answer.observation)
            if bool(step.real[lane]):
                self.running[lane] = self.discount * self.running[lane] + answer.reward
                self.gains.append(float(self.running[lane]))
            if ended or not bool(step.real[lane]):
                self.running[lane] = 0
        return [
            answer._replace(
                observation=self._observation(answer.observation),
                final_observation=self._observation(answer.final_observation),
                reward=self._reward(answer.reward),
            )
            for answer in answers
        ]

    def _observation(self, observation: np.ndarray) -> np.ndarray:
        if not self.settings["observations"]:
            return observation
        mean, variance = _moments(
            np.stack(self.shown).reshape(len(self.shown), -1), self.before[:, :-1]
        )
        scaled = (observation.flatten() - mean) / np.sqrt(variance + self.settings["epsilon"])
        clip = self.settings["clip"]
        return np.clip(scaled, -clip, clip).reshape(observation.shape)

    def _reward(self, reward: np.ndarray) -> np.ndarray:
        if not self.settings["rewards"]:
            return reward
        gains = np.asarray(self.gains, np.float64).reshape(-1, 1)
        mean, variance = _moments(gains, self.before[:, -1:])
        clip, several = self.settings["clip"], self.before[0, -1] + len(gains) > 1
        square = variance[0] + mean[0] ** 2 if several else 1.0
        scaled = reward / np.sqrt(variance[0] + self.settings["epsilon"] * square or 1.0)
        return np.asarray(np.clip(scaled, -clip, clip))


def _moments(samples: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [K] of samples [M, K] and of those counted `before` [3, K]."""
    samples = samples.astype(np.float64)
    count = before[0] + len(samples)
    mean = (before[0] * before[1] + samples.sum(0)) / np.maximum(count, 1)
    squares = before[2] + before[0] * (before[1] - mean) ** 2 + ((samples - mean) ** 2).sum(0)
    return mean, np.where(count > 1, squares / np.maximum(count, 1), 1.0)


def flat(space: gymnasium.Space, observation: Any) -> np.ndarray:
    """One observation as policies see it: ids from 0, pictures as they are, all else flat."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(int(observation) - int(space.start), np.float64)
    if is_picture(space):
        return np.array(observation, np.float64)
    return np.array(spaces.flatten(space, observation), np.float64)


def written(space: gymnasium.Space, action: Tensor) -> Any:
    """One raw action as Gymnasium takes it: ids from the space's start, vectors within bounds."""
    array = action.detach().cpu().numpy()
    if isinstance(space, spaces.Discrete):
        return int(array) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return array.reshape(space.shape) + space.start
    if isinstance(space, spaces.MultiBinary):
        return array.reshape(space.shape)
    assert isinstance(space, spaces.Box)
    return np.clip(array.reshape(space.shape), space.low, space.high).astype(space.dtype)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)
