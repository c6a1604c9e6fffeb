"""The baseline column: what is subtracted from the return. Each maps (Batch, returns) to [N, T].

A baseline that does not look at the step's own action leaves the gradient unbiased, because the
score has zero mean ([6]). One that contains the trajectory's own return does look at it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.columns import declares


def none(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """No baseline.

    Equation: b = 0.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return torch.zeros_like(returns)


def constant(batch: Batch, returns: Float[Tensor, "N T"], *, level: float) -> Float[Tensor, "N T"]:
    """One number for every step, fixed before the batch is drawn.

    Equation: b = level, in units of return.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return torch.full_like(returns, level)


@declares(couples="batch")
def batch_mean(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The mean return of the batch, over all counted steps, the step's own included.

    Equation: b = Σ_{n,t} w_n y_{nt} / Σ_{n,t} w_n, with w the rows' weights and y the returns.
    Shapes: [N, T].
    Source: the common implementation of REINFORCE "with a baseline".
    Unbiased when: never. It contains the step's own return; with one step per trajectory it shrinks
        the gradient by (m−1)/m for a batch of m.
    """
    weight = batch.weight[:, None] * batch.mask
    return torch.full_like(returns, ((weight * returns).sum() / weight.sum()).item())


@declares(needs=("value",))
def value(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """A learned V(s_t), fitted to earlier batches.

    Equation: b(s_t) = V(s_t); A = R_t − V(s_t) in [8].
    Shapes: [N, T].
    Source: Sutton & Barto 2018, section 13.4.
    Unbiased when: V was fitted without this batch.
    """
    assert batch.value is not None  # Estimator.weights refuses a batch without values
    return batch.value
