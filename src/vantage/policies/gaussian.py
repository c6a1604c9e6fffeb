"""Policies over real vectors: Gaussian, and Gaussian squashed into bounds."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.policies.policy import Policy

NODES = 32  # of the quadrature of the squashed Gaussian's entropy


@checked
class Gaussian(Policy):
    """π(a|s) = N(a; net(s), diag(σ²)) with a learned σ that does not depend on the state.

    The action is stored and scored raw. An environment with bounds clips what it receives; the
    log-probability stays that of the draw.

    Args:
        net: maps observations [..., *shape] to means [..., D].
        actions: D.
        log_std: initial log σ of every dimension.
    """

    memoryless = True

    def __init__(self, net: nn.Module, actions: int, log_std: float = 0.0):
        refuse_unless(actions > 0, f"Gaussian(actions={actions}): give at least one dimension.")
        super().__init__()
        self.net = net
        self.log_std = nn.Parameter(torch.full((actions,), float(log_std)))

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D"]:
        """Means, [..., D]."""
        return self.net(observation)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*grid D"], Float[Tensor, "*grid"]]:
        """Draw actions; returns action [..., D] and its log-density [...]."""
        mean = self(observation)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + noise * self.log_std.exp(), self._log_density(noise)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Float[Tensor, "*grid D"]
    ) -> Float[Tensor, "*grid"]:
        """Log-density of `action`, [...]."""
        return self._log_density((action - self(observation)) * (-self.log_std).exp())

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = Σ_d log σ_d + D/2 (1 + log 2π) in nats, [...]."""
        constant = 0.5 * self.log_std.numel() * (1 + math.log(2 * math.pi))
        grid = self(observation).shape[:-1]
        return (self.log_std.sum() + constant).expand(grid)

    def distribution(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D 2"]:
        """μ and log σ of every dimension, [..., D, 2]."""
        mean = self(observation)
        return torch.stack([mean, self.log_std.expand_as(mean)], -1)

    def divergence(
        self, first: Float[Tensor, "*grid D 2"], second: Float[Tensor, "*grid D 2"]
    ) -> Float[Tensor, "*grid"]:
        """Σ_d log σ_2/σ_1 + (σ_1² + (μ_1 − μ_2)²)/2σ_2² − ½ in nats, [...]."""
        (mean, log_std), (mean_2, log_std_2) = first.unbind(-1), second.unbind(-1)
        wider = log_std_2 - log_std
        away = (mean - mean_2) * (-log_std_2).exp()
        return (wider + torch.expm1(-2 * wider) / 2 + away.square() / 2).sum(-1)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D"]:
        """The mean, [..., D]."""
        return self(observation)

    def _log_density(self, noise: Float[Tensor, "*grid D"]) -> Float[Tensor, "*grid"]:
        constant = self.log_std.sum() + 0.5 * self.log_std.numel() * math.log(2 * math.pi)
        return -0.5 * noise.square().sum(-1) - constant


@checked
class SquashedGaussian(Gaussian):
    """A Gaussian draw u squashed by tanh, so that every action lies within its bounds.

    What is recorded and scored is the raw u; the environment is given `applied(u)`: tanh(u), scaled
    from (−1, 1) to the bounds. The density is that of tanh(u): the scaling would add a
    constant to log π and to the entropy, and nothing to a gradient. It is computed from u, never
    from an arctanh of the action: log π = log N(u) − Σ_d log da_d/du_d with
    log da/du = 2 (log 2 − u − softplus(−2u)).

    Args:
        net: maps observations [..., *shape] to the means of u, [..., D].
        low, high: bounds of every dimension, [D], finite.
        log_std: initial log σ of every dimension of u.

    Source: Haarnoja et al. 2018, appendix C.

    >>> policy = SquashedGaussian(nn.Identity(), low=[0.0], high=[10.0])
    >>> policy.applied(torch.tensor([[-50.0], [0.0], [50.0]])).flatten()
    tensor([ 0.,  5., 10.])
    """

    _middle: Tensor
    _half: Tensor
    _nodes: Tensor
    _weights: Tensor

    def __init__(
        self,
        net: nn.Module,
        low: Sequence[float] | Tensor,
        high: Sequence[float] | Tensor,
        log_std: float = 0.0,
    ):
        low, high = torch.as_tensor(low), torch.as_tensor(high)
        refuse_unless(
            low.isfinite().all() and high.isfinite().all() and (low < high).all(),
            f"SquashedGaussian(low={low.tolist()}, high={high.tolist()}): bounds must be finite, "
            "low below high; use a Gaussian without squashing for unbounded actions.",
        )
        super().__init__(net, low.numel(), log_std)
        dtype = self.log_std.dtype
        self.register_buffer("_middle", ((high + low) / 2).to(dtype), persistent=False)
        self.register_buffer("_half", ((high - low) / 2).to(dtype), persistent=False)
        # ∫ N(u; 0, 1) f(u) du ≈ Σ_i w_i f(x_i)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        weights = weights / math.sqrt(2 * math.pi)
        self.register_buffer("_nodes", torch.from_numpy(nodes).to(dtype), persistent=False)
        self.register_buffer("_weights", torch.from_numpy(weights).to(dtype), persistent=False)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*grid D"], Float[Tensor, "*grid"]]:
        """Draw raw actions u [..., D]; returns them and the log-density of tanh(u) [...]."""
        raw, log_density = super().sample(observation, generator)
        return raw, log_density - _log_slope(raw).sum(-1)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Float[Tensor, "*grid D"]
    ) -> Float[Tensor, "*grid"]:
        """Log-density of tanh(u) for the raw `action` u, [...]."""
        return super().log_prob(observation, action) - _log_slope(action).sum(-1)

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = H(N) + Σ_d E[log da_d/du_d] in nats, [...], by Gauss-Hermite quadrature.

        With 32 nodes the error a dimension is below 1e-7 for σ ≤ 1, 2e-4 for σ ≤ 2, 3e-3 for σ ≤ 3.
        """
        mean = self(observation)
        raw = mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * self._nodes
        constant = 0.5 * self.log_std.numel() * (1 + math.log(2 * math.pi))
        return self.log_std.sum() + constant + (_log_slope(raw) @ self._weights).sum(-1)

    def distribution(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D 2"]:
        """μ and log σ of u, [..., D, 2]: tanh maps one to one, so that no divergence changes."""
        return super().distribution(observation)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D"]:
        """The raw mean, [..., D]: `applied` gives the median action.

        The density of tanh(u) has no likeliest point in general: where σ² > 1/2 it may rise towards
        both bounds.
        """
        return self(observation)

    def applied(self, action: Float[Tensor, "*grid D"]) -> Float[Tensor, "*grid D"]:
        """tanh(u) scaled to the bounds, [..., D]."""
        return torch.addcmul(self._middle, self._half, action.tanh())


def _log_slope(raw: Tensor) -> Tensor:
    """log d tanh(u)/du = log(1 − tanh² u), without cancellation."""
    return 2 * (math.log(2) - raw - nn.functional.softplus(-2 * raw))
