"""The scale column: what the advantage is divided by. (Batch, returns, advantage) to [N, T].

A standard deviation of numbers that are all equal is not 0 on a computer but a rounding error, and
dividing by it turns no signal into noise of order one. The rule here: where the standard deviation
is below 32 rounding errors of the numbers it is taken over, there is no signal and the advantage is
0; elsewhere `epsilon` is added to it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.estimators.averages import (
    by_group,
    everywhere,
    mean_of_steps,
    mean_of_trajectories,
    trajectories_in_group,
)
from vantage.estimators.columns import declares


@declares()
def none(
    batch: Batch, returns: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """The advantage as it is.

    Equation: A.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return advantage


@declares(couples="group", bias="direction", needs=("group",))
def group_std(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-4,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Divided by the standard deviation of the returns of the group.

    Equation: A / (σ̂ + ε), σ̂² = (1/(G − correction)) Σ_j (R_j − mean)²; 0 in a group of equal
        returns.
    Shapes: [N, T].
    Source: Shao et al. 2024, GRPO; ε as common implementations have it. TRL and verl divide by
        G − 1, which is `correction` 1: their advantages are √((G−1)/G) of these.
    Unbiased when: never. With 0/1 rewards, one prompt of success probability p, and the group mean
        as the baseline, it multiplies the gradient by c = E[p̂(1−p̂)/(√(p̂(1−p̂)) + ε)]/(p(1−p)),
        p̂ the success rate of the group; the factor differs between prompts, which turns the
        gradient.
    """
    key = by_group(batch)
    mean = mean_of_trajectories(batch, returns, key, leave_out=False)
    variance = mean_of_trajectories(batch, (returns - mean) ** 2, key, leave_out=False)
    count = trajectories_in_group(batch)[:, None].to(returns.dtype)
    bessel = count / (count - correction).clamp(min=1)
    size = mean_of_trajectories(batch, returns**2, key, leave_out=False).sqrt()
    return _divided(advantage, (variance * bessel).sqrt(), size, epsilon)


@declares(couples="group", bias="direction", needs=("group",))
def group_mean_return(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
) -> Float[Tensor, "N T"]:
    """Divided by the mean return of the group.

    Equation: A / mean_j R_j; 0 in a group whose mean return is not positive: it would turn the
        gradient round.
    Shapes: [N, T].
    Source: Tajwar et al. 2026, MaxRL.
    Unbiased when: never for J. With 0/1 rewards and the group mean as the baseline it multiplies
        the gradient of a prompt of success probability p by (1 − (1−p)^{G−1})/p, which tends to ∇
        log p.
    """
    key = by_group(batch)
    mean = mean_of_trajectories(batch, returns, key, leave_out=False)
    size = mean_of_trajectories(batch, returns**2, key, leave_out=False).sqrt()
    return _divided(advantage, mean, size, 0.0)


@declares(couples="batch", bias="direction")
def batch_std(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-8,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Divided by the standard deviation of the advantage over all counted steps of the batch.

    Equation: A / (σ̂ + ε), σ̂² = (M/(M − correction)) Σ_{n,t} w_n (A_nt − Ā)² / Σ_{n,t} w_n over
        the M counted steps; 0 in a batch of equal advantages.
    Shapes: [N, T].
    Source: the advantage normalisation of common implementations, without its mean.
    Unbiased when: never. The deviation is correlated with the samples it divides.
    """
    key = everywhere(batch)
    mean = mean_of_steps(batch, advantage, key, leave_out=False)
    variance = mean_of_steps(batch, (advantage - mean) ** 2, key, leave_out=False)
    size = mean_of_steps(batch, returns**2, key, leave_out=False).sqrt()
    bessel = batch.steps / max(1, batch.steps - correction)
    return _divided(advantage, (variance * bessel).sqrt(), size, epsilon)


@declares(couples="batch", bias="direction")
def standardised(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-8,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Centred and divided by the standard deviation, over all counted steps of the batch.

    Equation: (A − Ā) / (σ̂ + ε), with Ā and σ̂ as in `batch_std`.
    Shapes: [N, T].
    Source: the advantage normalisation of common implementations; Hu et al. 2025, REINFORCE++.
    Unbiased when: never. The mean contains the step's own advantage, the deviation is correlated
        with the samples it divides.
    """
    centred = advantage - mean_of_steps(batch, advantage, everywhere(batch), leave_out=False)
    return batch_std(batch, returns, centred, epsilon=epsilon, correction=correction)


def _divided(
    advantage: Float[Tensor, "N T"],
    spread: Float[Tensor, "N T"],
    size: Float[Tensor, "N T"],
    epsilon: float,
) -> Float[Tensor, "N T"]:
    """advantage / (spread + epsilon), 0 where `spread` is no more than a rounding error of numbers
    of `size`."""
    noise = 32 * torch.finfo(advantage.dtype).eps * size
    return torch.where(spread > noise, advantage / (spread + epsilon), 0)
