"""Moments of to-go REINFORCE: ĝ = Σ_t κ^t ψ_t (R_t − b(s_t)).

A trajectory's estimate obeys g = ψ(s,a)(G − b(s)) + κ g', G = r + γ G', where κ = γ keeps the
factor γ^t on each term and κ = 1 drops it. Its moments given the state solve

    v = E[G|s], m₂ = E[G²|s]
    e = E[g|s]       e = E_a[ψ (Q − b)] + κ P e
    c = E[G g|s]     c = E_a[ψ (Q₂ − b Q)] + κ E[r e'] + κγ P c
    q = E[‖g‖²|s]    q = E_a[‖ψ‖² (Q₂ − 2bQ + b²) + 2κ ψ·((r − b) e' + γ c')] + κ² P q
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.exact.recursion import Recursion


@dataclass(frozen=True)
class ToGo(Recursion):
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
        squares = self.square(self.Q2 - 2 * b * self.Q + b.square())
        return e, process.backward(squares + 2 * kappa * cross, kappa**2)

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
