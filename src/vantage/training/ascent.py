"""One gradient step per batch, then the fit of V: the policy gradient as equation [2] has it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.training.value import fit_value


@dataclass(frozen=True)
class Fit:
    """How V is fitted after the policy's step, by Adam on the mean squared error.

    Attributes:
        lr: learning rate.
        epochs: passes over the batch.
        minibatch: steps per optimiser step.
    """

    lr: float = 1e-2
    epochs: int = 5
    minibatch: int = 2048

    def __post_init__(self) -> None:
        for name in ("lr", "epochs", "minibatch"):
            amount = getattr(self, name)
            refuse_unless(amount > 0, f"Fit({name}={amount}): must be positive.")

    def __call__(
        self, value: nn.Module, optimizer: Optimizer, batch: Batch, generator: torch.Generator
    ) -> dict[str, Any]:
        """Fit, and say how good V was before."""
        return fit_value(value, optimizer, batch, self.epochs, self.minibatch, generator)


@dataclass(frozen=True)
class Ascent:
    """An update rule: one step of the optimiser along ĝ, θ ← θ + α ĝ, then the fit of V.

    Attributes:
        fit: of the value function.
        lr: learning rate of the policy where `vantage.train` is given none.
        max_grad_norm: longest gradient let through to the optimiser; None leaves it as it is.
    """

    fit: Fit = field(default_factory=Fit)
    lr: float = 1e-2
    eps: float = 1e-8
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        refuse_unless(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            f"Ascent(max_grad_norm={self.max_grad_norm}): must be positive, or None.",
        )

    def step(
        self, policy: nn.Module, gradient: Float[Tensor, " P"], optimizer: Optimizer
    ) -> dict[str, Any]:
        """Step uphill; returns the gradient's norm before any clipping."""
        return {"gradient_norm": ascend(policy, gradient, optimizer, self.max_grad_norm)}


def ascend(
    policy: nn.Module,
    gradient: Float[Tensor, " P"],
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
) -> float:
    """One step uphill along a flat gradient; returns its norm before any clipping.

    Torch optimisers minimise, so each parameter's `.grad` is set to −ĝ.
    """
    norm = gradient.norm().item()
    if max_grad_norm is not None and norm > max_grad_norm:
        gradient = gradient * (max_grad_norm / norm)
    position = 0
    for parameter in policy.parameters():
        if parameter.requires_grad:
            piece = gradient[position : position + parameter.numel()]
            parameter.grad = -piece.view_as(parameter).to(parameter.dtype)
            position += parameter.numel()
    optimizer.step()
    return norm
