"""Continuous actions with exact answers: the one-step Gaussian problem, and LQR with exploration.

Flat vectors follow the parameters of `vantage.Gaussian`: log σ first, then those of the mean.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vantage.errors import refuse_unless

DEGREE = 6  # of E[‖g‖² | x] in x: two from the score, four from the square of a quadratic return
NODES = 5  # Gauss–Hermite nodes a dimension: exact to degree 9; the highest that occurs is 8
POINTS = 200_000  # largest quadrature grid


class GaussianMoments(NamedTuple):
    """Exact moments of one sample's estimate: `mean` [P] and `trace` of its covariance, scalar."""

    mean: Float[Tensor, " P"]
    trace: Float[Tensor, ""]


@dataclass(frozen=True)
class OneStepGaussian:
    """a ~ N(μ, σ²), reward r(a) = peak − curvature/2 (a − target)²; parameters (log σ, μ).

    Attributes:
        target, curvature, peak: of the reward.

    >>> problem = OneStepGaussian(target=1.0)
    >>> problem.gradient(mean=0.0, log_std=0.0)
    tensor([-1.,  1.], dtype=torch.float64)
    """

    target: float = 0.0
    curvature: float = 1.0
    peak: float = 0.0

    def objective(self, mean: float, log_std: float) -> float:
        """J = peak − curvature/2 ((μ − target)² + σ²)."""
        variance = float(np.exp(2 * log_std))
        return self.peak - self.curvature / 2 * ((mean - self.target) ** 2 + variance)

    def gradient(self, mean: float, log_std: float) -> Float[Tensor, " 2"]:
        """∇J = (−curvature σ², −curvature (μ − target))."""
        variance = float(np.exp(2 * log_std))
        slope = -self.curvature * (mean - self.target)
        return torch.tensor([-self.curvature * variance, slope], dtype=torch.float64)

    def best_baseline(self, mean: float, log_std: float) -> float:
        """[7]: E[‖g‖² r] / E[‖g‖²], which a single decision makes optimal."""
        std = float(np.exp(log_std))
        C = self.curvature * std**2 / 2
        above = C * (3 / std**2 + 10) / (1 / std**2 + 2)
        return self.peak - self.curvature / 2 * (mean - self.target) ** 2 - above

    def moments(self, mean: float, log_std: float, baseline: float = 0.0) -> GaussianMoments:
        """Mean and covariance trace of ψ(a) (r(a) − b) for one action.

        With z = (a − μ)/σ: ψ = (z² − 1, z/σ) and r − b = A − B z − C z², so the second moments are
        those of a normal variable up to z⁸.
        """
        std, offset = float(np.exp(log_std)), mean - self.target
        A = self.peak - baseline - self.curvature / 2 * offset**2
        B, C = self.curvature * offset * std, self.curvature * std**2 / 2
        of_mean = (A**2 + 3 * B**2 + 15 * C**2 - 6 * A * C) / std**2
        of_log_std = 2 * A**2 + 10 * B**2 + 78 * C**2 - 20 * A * C
        G = self.gradient(mean, log_std)
        return GaussianMoments(G, of_mean + of_log_std - G @ G)


@dataclass(frozen=True)
class LQR:
    """x' = A x + B u + w, reward −(xᵀ state_cost x + uᵀ action_cost u), a horizon of H steps.

    The policy is u = weight · x + σ ε with ε ~ N(0, I): `Gaussian(Linear(n, m, bias=False), m)`.

    Attributes:
        A: [n, n]. B: [n, m]. state_cost: [n, n]. action_cost: [m, m]; both symmetric.
        noise: [n] standard deviations of w.
        start_mean, start_std: [n] of x_0, normal with independent entries.
        horizon: H.
        discount: γ.
    """

    A: Float[Tensor, "n n"]
    B: Float[Tensor, "n m"]
    state_cost: Float[Tensor, "n n"]
    action_cost: Float[Tensor, "m m"]
    noise: Float[Tensor, " n"]
    start_mean: Float[Tensor, " n"]
    start_std: Float[Tensor, " n"]
    horizon: int
    discount: float = 1.0

    def objective(
        self, weight: Float[Tensor, "m n"], log_std: Float[Tensor, " m"]
    ) -> Float[Tensor, ""]:
        """J = −E[x_0ᵀ P_0 x_0] − p_0 by the Riccati recursion of a given gain; differentiable.

        P_t = C + Wᵀ D W + γ Mᵀ P_{t+1} M with M = A + B W, and p_t collects what noise costs.
        """
        variance = torch.diag(torch.exp(2 * log_std))
        closed = self.A + self.B @ weight
        spread = self.B @ variance @ self.B.T + torch.diag(self.noise.square())
        P, p = torch.zeros_like(self.A), torch.zeros((), dtype=self.A.dtype)
        for _ in range(self.horizon):
            p = torch.trace(variance @ self.action_cost) + self.discount * (
                p + torch.trace(P @ spread)
            )
            P = (
                self.state_cost
                + weight.T @ self.action_cost @ weight
                + self.discount * closed.T @ P @ closed
            )
        start = torch.outer(self.start_mean, self.start_mean) + torch.diag(self.start_std.square())
        return -torch.trace(P @ start) - p

    def gradient(
        self, weight: Float[Tensor, "m n"], log_std: Float[Tensor, " m"]
    ) -> Float[Tensor, " P"]:
        """∇J over (log σ, weight), flat, back through the recursion."""
        at = [log_std.detach().requires_grad_(), weight.detach().requires_grad_()]
        pieces = torch.autograd.grad(self.objective(at[1], at[0]), at)
        return torch.cat([piece.flatten() for piece in pieces])

    def moments(
        self, weight: Float[Tensor, "m n"], log_std: Float[Tensor, " m"], baseline: str = "none"
    ) -> GaussianMoments:
        """Mean and covariance trace of Σ_t γ^t ψ_t (R_t − b_t(x_t)) over one trajectory.

        The moment recursion of `vantage.exact.moments`, on polynomials: every conditional moment is
        one of degree at most six in x, so it is known from its values at enough points, and each
        expectation over ε and w is a finite sum by Gauss–Hermite quadrature. Exact to rounding.

        Args:
            weight, log_std: the policy.
            baseline: "none" or "value", V_t(x).

        Raises:
            InputError: another baseline, or too many dimensions for the grid.
        """
        refuse_unless(
            baseline in ("none", "value"),
            f"LQR.moments(baseline={baseline!r}): choose 'none' or 'value'.",
        )
        n, m = self.B.shape
        refuse_unless(
            NODES ** (n + m) <= POINTS,
            f"LQR.moments: {n} state and {m} action dimensions need {NODES ** (n + m):,} points of "
            f"quadrature, more than {POINTS:,}.",
        )
        with torch.no_grad():
            first = self._recursion(weight, log_std, baseline == "value")
        points, chances = _normal_grid(n)
        x = self.start_mean + points * self.start_std
        e, q = (chances @ self._space.at(x) @ first[name] for name in ("e", "q"))
        return GaussianMoments(e, q[0] - e @ e)

    @cached_property
    def _space(self) -> "Polynomials":
        return Polynomials(self.B.shape[0])

    def _recursion(
        self, weight: Tensor, log_std: Tensor, subtract_value: bool
    ) -> dict[str, Tensor]:
        """Coefficients of v, m₂, e, c and q at the first step, each [basis, K]."""
        (n, m), space, gamma = self.B.shape, self._space, self.discount
        noise, chances = _normal_grid(m + n)
        epsilon, w = noise[:, :m], noise[:, m:] * self.noise
        x = space.points[:, None]
        std = log_std.exp()
        u = x @ weight.T + epsilon * std
        r = -((x @ self.state_cost * x).sum(-1) + (u @ self.action_cost * u).sum(-1))[..., None]
        following = x @ self.A.T + u @ self.B.T + w
        of_weight = (epsilon / std)[None, :, :, None] * x[..., None, :]
        of_log_std = (epsilon.square() - 1).expand(len(space.points), -1, -1)
        psi = torch.cat([of_log_std, of_weight.flatten(2)], 2)
        basis = space.at(following)
        widths = {"v": 1, "m2": 1, "e": psi.shape[2], "c": psi.shape[2], "q": 1}
        held = {k: torch.zeros(basis.shape[-1], width).double() for k, width in widths.items()}

        def fit(values: Tensor) -> Tensor:
            return space.fit @ torch.einsum("pek,e->pk", values, chances)

        for _ in range(self.horizon):
            v, m2, e, c, q = (basis @ held[k] for k in ("v", "m2", "e", "c", "q"))
            G, G2 = r + gamma * v, r.square() + 2 * gamma * r * v + gamma**2 * m2
            value = fit(G)
            b = (space.at(space.points) @ value)[:, None] if subtract_value else torch.zeros_like(r)
            cross = (psi * ((r - b) * e + gamma * c)).sum(-1, keepdim=True)
            square = psi.square().sum(-1, keepdim=True) * (G2 - 2 * b * G + b.square())
            held = {
                "v": value,
                "m2": fit(G2),
                "e": fit(psi * (G - b) + gamma * e),
                "c": fit(psi * (G2 - b * G) + gamma * (r * e + gamma * c)),
                "q": fit(square + 2 * gamma * cross + gamma**2 * q),
            }
        return held


class Polynomials:
    """Polynomials of degree ≤ 6 in n variables, by coefficients of monomials.

    Attributes:
        points: [M, n] where a polynomial is sampled.
        fit: [basis, M] from values at `points` to coefficients.
    """

    def __init__(self, dimensions: int):
        self.exponents = torch.tensor(
            [
                [factors.count(i) for i in range(dimensions)]
                for degree in range(DEGREE + 1)
                for factors in combinations_with_replacement(range(dimensions), degree)
            ]
        )
        # Products of Chebyshev points determine every polynomial of this degree, well conditioned.
        line = torch.cos(torch.pi * (torch.arange(DEGREE + 1, dtype=torch.float64) + 0.5) / 7) * 2
        self.points = torch.cartesian_prod(*[line] * dimensions).reshape(-1, dimensions)
        self.fit = torch.linalg.pinv(self.at(self.points))

    def at(self, x: Float[Tensor, "*grid n"]) -> Float[Tensor, "*grid basis"]:
        """Every monomial at the given points."""
        return (x[..., None, :] ** self.exponents).prod(-1)


def _normal_grid(dimensions: int) -> tuple[Float[Tensor, "E d"], Float[Tensor, " E"]]:
    """Points and weights that integrate polynomials against N(0, I), to degree 9 per dimension."""
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    nodes, weights = torch.from_numpy(node), torch.from_numpy(weight / weight.sum())
    points = torch.cartesian_prod(*[nodes] * dimensions).reshape(-1, dimensions)
    return points, torch.cartesian_prod(*[weights] * dimensions).reshape(-1, dimensions).prod(1)
