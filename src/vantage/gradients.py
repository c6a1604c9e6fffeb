"""From weights to gradients: ĝ of a batch, and the gradient of every row by itself.

Flat vectors follow `torch.nn.utils.parameters_to_vector`, over the parameters that require a
gradient. All gradients point uphill: θ ← θ + α ĝ.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.estimators import Estimator


def gradient(policy: nn.Module, batch: Batch, estimator: Estimator) -> Float[Tensor, " P"]:
    """ĝ = Σ_n Σ_t w_nt ∇ log π(a_nt|s_nt), the estimate of ∇J.

    Equation: [5], [6] or [8], as the estimator's columns say.
    Shapes: [P], P the number of parameters that require a gradient.
    """
    return weighted_score(policy, batch, estimator.weights(batch))


def weighted_score(
    policy: nn.Module, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, " P"]:
    """Σ_n Σ_t w_nt ∇ log π(a_nt|s_nt) for given weights, in one backward pass."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    log_prob = policy.log_prob(batch.observation, batch.action)  # type: ignore[operator]
    # where, not a product: padding may hold observations whose log-probability is not finite
    surrogate = torch.where(batch.mask, weights * log_prob, 0).sum()
    pieces = torch.autograd.grad(surrogate, parameters, allow_unused=True)
    return _flatten(parameters, pieces)


def row_gradients(
    policy: nn.Module, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, "N P"]:
    """Σ_t w_nt ∇ log π(a_nt|s_nt) of every row n: they add up to `weighted_score`.

    One vectorised backward pass over all rows; `row_gradients_by_loop` is the reference.
    """
    named = {name: p for name, p in policy.named_parameters() if p.requires_grad}

    def surrogate(
        parameters: dict[str, Tensor], observation: Tensor, action: Tensor, w: Tensor, mask: Tensor
    ) -> Tensor:
        log_prob = torch.func.functional_call(
            _LogProb(policy),
            {f"policy.{k}": v for k, v in parameters.items()},
            (observation, action),
        )
        return torch.where(mask, w * log_prob, 0).sum()

    by_row = torch.func.vmap(torch.func.grad(surrogate), in_dims=(None, 0, 0, 0, 0))
    detached = {name: p.detach() for name, p in named.items()}
    pieces = by_row(detached, batch.observation, batch.action, weights, batch.mask)
    return torch.cat([pieces[name].reshape(batch.rows, -1) for name in named], 1)


def row_gradients_by_loop(
    policy: nn.Module, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, "N P"]:
    """`row_gradients` the slow and obvious way: one backward pass a row."""
    parts = [slice(n, n + 1) for n in range(batch.rows)]
    return torch.stack(
        [weighted_score(policy, batch.select(part), weights[part]) for part in parts]
    )


class _LogProb(nn.Module):
    """`policy.log_prob` as a module's forward, which is what `functional_call` can call."""

    def __init__(self, policy: nn.Module):
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.policy.log_prob(observation, action)  # type: ignore[operator]


def _flatten(
    parameters: list[nn.Parameter], pieces: tuple[Tensor | None, ...]
) -> Float[Tensor, " P"]:
    filled = [
        torch.zeros_like(p) if piece is None else piece
        for p, piece in zip(parameters, pieces, strict=True)
    ]
    return torch.nn.utils.parameters_to_vector(filled)
