"""Weighted means over the steps of a batch that share a key: what most baselines are made of.

A baseline is an average of returns over some steps (all counted ones, or the first of each
trajectory), with some weights, over the steps that share a key (the batch, the group, the state),
with or without the step's own trajectory. `average` is that sentence as a function.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.batch import Batch, episode_start
from vantage.estimators.columns import declares


def average(
    batch: Batch,
    numerator: Float[Tensor, "N T"],
    denominator: Float[Tensor, "N T"],
    key: Int[Tensor, "N T"],
    leave_out: bool,
) -> Float[Tensor, "N T"]:
    """Σ w x / Σ w d over the counted steps with the same key, w the rows' weights.

    Args:
        numerator, denominator: x and d.
        key: steps with equal keys are averaged together.
        leave_out: whether the trajectory that a step belongs to is left out of the sums.

    Returns:
        [N, T]; 0 where the sum of the weights is 0, as where no other trajectory has the key.
    """
    # float64: a mean of equal numbers must be that number, or a spread of 0 turns into noise
    weight = torch.where(batch.mask, batch.weight[:, None].double(), 0)
    x = torch.where(batch.mask, weight * numerator, 0).flatten()
    d = torch.where(batch.mask, weight * denominator, 0).flatten()
    slot = _numbered(key.flatten())
    over, under = _sum_within(x, slot), _sum_within(d, slot)
    enough = torch.finfo(torch.float32).eps ** 2 * under
    if leave_out:
        trajectory = _numbered(slot * (int(batch.episode.max()) + 1) + batch.episode.flatten())
        over, under = over - _sum_within(x, trajectory), under - _sum_within(d, trajectory)
    mean = torch.where(under > enough, over / under, 0)
    return mean.to(numerator.dtype).reshape(numerator.shape)


def mean_of_trajectories(
    batch: Batch, returns: Float[Tensor, "N T"], key: Int[Tensor, "N T"], leave_out: bool
) -> Float[Tensor, "N T"]:
    """The mean over trajectories, each counted once, with the return of its first step."""
    start = episode_start(batch)
    # a trajectory of n steps must be known at all of them, under the key of its first step
    return average(batch, torch.where(start, returns, 0), start.to(returns.dtype), key, leave_out)


def mean_of_steps(
    batch: Batch, returns: Float[Tensor, "N T"], key: Int[Tensor, "N T"], leave_out: bool
) -> Float[Tensor, "N T"]:
    """The mean over counted steps: long trajectories weigh more."""
    return average(batch, returns, torch.ones_like(returns), key, leave_out)


def count(marked: Bool[Tensor, "N T"], key: Int[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """How many of the marked steps have the key of each step; exact below 2⁵³."""
    return _sum_within(marked.flatten().double(), _numbered(key.flatten())).reshape(key.shape)


def trajectories_in_group(batch: Batch) -> Int[Tensor, " N"]:
    """How many trajectories the group of each row has."""
    _, slot = batch.group.unique(return_inverse=True)
    count = torch.zeros_like(slot).index_add(0, slot, episode_start(batch).sum(1))
    return count[slot]


@declares(couples="batch")
def everywhere(batch: Batch) -> Int[Tensor, "N T"]:
    """One key for the whole batch."""
    return torch.zeros_like(batch.episode)


@declares(couples="group")
def by_group(batch: Batch) -> Int[Tensor, "N T"]:
    """A key for each start state or prompt."""
    return batch.group[:, None].expand_as(batch.episode)


@declares(couples="batch")
def by_position(batch: Batch) -> Int[Tensor, "N T"]:
    """A key for each number of steps since the trajectory began."""
    count = torch.cumsum(batch.mask.long(), 1)
    first = torch.where(episode_start(batch), count, 0).cummax(1).values
    return count - first


@declares(couples="group")
def by_group_and_position(batch: Batch) -> Int[Tensor, "N T"]:
    """A key for each position of each start state or prompt."""
    position = by_position(batch)
    return by_group(batch) * (position.max() + 1) + position


@declares(couples="batch")
def by_observation(batch: Batch) -> Int[Tensor, "N T"]:
    """A key for each distinct observation, compared exactly: the state, unless aliased."""
    flat = batch.observation.reshape(batch.mask.numel(), -1)
    _, slot = flat.unique(dim=0, return_inverse=True)
    return slot.reshape(batch.mask.shape)


@declares(couples="group")
def by_group_and_observation(batch: Batch) -> Int[Tensor, "N T"]:
    """A key for each distinct observation of each start state or prompt: its anchor states."""
    slot = by_observation(batch)
    return by_group(batch) * (slot.max() + 1) + slot


def _numbered(ids: Int[Tensor, " L"]) -> Int[Tensor, " L"]:
    """Ids from 0 upwards, few enough to sum into a table; sorted and renumbered if they are not."""
    lowest, highest = (int(x) for x in ids.aminmax())
    if highest - lowest < 4 * ids.numel() + 1000:
        return ids - lowest
    return ids.unique(return_inverse=True)[1]


def _sum_within(x: Float[Tensor, " L"], slot: Int[Tensor, " L"]) -> Float[Tensor, " L"]:
    """Sum of `x` over the entries with the same slot, read back at every entry."""
    total = x.new_zeros(int(slot.max()) + 1).index_add(0, slot, x)
    return total[slot]
