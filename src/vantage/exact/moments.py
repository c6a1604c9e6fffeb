"""Mean and variance of one trajectory's gradient estimate, without sampling and in polynomial time.

With to-go returns a trajectory's estimate obeys g = ψ(s,a)(G − b(s)) + κ g', G = r + γ G', where
κ = γ keeps the factor γ^t on each term and κ = 1 drops it. First and second moments of (G, g) given
the state then solve linear equations along the chain, one after the other:

    v = E[G|s], m₂ = E[G²|s]
    e = E[g|s]       e = E_a[ψ (Q − b)] + κ P e
    c = E[G g|s]     c = E_a[ψ (Q₂ − b Q)] + κ E[r e'] + κγ P c
    q = E[‖g‖²|s]    q = E_a[‖ψ‖² (Q₂ − 2bQ + b²) + 2κ ψ·((r − b) e' + γ c')] + κ² P q

so E ĝ = ρ0·e and tr Cov(ĝ) = ρ0·q − ‖ρ0·e‖². Aliased observations, shared parameters and horizons
need no change. Weights by the total return R need E[G^k g] for k ≤ 2 and close in the same way
(`vantage.exact.total`).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.exact.chain import Chain, chain
from vantage.exact.kernels import Kernel, kernel
from vantage.exact.mdp import MDP
from vantage.exact.scores import Scores, scores
from vantage.exact.solve import action_values, state_values

KINDS = ("none", "value", "per_decision", "trajectory", "constant")


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
        baseline: "none"; "value", V(s); "per_decision", [7]; "trajectory", the one that
            minimises the trace; "constant", the best single number; or a tensor [S], or [H, S] for
            one that also depends on the step of a horizon of H.
        returns: "to_go", R_t = Σ_{k≥t} γ^{k−t} r_k as in [8]; "total", R(τ) as in [5] and [6].
        discounted: False drops the factor γ^t from to-go terms (κ = 1). Total returns have none.
        by_parameter: whether to give the variance of every parameter too.

    Source: theory of Vantage, section 5; baselines: Greensmith, Bartlett & Baxter 2004, Peters &
        Schaal 2008, and `vantage.exact.baselines`.

    Raises:
        InputError: a baseline that does not exist or fit; a policy that may never terminate where
            nothing discounts the sum; tables that would not fit in memory.
    """
    estimate = estimate_for(mdp, policy, returns, discounted)
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
        each = estimate_for(mdp, policy, returns, discounted, by_parameter=True)
        variance = start @ each.moments(levels)[1][0] - G.square()
    return Moments(
        G, trace, levels if timed else levels[0], variance, state, action, trace - state - action
    )


@dataclass(frozen=True)
class Estimate:
    """One trajectory's estimate along a chain: what its moments and optimal baselines are made of.

    Tensors over states have a leading dimension of layers, L: see `vantage.exact.chain`.
    """

    process: Chain
    scores: Scores

    @property
    def mdp(self) -> MDP:
        """The process."""
        return self.process.mdp

    @cached_property
    def kernels(self) -> tuple[Kernel, Kernel, Kernel]:
        """M_0, M_1, M_2."""
        return kernel(self.mdp, 0), kernel(self.mdp, 1), kernel(self.mdp, 2)

    @cached_property
    def V(self) -> Float[Tensor, "L S 1"]:  # noqa: N802
        """E[G|s]."""
        return state_values(self.process)

    @cached_property
    def Q(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[G|s,a]."""
        return action_values(self.process, self.V)

    @cached_property
    def Q2(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[G²|s,a] = E r² + 2γ E[r v'] + γ² E[m₂']."""
        gamma, (P0, P1, P2) = self.mdp.discount, self.kernels
        one = torch.ones(self.mdp.states, 1, dtype=torch.float64)
        known = P2.ahead(one)[..., 0] + 2 * gamma * self.ahead(P1, self.V)
        second = self.process.backward(self.process.mean(known), gamma**2)
        return known + gamma**2 * self.ahead(P0, second)

    def ahead(self, step: Kernel, f: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S A"]:
        """(M f')(s,a) by layer, f' being f one step later."""
        return torch.stack([step.ahead(x)[..., 0] for x in self.process.next_layer(f)])

    def over_actions(self, step: Kernel, f: Float[Tensor, "L S P"]) -> Float[Tensor, "L S P"]:
        """E_a[(M f')(s,a)] by layer."""
        averaged = step.under(self.process.policy)
        return torch.stack([averaged @ x for x in self.process.next_layer(f)])

    def mean(self, w: Float[Tensor, "L S A"]) -> Float[Tensor, "L S P"]:
        """E_a[w ψ] by layer."""
        return torch.stack([self.scores.mean(x) for x in w])

    def square(self, w: Float[Tensor, "L S A"]) -> Float[Tensor, "L S K"]:
        """E_a[w ψ·ψ] by layer."""
        return torch.stack([self.scores.square(x) for x in w])

    def product(self, step: Kernel, f: Float[Tensor, "L S P"]) -> Float[Tensor, "L S K"]:
        """E_a[ψ · (M f')(s,a)] by layer."""
        return torch.stack([self.scores.product(step, x) for x in self.process.next_layer(f)])

    @cached_property
    def norm(self) -> Float[Tensor, "S K"]:
        """E_a ‖ψ‖²."""
        return self.scores.square(torch.ones_like(self.process.policy))

    def moments(
        self, b: Float[Tensor, "L S"]
    ) -> tuple[Float[Tensor, "L S P"], Float[Tensor, "L S K"]]:
        """E[g|s] and E[g·g|s] with baseline b."""
        raise NotImplementedError

    def curvature(self) -> Float[Tensor, "L S"]:
        """Half the trace's second derivative in b(s), by layer: E Σ_t 1{s_t=s} κ^{2t} ‖ψ_t‖²."""
        raise NotImplementedError

    def slope(self) -> Float[Tensor, "L S"]:
        """The trace is least where curvature · b = slope, for any key that b depends on."""
        raise NotImplementedError

    def decision_slope(self) -> Float[Tensor, "L S"]:
        """`slope` when a decision is taken by itself: E Σ_t 1{s_t=s} κ^{2t} ‖ψ_t‖² R_t."""
        raise NotImplementedError

    def visits(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} κ^{2t}, the weight of a state in the variance."""
        raise NotImplementedError

    def levels(self, baseline: str | Float[Tensor, "*H S"]) -> Float[Tensor, "L S"]:
        """A baseline by name or by value, spread over layers.

        A named one depends on the state alone: with a horizon it pools the visits of a state at all
        times, as a baseline must that does not know the time.
        """
        shape = (self.process.layers, self.mdp.states)
        if isinstance(baseline, Tensor):
            fits = baseline.shape in (shape[1:], shape)
            refuse_unless(
                fits,
                f"exact.moments(baseline) has shape {tuple(baseline.shape)}; give "
                f"[S] = [{shape[1]}]" + (f" or [H, S] = {list(shape)}." if shape[0] > 1 else "."),
            )
            return baseline.to(torch.float64).expand(shape)
        refuse_unless(
            baseline in KINDS,
            f"exact.moments(baseline={baseline!r}): choose one of {', '.join(KINDS)}, or give a "
            "tensor [S].",
        )
        return self.named(baseline).expand(shape)

    def timed_best(self) -> Float[Tensor, "L S"]:
        """The baseline of state and step that minimises the trace."""
        return _ratio(self.slope(), self.curvature(), self.V[..., 0])

    def named(self, baseline: str) -> Float[Tensor, " S"]:
        """A baseline by name, [S]."""
        value = _ratio(
            (self.visits() * self.V[..., 0]).sum(0), self.visits().sum(0), self.V[0, :, 0]
        )
        if baseline == "none":
            return torch.zeros_like(value)
        if baseline == "value":
            return value
        weight = self.curvature()
        if baseline == "constant":
            level = _ratio(self.slope().sum(), weight.sum(), torch.zeros((), dtype=torch.float64))
            return level.expand_as(value)
        slope = self.slope() if baseline == "trajectory" else self.decision_slope()
        return _ratio(slope.sum(0), weight.sum(0), value)


@dataclass(frozen=True)
class ToGo(Estimate):
    """ĝ = Σ_t κ^t ψ_t (R_t − b(s_t)), R_t the return from t on."""

    kappa: float

    def moments(
        self, b: Float[Tensor, "L S"]
    ) -> tuple[Float[Tensor, "L S P"], Float[Tensor, "L S K"]]:
        """E[g|s] and E[g·g|s] with baseline b: e and q above."""
        gamma, kappa, process = self.mdp.discount, self.kappa, self.process
        P0, P1, _ = self.kernels
        b = b[..., None]
        e = self.e
        source = self.mean(self.Q2 - b * self.Q) + kappa * self.over_actions(P1, e)
        c = process.backward(source, kappa * gamma)
        cross = self.product(P1, e) - b * self.product(P0, e) + gamma * self.product(P0, c)
        own = self.square(self.Q2 - 2 * b * self.Q + b.square())
        return e, process.backward(own + 2 * kappa * cross, kappa**2)

    @cached_property
    def e(self) -> Float[Tensor, "L S P"]:
        """E[g|s]; the baseline drops out, for the score has zero mean."""
        return self.process.backward(self.mean(self.Q), self.kappa)

    def visits(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} κ^{2t}."""
        return self._visits[..., 0]

    @cached_property
    def _visits(self) -> Float[Tensor, "L S 1"]:
        return self.process.forward(self.process.start, self.kappa**2)

    def curvature(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} κ^{2t} ‖ψ_t‖²."""
        return self.visits() * self.norm[:, 0]

    def decision_slope(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} κ^{2t} ‖ψ_t‖² R_t, the numerator of [7]."""
        return self.visits() * self.square(self.Q)[..., 0]

    def slope(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} κ^t ψ_t · ĝ0, ĝ0 the estimate without a baseline.

        Of ĝ0 the part that later decisions make is κ^{t+1} e'; of the part that earlier ones make,
        only their share γ^{t−t'} G_t of the return still to come depends on a_t.
        """
        gamma, kappa, process = self.mdp.discount, self.kappa, self.process
        pushed = torch.stack([self.scores.onward(self.kernels[0], d) for d in self.visits()])
        earlier = process.forward(
            kappa * gamma * process.previous_layer(pushed), kappa * gamma
        )  # E Σ_t 1{s_t=s} κ^t Σ_{t'<t} κ^{t'} γ^{t−t'} ψ_t'
        later = self.visits() * kappa * self.product(self.kernels[0], self.e)[..., 0]
        return self.decision_slope() + later + (earlier * self.mean(self.Q)).sum(-1)


def estimate_for(
    mdp: MDP, policy: nn.Module, returns: str, discounted: bool, by_parameter: bool = False
) -> Estimate:
    """The recursion for one kind of returns."""
    from vantage.exact.total import Total

    refuse_unless(
        returns in ("to_go", "total"),
        f"exact.moments(returns={returns!r}): choose 'to_go' or 'total'.",
    )
    kappa = mdp.discount if discounted and returns == "to_go" else 1.0
    with torch.no_grad():
        process = chain(mdp, policy, kappa).dense()
    psi = scores(process, policy, by_parameter)
    return ToGo(process, psi, kappa) if returns == "to_go" else Total(process, psi)


def _ratio(above: Tensor, below: Tensor, otherwise: Tensor) -> Tensor:
    """above / below, and `otherwise` where the state is never visited or never chooses."""
    some = below > 0
    return torch.where(some, above / torch.where(some, below, 1.0), otherwise)
