"""The ratio and clip columns: what a step weighs when the policy has moved since it was sampled.

A ratio maps (Batch, current log-probabilities) to [N, T]. A clip maps (ratio, advantage) to the
factor [N, T] that the advantage is multiplied by. A clipped objective min(ρA, clip(ρ)A) has the
gradient ρ A ∇log π where its unclipped branch is active and 0 where it is not, so that every
clipping rule is a weight on the score, without a graph.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, sum_by_episode
from vantage.estimators.columns import declares


@declares(stepwise=True)
def none(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """No correction: the batch is taken as on policy.

    Equation: ρ = 1.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always, on policy.
    """
    return torch.ones_like(log_prob)


@declares(stepwise=True)
def token(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The probability ratio of the step's action.

    Equation: ρ_t = π(a_t|s_t)/π_old(a_t|s_t).
    Shapes: [N, T].
    Source: Schulman et al. 2017, PPO, equation 6.
    Unbiased when: always, on policy, where it is 1. Off policy it leaves the distribution of the
        states uncorrected.
    """
    return _log_ratio(batch, log_prob).exp()


@declares()
def sequence(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The geometric mean of the trajectory's ratios, at each of its steps.

    Equation: s = (Π_t ρ_t)^{1/|τ|}.
    Shapes: [N, T].
    Source: Zheng et al. 2025, GSPO, equation 7.
    Unbiased when: always, on policy, where it is 1.
    """
    log_ratio = _log_ratio(batch, log_prob)
    length = sum_by_episode(batch, torch.ones_like(log_ratio))
    return (sum_by_episode(batch, log_ratio) / length.clamp(min=1)).exp()[batch.episode]


@declares()
def trajectory(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The probability ratio of the whole trajectory, at each of its steps.

    Equation: ρ(τ) = Π_t ρ_t.
    Shapes: [N, T].
    Source: importance sampling with [3], in which the dynamics cancel.
    Unbiased when: always, on policy and, with total returns, off policy too.
    """
    return sum_by_episode(batch, _log_ratio(batch, log_prob)).exp()[batch.episode]


@declares()
def unclipped(ratio: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The ratio as it is.

    Equation: ρ.
    Shapes: [N, T].
    Source: importance sampling.
    Unbiased when: always, on policy.
    """
    return ratio


@declares()
def ppo(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
) -> Float[Tensor, "N T"]:
    """The gradient of the clipped surrogate: nothing where the policy has moved far enough.

    Equation: ρ, but 0 where A > 0 and ρ > 1 + ε_high or A < 0 and ρ < 1 − ε: the factor of A ∇log π
        in ∇ min(ρA, clip(ρ, 1−ε, 1+ε_high) A). ε_high = ε unless given.
    Shapes: [N, T].
    Source: Schulman et al. 2017, PPO, equation 7; ε_high: Yu et al. 2025, DAPO.
    Unbiased when: always, on policy, where no ratio is clipped.
    """
    high = epsilon if epsilon_high is None else epsilon_high
    held = ratio.clamp(1 - epsilon, 1 + high)
    return torch.where(ratio * advantage <= held * advantage, ratio, 0)


@declares()
def cispo(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon_high: float,
    epsilon: float | None = None,
) -> Float[Tensor, "N T"]:
    """The ratio held within bounds; every step keeps a gradient.

    Equation: clip(ρ, 1 − ε, 1 + ε_high); no lower bound unless ε is given.
    Shapes: [N, T].
    Source: MiniMax 2025, CISPO, equations 4 and 5.
    Unbiased when: always, on policy, where no ratio is clipped.
    """
    return ratio.clamp(min=None if epsilon is None else 1 - epsilon, max=1 + epsilon_high)


@declares()
def truncated(
    ratio: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"], *, maximum: float = 1.0
) -> Float[Tensor, "N T"]:
    """The ratio, at most a maximum.

    Equation: min(ρ, ρ̄).
    Shapes: [N, T].
    Source: Ionides 2008; Espeholt et al. 2018, IMPALA, section 4.2.
    Unbiased when: always, on policy, for ρ̄ ≥ 1.
    """
    return ratio.clamp(max=maximum)


def _log_ratio(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    # padding may hold infinities, and ∞ − ∞ would reach the sums over a trajectory
    return torch.where(batch.mask, log_prob - batch.log_prob, 0)
