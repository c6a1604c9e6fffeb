"""More rows of the table: language models' descendants of GRPO, and what stands beside them."""

from functools import partial

from vantage.errors import refuse_unless
from vantage.estimators import baselines, penalties, ratios, returns, scales
from vantage.estimators.aggregates import per_sequence, per_token, per_trajectory
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import clipped_group, gspo, row, times


@row
def bnpo(epsilon: float = 0.2, beta: float = 0.0, correction: int = 0) -> Estimator:
    """GRPO with a mean over all tokens of the batch, TRL's loss of that name.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), A_i as in GRPO.
        (The paper called BNPO is about another matter, the advantage of 0/1 rewards.)
    Source: TRL's loss_type="bnpo" [vonwerra2020].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_token,
        beta=beta,
    )


@row
def two_sided_grpo(
    epsilon: float = 0.2, delta: float = 4.0, beta: float = 0.0, correction: int = 0
) -> Estimator:
    """GRPO with a bound on the ratio of bad actions too.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t ∇ min(min(ρ_t, δ) A_i, clip(ρ_t, 1−ε, 1+ε) A_i), δ > 1 + ε;
        A_i as in GRPO.
    Source: INTELLECT-2 [primeintellect2025].
    """
    refuse_unless(
        delta > 1 + epsilon,
        f"two_sided_grpo(delta={delta}, epsilon={epsilon}): delta must be above 1 + epsilon, or it "
        "would clip good actions too.",
    )
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.dual, epsilon=epsilon, maximum=delta),
        aggregate=per_token,
        beta=beta,
    )


@row
def dual_clip(
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    maximum: float = 3.0,
    lambda_: float = 1.0,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """PPO with a dual clip, the default loss of verl.

    Equation: ĝ = mean_{n,t} ∇ L_t, L_t = min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t), and max(L_t, C A_t)
        where A_t < 0; C = `maximum`.
    Source: Ye et al. 2020 [ye2020]; λ = 1 as verl has it.
    """
    return Estimator(
        returns=partial(returns.gae, lambda_=lambda_),
        baseline=baselines.value,
        scale=partial(scales.standardised, correction=correction),
        ratio=ratios.token,
        clip=partial(ratios.dual, epsilon=epsilon, epsilon_high=epsilon_high, maximum=maximum),
        aggregate=per_token,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def sapo(
    positive: float = 1.0, negative: float = 1.05, beta: float = 0.0, correction: int = 0
) -> Estimator:
    """GRPO with a smooth gate in place of the clip.

    Equation: ĝ = (1/m) Σ_i (1/|τ_i|) Σ_t ∇ f(ρ_t) A_i, f(ρ) = (4/τ) σ(τ(ρ−1)), τ = `positive` where
        A_i > 0, else `negative`; A_i as in GRPO.
    Source: Gao et al. 2025 [gao2025].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.soft, positive=positive, negative=negative),
        aggregate=per_sequence,
        beta=beta,
    )


@row
def luspo(
    epsilon: float = 3e-4, epsilon_high: float = 4e-4, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GSPO with each completion's term times its length.

    Equation: ĝ = (1/m) Σ_i |τ_i| ∇ min(s_i A_i, clip(s_i, 1−ε, 1+ε_high) A_i), s_i = (Π_t
        ρ_t)^{1/|τ_i|}, whose weight on each score is s_i A_i; A_i as in GRPO. The bounds are those
        of GSPO.
    Source: Liu et al. 2026 [liu2026].
    """
    estimator = gspo(epsilon=epsilon, epsilon_high=epsilon_high, correction=correction, beta=beta)
    return estimator.replace(aggregate=per_trajectory, name="custom", source="")


@row
def gmpo(
    epsilon: float = 0.4, epsilon_high: float | None = None, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO's advantage times the geometric mean of the completion's clipped ratios.

    Equation: ĝ = (1/m) Σ_i ∇ A_i exp((1/|τ_i|) Σ_t l̃_it), sgn(A_i) l̃_it = min(sgn(A_i) log ρ_it,
        sgn(A_i) clip(log ρ_it, −ε, ε)); A_i as in GRPO.
    Source: Zhao et al. 2025 [zhao2025].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.geometric, epsilon=epsilon, epsilon_high=epsilon_high),
        aggregate=per_sequence,
        beta=beta,
    )


@row
def gpg(beta: float = 0.0) -> Estimator:
    """The group mean as the baseline, made up for groups without a signal; mean over tokens.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t s_it α (R_i − mean), α = B/(B − M), B trajectories, M of
        them in groups of equal returns.
    Source: Chu et al. 2025 [chu2025], with F_norm = 1.
    """
    return clipped_group(
        scale=scales.live_groups,
        ratio=ratios.none,
        clip=ratios.unclipped,
        aggregate=per_token,
        beta=beta,
    )


@row
def reinforce_pp_baseline(
    epsilon: float = 0.2, beta: float = 0.0, correction: int = 0
) -> Estimator:
    """REINFORCE++ with the group mean as the baseline, standardised over the batch; k2 in the loss.

    Equation: ĝ = mean_{n,t} ∇ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t) − β ∇k2(l_t), A = (A' −
        mean)/std over the steps of the batch, A'_i = R_i − the mean of its group.
    Source: Hu et al. 2025 [hu2025].
    """
    return Estimator(
        baseline=baselines.group_mean,
        scale=partial(scales.standardised, correction=correction),
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_token,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def pass_at_k(k: int = 2, normalise: bool = True, beta: float = 0.0) -> Estimator:
    """The advantage of the best of k completions: pass@k, where rewards are 0 and 1.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (S_i − S̄)/σ, S̄ the mean of the largest return over all sets of
        k of the group, S_i over those that contain i, σ the standard deviation over all; without
        `normalise` no σ, and E ĝ = ((1 − k/G)/k) ∇ pass@k.
    Source: Chen et al. 2025 [chen2025]; S_i: Walder & Karkhanis 2025 [walder2025].
    """
    return Estimator(
        scale=partial(scales.best_of, k=k, normalise=normalise),
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def gdpo(epsilon: float = 0.2, correction: int = 0, beta: float = 0.0) -> Estimator:
    """GRPO with each reward function normalised by itself, before they are summed.

    Equation: ĝ = (1/m) Σ_i (1/|τ_i|) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), A = (B − mean)/
        (std + 10⁻⁴) over the batch, B_i = Σ_k w_k (R_ik − mean_k)/(std_k + 10⁻⁴) over the group.
    Source: Liu et al. 2026 [liushihyang2026].
    """
    return Estimator(
        scale=partial(scales.decoupled, correction=correction),
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_sequence,
        kl_in_loss=times(penalties.k3_in_loss, beta),
    )


@row
def weighted_reinforce(
    positive: float = 0.1, negative: float = 1.0, beta: float = 0.0
) -> Estimator:
    """Good and bad rewards, each times a factor: learning from mistakes more than from successes.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it λ_i R_i, λ_i = `positive` where R_i > 0, else `negative`; with
        rewards of 1 and −1.
    Source: Zhu et al. 2025 [zhu2025].
    """
    return Estimator(
        scale=partial(scales.by_sign, positive=positive, negative=negative),
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def asymre(shift: float = -0.1, beta: float = 0.0) -> Estimator:
    """REINFORCE off policy, without a ratio, with a baseline below the group mean.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − mean − δ), δ = shift ≤ 0: what went well weighs more.
    Source: Arnal et al. 2025 [arnal2025].
    """
    return Estimator(
        baseline=partial(baselines.group_mean, shift=shift),
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def optimal_token_baseline(beta: float = 0.0) -> Estimator:
    """A baseline of each position of each prompt, weighted by the squared scores up to there.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_it − b_t), b_t = Σ_j W_jt R_jt / Σ_j W_jt, W_jt = Σ_{u≤t}
        ‖s_ju‖².
    Source: Li et al. 2026 [li2026].
    """
    return Estimator(
        returns=returns.to_go,
        baseline=baselines.cumulative_norm_weighted,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def gigpo(
    omega: float = 1.0,
    epsilon: float = 0.2,
    beta: float = 0.0,
    correction: int | None = None,
) -> Estimator:
    """Group in group: a trajectory against its group, and each step against others in its state.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t ∇ min(ρ_t A_it, clip(ρ_t, 1−ε, 1+ε) A_it), A_it = R_i − mean
        of the group + ω (R_it − mean of R at the group's steps in s_it); with a `correction` each
        of the two over its standard deviation, which divides by G − `correction`.
    Source: Feng et al. 2025 [feng2025], with F_norm = 1, or σ with a `correction`. States
        are observations that are equal: of an environment with few of them, not of a completion,
        whose prefixes hardly meet.
    """
    return Estimator(
        returns=partial(returns.total_and_to_go, omega=omega),
        baseline=partial(baselines.group_and_state_mean, omega=omega),
        scale=(
            scales.none
            if correction is None
            else partial(scales.group_and_state_std, omega=omega, correction=correction)
        ),
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_token,
        kl_in_loss=times(penalties.k3_in_loss, beta),
    )


@row
def length_adaptive_gae(
    alpha: float = 0.05, epsilon: float = 0.2, epsilon_high: float = 0.28, beta: float = 0.0
) -> Estimator:
    """PPO with a λ that follows the trajectory's length, the policy's part of VAPO.

    Equation: ĝ = mean_{n,t} ∇ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε_high) A_t), A_t = Σ_k (γλ)^k δ_{t+k},
        λ = 1 − 1/(α |τ|).
    Source: Yue et al. 2025 [yue2025]; what fits V there is λ = 1, and a loss on right answers is
        added.
    """
    return Estimator(
        returns=partial(returns.gae_by_length, alpha=alpha),
        baseline=baselines.value,
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon, epsilon_high=epsilon_high),
        aggregate=per_token,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def dro(beta: float = 1.0) -> Estimator:
    """Direct reward optimisation: no ratio at all, and a squared log-ratio to hold the policy.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − V(s_i0) − β l_i), l_i = Σ_t log(π/π_ref): the slope of
        −½ (R − V − β l)²/β, by its policy's part.
    Source: Richemond et al. 2024 [richemond2024].
    """
    return Estimator(
        baseline=baselines.first_value,
        kl_in_loss=times(penalties.trajectory_k2_in_loss, beta),
    )
