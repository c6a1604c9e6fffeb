"""More rows of the table: which steps are learned from is decided by rank over the whole batch.

Each is the row that it was published on, with its selection; any other row takes them too:
`vt.estimators.rloo().replace(selection=vt.selections.second_moment)`.
"""

from functools import partial

from vantage.estimators import ratios, scales, selections
from vantage.estimators.aggregates import per_token
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import clipped_group, dapo, row


@row
def forking_tokens(
    fraction: float = 0.2,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """DAPO on the tokens of highest entropy alone, a fifth of the batch.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t 1[H_it ≥ h] ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε_high) A_i), h
        the (1 − q)-quantile of the entropies H over the tokens of the batch; A_i as in GRPO.
    Source: Wang et al. 2025 [wang2025].
    """
    estimator = dapo(epsilon=epsilon, epsilon_high=epsilon_high, correction=correction, beta=beta)
    selection = partial(selections.highest_entropy, fraction=fraction)
    return estimator.replace(selection=selection, name="custom", source="")


@row
def clip_cov(
    fraction: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    epsilon: float = 0.2,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """GRPO without a few of the tokens whose advantage goes most with their log-probability.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t c_it ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), c = 1 − k/c'
        where l < (A − Ā)(log π₀ − mean log π₀) < u, at c' tokens of M, k = max(1, ⌊r M⌋) of them at
        most, else 1: the expectation of leaving k of them out at random; A_i as in GRPO.
    Source: Cui et al. 2025 [cui2025]; mean over tokens and numbers are verl's.
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_token,
        beta=beta,
    ).replace(
        selection=partial(selections.without_covariance, fraction=fraction, low=low, high=high),
        name="custom",
    )


@row
def kl_cov(
    fraction: float = 2e-4, coefficient: float = 1.0, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO without a clip, held back at the few tokens of highest covariance.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t ∇ (ρ_t A_i − c_it |log π/μ|), c = `coefficient` at the k =
        max(1, ⌊r M⌋) of M tokens of largest (A − Ā)(log π₀ − mean log π₀), else 0; A_i as in GRPO.
    Source: Cui et al. 2025 [cui2025]; mean over tokens and numbers are verl's.
    """
    restraint = partial(selections.highest_covariance, fraction=fraction, coefficient=coefficient)
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=ratios.unclipped,
        aggregate=per_token,
        beta=beta,
    ).replace(restraint=restraint, name="custom")


@row
def m2po(threshold: float = 0.04, correction: int = 0, beta: float = 0.0) -> Estimator:
    """GRPO on stale samples without a clip, without the tokens of the largest log-ratios.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t M_it ρ_t A_i s_it, M = 0 at the tokens of largest (log
        π₀/μ)², as many as it takes for the mean of the others to be below τ, else 1, ρ = π/μ; A_i
        as in GRPO.
    Source: Zheng et al. 2025 [zhenghaizhong2025]; squares of π₀ as AReaL has them.
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=ratios.unclipped,
        aggregate=per_token,
        beta=beta,
    ).replace(selection=partial(selections.second_moment, threshold=threshold), name="custom")
