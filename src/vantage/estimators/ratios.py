"""The ratio and clip columns: what a step weighs when the policy has moved since it was sampled.

A ratio maps (Batch, current log-probabilities) to [N, T]. A clip maps (ratio, advantage) to the
factor [N, T] that the advantage is multiplied by. A clipped objective min(ρA, clip(ρ)A) has the
gradient ρ A ∇log π where its unclipped branch is active and 0 where it is not, so that every
clipping rule is a weight on the score, without a graph. A clip that looks at more than one step, or
at probabilities, declares that it needs the "batch" or the current "log_prob".
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, sum_by_episode
from vantage.estimators.columns import always, check_settings, cut_one, cutting_one, declares


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
    return _mean_ratio(batch, _log_ratio(batch, log_prob))


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
    Unbiased when: always, on policy; off policy where the ratio column is.
    """
    return ratio


@declares(bounded=always)
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


@declares(bounded=always)
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


@overload
def truncated(ratio: float, /) -> Callable[..., Tensor]: ...


@overload
def truncated(
    ratio: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"], *, maximum: float = 1.0
) -> Float[Tensor, "N T"]: ...


@declares(
    bias=cutting_one("scale"),
    factor=cut_one,
    bounded=lambda maximum=1.0: math.isfinite(maximum),
)
def truncated(
    ratio: Float[Tensor, "N T"] | float,
    advantage: Float[Tensor, "N T"] | None = None,
    *,
    maximum: float = 1.0,
) -> Float[Tensor, "N T"] | Callable[..., Tensor]:
    """The ratio, at most a maximum. Of a number alone it is the clip with that maximum.

    >>> import vantage as vt
    >>> row = vt.estimators.rloo().replace(ratio=vt.ratios.token, clip=vt.ratios.truncated(2.0))
    >>> print(row.unbiased)
    always; off policy never (truncated(maximum=2.0))

    Equation: min(ρ, ρ̄).
    Shapes: [N, T].
    Source: Ionides 2008; Espeholt et al. 2018, IMPALA, section 4.2.
    Unbiased when: always, on policy, for ρ̄ ≥ 1; below 1, ρ̄ times the gradient. Off policy it is
        biased wherever a ratio exceeds ρ̄, with any ratio column: with that of the trajectory by
        −E_μ[max(ρ − ρ̄, 0) A Σ_t s_t].
    """
    if not isinstance(ratio, Tensor):
        bound: Callable[..., Any] = partial(truncated, maximum=ratio)
        check_settings(bound)
        return bound
    return ratio.clamp(max=maximum)


@declares(bias=cutting_one("direction"), bounded=always)
def dual(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    maximum: float = 3.0,
) -> Float[Tensor, "N T"]:
    """PPO's clip with a bound for bad actions too: one that has become far likelier is let be.

    Equation: `ppo`, but 0 where A < 0 and ρ > C: the factor of A ∇log π in the gradient of
        max(min(ρA, clip(ρ) A), CA) where A < 0. With C = δ > 1 + ε that is also the gradient of
        min(min(ρ, δ) A, clip(ρ) A).
    Shapes: [N, T].
    Source: Ye et al. 2020, dual clip, with C = 3; Prime Intellect 2025, two-sided clipping, δ = 4.
    Unbiased when: always, on policy, for C ≥ 1.
    """
    weight = ppo(ratio, advantage, epsilon=epsilon, epsilon_high=epsilon_high)
    return torch.where((advantage < 0) & (ratio > maximum), 0, weight)


@declares(bounded=always)
def soft(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    positive: float = 1.0,
    negative: float = 1.05,
) -> Float[Tensor, "N T"]:
    """A smooth gate in place of a clip: the further the policy has moved, the less a step weighs.

    Equation: ρ f'(ρ) = 4 ρ σ(τ(ρ−1)) σ(−τ(ρ−1)), f(ρ) = (4/τ) σ(τ(ρ−1)), σ the logistic function;
        τ = `positive` where A > 0, else `negative`.
    Shapes: [N, T].
    Source: Gao et al. 2025, SAPO.
    Unbiased when: always, on policy, where it is 1.
    """
    gate = torch.where(advantage > 0, positive, negative) * (ratio - 1)
    # an infinite ratio is gated away altogether: ∞ · 0 is 0 here
    return torch.nan_to_num(4 * ratio * torch.sigmoid(gate) * torch.sigmoid(-gate), nan=0.0)


@declares(bounded=always)
def gamma(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    shape: float = 2.0,
    rate: float = 3.0,
    negative_shape: float = 3.0,
    negative_rate: float = 2.0,
) -> Float[Tensor, "N T"]:
    """A smooth weight of the ratio, of the shape of a gamma density, 1 at a ratio of 1.

    Equation: φ(ρ) = ρ^k exp(λ(1 − ρ)), (k, λ) = (shape, rate) where A ≥ 0, else the negative ones.
    Shapes: [N, T].
    Source: Shen et al. 2026, VESPO, for the ratio of the trajectory.
    Unbiased when: always, on policy, where it is 1.
    """
    good = advantage >= 0
    k = torch.where(good, shape, negative_shape).to(ratio.dtype)
    slope = torch.where(good, rate, negative_rate).to(ratio.dtype)
    # in logarithms, and ∞ − ∞ is a ratio so large that nothing is left of it
    return torch.nan_to_num((slope + k * ratio.log() - slope * ratio).exp(), nan=0.0)


@declares(bias=cutting_one("direction"), bounded=always)
def tapered(
    ratio: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"], *, maximum: float = 1.0
) -> Float[Tensor, "N T"]:
    """No ratio for what was good, a truncated one for what was bad.

    Equation: 1 where A ≥ 0, else min(ρ, C).
    Shapes: [N, T].
    Source: Le Roux et al. 2025, TOPR, for the ratio of the trajectory and C = 1.
    Unbiased when: always, on policy, for C ≥ 1.
    """
    return torch.where(advantage >= 0, 1, ratio.clamp(max=maximum))


@declares(needs=("batch",), bounded=always)
def geometric(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    batch: Batch,
    epsilon: float = 0.4,
    epsilon_high: float | None = None,
) -> Float[Tensor, "N T"]:
    """The geometric mean of the trajectory's clipped ratios; a clipped step has no gradient.

    Equation: exp((1/|τ|) Σ_t l̃_t), l̃ = log ρ, but clip(log ρ, −ε, ε_high) where that is less
        favourable: sgn(A) l̃ = min(sgn(A) log ρ, sgn(A) clip(log ρ)); 0 at steps that were clipped.
    Shapes: [N, T].
    Source: Zhao et al. 2025, GMPO, for the ratio of the step, with ε = 0.4.
    Unbiased when: always, on policy, where it is 1.
    """
    log_ratio = torch.where(batch.mask, ratio, 1).log()
    high = epsilon if epsilon_high is None else epsilon_high
    held = log_ratio.clamp(-epsilon, high)
    free = log_ratio * advantage.sign() <= held * advantage.sign()
    return torch.where(free, _mean_ratio(batch, torch.where(free, log_ratio, held)), 0)


@declares(needs=("batch", "log_prob"), bounded=always)
def sequence_masked(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    threshold: float,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
) -> Float[Tensor, "N T"]:
    """PPO's clip, and nothing of bad trajectories that the policy has moved far from.

    Equation: `ppo`, but 0 where A < 0 and (1/|τ|) Σ_t log(μ/π) > δ, μ the policy that sampled.
    Shapes: [N, T].
    Source: DeepSeek-AI 2025, DeepSeek-V3.2, equation 9.
    Unbiased when: always, on policy, for δ ≥ 0.
    """
    weight = ppo(ratio, advantage, epsilon=epsilon, epsilon_high=epsilon_high)
    apart = -_mean_ratio(batch, _log_ratio(batch, log_prob)).log()
    return torch.where((advantage < 0) & (apart > threshold), 0, weight)


@declares(needs=("batch", "log_prob"), bias=cutting_one("scale"), factor=cut_one, bounded=always)
def divergence(
    ratio: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    threshold: float = 0.2,
    maximum: float = 20.0,
) -> Float[Tensor, "N T"]:
    """Nothing where the action's probability itself has moved far enough, whatever the ratio.

    Equation: min(ρ, C), but 0 where A > 0 and π − μ > δ or A ≤ 0 and π − μ < −δ: the total
        variation between "this action" and "any other".
    Shapes: [N, T].
    Source: Qi et al. 2026, DPPO, binary total variation; C as verl has it.
    Unbiased when: always, on policy, for C ≥ 1.
    """
    moved = log_prob.exp() - batch.log_prob.exp()
    far = torch.where(advantage > 0, moved > threshold, moved < -threshold)
    return torch.where(far, 0, ratio.clamp(max=maximum))


def _mean_ratio(batch: Batch, log_ratio: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """exp of the trajectory's mean of [N, T] over its counted steps, at each of them."""
    length = sum_by_episode(batch, torch.ones_like(log_ratio))
    return (sum_by_episode(batch, log_ratio) / length.clamp(min=1)).exp()[batch.episode]


def _log_ratio(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    # whatever padding holds, ∞ − ∞ too, sums over a trajectory and weights leave out
    return log_prob - batch.log_prob
