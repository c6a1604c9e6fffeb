"""A baseline between the means of the group and of the batch, as James and Stein would have it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch, episode_start
from vantage.errors import refuse_unless
from vantage.estimators.averages import by_group, mean_of_trajectories
from vantage.estimators.columns import declares


@declares(couples="batch", needs=("group",))
def shrinkage(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The leave-one-out mean of the group, shrunk towards the mean of the other groups.

    Equation: b_i = (1−λ_g) mean_{j≠i in g} R_j + λ_g mean_{h≠g} μ_h, λ_g = noise/(noise + spread).
        From the groups h ≠ g alone: noise is their mean variance within, divided by n_g − 1; spread
        is the variance of their means less the noise in these, at least 0; λ_g = 1 if both are 0.
    Shapes: [N, T].
    Source: Zeng et al. 2025, with an empirical-Bayes λ that leaves the whole group out.
    Unbiased when: always. Neither the means nor λ_g contain the trajectory's own return.

    Raises:
        InputError: fewer than three groups, where the spread of the others cannot be estimated.
    """
    start = episode_start(batch)
    _, slot = batch.group.unique(return_inverse=True)
    count = _by_slot(start.sum(1).double(), slot)
    present = int((count > 0).sum())
    refuse_unless(
        present >= 3,
        f"shrinkage: the batch has {present} groups and estimates a group's λ from at least two "
        "others; draw three groups or more, or use leave_one_out.",
    )
    first = torch.where(start, returns, 0).double().sum(1)
    mean = _by_slot(first, slot) / count.clamp(min=1)
    deviation = torch.where(start, (returns - mean[slot][:, None]) ** 2, 0).double().sum(1)
    variance = _by_slot(deviation, slot) / (count - 1).clamp(min=1)
    target, strength = _towards_others(mean, variance, count)
    group_mean = mean_of_trajectories(batch, returns, by_group(batch), leave_out=True)
    strength, target = strength[slot][:, None], target[slot][:, None]
    return ((1 - strength) * group_mean + strength * target).to(returns.dtype)


def _towards_others(
    mean: Float[Tensor, " P"], variance: Float[Tensor, " P"], count: Float[Tensor, " P"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The mean of the other groups' means and λ, both without the group itself."""
    # row g weighs the groups h ≠ g that have a trajectory; those of one say nothing of the variance
    others = (count > 0).double() * (1 - torch.eye(len(count), dtype=count.dtype).to(count))
    measured = others * (count > 1)
    number = others.sum(1)
    target = others @ mean / number
    within = measured @ variance / measured.sum(1).clamp(min=1)
    in_means = within * (others @ (1 / count.clamp(min=1))) / number
    squares = (others * (mean[None, :] - target[:, None]) ** 2).sum(1)
    spread = (squares / (number - 1) - in_means).clamp(min=0)
    noise = within / (count - 1).clamp(min=1)
    strength = torch.where(noise + spread > 0, noise / (noise + spread), 1)
    return target, torch.where(count > 1, strength, 1)


def _by_slot(x: Float[Tensor, " N"], slot: Int[Tensor, " N"]) -> Float[Tensor, " P"]:
    return x.new_zeros(int(slot.max()) + 1).index_add(0, slot, x)
