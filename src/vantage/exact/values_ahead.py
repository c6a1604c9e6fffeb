"""Moments of estimates that look at V ahead: λ-returns and n-step returns, minus a baseline.

As in `vantage.exact.to_go`, g = ψ(s,a)(y − b(s)) + κ g', where the return y is now one of

    λ-return    y = r + γ u',      u = (1 − λ) V(s) + λ y
    n steps     y = y_n,           y_j = r + γ y_{j−1}', y_0 = V(s)

and what follows the end of an episode or of a horizon is worth nothing. The recursion of q needs
E[y|s,a], E[y²|s,a] and c = E[z g|s], with z what y takes from the next state: u, or y_{n−1}.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.exact.to_go import ToGo


@dataclass(frozen=True)
class ValuesAhead(ToGo):
    """ĝ = Σ_t κ^t ψ_t (y_t − b(s_t)).

    Attributes:
        worth: [S] V(s), 0 in terminal states.
    """

    worth: Float[Tensor, " S"]

    @cached_property
    def known(self) -> Float[Tensor, "L S 1"]:
        """V by layer."""
        return self.worth[:, None].expand(self.process.layers, -1, 1)

    @cached_property
    def rewards(self) -> tuple[Float[Tensor, "S A"], Float[Tensor, "S A"]]:
        """E[r|s,a] and E[r²|s,a]."""
        one = torch.ones(self.mdp.states, 1, dtype=torch.float64)
        return self.kernels[1].ahead(one)[..., 0], self.kernels[2].ahead(one)[..., 0]

    def moments(
        self, b: Float[Tensor, "L S"]
    ) -> tuple[Float[Tensor, "L S P"], Float[Tensor, "L S K"]]:
        """E[g|s] and E[g·g|s] with baseline b."""
        gamma, kappa = self.mdp.discount, self.kappa
        P0, P1, _ = self.kernels
        b = b[..., None]
        cross = self.product(P1, self.e) - b * self.product(P0, self.e)
        cross = cross + gamma * self.product(P0, self.ahead_times_estimate(b))
        squares = self.square(self.Q2 - 2 * b * self.Q + b.square())
        return self.e, self.process.backward(squares + 2 * kappa * cross, kappa**2)

    def ahead_times_estimate(self, b: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S P"]:
        """E[z g|s]."""
        raise NotImplementedError


@dataclass(frozen=True)
class LambdaReturns(ValuesAhead):
    """y_t = r_t + γ [(1 − λ) V(s_{t+1}) + λ y_{t+1}]."""

    lambda_: float

    @cached_property
    def _fixed(self) -> Float[Tensor, "L S 1"]:
        return (1 - self.lambda_) * self.known

    @cached_property
    def V(self) -> Float[Tensor, "L S 1"]:  # noqa: N802
        """E[y|s]."""
        gamma = self.mdp.discount
        source = self.rewards[0] + gamma * self.ahead(self.kernels[0], self._fixed)
        return self.process.backward(self.process.mean(source), gamma * self.lambda_)

    @cached_property
    def Q(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[y|s,a]."""
        u = self._fixed + self.lambda_ * self.V
        return self.rewards[0] + self.mdp.discount * self.ahead(self.kernels[0], u)

    @cached_property
    def Q2(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[y²|s,a]."""
        gamma, lambda_, (P0, P1, _) = self.mdp.discount, self.lambda_, self.kernels
        w, v = self._fixed, self.V
        known = self.rewards[1] + 2 * gamma * self.ahead(P1, w + lambda_ * v)
        known = known + gamma**2 * self.ahead(P0, w.square() + 2 * lambda_ * w * v)
        second = self.process.backward(self.process.mean(known), (gamma * lambda_) ** 2)
        return known + (gamma * lambda_) ** 2 * self.ahead(P0, second)

    def ahead_times_estimate(self, b: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S P"]:
        """E[u g|s] = (1 − λ) V e + λ E[y g|s]."""
        gamma, kappa, (P0, P1, _) = self.mdp.discount, self.kappa, self.kernels
        fixed = self._fixed * self.e
        source = self.mean(self.Q2 - b * self.Q) + kappa * self.over_actions(P1, self.e)
        source = source + kappa * gamma * self.over_actions(P0, fixed)
        return fixed + self.lambda_ * self.process.backward(source, kappa * gamma * self.lambda_)


@dataclass(frozen=True)
class Steps(ValuesAhead):
    """y_t = Σ_{k<n} γ^k r_{t+k} + γ^n V(s_{t+n})."""

    n: int

    @cached_property
    def _values(self) -> list[Float[Tensor, "L S 1"]]:
        """E[y_j|s] for j = 0 … n − 1."""
        values = [self.known]
        for _ in range(self.n - 1):
            values.append(self.process.mean(self._following(values[-1])))
        return values

    def _following(self, v: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S A"]:
        return self.rewards[0] + self.mdp.discount * self.ahead(self.kernels[0], v)

    @cached_property
    def Q(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[y_n|s,a]."""
        return self._following(self._values[-1])

    @cached_property
    def _products(self) -> list[Float[Tensor, "L S A"]]:
        """E[y_j y_n|s,a] for j = 1 … n, by E[y_i y_{i+k}|s], k = n − j, from i = 0 on."""
        gamma, (P0, P1, _) = self.mdp.discount, self.kernels
        values, products = self._values, []
        for j in range(1, self.n + 1):
            gap = self.n - j
            both, product = self.known * values[gap], self.Q
            for i in range(1, j + 1):
                near, far = values[i - 1], values[i - 1 + gap]
                product = self.rewards[1] + gamma * self.ahead(P1, near + far)
                product = product + gamma**2 * self.ahead(P0, both)
                both = self.process.mean(product)
            products.append(product)
        return products

    @cached_property
    def Q2(self) -> Float[Tensor, "L S A"]:  # noqa: N802
        """E[y_n²|s,a]."""
        return self._products[-1]

    def ahead_times_estimate(self, b: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S P"]:
        """E[y_{n−1} g|s], from E[y_0 g|s] = V e on."""
        gamma, kappa, (P0, P1, _) = self.mdp.discount, self.kappa, self.kernels
        c = self.known * self.e
        onward = kappa * self.over_actions(P1, self.e)
        for j in range(1, self.n):
            now = self.mean(self._products[j - 1] - b * self._following(self._values[j - 1]))
            c = now + onward + kappa * gamma * self.over_actions(P0, c)
        return c
