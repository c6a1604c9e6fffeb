"""Mean and variance of one trajectory's gradient estimate, without sampling and in polynomial time.

First and second moments of (G, g), the return and the estimate from a state on, solve linear
equations along the chain, one after the other (`vantage.exact.to_go` has them for weights by the
return from a step on, `vantage.exact.total` for weights by the total return). With e = E[g|s] and
q = E[‖g‖²|s] they give E ĝ = ρ0·e and tr Cov(ĝ) = ρ0·q − ‖ρ0·e‖². Aliased observations, shared
parameters and horizons need no change.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.exact.chain import chain
from vantage.exact.mdp import MDP
from vantage.exact.recursion import Recursion
from vantage.exact.scores import scores
from vantage.exact.to_go import ToGo
from vantage.exact.total import Total


@dataclass(frozen=True)
class Moments:
    """Exact moments of ĝ, the gradient estimate of one trajectory.

    The trace splits into three parts that add up to it:

    * `state`: tr Cov over start states of E[ĝ | s_0]. No baseline changes it.
    * `action`: V(b) − V(b*), what the best baseline would remove: of the state, or of state and
      step where b is.
    * `rest`: what is left: transitions, rewards, later decisions.

    Attributes:
        mean: [P] E ĝ.
        trace: tr Cov(ĝ), scalar; that of a mean over m independent trajectories is trace / m.
        baseline: [S], or [H, S] if one was given for every step.
        variance: [P] variance of each parameter's entry if asked for, else None; sums to `trace`.
        state, action, rest: the decomposition of `trace`, scalars.
    """

    mean: Float[Tensor, " P"]
    trace: Float[Tensor, ""]
    baseline: Float[Tensor, "*H S"]
    variance: Float[Tensor, " P"] | None
    state: Float[Tensor, ""]
    action: Float[Tensor, ""]
    rest: Float[Tensor, ""]


def moments(
    mdp: MDP,
    policy: nn.Module,
    baseline: str | Float[Tensor, "*H S"] = "none",
    returns: str = "to_go",
    *,
    discounted: bool = True,
    by_parameter: bool = False,
) -> Moments:
    """Mean and covariance trace of ĝ = Σ_t κ^t ∇ log π(a_t|s_t) (R_t − b(s_t)).

    Args:
        mdp, policy: the process and what acts in it.
        baseline: "none"; "value", V(s); "norm_weighted", [7]
            (also called "per_decision"); "trajectory", the one that
            minimises the trace; "constant", the best single number; or a tensor [S], or [H, S] for
            one that also depends on the step of a horizon of H.
        returns: "to_go", R_t = Σ_{k≥t} γ^{k−t} r_k as in [8]; "total", R(τ) as in [5] and [6].
        discounted: False drops the factor γ^t from to-go terms (κ = 1). Total returns have none.
        by_parameter: whether to give the variance of every parameter too.

    Source: baselines: Greensmith, Bartlett & Baxter 2004; Peters & Schaal 2008; the page "The eight
        equations" derives the recursion.

    Raises:
        InputError: a baseline that does not exist or fit; a policy that may never terminate where
            nothing discounts the sum; tables that would not fit in memory.
    """
    estimate = recursion_for(mdp, policy, returns, discounted)
    timed = isinstance(baseline, Tensor) and baseline.ndim == 2
    best = estimate.timed_best() if timed else estimate.levels("trajectory")
    same = isinstance(baseline, str) and baseline == "trajectory"
    levels = best if same else estimate.levels(baseline)
    mean, second = estimate.moments(levels)
    start = mdp.initial
    G = start @ mean[0]
    trace = start @ second[0, :, 0] - G @ G
    state = start @ (mean[0] - G).square().sum(1)
    action = (estimate.curvature() * (levels - best).square()).sum()
    variance = None
    if by_parameter:
        each = recursion_for(mdp, policy, returns, discounted, by_parameter=True)
        variance = start @ each.moments(levels)[1][0] - G.square()
    return Moments(
        G, trace, levels if timed else levels[0], variance, state, action, trace - state - action
    )


def recursion_for(
    mdp: MDP, policy: nn.Module, returns: str, discounted: bool, by_parameter: bool = False
) -> Recursion:
    """The recursion for one kind of returns."""
    refuse_unless(
        returns in ("to_go", "total"),
        f"exact.moments(returns={returns!r}): choose 'to_go' or 'total'.",
    )
    kappa = mdp.discount if discounted and returns == "to_go" else 1.0
    with torch.no_grad():
        process = chain(mdp, policy, kappa).dense()
    psi = scores(process, policy, by_parameter)
    return ToGo(process, psi, kappa) if returns == "to_go" else Total(process, psi)
