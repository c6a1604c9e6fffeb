"""The importance column: what a step weighs that another policy than the trainer's sampled.

A batch is sampled by μ (`batch.log_prob`): another engine, another precision, weights some updates
old. The update begins at a policy π₀, the proximal one, and moves to π. This column weighs steps
by π₀/μ, and the ratio and clip columns then compare π with π₀ instead of μ: the decoupled
objective of Hilton et al. Every choice here is 1 where μ is π₀. Each maps (Batch, log π₀) to
[N, T], a factor of the advantage; `ratio` says which ratio is looked at: `ratios.token`,
`ratios.sequence` (a geometric mean) or `ratios.trajectory` (a product).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.estimators import ratios
from vantage.estimators.columns import always, cut_one, cutting_one, declares

Ratio = Callable[[Batch, Tensor], Tensor]


@declares(stepwise=True)
def none(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """No weighing: ratios compare the policy with the one that sampled.

    Equation: 1.
    Shapes: [N, T].
    Source: Schulman et al. 2017, PPO.
    Unbiased when: always, on policy.
    """
    return torch.ones_like(log_prob)


@declares(
    stepwise=True,
    bias=cutting_one("scale"),
    factor=cut_one,
    bounded=lambda maximum=math.inf, **others: math.isfinite(maximum),
)
def truncated(
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    *,
    ratio: Ratio = ratios.token,
    maximum: float = math.inf,
) -> Float[Tensor, "N T"]:
    """Truncated importance sampling (TIS): the ratio, at most a maximum.

    Equation: min(ρ, C), ρ = π₀/μ of the step, or of the trajectory with `ratios.trajectory`.
    Shapes: [N, T].
    Source: Ionides 2008; Yao et al. 2025, TIS, with C = 2; without a maximum Hilton et al. 2022.
    Unbiased when: always, on policy, for C ≥ 1; off policy with total returns, the trajectory's
        ratio and no ratio beyond C.
    """
    return ratio(batch, log_prob).clamp(max=maximum)


@declares(stepwise=True, bias=cutting_one("direction"), bounded=always)
def masked(
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    *,
    ratio: Ratio = ratios.token,
    minimum: float = 0.0,
    maximum: float = math.inf,
) -> Float[Tensor, "N T"]:
    """Masked importance sampling (MIS, IcePop): the ratio within bounds, nothing beyond them.

    Equation: ρ where α ≤ ρ ≤ β, else 0, ρ = π₀/μ.
    Shapes: [N, T].
    Source: Ling Team 2025, IcePop, with 0.5 and 5, token by token; Liu et al. 2025, MIS, of whole
        trajectories from above.
    Unbiased when: always, on policy, for α ≤ 1 ≤ β; off policy with total returns, the
        trajectory's ratio and no ratio beyond the bounds.
    """
    weight = ratio(batch, log_prob)
    return torch.where((weight >= minimum) & (weight <= maximum), weight, 0)


@declares(stepwise=True, bias=cutting_one("direction"), bounded=always)
def rejected(
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    *,
    ratio: Ratio = ratios.sequence,
    minimum: float = 0.0,
    maximum: float = math.inf,
) -> Float[Tensor, "N T"]:
    """Rejection: trajectories that the policy would hardly have drawn are left out, others kept.

    Equation: 1 where α ≤ s ≤ β, else 0, s = (Π_t π₀/μ)^{1/|τ|}, the geometric mean.
    Shapes: [N, T].
    Source: Liu et al. 2025, geometric-mean rejection; verl's rollout correction.
    Unbiased when: always, on policy, for α ≤ 1 ≤ β. Off policy what is kept has no ratio.
    """
    weight = ratio(batch, log_prob)
    return ((weight >= minimum) & (weight <= maximum)).to(weight.dtype)
