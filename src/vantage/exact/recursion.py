"""What the moments and best baselines of one trajectory's estimate are made of, along a chain.

`vantage.exact.to_go` and `vantage.exact.total` are the two kinds: weights by the return from a step
on, and by the return of the whole trajectory.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.errors import refuse_unless
from vantage.exact.chain import Chain
from vantage.exact.kernels import Kernel, kernel
from vantage.exact.mdp import MDP
from vantage.exact.scores import ActionScores
from vantage.exact.solve import action_values, state_values

KINDS = ("none", "value", "norm_weighted", "trajectory", "constant")
ALIASES = {"per_decision": "norm_weighted"}  # its name before 0.2


@dataclass(frozen=True)
class Recursion:
    """One trajectory's estimate along a chain: what its moments and optimal baselines are made of.

    Tensors over states have a leading dimension of layers, L: see `vantage.exact.chain`.
    """

    process: Chain
    scores: ActionScores

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
        baseline = ALIASES.get(baseline, baseline)
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


def _ratio(above: Tensor, below: Tensor, otherwise: Tensor) -> Tensor:
    """above / below, and `otherwise` where the state is never visited or never chooses."""
    some = below > 0
    return torch.where(some, above / torch.where(some, below, 1.0), otherwise)
