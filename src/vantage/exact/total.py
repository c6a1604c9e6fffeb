"""Moments of full-return REINFORCE: ĝ = Σ_t ψ_t (R(τ) − b(s_t)).

Write ĝ = R S − B with S = Σ_t ψ_t and B = Σ_t ψ_t b(s_t). From a state on, S = ψ + S', B = ψ b + B'
and G = r + γ G', so the moments E[G^k X|s] and E[G^k X·Y|s] for X, Y in {S, B} and k ≤ 2 solve

    n_k = E_a[ψ x Q_k] + Σ_j C(k,j) γ^j E[r^{k−j} n_j']
    m_k = E_a[‖ψ‖² x y Q_k + ψ·(x E[G^k Y'] + y E[G^k X'])] + Σ_j C(k,j) γ^j E[r^{k−j} m_j']

with x = 1 for S and b(s) for B, Q_k = E[G^k|s,a], and n_0 = 0 because scores have zero mean.
"""

from dataclasses import dataclass
from functools import cached_property
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.exact.recursion import Recursion


@dataclass(frozen=True)
class Total(Recursion):
    """ĝ = Σ_t ψ_t (R(τ) − b(s_t))."""

    def moments(
        self, b: Float[Tensor, "L S"]
    ) -> tuple[Float[Tensor, "L S P"], Float[Tensor, "L S K"]]:
        """E[g|s] = E[G S|s] and E[g·g|s] = E[G² S·S − 2 G S·B + B·B | s]."""
        one = torch.ones_like(b)
        S, B = self._vectors(one), self._vectors(b)
        SS = self._products(one, one, S, S, 2)
        SB = self._products(one, b, S, B, 1)
        BB = self._products(b, b, B, B, 0)
        return S[1], SS[2] - 2 * SB[1] + BB[0]

    def score_moments(self) -> tuple[Float[Tensor, "L S P"], list[Float[Tensor, "L S K"]]]:
        """E[G S|s], and E[G^k S·S|s] for k = 0, 1, 2."""
        one = torch.ones_like(self.Q[..., 0])
        S = self._vectors(one)
        return S[1], self._products(one, one, S, S, 2)

    @cached_property
    def _powers(self) -> tuple[Float[Tensor, "L S A"], ...]:
        """E[G^k|s,a] for k = 0, 1, 2."""
        return torch.ones_like(self.Q), self.Q, self.Q2

    def _vectors(self, x: Float[Tensor, "L S"]) -> list[Float[Tensor, "L S P"]]:
        """n_k for k = 0, 1, 2."""
        gamma = self.mdp.discount
        n: list[Tensor] = []
        for k in range(3):
            known = self.mean(x[..., None] * self._powers[k])
            for j in range(1, k):
                known = known + comb(k, j) * gamma**j * self.over_actions(self.kernels[k - j], n[j])
            n.append(self.process.backward(known, gamma**k))
        return n

    def _products(
        self,
        x: Float[Tensor, "L S"],
        y: Float[Tensor, "L S"],
        X: list[Float[Tensor, "L S P"]],
        Y: list[Float[Tensor, "L S P"]],
        highest: int,
    ) -> list[Float[Tensor, "L S K"]]:
        """m_k for k = 0 .. highest."""
        gamma, x, y = self.mdp.discount, x[..., None], y[..., None]
        m: list[Tensor] = []
        for k in range(highest + 1):
            known = self.square(x * y * self._powers[k])
            known = known + x * self._score_times(k, Y) + y * self._score_times(k, X)
            for j in range(k):
                known = known + comb(k, j) * gamma**j * self.over_actions(self.kernels[k - j], m[j])
            m.append(self.process.backward(known, gamma**k))
        return m

    def _score_times(self, k: int, n: list[Float[Tensor, "L S P"]]) -> Float[Tensor, "L S K"]:
        """E_a[ψ · E[G^k X' | s, a]]."""
        gamma = self.mdp.discount
        terms = [
            comb(k, j) * gamma**j * self.product(self.kernels[k - j], n[j]) for j in range(1, k + 1)
        ]
        return (
            torch.stack(terms).sum(0)
            if terms
            else torch.zeros_like(self.norm).expand(len(n[0]), -1, -1)
        )

    @cached_property
    def _visits(self) -> Float[Tensor, "L S 1"]:
        return self.process.forward(self.process.start, 1.0)

    @cached_property
    def _discounted_visits(self) -> Float[Tensor, "L S 1"]:
        """E Σ_t 1{s_t=s} γ^t."""
        return self.process.forward(self.process.start, self.mdp.discount)

    @cached_property
    def _gathered(self) -> Float[Tensor, "L S 1"]:
        """E Σ_t 1{s_t=s} Σ_{k<t} γ^k r_k: reward gathered before each visit."""
        pi = self.process.policy
        flow = [self.kernels[1].onward((d * pi)[..., None]) for d in self._discounted_visits]
        return self.process.forward(self.process.previous_layer(torch.stack(flow)), 1.0)

    def visits(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s}."""
        return self._visits[..., 0]

    def curvature(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} ‖ψ_t‖²."""
        return self.visits() * self.norm[:, 0]

    def decision_slope(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} ‖ψ_t‖² R: reward gathered before t, and γ^t times the return from t on."""
        ahead = self._discounted_visits[..., 0] * self.square(self.Q)[..., 0]
        return self._gathered[..., 0] * self.norm[:, 0] + ahead

    def slope(self) -> Float[Tensor, "L S"]:
        """E Σ_t 1{s_t=s} ψ_t · S R.

        Earlier scores matter through γ^t G_t, which a_t influences; later ones through E[G^1 S'].
        """
        gamma, process = self.mdp.discount, self.process
        visits = self._discounted_visits[..., 0]
        pushed = torch.stack([self.scores.onward(self.kernels[0], d) for d in visits])
        earlier = process.forward(gamma * process.previous_layer(pushed), gamma)
        later = visits * self._score_times(1, self._vectors(torch.ones_like(visits)))[..., 0]
        return self.decision_slope() + later + (earlier * self.mean(self.Q)).sum(-1)
