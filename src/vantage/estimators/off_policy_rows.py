"""More rows of the table: for samples of a policy that is not the one to be improved.

Each is the row that it was published on, with its importance or its clip; any other row takes them
too: `vt.estimators.rloo().replace(importance=partial(vt.importance.truncated, maximum=2.0))`.
"""

from functools import partial

from vantage.estimators import importance, penalties, ratios, scales
from vantage.estimators.aggregates import per_token
from vantage.estimators.estimator import Column, Estimator
from vantage.estimators.table import clipped_group, grpo, ppo, row, times


@row
def decoupled_ppo(
    epsilon: float = 0.2, lambda_: float = 0.95, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """PPO that clips to the policy at the update's beginning, whoever sampled.

    Equation: ĝ = mean_{n,t} (π₀/μ) ∇ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t), ρ = π/π₀, μ the policy
        that sampled and π₀ the proximal one.
    Source: Hilton et al. 2022 [hilton2022].
    """
    estimator = ppo(epsilon=epsilon, lambda_=lambda_, correction=correction, beta=beta)
    return estimator.replace(importance=importance.truncated, name="custom", source="")


@row
def tis(
    maximum: float = 2.0, epsilon: float = 0.2, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO with the sampler's ratio truncated, token by token.

    Equation: ĝ = (1/m) Σ_i (1/|τ_i|) Σ_t min(π₀/μ, C) ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), ρ =
        π/π₀; A_i as in GRPO.
    Source: Yao et al. 2025 [yao2025].
    """
    return _reweighed(partial(importance.truncated, maximum=maximum), epsilon, correction, beta)


@row
def mis(
    maximum: float = 2.0, epsilon: float = 0.2, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO with the sampler's ratio of the whole completion, nothing where that is too large.

    Equation: ĝ = (1/m) Σ_i w_i (1/|τ_i|) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), w = Π_t
        π₀/μ where that is at most C, else 0; A_i as in GRPO.
    Source: Liu et al. 2025 [liujiacai2025].
    """
    bound = partial(importance.masked, ratio=ratios.trajectory, maximum=maximum)
    return _reweighed(bound, epsilon, correction, beta)


@row
def icepop(
    minimum: float = 0.5,
    maximum: float = 5.0,
    epsilon: float = 0.2,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """GRPO with the sampler's ratio, and no token at which it leaves its bounds.

    Equation: ĝ = (1/m) Σ_i (1/|τ_i|) Σ_t w_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), w = π₀/μ
        where that lies in [α, β], else 0; A_i as in GRPO.
    Source: Ling Team 2025 [lingteam2025].
    """
    bound = partial(importance.masked, minimum=minimum, maximum=maximum)
    return _reweighed(bound, epsilon, correction, beta)


@row
def geometric_rejection(
    minimum: float = 0.999,
    maximum: float = 1.001,
    epsilon: float = 0.2,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """GRPO without the completions whose mean log-ratio to the sampler is too large.

    Equation: ĝ = (1/m) Σ_i 1[α ≤ s_i ≤ β] (1/|τ_i|) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i),
        s = (Π_t π₀/μ)^{1/|τ|}; A_i as in GRPO.
    Source: Liu et al. 2025 [liujiacai2025]; the bounds are verl's.
    """
    bound = partial(importance.rejected, minimum=minimum, maximum=maximum)
    return _reweighed(bound, epsilon, correction, beta)


@row
def topr(maximum: float = 1.0, beta: float = 0.0) -> Estimator:
    """Tapered REINFORCE: good completions without a ratio, bad ones with a truncated one.

    Equation: ĝ = (1/m) Σ_i c_i R_i Σ_t s_it, c = 1 where R_i ≥ 0, else min(Π_t π/μ, C).
    Source: Le Roux et al. 2025 [leroux2025].
    """
    return Estimator(
        ratio=ratios.trajectory,
        clip=partial(ratios.tapered, maximum=maximum),
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def vespo(
    shape: float = 2.0,
    rate: float = 3.0,
    negative_shape: float = 3.0,
    negative_rate: float = 2.0,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """GRPO's advantage, weighed by a smooth function of the whole completion's ratio.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i φ(w_i) A_i Σ_t s_it, φ(w) = w^k e^{λ(1−w)}, w = Π_t π/μ, (k, λ)
        = (shape, rate) where A_i ≥ 0, else the negative ones; A_i as in GRPO.
    Source: Shen et al. 2026 [shen2026]; numbers and the mean over tokens are TRL's.
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        ratio=ratios.trajectory,
        clip=partial(
            ratios.gamma,
            shape=shape,
            rate=rate,
            negative_shape=negative_shape,
            negative_rate=negative_rate,
        ),
        aggregate=per_token,
        beta=beta,
    )


@row
def sequence_masked_grpo(
    threshold: float = 0.5, epsilon: float = 0.2, beta: float = 0.0, correction: int = 0
) -> Estimator:
    """GRPO without the bad completions that the policy has moved far from, and an unbiased KL.

    Equation: ĝ = (1/m) Σ_i M_i (1/|τ_i|) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i) − β ∇ρ
        k3(l_t), M = 0 where A_i < 0 and (1/|τ_i|) Σ_t log(μ/π) > δ; A_i as in GRPO.
    Source: DeepSeek-AI 2025 [deepseek2025]; δ has no number there, 0.5 is an example of TRL's.
    """
    return grpo(correction=correction).replace(
        clip=partial(ratios.sequence_masked, threshold=threshold, epsilon=epsilon),
        kl_in_loss=times(penalties.weighted_k3_in_loss, beta),
        name="custom",
        source="",
    )


@row
def dppo(
    threshold: float = 0.2, maximum: float = 20.0, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO with a clip by the change of the action's probability, not by its ratio.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t M_t min(ρ_t, C) A_i s_it, M = 0 where A_i > 0 and π − μ > δ,
        or A_i ≤ 0 and π − μ < −δ; A_i as in GRPO.
    Source: Qi et al. 2026 [qi2026], binary total variation; C as verl has it.
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.divergence, threshold=threshold, maximum=maximum),
        aggregate=per_token,
        beta=beta,
    )


def _reweighed(weighing: Column, epsilon: float, correction: int, beta: float) -> Estimator:
    """GRPO with an importance."""
    estimator = grpo(epsilon=epsilon, correction=correction, beta=beta)
    return estimator.replace(importance=weighing, name="custom", source="")
