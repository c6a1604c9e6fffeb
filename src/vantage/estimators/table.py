"""The table of estimators: each row a function that returns an `Estimator`, a choice of columns.

A row of your own takes three lines, and then has a name everywhere a built-in row has one:

    @vt.estimators.row
    def mine() -> vt.Estimator:
        return vt.Estimator(baseline=vt.baselines.batch_leave_one_out)

Rows that were published with a clipped ratio have it here: on the first pass over a batch the ratio
is 1 and they are the plain policy gradient of their advantage. Entropy terms are off unless their
coefficient is given.

Every row has `beta`, the weight of a KL penalty to a reference policy, 0 unless its source has
another. Where the source says which KL and where, it is that one. Else descendants of GRPO have k3
in the loss, as GRPO, and all others k2 in the loss, whose gradient on policy is that of KL(π‖π_ref)
in each state. Any other is exchanged in: `ppo().replace(kl_in_reward=partial(penalties.k1,
beta=0.1))`.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from typing import ParamSpec

from vantage.arguments import check_kinds
from vantage.errors import InputError, refuse_unless
from vantage.estimators import baselines, penalties, ratios, returns, scales
from vantage.estimators.aggregates import (
    constant_length,
    discounted,
    per_sequence,
    per_token,
    per_trajectory,
    undiscounted,
)
from vantage.estimators.averages import by_group_and_position
from vantage.estimators.columns import check_settings, parts
from vantage.estimators.estimator import Column, Estimator
from vantage.estimators.shrinkage import shrinkage

__all__ = [
    "ALIASES",
    "TABLE",
    "Estimator",
    "constant_length",
    "discounted",
    "named",
    "per_sequence",
    "per_token",
    "per_trajectory",
    "row",
    "undiscounted",
]

TABLE: dict[str, Callable[..., Estimator]] = {}
# Names that rows had before, and where they went: "per decision" is a kind of importance sampling.
ALIASES = {
    "per_decision": "norm_weighted",
    "per_decision_leave_one_out": "norm_weighted_leave_one_out",
}
P = ParamSpec("P")


def row(function: Callable[P, Estimator]) -> Callable[P, Estimator]:
    """Put a function that returns an Estimator into the table, under the function's name.

    The estimator is given that name, and the Source part of the docstring, unless it has its own.

    Raises:
        InputError: the table has a row of that name.
    """
    name = function.__name__
    refuse_unless(
        name not in TABLE,
        f"The table has a row {name!r} already; give yours another name "
        "(or delete the old one first: del vantage.estimators.TABLE[...]).",
    )

    @wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> Estimator:
        estimator = function(*args, **kwargs)
        own_name = name if estimator.name == "custom" else estimator.name
        return replace(
            estimator, name=own_name, source=estimator.source or parts(function).get("Source", "")
        )

    TABLE[name] = build
    return build


def named(name: str, **settings: object) -> Estimator:
    """The row of that name, with its settings: `named("ppo", epsilon=0.1)`.

    >>> import vantage as vt
    >>> vt.estimators.named("ppo", epsilon=0.1).columns()["clip"]
    'ppo(epsilon=0.1, epsilon_high=None)'

    Raises:
        InputError: no such row or setting, with near matches; a setting of another kind.
    """
    name = ALIASES.get(name, name)
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TABLE)}."
        raise InputError(f"No estimator is called {name!r}; {hint}")
    known = inspect.signature(TABLE[name]).parameters
    for setting in settings:
        refuse_unless(
            setting in known,
            f"Estimator {name!r} has no setting {setting!r}; it has {', '.join(known) or 'none'}. "
            f"Columns are exchanged with named({name!r}).replace(...).",
        )
    check_kinds(f"Estimator {name!r}", settings, known)
    return TABLE[name](**settings)


# Whole returns.


@row
def reinforce(beta: float = 0.0) -> Estimator:
    """[5]: every score weighted by the whole return of its trajectory.

    Equation: ĝ = (1/m) Σ_i R(τ_i) Σ_t s_it.
    Source: Williams 1992 [williams1992].
    """
    return Estimator(kl_in_loss=times(penalties.k2_in_loss, beta))


@row
def reinforce_mean(beta: float = 0.0) -> Estimator:
    """[6] with the mean return of the batch, over its steps, as the baseline.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R(τ_i) − R̄).
    Source: Williams 1992 [williams1992].
    """
    return Estimator(baseline=baselines.batch_mean, kl_in_loss=times(penalties.k2_in_loss, beta))


@row
def reinforce_leave_one_out(beta: float = 0.0) -> Estimator:
    """[6] with the mean return of the other trajectories of the batch as the baseline.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R(τ_i) − mean_{j≠i} R(τ_j)).
    Source: Kool, van Hoof & Welling 2019 [kool2019].
    """
    return Estimator(
        baseline=baselines.batch_leave_one_out, kl_in_loss=times(penalties.k2_in_loss, beta)
    )


# Rewards-to-go.


@row
def reward_to_go(beta: float = 0.0) -> Estimator:
    """[8] with Q estimated by the rewards from the step on, and no baseline (GPOMDP).

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it R_it, R_t = Σ_{k≥t} γ^{k−t} r_k.
    Source: Baxter & Bartlett 2001 [baxter2001]; Sutton et al. 2000 [sutton2000].
    """
    return _to_go(baselines.none, beta)


@row
def reinforce_baseline(beta: float = 0.0) -> Estimator:
    """[8]: rewards-to-go minus a learned state value.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it (R_it − V(s_it)).
    Source: Sutton & Barto 2018, section 13.4 [sutton2018].
    """
    return _to_go(baselines.value, beta)


@row
def state_mean(beta: float = 0.0) -> Estimator:
    """[8] with the mean return of the state in the batch as the baseline, the step's own included.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it (R_it − mean of R at the steps of the batch in s_it).
    Source: the state average of the worked example, estimated from the batch [sutton2018].
    """
    return _to_go(baselines.state_mean, beta)


@row
def state_leave_one_out(beta: float = 0.0) -> Estimator:
    """`state_mean` without the trajectory's own part.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it (R_it − mean of R at other trajectories' steps in s_it).
    Source: `state_mean`, made unbiased [kool2019].
    """
    return _to_go(baselines.state_leave_one_out, beta)


@row
def norm_weighted(beta: float = 0.0) -> Estimator:
    """[8] with the baseline of least variance for one decision, [7], estimated in-sample.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it (R_it − b(s_it)), b(s) = Σ ‖s_t‖² R_t / Σ ‖s_t‖².
    Source: [7]; Greensmith et al. 2004 [greensmith2004]; Peters & Schaal 2008 [peters2008].
    """
    return _to_go(baselines.norm_weighted, beta)


@row
def norm_weighted_leave_one_out(beta: float = 0.0) -> Estimator:
    """`norm_weighted` without the trajectory's own part.

    Equation: as `norm_weighted`, with b(s) from the other trajectories.
    Source: [7], made unbiased; Greensmith et al. 2004 [greensmith2004].
    """
    return _to_go(baselines.norm_weighted_leave_one_out, beta)


per_decision, per_decision_leave_one_out = norm_weighted, norm_weighted_leave_one_out


@row
def trajectory(beta: float = 0.0) -> Estimator:
    """[8] with the state baseline of least variance for whole trajectories, estimated in-sample.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t s_it (R_it − b(s_it)), b(s) = Σ s_t·ĝ0 / Σ ‖s_t‖².
    Source: the minimum of tr Cov ĝ over state baselines; related: Keane & Gao 2022 [keane2022].
    """
    return _to_go(baselines.trajectory, beta)


@row
def trajectory_leave_one_out(beta: float = 0.0) -> Estimator:
    """`trajectory` without the trajectory's own part.

    Equation: as `trajectory`, with b(s) from the other trajectories.
    Source: `trajectory`, made unbiased; related: Keane & Gao 2022 [keane2022].
    """
    return _to_go(baselines.trajectory_leave_one_out, beta)


# Bootstrapped returns and actor-critic methods. None has γ^t, as in every library.


@row
def n_step(n: int = 5, beta: float = 0.0) -> Estimator:
    """[8] with Q estimated by n rewards and the value of the state reached.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (Σ_{k<n} γ^k r_{t+k} + γ^n V(s_{t+n}) − V(s_t)).
    Source: Mnih et al. 2016 [mnih2016]; Sutton & Barto 2018, equation 7.1 [sutton2018].
    """
    return Estimator(
        returns=partial(returns.n_step, n=n),
        baseline=baselines.value,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def actor_critic(lambda_: float = 0.95, beta: float = 0.0) -> Estimator:
    """[8] with the generalised advantage.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V(s_{t+1}) − V(s_t).
    Source: Schulman et al. 2016 [schulman2016]; what γ^t left out does: Nota & Thomas 2020
        [nota2020].
    """
    return Estimator(
        returns=partial(returns.gae, lambda_=lambda_),
        baseline=baselines.value,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def a2c(entropy: float = 0.0, beta: float = 0.0) -> Estimator:
    """Rewards to the end of the fragment, bootstrapped there, minus a value; mean over steps.

    Equation: ĝ = mean_{n,t} s_nt (Σ_{k=t}^{T−1} γ^{k−t} r_k + γ^{T−t} V(s_T) − V(s_t)).
    Source: Mnih et al. 2016 [mnih2016], synchronous.
    """
    return Estimator(
        returns=returns.to_go,
        baseline=baselines.value,
        aggregate=per_token,
        entropy=entropy,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def vtrace(
    rho_max: float = 1.0,
    c_max: float = 1.0,
    lambda_: float = 1.0,
    remainder: bool = False,
    beta: float = 0.0,
) -> Estimator:
    """IMPALA: off-policy corrected value targets, and a truncated ratio on the score.

    Equation: ĝ = (1/m) Σ_i Σ_t min(ρ̄, ρ_t) s_it (r_t + γ v_{t+1} − V(s_t)); with `remainder`
        λ v_{t+1} + (1 − λ) V(s_{t+1}) for v_{t+1}, which on policy is `actor_critic`.
    Source: Espeholt et al. 2018 [espeholt2018]; the remainder as rlax has it.
    """
    target = partial(
        returns.vtrace, rho_max=rho_max, c_max=c_max, lambda_=lambda_, remainder=remainder
    )
    check_settings(target)  # before the clip is bound: of a wrong rho_max it would say "maximum"
    return Estimator(
        returns=target,
        baseline=baselines.value,
        ratio=ratios.token,
        clip=ratios.truncated(rho_max),
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def ppo(
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    lambda_: float = 0.95,
    normalise: bool = True,
    entropy: float = 0.0,
    correction: int = 0,
    beta: float = 0.0,
) -> Estimator:
    """The clipped surrogate on the generalised advantage, which is standardised over the batch.

    Equation: ĝ = mean_{n,t} ∇ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t). The standard deviation over M
        steps divides by M − `correction`.
    Source: Schulman et al. 2017 [schulman2017]; the standardising is common practice.
    """
    return Estimator(
        returns=partial(returns.gae, lambda_=lambda_),
        baseline=baselines.value,
        scale=partial(scales.standardised, correction=correction) if normalise else scales.none,
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon, epsilon_high=epsilon_high),
        aggregate=per_token,
        entropy=entropy,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


# Groups: several trajectories from one start state or prompt.


@row
def rloo(beta: float = 0.0) -> Estimator:
    """The mean return of the group's other trajectories as the baseline.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R(τ_i) − (1/(G−1)) Σ_{j≠i in group} R(τ_j)).
    Source: Ahmadian et al. 2024 [ahmadian2024]; Kool, van Hoof & Welling 2019 [kool2019].
    """
    return Estimator(baseline=baselines.leave_one_out, kl_in_reward=times(penalties.k1, beta))


@row
def grpo(epsilon: float = 0.2, beta: float = 0.0, correction: int = 0) -> Estimator:
    """Group mean and group standard deviation; mean over each completion's tokens; clipped ratio.

    Equation: ĝ = (1/m) Σ_i (1/|τ_i|) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i),
        A_i = (R_i − mean)/(std + 10⁻⁴), where std divides by G − `correction`; with β, minus
        β ∇k3(l_t) in the loss.
    Source: Shao et al. 2024 [shao2024]; on k3 in the loss: Tang & Munos 2025 [tang2025].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_sequence,
        beta=beta,
    )


@row
def dr_grpo(length: float | None = None, epsilon: float = 0.2, beta: float = 0.0) -> Estimator:
    """GRPO without its two biasing divisions, by the standard deviation and by each length.

    Equation: ĝ = (1/m) Σ_i (1/L) Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε) A_i), A_i = R_i − mean;
        L = `length`, a constant such as the longest completion allowed, or 1.
    Source: Liu et al. 2025 [liu2025].
    """
    return clipped_group(
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_trajectory if length is None else partial(constant_length, length=length),
        beta=beta,
    )


@row
def dapo(
    epsilon: float = 0.2, epsilon_high: float = 0.28, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO with a higher upper clip and a mean over all tokens.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t ∇ min(ρ_t A_i, clip(ρ_t, 1−ε, 1+ε_high) A_i), A_i as in
        GRPO. Its dynamic sampling (drawing anew for groups of equal reward) is no rule for weights.
    Source: Yu et al. 2025 [yu2025].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=partial(ratios.ppo, epsilon=epsilon, epsilon_high=epsilon_high),
        aggregate=per_token,
        beta=beta,
    )


@row
def gspo(
    epsilon: float = 3e-4, epsilon_high: float = 4e-4, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO with one ratio per completion, the geometric mean of its tokens' ratios.

    Equation: ĝ = (1/m) Σ_i ∇ min(s_i A_i, clip(s_i, 1−ε, 1+ε_high) A_i), s_i = (Π_t ρ_t)^{1/|τ_i|},
        whose weight on each score is s_i A_i/|τ_i|; A_i as in GRPO.
    Source: Zheng et al. 2025 [zheng2025].
    """
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        ratio=ratios.sequence,
        clip=partial(ratios.ppo, epsilon=epsilon, epsilon_high=epsilon_high),
        aggregate=per_sequence,
        beta=beta,
    )


@row
def cispo(
    epsilon_high: float = 4.0, maximum: float | None = None, correction: int = 0, beta: float = 0.0
) -> Estimator:
    """GRPO's advantage with a ratio that is bounded and detached, so that no token is dropped.

    Equation: ĝ = (1/Σ_i |τ_i|) Σ_i Σ_t min(ρ_t, 1 + ε_high) A_i s_it. As published, ε_high is the
        excess over 1, which the paper tunes; 4 bounds the ratio by 5. What TRL and ScaleRL call
        ε_high is the bound itself: give that as `maximum`, 5, which takes the place of 1 + ε_high.
    Source: MiniMax 2025 [minimax2025].
    """
    bound = partial(ratios.cispo, epsilon_high=epsilon_high)
    return clipped_group(
        scale=partial(scales.group_std, correction=correction),
        clip=bound if maximum is None else ratios.truncated(maximum),
        aggregate=per_token,
        beta=beta,
    )


@row
def maxrl(beta: float = 0.0) -> Estimator:
    """The advantage over the group mean, divided by that mean: a step towards maximum likelihood.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − mean)/mean, 0 in a group without success.
    Source: Tajwar et al. 2026 [tajwar2026].
    """
    return Estimator(
        baseline=baselines.group_mean,
        scale=scales.group_mean_return,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def opo(beta: float = 0.0) -> Estimator:
    """The group's mean return weighted by length as the baseline, on policy.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − Σ_j l_j R_j/Σ_j l_j).
    Source: Hao et al. 2025 [hao2025].
    """
    return Estimator(
        baseline=baselines.length_weighted, kl_in_loss=times(penalties.k2_in_loss, beta)
    )


@row
def opo_leave_one_out(beta: float = 0.0) -> Estimator:
    """`opo` without the trajectory's own part.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − Σ_{j≠i} l_j R_j/Σ_{j≠i} l_j).
    Source: Hao et al. 2025 [hao2025], made unbiased.
    """
    return Estimator(
        baseline=baselines.length_weighted_leave_one_out,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


@row
def shrinkage_baseline(beta: float = 0.0) -> Estimator:
    """A baseline between the mean of the group's others and the mean of the other groups.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − (1−λ_g) mean_{j≠i in g} R_j − λ_g mean_{h≠g} μ_h).
    Source: Zeng et al. 2025 [zeng2025], with λ_g from the other groups alone.
    """
    return Estimator(baseline=shrinkage, kl_in_loss=times(penalties.k2_in_loss, beta))


@row
def trajectory_by_position(beta: float = 0.0) -> Estimator:
    """The trajectory-optimal baseline of each position of each prompt, leave-one-out.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R_i − b_t), b_t = Σ_{j≠i} s_jt·ĝ0_j / Σ_{j≠i} ‖s_jt‖² over the
        completions of the prompt.
    Source: the minimum of tr Cov ĝ over baselines of prompt and position; related: Li et al. 2026
        [li2026].
    """
    baseline = partial(baselines.trajectory_leave_one_out, key=by_group_and_position)
    return Estimator(baseline=baseline, kl_in_loss=times(penalties.k2_in_loss, beta))


@row
def remax(beta: float = 0.0) -> Estimator:
    """The return of the greedy completion of the same prompt as the baseline.

    Equation: ĝ = (1/m) Σ_i Σ_t s_it (R(τ_i) − R(τ_greedy)).
    Source: Li et al. 2024 [li2024].
    """
    return Estimator(baseline=baselines.greedy, kl_in_reward=times(penalties.k1, beta))


@row
def reinforce_pp(epsilon: float = 0.2, beta: float = 0.0, correction: int = 0) -> Estimator:
    """REINFORCE++: rewards-to-go with a KL in the reward, standardised over the batch; clipped.

    Equation: ĝ = mean_{n,t} ∇ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t), A = (R_t − mean)/std, both
        over the steps of the batch, R_t of r − β k1.
    Source: Hu et al. 2025 [hu2025].
    """
    return Estimator(
        returns=returns.to_go,
        scale=partial(scales.standardised, correction=correction),
        ratio=ratios.token,
        clip=partial(ratios.ppo, epsilon=epsilon),
        aggregate=per_token,
        kl_in_reward=times(penalties.k1, beta),
    )


def _to_go(baseline: Column, beta: float) -> Estimator:
    return Estimator(
        returns=returns.to_go,
        baseline=baseline,
        discounting=discounted,
        kl_in_loss=times(penalties.k2_in_loss, beta),
    )


def clipped_group(
    *,
    clip: Column,
    aggregate: Column,
    scale: Column = scales.none,
    ratio: Column = ratios.token,
    beta: float = 0.0,
) -> Estimator:
    """What GRPO and its descendants share: the group mean, a clipped ratio, k3 in the loss."""
    return Estimator(
        baseline=baselines.group_mean,
        scale=scale,
        ratio=ratio,
        clip=clip,
        aggregate=aggregate,
        kl_in_loss=times(penalties.k3_in_loss, beta),
    )


def times(penalty: Column, beta: float) -> Column | None:
    """The penalty with its coefficient; none where that is 0, so that no reference is asked for."""
    refuse_unless(beta >= 0, f"beta={beta}: the coefficient of a KL penalty must be at least 0.")
    return partial(penalty, beta=beta) if beta else None
