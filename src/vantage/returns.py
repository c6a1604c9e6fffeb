"""The returns column: what a step is worth. Each function maps a Batch to [N, T].

All of them are one recursion, y_t = x_t + c_t y_{t+1}, run from the last step to the first, with
c_t = 0 wherever an episode or fragment ends. `bootstrap` enters x_t there, so that truncation is
never taken for termination.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, elapsed_discount, sum_by_episode


def total(batch: Batch) -> Float[Tensor, "N T"]:
    """Every step of a trajectory gets the trajectory's whole return.

    Equation: R(τ) = Σ_t γ^t r_t, the weight of every score of τ in [4] and [5]. At a truncation the
        value of the final observation continues the sum.
    Shapes: [N, T].
    Source: Williams 1992, REINFORCE.
    Unbiased when: no boundary is a truncation, or `bootstrap` is the true value there; without a
        factor γ^t (the discount is in the return already).
    """
    steps = elapsed_discount(batch) * _reward_and_bootstrap(batch)
    return sum_by_episode(batch, steps)[batch.episode]


def to_go(batch: Batch) -> Float[Tensor, "N T"]:
    """Every step gets the discounted rewards from there on.

    Equation: R_t = Σ_{k≥t} γ^{k−t} r_k, the estimate of Q in [8].
    Shapes: [N, T].
    Source: Baxter & Bartlett 2001, GPOMDP; Sutton et al. 2000.
    Unbiased when: with the factor γ^t (or γ = 1), and no boundary is a truncation or `bootstrap` is
        the true value there.
    """
    return recursion(_reward_and_bootstrap(batch), batch.discount * ~batch.boundary)


def recursion(x: Float[Tensor, "N T"], c: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """y_t = x_t + c_t y_{t+1}, y_{T} = 0, along the steps of every row."""
    running = torch.zeros_like(x[:, 0])
    out = torch.empty_like(x)
    for t in reversed(range(x.shape[1])):
        running = x[:, t] + c[:, t] * running
        out[:, t] = running
    return out


def _reward_and_bootstrap(batch: Batch) -> Float[Tensor, "N T"]:
    return batch.reward + batch.discount * batch.bootstrap
