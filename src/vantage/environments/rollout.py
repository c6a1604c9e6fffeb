"""Rollout: from an environment and a policy to a Batch of whole episodes.

The number of episodes per lane is fixed in advance: taking the first m to finish anywhere would
favour short ones. `fragments.Fragments` collects the same number of steps from every lane instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vantage.batch import Batch, sum_by_episode
from vantage.environments.holding import hold
from vantage.environments.interface import Environment, Step
from vantage.environments.limits import limited
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator, compares
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


@dataclass(frozen=True)
class Finished:
    """Episodes that ended while a batch was collected, in order of lane and time.

    Attributes:
        returns: [episodes] undiscounted sums of the environment's own rewards, whatever a
            normaliser made of them, from the start of the episode.
        lengths: [episodes] steps.
        taken: steps that the environment took for them, those of lanes included that had given
            their episodes and could not wait.
    """

    returns: Tensor
    lengths: Tensor
    taken: int


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
        seed: the seed of the environment and of the actions.
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
    return episodes_and_returns(env, policy, count, seed, value, greedy, shared)[0]


def lanes_for(
    env: Environment, estimator: Estimator, batch: int, group: int
) -> tuple[Environment, int]:
    """Lanes for `batch` episodes that an estimator weighs, and how many of them share a start.

    One that compares episodes compares `group` of one start, and takes a lane for each episode.

    Raises:
        InputError: lanes cannot start from one state.
    """
    return (env.sharing(batch), group) if compares(estimator) else (env, 1)


def episodes_and_returns(
    env: Environment,
    policy: Policy,
    count: int,
    seed: int,
    value: nn.Module | None = None,
    greedy: bool = False,
    shared: int = 1,
) -> tuple[Batch, Finished]:
    """`episodes`, and their returns in the environment's own rewards."""
    record = _Record(env, policy, seed, greedy, shared)
    quota = quotas(count, env.lanes).to(record.sight.observation.device)
    finished, going = torch.zeros_like(quota), quota > 0
    wait = getattr(env, "pause", None)  # lanes that are stepped one by one need not go on
    taken = 0
    while bool(going.any()):
        if wait is not None:
            wait(~going)
        step = record.advance(counts=going)
        taken += int(step.real.sum())
        finished += (step.terminated | step.truncated).long()
        going = finished < quota
    lanes = record.batch(value)
    raw = [step.reward if step.raw_reward is None else step.raw_reward for step in record.steps]
    ended = Finished(
        returns=sum_by_episode(lanes, over_time(raw).to(torch.float64)),
        lengths=sum_by_episode(lanes, torch.ones_like(lanes.reward)).long(),
        taken=taken,
    )
    return _one_row_per_episode(lanes, shared), ended


class _Record:
    """What happened so far, as lists over time of [lanes, ...] tensors."""

    def __init__(self, env: Environment, policy: Policy, seed: int, greedy: bool, shared: int = 1):
        self.env, self.policy, self.greedy = env, policy, greedy
        self.step = limited(env.step, env)
        environment_seed, action_seed = np.random.SeedSequence(seed).generate_state(2)
        # Gymnasium seeds lane i with seed + i: leave room below the largest seed it accepts.
        first = limited(env.reset, env)(seed=int(environment_seed) >> 1, shared=shared)
        hold(env, None)  # also where the environment is a user's own and does not say so
        refuse_unless_finite(first, "observation", env, "at reset")
        self.generator = torch.Generator(first.device).manual_seed(int(action_seed))
        self.sight = Sight(policy, first)
        self.observation: list[Tensor] = []
        self.action: list[Tensor] = []
        self.log_prob: list[Tensor] = []
        self.steps: list[Step] = []
        self.counts: list[Tensor] = []

    def advance(self, counts: Tensor) -> Step:
        observation = self.sight.observation
        action, log_prob = self.policy.sample(observation, self.generator)
        if self.greedy:
            action = self.policy.mode(observation)
            with torch.no_grad():
                # a policy with a memory scores rows of steps: here, rows of one
                log_prob = self.policy.log_prob(observation[:, None], action[:, None])[:, 0]
        step = self.step(self.policy.applied(action))
        refuse_unless_finite_step(step, self.env, f"at step {len(self.steps)}")
        self.observation.append(observation)
        self.action.append(action)
        self.log_prob.append(log_prob)
        self.steps.append(self.sight.after(step))
        self.counts.append(counts & step.real)
        return step

    def batch(self, value: nn.Module | None) -> Batch:
        """The record as a Batch with one row per lane."""
        return lanes_as_rows(
            self.env,
            self.steps,
            observation=over_time(self.observation),
            action=over_time(self.action),
            log_prob=over_time(self.log_prob),
            mask=over_time(self.counts),
            value=None if value is None else torch.no_grad()(value),
        )


class Sight:
    """What the policy sees in every lane: the observation, and its memory where it has one.

    Attributes:
        observation: [lanes, ...] what it sees now; this is what a Batch records.
    """

    def __init__(self, policy: Policy, first: Tensor):
        self.policy = policy
        self.memory = policy.begin(len(first))
        started = torch.ones(len(first), dtype=torch.bool, device=first.device)
        self.observation = policy.see(first, started, self.memory)

    def after(self, step: Step) -> Step:
        """Look at what a step led to; returns it with the final observation as the policy sees it.

        An episode starts after the step that ended the one before. Where the environment takes a
        dummy step to reset, the memory is emptied at that and again at the start itself.
        """
        if self.memory is None:
            self.observation = step.observation
            return step
        self.memory = self.policy.remember(self.observation)
        going_on = torch.zeros_like(step.terminated)
        final = self.policy.see(step.final_observation, going_on, self.memory)
        started = step.terminated | step.truncated | ~step.real
        self.observation = self.policy.see(step.observation, started, self.memory)
        return step._replace(final_observation=final)


def over_time(steps: list[Tensor]) -> Tensor:
    """[lanes, ...] of every step as one tensor [lanes, T, ...]."""
    # one copy of whole rows and one transposition: faster than to write lane by lane
    return torch.stack(steps).transpose(0, 1).contiguous()


def lanes_as_rows(
    env: Environment,
    steps: list[Step],
    observation: Tensor,
    action: Tensor,
    log_prob: Tensor,
    mask: Tensor,
    value: Callable[[Tensor], Tensor] | None,
    values: Tensor | None = None,
) -> Batch:
    """A Batch with one row per lane from what happened at every step.

    Args:
        env: whose discount holds.
        steps: T of them, each of all lanes.
        observation, action, log_prob, mask: [N, T, ...] what the policy saw and did, and whether it
            counts.
        value: V without a graph, or None.
        values: [N, T] V of `observation`, where that is known already.
    """
    terminated = over_time([step.terminated for step in steps])
    real = over_time([step.real for step in steps])
    boundary = over_time([step.truncated for step in steps]) | terminated | ~real
    boundary[:, -1] = True
    ends = (mask & boundary).flatten()
    episode = (torch.cumsum(ends, 0) - ends.long()).view_as(mask)  # ended before, lane after lane
    if value is not None and values is None:
        values = value(observation).to(log_prob.dtype)
    rows = len(mask)
    return Batch(
        observation=observation,
        action=action,
        reward=over_time([step.reward for step in steps]).to(log_prob.dtype) * mask,
        discount=torch.where(terminated, 0.0, env.discount).to(log_prob.dtype),
        boundary=boundary,
        bootstrap=_bootstrap(value, steps, mask & boundary & ~terminated, log_prob),
        log_prob=log_prob,
        mask=mask,
        episode=torch.where(mask, episode, 0),
        group=torch.arange(rows, device=mask.device),
        weight=(1 / ends.sum().to(log_prob.dtype)).expand(rows).clone(),
        value=values,
    )


def _bootstrap(
    value: Callable[[Tensor], Tensor] | None, steps: list[Step], where: Tensor, like: Tensor
) -> Tensor:
    """V of the true final observation at the steps `where` [N, T], else 0."""
    out = torch.zeros_like(like)
    if value is None or not where.any():
        return out
    step, lane = where.t().nonzero(as_tuple=True)  # in order of time: each step is read once
    lanes = lane.split(where.sum(0).tolist())
    final = [steps[t].final_observation[those] for t, those in enumerate(lanes) if len(those)]
    out[lane, step] = value(torch.cat(final)).to(like.dtype)
    return out


def _one_row_per_episode(lanes: Batch, shared: int) -> Batch:
    """Lay every episode out in a row of its own, from its first step, padded at the end.

    Neighbouring rows that share a start are a group.
    """
    episode = lanes.episode[lanes.mask]  # in order of lane and time
    length = torch.bincount(episode)
    first = torch.cumsum(length, 0) - length
    step = torch.arange(len(episode), device=episode.device) - first[episode]
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
    number = torch.arange(rows, device=episode.device)
    weight = lanes.weight.new_full((rows,), 1 / rows)
    return Batch(
        **grid,
        group=torch.div(number, shared, rounding_mode="floor"),
        weight=weight,
        episode=number[:, None].expand(-1, longest).clone(),
    )


def refuse_unless_finite_step(step: Step, env: Environment, where: str) -> None:
    """Refuse a step with a NaN or infinite reward or observation in any lane.

    Raises:
        InputError: naming the environment, the lane and what it returned.
    """
    refuse_unless_finite(step.reward, "reward", env, where)
    refuse_unless_finite(step.final_observation, "observation", env, where)
    if step.observation is not step.final_observation:
        refuse_unless_finite(step.observation, "first observation", env, where)


def refuse_unless_finite(tensor: Tensor, what: str, env: Environment, where: str) -> None:
    """Refuse NaN and infinity in any lane, as single precision has them.

    Raises:
        InputError: naming the environment, the lane and what it returned.
    """
    # one reduction a step; locating the culprit costs only when there is one
    if tensor.is_floating_point() and not torch.isfinite(tensor.float().sum()):
        finite = tensor.float().isfinite()
        bad = ~finite.flatten(1).all(1) if tensor.dim() > 1 else ~finite
        if bad.any():
            lane = int(bad.nonzero()[0])
            shown = tensor[lane].tolist()
            large = bool(tensor[lane].isfinite().all())
            kind = "is beyond the range of single precision" if large else "is not finite"
            remedy = "scale it" if large else "mend the environment, or end the episode before it"
            raise InputError(
                f"{env.name} returned a {what} that {kind} {where} in lane {lane}: {shown}; "
                f"{remedy}."
            )
