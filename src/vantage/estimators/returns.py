"""The returns column: what a step is worth. Each function maps a Batch to [N, T].

All of them are one recursion, y_t = x_t + c_t y_{t+1}, run from the last step to the first, with
c_t = 0 wherever an episode or fragment ends. `bootstrap` enters x_t there, so that truncation is
never taken for termination. A step whose mask is False does not exist: x_t = 0 and c_t = 1.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vantage.batch import Batch, elapsed_discount, recursion, sum_by_episode
from vantage.estimators.columns import declares


@declares()
def total(batch: Batch) -> Float[Tensor, "N T"]:
    """Every step of a trajectory gets the trajectory's whole return.

    Equation: R(τ) = Σ_t γ^t r_t, the weight of every score of τ in [4] and [5]. At a truncation the
        value of the final observation continues the sum.
    Shapes: [N, T].
    Source: Williams 1992, REINFORCE.
    Unbiased when: always, for trajectories that terminate or whose `bootstrap` is the true value
        where they are cut; without a factor γ^t (the discount is in the return already).
    """
    steps = elapsed_discount(batch) * _reward_and_bootstrap(batch)
    return sum_by_episode(batch, steps)[batch.episode]


@declares()
def to_go(batch: Batch) -> Float[Tensor, "N T"]:
    """Every step gets the discounted rewards from there on.

    Equation: R_t = Σ_{k≥t} γ^{k−t} r_k, the estimate of Q in [8].
    Shapes: [N, T].
    Source: Baxter & Bartlett 2001, GPOMDP; Sutton et al. 2000.
    Unbiased when: always with the factor γ^t (or γ = 1), for trajectories that terminate or whose
        `bootstrap` is the true value where they are cut.
    """
    return recursion(_reward_and_bootstrap(batch), _carry(batch, batch.discount))


@declares(bias="scale", factor=lambda group, omega: 1 + omega, provided=("undiscounted",))
def total_and_to_go(batch: Batch, *, omega: float) -> Float[Tensor, "N T"]:
    """The trajectory's whole return, and the rewards from the step on times a factor.

    Equation: R(τ) + ω R_t, R_t = Σ_{k≥t} γ^{k−t} r_k.
    Shapes: [N, T].
    Source: Feng et al. 2025, GiGPO, equation 8.
    Unbiased when: never but for ω = 0: it is (1 + ω) ∇J for γ = 1, the same direction.
    """
    return total(batch) + omega * to_go(batch)


@declares(needs=("value",), provided=("true_value",))
def n_step(batch: Batch, *, n: int) -> Float[Tensor, "N T"]:
    """The next n rewards, then the value of the state reached.

    Equation: y_t = Σ_{k<n} γ^k r_{t+k} + γ^n V(s_{t+n}); an end of the episode before that cuts the
        sum, a truncation or the end of the fragment adds the value of the true final observation.
    Shapes: [N, T].
    Source: Sutton & Barto 2018, equation 7.1; Mnih et al. 2016, A3C.
    Unbiased when: V is the true value of the policy, with the factor γ^t (or γ = 1).
    """
    x, carry = _reward_and_bootstrap(batch), _carry(batch, batch.discount)
    worth = _value_or_next(batch)
    for _ in range(min(n, batch.reward.shape[1])):
        # masked steps stand for the next counted one and take no part in the count of n
        worth = _at_next(batch, torch.where(batch.mask, x + carry * _shift(worth), 0))
    return worth


@declares(needs=("value",), provided=("true_value",))
def gae(batch: Batch, *, lambda_: float) -> Float[Tensor, "N T"]:
    """Generalised advantage estimation (GAE): the λ-return, from which the baseline V is taken.

    Equation: y_t = r_t + γ [(1 − λ) V(s_{t+1}) + λ y_{t+1}], so that y_t − V(s_t) = Σ_k (γλ)^k
        δ_{t+k}, δ_t = r_t + γ V(s_{t+1}) − V(s_t). At a truncation y_t = r_t + γ V(true final
        observation).
    Shapes: [N, T].
    Source: Schulman et al. 2016, equation 16; Sutton & Barto 2018, equation 12.2.
    Unbiased when: V is the true value of the policy, with the factor γ^t (or γ = 1). With λ = 1 it
        is `to_go` and V does not matter.
    """
    return _lambda_return(batch, torch.full_like(batch.reward, lambda_))


@declares(needs=("value",), bias="direction")
def gae_by_length(batch: Batch, *, alpha: float = 0.05) -> Float[Tensor, "N T"]:
    """Generalised advantages with a λ that goes to 1 as trajectories get longer.

    Equation: as `gae`, with λ = 1 − 1/(α l) for a trajectory of l counted steps, 0 where α l < 1.
    Shapes: [N, T].
    Source: Yue et al. 2025, VAPO, length-adaptive GAE; λ below 0 has no meaning and is 0 here.
    Unbiased when: never, not even with the true V: λ depends on how the trajectory goes on, and so
        on the actions whose advantages it weighs.
    """
    length = sum_by_episode(batch, torch.ones_like(batch.reward))
    lambdas = (1 - 1 / (alpha * length.clamp(min=1))).clamp(min=0)
    return _lambda_return(batch, lambdas[batch.episode])


def _lambda_return(batch: Batch, lambdas: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """y_t = r_t + γ [(1 − λ_t) V(s_{t+1}) + λ_t y_{t+1}]."""
    following = _shift(_value_or_next(batch))
    carry = _carry(batch, batch.discount)
    # a masked step hands on what follows it whole: λ must not apply there
    mixed = torch.where(batch.mask, carry * (1 - lambdas) * following, 0)
    decay = torch.where(batch.mask, carry * lambdas, carry)
    return recursion(_reward_and_bootstrap(batch) + mixed, decay)


@declares(needs=("value", "log_prob"), provided=("true_value",))
def vtrace(
    batch: Batch,
    *,
    log_prob: Float[Tensor, "N T"],
    rho_max: float = 1.0,
    c_max: float = 1.0,
    lambda_: float = 1.0,
    remainder: bool = False,
) -> Float[Tensor, "N T"]:
    """The V-trace estimate of Q(s_t, a_t), for actions that an older policy chose.

    Equation: y_t = r_t + γ v_{t+1}, with the target v of `vtrace_target`; with `remainder` y_t =
        r_t + γ [λ v_{t+1} + (1 − λ) V(s_{t+1})], which is `gae` on policy where c̄, ρ̄ ≥ 1.
    Shapes: [N, T]; log_prob [N, T] under the current policy, batch.log_prob under the older one.
    Source: Espeholt et al. 2018, IMPALA, equation 1 and section 4.2; the remainder as rlax has it.
    Unbiased when: V is the true value of the policy, on policy, with the factor γ^t (or γ = 1). On
        policy and with c̄ = ρ̄ = λ = 1 it is `to_go` and V does not matter.
    """
    target = vtrace_target(batch, log_prob=log_prob, rho_max=rho_max, c_max=c_max, lambda_=lambda_)
    if remainder:
        target = lambda_ * target + (1 - lambda_) * _value_or_next(batch)
    following = _shift(target)  # at a masked step it is that of the next counted one
    return _reward_and_bootstrap(batch) + _carry(batch, batch.discount) * following


@declares(needs=("value", "log_prob"))
def vtrace_target(
    batch: Batch,
    *,
    log_prob: Float[Tensor, "N T"],
    rho_max: float = 1.0,
    c_max: float = 1.0,
    lambda_: float = 1.0,
) -> Float[Tensor, "N T"]:
    """The V-trace target of the value function.

    Equation: v_t = V(s_t) + ρ_t δ_t + γ c_t (v_{t+1} − V(s_{t+1})), ρ_t = min(ρ̄, π/μ),
        c_t = λ min(c̄, π/μ), δ_t = r_t + γ V(s_{t+1}) − V(s_t).
    Shapes: [N, T].
    Source: Espeholt et al. 2018, remark 1.
    Unbiased when: on policy with c̄ = ρ̄ = λ = 1, where it is `to_go`; else for a policy between
        the two.
    """
    values, carry = _value_or_next(batch), _carry(batch, batch.discount)
    ratio = (log_prob - batch.log_prob).exp()  # read at counted steps alone
    delta = _reward_and_bootstrap(batch) + carry * _shift(values) - values
    rho, c = ratio.clamp(max=rho_max), lambda_ * ratio.clamp(max=c_max)
    excess = recursion(
        torch.where(batch.mask, rho * delta, 0), carry * torch.where(batch.mask, c, 1)
    )
    return values + excess


@declares(needs=("action_value", "log_prob"))
def retrace_target(
    batch: Batch,
    *,
    action_value: Float[Tensor, "N T"],
    log_prob: Float[Tensor, "N T"],
    lambda_: float = 1.0,
) -> Float[Tensor, "N T"]:
    """What Q(s_t, a_t) is fitted to: Retrace, safe for samples of any policy.

    Equation: y_t = r_t + γ [V(s_{t+1}) + c_{t+1} (y_{t+1} − Q(s_{t+1}, a_{t+1}))],
        c_t = λ min(1, π/μ), V = Σ_a π Q = `batch.value`; at a truncation y_t = r_t + γ V(true final
        observation). In sums: y_t = Q_t + Σ_{k≥t} γ^{k−t} (Π_{t<i≤k} c_i) (r_k + γ V(s_{k+1}) −
        Q_k).
    Shapes: [N, T]; action_value [N, T] is Q(s_t, a_t), log_prob [N, T] of the policy that Q is
        fitted for.
    Source: Munos et al. 2016, equations 3 and 4.
    Unbiased when: λ = 1 and nothing is cut, which is so on policy; or Q is that of the policy.
    """
    values, carry = _value_or_next(batch), _carry(batch, batch.discount)
    ratio = (log_prob - batch.log_prob).exp()  # read at counted steps alone
    c = lambda_ * ratio.clamp(max=1)
    gain = _reward_and_bootstrap(batch)
    # u_t = V_t + c_t (y_t − Q_t), and y_t = r_t + γ u_{t+1}
    beyond = recursion(
        torch.where(batch.mask, values + c * (gain - action_value), 0),
        torch.where(batch.mask, c, 1) * carry,
    )
    return gain + carry * _shift(beyond)


def _reward_and_bootstrap(batch: Batch) -> Float[Tensor, "N T"]:
    # where, not a product: padding may hold anything, NaN included
    return torch.where(batch.mask, batch.reward + batch.discount * batch.bootstrap, 0)


def _carry(batch: Batch, factor: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """`factor` where the next step continues this one, 1 at masked steps, 0 after a boundary."""
    return torch.where(batch.boundary, 0, torch.where(batch.mask, factor, 1))


def _value_or_next(batch: Batch) -> Float[Tensor, "N T"]:
    """V(s_t), and at a masked step that of the next counted one."""
    assert batch.value is not None  # Estimator.advantage refuses a batch without values
    return _at_next(batch, batch.value)


def _at_next(batch: Batch, steps: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """A per-step tensor read at the next counted step, this one included; 0 where there is none."""
    source, exists = _next_counted(batch.mask)
    return torch.where(exists, steps.gather(1, source), 0)


def _next_counted(mask: Bool[Tensor, "N T"]) -> tuple[Tensor, Bool[Tensor, "N T"]]:
    last = mask.shape[1]
    steps = torch.where(mask, torch.arange(last, device=mask.device), last)
    following = steps.flip(1).cummin(1).values.flip(1)
    return following.clamp(max=last - 1), following < last


def _shift(steps: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The next step's entry, 0 after the last."""
    return torch.cat([steps[:, 1:], torch.zeros_like(steps[:, :1])], 1)
