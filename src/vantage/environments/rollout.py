"""Rollout: from an environment and a policy to a Batch.

Two ways to collect. `episodes` takes whole episodes, a number per lane fixed in advance: taking the
first m to finish anywhere would favour short ones. `fragment` takes the same number of steps from
every lane and carries on where it stopped.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.environments.interface import Environment, Step
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy


def quotas(episodes: int, lanes: int) -> Tensor:
    """How many episodes each lane contributes, [lanes]: as equal as can be, fixed in advance.

    >>> quotas(10, 4)
    tensor([3, 3, 2, 2])
    """
    refuse_unless(episodes >= 1, f"episodes={episodes}: collect at least one.")
    refuse_unless(lanes >= 1, f"lanes={lanes}: step at least one.")
    lane = torch.arange(lanes)
    return torch.div(episodes, lanes, rounding_mode="floor") + (lane < episodes % lanes)


def episodes(
    env: Environment,
    policy: Policy,
    count: int,
    seed: int,
    value: nn.Module | None = None,
    greedy: bool = False,
    shared: int = 1,
) -> Batch:
    """Collect `count` whole episodes, one per row, each lane contributing a quota fixed in advance.

    Every lane is reset first, so that the batch depends on the policy and `seed` alone. Steps that
    a lane takes after its quota is met, and dummy reset steps, appear nowhere.

    Args:
        env: the lanes to step.
        policy: acts; sampled unless `greedy`, which takes its mode.
        count: how many episodes, N.
        seed: of the environment and of the actions.
        value: V; fills `Batch.value`, and `Batch.bootstrap` where an episode was truncated. Without
            it a truncated episode is worth what it collected: the objective is the return within
            the time limit.
        greedy: act by the mode; `log_prob` is then that of the mode under the policy.
        shared: K: episodes come in groups of K from one start state each; count must then be the
            number of lanes, and a multiple of K.

    Returns:
        Batch with N = count rows, weight 1/N, discount γ (0 at termination), in order of lane and
        time.

    Raises:
        InputError: count < 1; a NaN or infinite reward or observation, naming step and lane.
    """
    refuse_unless(
        shared == 1 or (count == env.lanes and count % shared == 0),
        f"episodes(count={count}, shared={shared}): with shared starts every one of the "
        f"{env.lanes} lanes gives one episode, and groups must be whole.",
    )
    quota = quotas(count, env.lanes)
    record = _Record(env, policy, seed, greedy, shared)
    finished = torch.zeros(env.lanes, dtype=torch.long)
    while bool((finished < quota).any()):
        step = record.advance(counts=finished < quota)
        finished += (step.terminated | step.truncated).long()
    return grouped_by(shared, _one_row_per_episode(record.batch(value)))


def grouped_by(size: int, batch: Batch) -> Batch:
    """The batch with neighbouring rows as groups of `size`, for estimators that need groups.

    Start states differ within such a group: it is a set of independent trajectories that are
    compared with one another, which leaves a leave-one-out baseline as unbiased as a start in
    common would.
    """
    return replace(batch, group=torch.arange(batch.rows) // size)


class Fragments:
    """Collect the same number of steps from every lane, time and again, carrying episodes over.

    Args:
        env, policy, value: as in `episodes`.
        seed: of the environment and of the actions.

    >>> import vantage as vt
    >>> env = vt.Gymnasium("CartPole-v1", lanes=2)
    >>> fragments = Fragments(env, env.policy(), seed=0)
    >>> fragments.collect(16).reward.shape
    torch.Size([2, 16])
    """

    def __init__(self, env: Environment, policy: Policy, seed: int, value: nn.Module | None = None):
        self.value = value
        self.record = _Record(env, policy, seed, greedy=False)

    def collect(self, steps: int) -> Batch:
        """The next `steps` steps of every lane: rows are lanes, T = steps.

        A row may hold several episodes and dummy reset steps (mask False). Every row ends with a
        boundary; where the episode runs on, `bootstrap` holds the value of the next observation.
        Weights are 1/M, M the number of episodes and pieces of episodes in the fragment.

        Raises:
            InputError: steps < 1; a NaN or infinite reward or observation.
        """
        refuse_unless(steps >= 1, f"collect(steps={steps}): collect at least one step.")
        every_lane = torch.ones(self.record.env.lanes, dtype=torch.bool)
        self.record.clear()
        for _ in range(steps):
            self.record.advance(counts=every_lane)
        return self.record.batch(self.value)


class _Record:
    """What happened so far, as lists over time of [lanes, ...] tensors."""

    def __init__(self, env: Environment, policy: Policy, seed: int, greedy: bool, shared: int = 1):
        self.env, self.policy, self.greedy = env, policy, greedy
        environment_seed, action_seed = np.random.SeedSequence(seed).generate_state(2)
        self.generator = torch.Generator().manual_seed(int(action_seed))
        # Gymnasium seeds lane i with seed + i: leave room below the largest seed it accepts.
        self.current = env.reset(seed=int(environment_seed) >> 1, shared=shared)
        _refuse_unless_finite(self.current, "observation", env, "at reset")
        self.clear()

    def clear(self) -> None:
        self.observation: list[Tensor] = []
        self.action: list[Tensor] = []
        self.log_prob: list[Tensor] = []
        self.steps: list[Step] = []
        self.counts: list[Tensor] = []

    def advance(self, counts: Tensor) -> Step:
        action, log_prob = self.policy.sample(self.current, self.generator)
        if self.greedy:
            action = self.policy.mode(self.current)
            with torch.no_grad():
                log_prob = self.policy.log_prob(self.current, action)
        step = self.env.step(action)
        where = f"at step {len(self.steps)}"
        _refuse_unless_finite(step.reward, "reward", self.env, where)
        _refuse_unless_finite(step.final_observation, "observation", self.env, where)
        if step.observation is not step.final_observation:
            _refuse_unless_finite(step.observation, "first observation", self.env, where)
        self.observation.append(self.current)
        self.action.append(action)
        self.log_prob.append(log_prob)
        self.steps.append(step)
        self.counts.append(counts & step.real)
        self.current = step.observation
        return step

    def batch(self, value: nn.Module | None) -> Batch:
        """The record as a Batch with one row per lane."""
        observation = torch.stack(self.observation, 1)
        log_prob = torch.stack(self.log_prob, 1)
        mask = torch.stack(self.counts, 1)
        terminated = torch.stack([step.terminated for step in self.steps], 1)
        truncated = torch.stack([step.truncated for step in self.steps], 1)
        boundary = terminated | truncated | ~torch.stack([s.real for s in self.steps], 1)
        boundary[:, -1] = True
        successor = [step.final_observation for step in self.steps]
        bootstrap = _bootstrap(value, successor, mask & boundary & ~terminated, log_prob)
        # A trajectory is numbered by how many ended before it in its lane, then across lanes.
        before = torch.cumsum(boundary, 1) - boundary.long()
        episode = _renumber(before + torch.arange(len(before))[:, None] * (before.max() + 1), mask)
        rows, trajectories = len(mask), int(episode[mask].max()) + 1
        with torch.no_grad():
            values = None if value is None else value(observation).to(log_prob.dtype)
        reward = torch.stack([step.reward for step in self.steps], 1).to(log_prob.dtype)
        return Batch(
            observation=observation,
            action=torch.stack(self.action, 1),
            reward=reward * mask,
            discount=torch.where(terminated, 0.0, self.env.discount).to(log_prob.dtype),
            boundary=boundary,
            bootstrap=bootstrap,
            log_prob=log_prob,
            mask=mask,
            episode=episode,
            group=torch.arange(rows),
            weight=torch.full((rows,), 1 / trajectories, dtype=log_prob.dtype),
            value=values,
        )


def _bootstrap(
    value: nn.Module | None, successor: list[Tensor], where: Tensor, like: Tensor
) -> Tensor:
    """V of the true final observation at the steps `where` [N, T], else 0."""
    out = torch.zeros_like(like)
    if value is None or not where.any():
        return out
    lane, step = where.nonzero(as_tuple=True)
    final = torch.stack(
        [successor[t][n] for n, t in zip(lane.tolist(), step.tolist(), strict=True)]
    )
    with torch.no_grad():
        out[lane, step] = value(final).to(like.dtype)
    return out


def _renumber(ids: Tensor, mask: Tensor) -> Tensor:
    """Episode ids 0, 1, 2, ... over counted steps; steps that do not count get 0."""
    _, numbered = ids[mask].unique(return_inverse=True)
    out = torch.zeros_like(ids)
    out[mask] = numbered
    return out


def _one_row_per_episode(lanes: Batch) -> Batch:
    """Lay every episode out in a row of its own, from its first step, padded at the end."""
    episode = lanes.episode[lanes.mask]  # in order of lane and time
    length = torch.bincount(episode)
    first = torch.cumsum(length, 0) - length
    step = torch.arange(len(episode)) - first[episode]
    rows, longest = len(length), int(length.max())

    def lay_out(tensor: Tensor) -> Tensor:
        out = tensor.new_zeros(rows, longest, *tensor.shape[2:])
        out[episode, step] = tensor[lanes.mask]
        return out

    grid = {
        name: lay_out(tensor)
        for name, tensor in lanes.tensors().items()
        if name not in ("group", "weight", "episode")
    }
    number = torch.arange(rows)
    weight = lanes.weight.new_full((rows,), 1 / rows)
    return Batch(
        **grid, group=number, weight=weight, episode=number[:, None].expand(-1, longest).clone()
    )


def _refuse_unless_finite(tensor: Tensor, what: str, env: Environment, where: str) -> None:
    # one reduction a step; locating the culprit costs only when there is one
    if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
        bad = ~tensor.isfinite().flatten(1).all(1) if tensor.dim() > 1 else ~tensor.isfinite()
        if bad.any():
            lane = int(bad.nonzero()[0])
            raise InputError(
                f"{env.name} returned a {what} that is not finite {where} in lane {lane}: "
                f"{tensor[lane].tolist()}; mend the environment, or end the episode before it."
            )
