"""The selection column: which steps of a batch are learned from, decided once, before any pass.

A selection maps (Batch, advantage) to a factor [N, T] of the advantage, 0 where a step is left out.
It ranks or thresholds over all counted steps of the batch, and so may look only at what is known of
all of them when an update begins: the advantage, the log-probabilities under the policy that
sampled, μ (`batch.log_prob`), those under the policy that the update begins with, π₀ (`log_prob`),
and the entropies of π₀. Passes over parts of the batch then add up to the batch whatever their
size. Implementations that choose anew at every micro-batch, among its own steps and with the policy
as it has become by then, choose the same at the first step of an update, taken in one micro-batch.
A restraint is chosen likewise: the coefficient, at each step, of |log π/μ| in the loss.

Every counted step has the same voice, whatever the weight of its row.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.estimators.averages import everywhere, mean_of_steps
from vantage.estimators.columns import always, declares


@declares()
def none(batch: Batch, advantage: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """No selection: every step is learned from.

    Equation: 1.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return torch.ones_like(advantage)


@declares(needs=("entropy",), couples="batch", bias="direction")
def highest_entropy(
    batch: Batch,
    advantage: Float[Tensor, "N T"],
    *,
    entropy: Float[Tensor, "N T"],
    fraction: float = 0.2,
) -> Float[Tensor, "N T"]:
    """The steps at which the policy hesitates most: forking tokens.

    Equation: 1 where H(π₀(·|s_nt)) ≥ h, else 0, h the (1 − q)-quantile of H over the batch's
        counted steps, between two of them linear in their ranks.
    Shapes: [N, T]; entropy [N, T] of π₀ in nats.
    Source: Wang et al. 2025, beyond the 80/20 rule, with q = 0.2; quantile as TRL has it.
    Unbiased when: never but for q = 1: the gradient of states where the policy is sure is left
        out, 1 − q of all, and which they are depends on the rest of the batch.
    """
    known = entropy[batch.mask].sort().values
    if len(known) == 0:
        return torch.zeros_like(advantage)
    place = (1 - fraction) * (len(known) - 1)
    low = known[int(place)]
    bound = torch.lerp(low, known[min(int(place) + 1, len(known) - 1)], place - int(place))
    return (entropy >= bound).to(advantage.dtype)


@declares(needs=("log_prob",), couples="batch", bias="direction")
def without_covariance(
    batch: Batch,
    advantage: Float[Tensor, "N T"],
    *,
    log_prob: Float[Tensor, "N T"],
    fraction: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
) -> Float[Tensor, "N T"]:
    """All but a few of the steps that take most of the entropy away: Clip-Cov.

    Equation: 1 − min(k, c)/c where l < C < u, else 1, C = (A − Ā)(log π₀ − mean log π₀), means over
        the counted steps; c of them lie within the bounds, k = max(1, ⌊r M⌋) of all M are left out.
        Published is a random choice of k of the c; this factor is its expectation, so that E ĝ is
        the same and the choice adds no noise. With k ≥ c there is no choice.
    Shapes: [N, T]; log_prob [N, T] under π₀.
    Source: Cui et al. 2025, Clip-Cov; r = 0.0002, l = 1 and u = 5 as verl has them.
    Unbiased when: never. What is left out depends on the sampled actions and their advantages.
    """
    covariance = _covariance(batch, advantage, log_prob)
    within = batch.mask & (covariance > low) & (covariance < high)
    count = int(within.sum())
    dropped = min(_few(batch, fraction), count)
    return 1 - within.to(advantage.dtype) * (dropped / max(1, count))


@declares(needs=("log_prob",), couples="batch", bounded=always)
def second_moment(
    batch: Batch,
    advantage: Float[Tensor, "N T"],
    *,
    log_prob: Float[Tensor, "N T"],
    threshold: float = 0.04,
) -> Float[Tensor, "N T"]:
    """The steps nearest to the policy that sampled, as many as have a small second moment: M2PO.

    Equation: 1 where the mean of (log π₀/μ)² over the steps at which it is no larger than here is
        below τ, else 0: the largest squares are left out until the mean of the rest is below τ.
    Shapes: [N, T]; log_prob [N, T] under π₀.
    Source: Zheng et al. 2025, M2PO, with τ = 0.04 and squares as AReaL has them, of π₀; AReaL
        keeps one step where even the smallest square is not below τ, and one of equal ones.
    Unbiased when: always, on policy, for τ > 0, where no step is left out.
    """
    square = torch.where(batch.mask, log_prob - batch.log_prob, 0).double().square()
    ordered = square[batch.mask].sort().values
    if len(ordered) == 0:
        return torch.zeros_like(advantage)
    no_larger = torch.searchsorted(ordered, square, right=True)
    mean = ordered.cumsum(0)[(no_larger - 1).clamp(min=0)] / no_larger.clamp(min=1)
    return (mean < threshold).to(advantage.dtype)


@declares(needs=("log_prob",), couples="batch", bounded=always)
def highest_covariance(
    batch: Batch,
    advantage: Float[Tensor, "N T"],
    *,
    log_prob: Float[Tensor, "N T"],
    fraction: float = 2e-4,
    coefficient: float = 1.0,
) -> Float[Tensor, "N T"]:
    """A restraint: a coefficient at the steps that take most of the entropy away, for KL-Cov.

    Equation: c at the k = max(1, ⌊r M⌋) of all M counted steps with the largest C, and at those
        equal to the last, else 0, C = (A − Ā)(log π₀ − mean log π₀), means over the counted steps.
    Shapes: [N, T]; log_prob [N, T] under π₀.
    Source: Cui et al. 2025, KL-Cov; r = 0.0002 and c = 1 as verl has them.
    Unbiased when: always, on policy, where |log π/μ| is 0 and, by the sign that it has there, so is
        its slope. Off policy it adds −c E_μ[sgn(log π/μ) ∇log π] over the chosen steps.
    """
    covariance = _covariance(batch, advantage, log_prob)
    ordered = covariance[batch.mask].sort(descending=True).values
    if len(ordered) == 0:
        return torch.zeros_like(advantage)
    last = ordered[min(_few(batch, fraction), len(ordered)) - 1]
    return coefficient * (covariance >= last).to(advantage.dtype)


def _covariance(
    batch: Batch, advantage: Float[Tensor, "N T"], log_prob: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """(A − Ā)(log π₀ − mean log π₀) of each step."""
    return _centred(batch, advantage) * _centred(batch, log_prob)


def _few(batch: Batch, fraction: float) -> int:
    """A fraction of the counted steps, at least one."""
    return max(1, int(fraction * batch.steps))


def _centred(batch: Batch, steps: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """[N, T] less its mean over the counted steps; 0 elsewhere."""
    known = torch.where(batch.mask, steps, 0)
    return known - mean_of_steps(batch, known, everywhere(batch), leave_out=False)
