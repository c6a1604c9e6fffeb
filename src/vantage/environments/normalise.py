"""Normalisers: observations by their running mean and deviation, rewards by that of their return.

Every observation that an environment shows counts once: the first of every episode and the true
successor of every real step. Dummy reset steps count for nothing. All autoreset modes therefore
count the same observations and rewards.
"""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.environments.exporting import Standardised
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment, Step
from vantage.environments.shown import described, shown
from vantage.environments.terms import Terms
from vantage.errors import refuse_unless
from vantage.policies import Policy


class RunningMoments(nn.Module):
    """Running mean and variance of every column of what it was given, in float64.

    They are one buffer: `state_dict` holds it, and a checkpoint with it.

    Args:
        columns: K.

    Attributes:
        table: [3, K] how many samples, their mean, Σ (x − mean)².

    Source: Chan, Golub & LeVeque 1979, for merging a batch of samples.

    >>> moments = RunningMoments(1)
    >>> for batch in ([[1.0], [2.0]], [[6.0]]):
    ...     moments.update(torch.tensor(batch))
    >>> moments.mean.item(), moments.variance.item()
    (3.0, 4.666666666666667)
    """

    table: Tensor

    def __init__(self, columns: int):
        super().__init__()
        self.register_buffer("table", torch.zeros(3, columns, dtype=torch.float64))

    @property
    def mean(self) -> Tensor:
        """Of every column, [K]."""
        return self.table[1]

    @property
    def variance(self) -> Tensor:
        """Σ (x − mean)² / n of every column, [K]; 1 before there are two samples to tell."""
        return torch.where(self.table[0] > 1, self.table[2] / self.table[0].clamp(min=1), 1.0)

    def update(self, samples: Tensor) -> None:
        """Count a batch of samples, [M, K], M ≥ 1."""
        _merge(_fast(self.table), _fast(samples))


def _fast(tensor: Tensor) -> Any:
    """The same memory as a NumPy array where that can be: its small operations cost a third."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _merge(table: Any, samples: Any) -> None:
    """Merge samples [M, K] into a table of moments [3, K] in place; arrays or tensors."""
    count, mean, squares = table[0], table[1], table[2]
    more = len(samples)
    share = more / (count + more)
    from_mean = samples - mean  # in float64, whatever the samples are in
    gap = from_mean.sum(0) / more
    spread = from_mean - gap
    move = gap * share
    squares += (spread * spread).sum(0)
    squares += move * gap * count
    mean += move
    count += more


def _scale(table: Any, epsilon: float) -> Any:
    """1/√(variance + ε) of every column, 1 before there are two samples to tell; [K].

    The last column is the running return, whose unit is that of the rewards, however small: there
    ε is a share of its mean square.
    """
    count, mean, squares = table[0], table[1], table[2]
    if count[0] > 1 and count[-1] > 1:
        variance = squares / count
    else:
        few = count <= 1
        variance = (squares + few) / (count * ~few + few)
    added = variance * 0 + epsilon
    if count[-1] > 1:
        # all returns 0: there is nothing to divide
        added[-1] = epsilon * (variance[-1] + mean[-1] ** 2) + (squares[-1] == 0) * (mean[-1] == 0)
    return (variance + added) ** -0.5


def _clipped(x: Any, bound: float) -> object:
    if isinstance(x, np.ndarray):
        return np.minimum(np.maximum(x, -bound), bound)  # half the cost of np.clip
    return x.clip(-bound, bound)


@checked
class Normalized:
    """An environment whose observations and rewards are normalised by running statistics.

    Observations become (o − mean)/√(variance + ε), clipped to ±clip; masks of actions, and pictures
    within Dict and Tuple observations, are left as they are. Rewards are divided by the
    running standard deviation of the discounted return G ← γ G + r of every lane (0 at the start of
    an episode), √(variance + ε E[G²]), not centred, and clipped to ±clip: rewards of any size are
    scaled alike. `Step.raw_reward` holds the reward as it was.

    The statistics follow every real step until they are frozen: see `frozen`. Save them with the
    policy, which is worth nothing without them: `state_dict` of `env.statistics`.

    Args:
        env: any environment. Where its observations are normalised it is reset once, to see their
            shape.
        observations: whether to normalise these.
        rewards: whether to normalise these.
        clip: bound of what is normalised.
        epsilon: ε, added to the variance; of rewards as a share of the mean square return.

    Raises:
        InputError: clip or epsilon not positive; observations that are not floats.

    Source: Engstrom et al. 2020; Huang et al. 2022, details of continuous control.
    """

    def __init__(
        self,
        env: Environment,
        observations: bool = True,
        rewards: bool = True,
        clip: float = 10.0,
        epsilon: float = 1e-8,
    ):
        for name, number in (("clip", clip), ("epsilon", epsilon)):
            refuse_unless(number > 0, f"Normalized({name}={number}): must be positive.")
        self.env, self.lanes, self.discount, self.name = env, env.lanes, env.discount, env.name
        self.normalised = {
            "observations": observations,
            "rewards": rewards,
            "clip": clip,
            "epsilon": epsilon,
        }
        self.clip, self.epsilon = clip, epsilon
        self.updating, self.raw_rewards = True, not rewards
        self._dtype = torch.float32  # of observations as a policy sees them
        self._width = 0  # of an observation in the statistics; the running return comes after it
        if observations:
            first = env.reset(seed=0)
            refuse_unless(
                first.is_floating_point(),
                f"Normalized({env.name}): its observations are {first.dtype}, not floats; say "
                "observations=False (ids need no scale, and pictures are scaled by the network).",
            )
            self._width = first[0].numel()
            self._dtype = first.dtype
            self.env = _precise(env)
        self._kept = list(getattr(env, "unscaled", ()))
        self.statistics = RunningMoments(self._width + 1)
        self.running_return = torch.zeros(env.lanes, dtype=torch.float64)

    def __getattr__(self, name: str) -> object:
        # policy, value, unflatten, settings, close: as the environment has them
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return shown(self)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh; the statistics stay. Returns normalised observations."""
        observation = self.env.reset(seed, shared)
        self.statistics.to(observation.device)
        self.running_return = torch.zeros(
            self.lanes, dtype=torch.float64, device=observation.device
        )
        table = _fast(self.statistics.table)
        if self.updating and self._width:
            _merge(table[:, :-1], self._flat(observation))
        self._scale = _scale(table, self.epsilon)
        return self._normalised(observation, table, self._scale)

    def step(self, action: Tensor) -> Step:
        """Act in every lane; observations and rewards normalised, the raw reward beside them."""
        step = self.env.step(action)
        table = _fast(self.statistics.table)
        if self.updating:
            self._count(table, step)
            self._scale = _scale(table, self.epsilon)
        observation = final = self._normalised(step.observation, table, self._scale)
        if step.final_observation is not step.observation:
            final = self._normalised(step.final_observation, table, self._scale)
        raw = reward = step.reward
        if not self.raw_rewards:
            scaled = _clipped(_fast(raw) * self._scale[-1], self.clip)
            reward = torch.as_tensor(scaled, dtype=torch.float32)
        raw = raw if step.raw_reward is None else step.raw_reward
        return step._replace(
            observation=observation, reward=reward, final_observation=final, raw_reward=raw
        )

    def policy(self, *arguments: object, **choices: object) -> Policy:
        """A policy that fits, as the environment makes it; `act` normalises as is done here."""
        env: Any = self.env  # a user's own has what it was given
        policy = env.policy(*arguments, **choices)
        policy.terms = self.terms
        return policy

    @property
    def terms(self) -> Terms:
        """How a policy's tensors correspond to what one lane shows and takes.

        Observations are normalised by the statistics as they are whenever `act` is called.
        """
        env: Any = self.env
        return replace(env.terms, normalise=self.normalised_observation, normaliser=self.fixed)

    def fixed(self) -> nn.Module:
        """What is done to observations, by the statistics as they are now, as a network."""
        if not self._width:
            return nn.Identity()
        table = self.statistics.table.cpu()
        scale = torch.as_tensor(_scale(_fast(table), self.epsilon))
        return Standardised(table[1, :-1], scale[:-1], self.clip, self._kept)

    def normalised_observation(self, observation: Tensor) -> Tensor:
        """Observations [n, ...] by the statistics as they are now, which do not change."""
        table = _fast(self.statistics.table.to(observation.device))
        return self._normalised(observation, table, _scale(table, self.epsilon))

    def sharing(self, lanes: int) -> "Normalized":
        """This environment, with its statistics, with `lanes` lanes whose starts can be shared."""
        return self._over(self.env.sharing(lanes))

    def frozen(self, env: Environment | None = None, raw_rewards: bool = True) -> "Normalized":
        """The same statistics, which it reads and never changes: for evaluation and audits.

        Args:
            env: lanes of its own, so that those being trained on are left where they are; by
                default the same lanes.
            raw_rewards: leave rewards as the environment gives them.
        """
        other = self._over(self.env if env is None else env)
        other.updating, other.raw_rewards = False, raw_rewards
        return other

    def _over(self, env: Environment) -> "Normalized":
        other = copy(self)
        other.env, other.lanes = _precise(env) if self._width else env, env.lanes
        return other

    def _flat(self, observation: Tensor) -> Any:
        flat = observation if observation.dim() == 2 else observation.flatten(1)
        return _fast(flat)

    def _normalised(self, observation: Tensor, table: Any, scale: Any) -> Tensor:
        if not self._width:
            return observation
        centred = (self._flat(observation) - table[1, :-1]) * scale[:-1]
        out = torch.as_tensor(_clipped(centred, self.clip), dtype=self._dtype)
        for first, last in self._kept:
            out[:, first:last] = observation[:, first:last]
        return out if out.shape == observation.shape else out.reshape(observation.shape)

    def _count(self, table: Any, step: Step) -> None:
        """Let the statistics follow a step: what it showed for the first time, and the returns.

        A dummy step shows the first observation of an episode, which counts like any other; where a
        lane started anew in the same step, there are two to count.
        """
        running, real = _fast(self.running_return), _fast(step.real)
        ended = _fast(step.terminated) | _fast(step.truncated)
        running *= self.discount
        running += _fast(step.reward)
        join = np.concatenate if isinstance(running, np.ndarray) else torch.cat
        if self._width:
            shown = self._flat(step.final_observation)
            if real.all() and not ended.any():
                _merge(table, join([shown, running[:, None]], 1))
                return
            if step.idle is not None:
                shown = shown[~_fast(step.idle)]
            if step.observation is not step.final_observation:
                fresh = self._flat(step.observation)
                anew = ended
                if step.idle is not None:  # a lane that waits shows its last observation again
                    anew = ended & (fresh != self._flat(step.final_observation)).any(1)
                shown = join([shown, fresh[anew]], 0)
            _merge(table[:, :-1], shown)
        if real.any():
            _merge(table[:, -1:], running[real][:, None])
        running[ended] = 0


def _precise(env: Environment) -> Environment:
    """Lanes that show what single precision would round in double, where they can."""
    return env.precise() if isinstance(env, Gymnasium) else env
