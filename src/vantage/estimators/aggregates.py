"""The aggregate and discounting columns: the part each step has in the average. Batch to [N, T]."""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, elapsed_discount, sum_by_episode
from vantage.estimators.columns import declares


@declares()
def per_trajectory(batch: Batch) -> Float[Tensor, "N T"]:
    """Sum over the steps of a trajectory, weighted mean over trajectories: [5].

    Equation: w_n (1/m for m sampled trajectories, the probability for enumerated ones).
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return batch.weight[:, None].expand_as(batch.reward)


@declares(bias="direction")
def per_sequence(batch: Batch) -> Float[Tensor, "N T"]:
    """Mean over the steps of a trajectory, weighted mean over trajectories.

    Equation: w_n/|τ|, |τ| the counted steps of the step's trajectory.
    Shapes: [N, T].
    Source: Shao et al. 2024, GRPO, equation 3.
    Unbiased when: never for trajectories of different lengths: a step of a long one weighs less.
        Where all have length L it is ∇J/L.
    """
    length = sum_by_episode(batch, torch.ones_like(batch.reward))
    return batch.weight[:, None] / length.clamp(min=1)[batch.episode]


@declares(couples="batch", bias="direction")
def per_token(batch: Batch) -> Float[Tensor, "N T"]:
    """Mean over all counted steps of the batch.

    Equation: w_n / Σ_{n,t} w_n, the sum over counted steps: 1 / number of steps when sampled.
    Shapes: [N, T].
    Source: Yu et al. 2025, DAPO; the mean over a rollout in PPO.
    Unbiased when: never for trajectories of different lengths: the number of steps is random. Its
        limit in large batches is ∇J/E|τ|.
    """
    steps = torch.where(batch.mask, batch.weight[:, None], 0).sum()
    return batch.weight[:, None].expand_as(batch.reward) / steps


@declares(bias="scale", factor=lambda group, length: 1 / length)
def constant_length(batch: Batch, *, length: float) -> Float[Tensor, "N T"]:
    """Sum over the steps of a trajectory divided by a constant, weighted mean over trajectories.

    Equation: w_n/L, L chosen before the batch is drawn, such as the longest completion allowed.
    Shapes: [N, T].
    Source: Liu et al. 2025, Dr. GRPO.
    Unbiased when: never but for L = 1: it is ∇J/L, the same direction.
    """
    return batch.weight[:, None].expand_as(batch.reward) / length


@declares(provided=("undiscounted",))
def undiscounted(batch: Batch) -> Float[Tensor, "N T"]:
    """No factor on the score.

    Equation: 1.
    Shapes: [N, T].
    Source: the practice of nearly every library (Nota & Thomas 2020 name its price).
    Unbiased when: γ = 1, or the returns column is `total`.
    """
    return torch.ones_like(batch.reward)


@declares()
def discounted(batch: Batch) -> Float[Tensor, "N T"]:
    """The factor γ^t that the gradient of the discounted objective has.

    Equation: Γ_t = Π_{k<t} γ_k within the trajectory.
    Shapes: [N, T].
    Source: Sutton & Barto 2018, section 13.3.
    Unbiased when: always, for rows that hold whole episodes.
    """
    return elapsed_discount(batch)
