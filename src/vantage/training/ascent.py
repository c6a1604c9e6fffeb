"""One gradient step per batch, then the fit of V: the policy gradient as equation [2] has it."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes
from vantage.policies import Policy
from vantage.training.adam import Adam
from vantage.training.interface import OptimizerFactory, optimizer_of
from vantage.training.value import fit_value


@checked
@dataclass(frozen=True)
class Fit:
    """How V is fitted after the policy's step, by Adam on the mean squared error.

    Attributes:
        lr: learning rate.
        epochs: passes over the batch.
        minibatch: steps per optimiser step; WHOLE_BATCH for all of them at once.
    """

    lr: float = 1e-2
    epochs: int = 5
    minibatch: int = 2048

    def __post_init__(self) -> None:
        for name in ("lr", "epochs", "minibatch"):
            amount = getattr(self, name)
            refuse_unless(amount > 0, f"Fit({name}={amount}): must be positive.")

    def optimizers(self, value: nn.Module | None) -> dict[str, Optimizer]:
        """V's own, where there is a value function."""
        return {} if value is None else {"value": Adam(value.parameters(), lr=self.lr)}

    def __call__(
        self,
        value: nn.Module | None,
        optimizers: dict[str, Optimizer],
        batch: Batch,
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Fit V, where there is one, and say how good it was before."""
        if value is None:
            return {}
        optimizer = optimizers["value"]
        return fit_value(value, optimizer, batch, self.epochs, self.minibatch, generator)


WHOLE_BATCH = 1 << 30  # more steps than a batch has


@checked
@dataclass(frozen=True)
class Ascent:
    """An update rule: one step of the optimiser along ĝ, θ ← θ + α ĝ, then the fit of V.

    Attributes:
        fit: the fit of the value function.
        lr, eps: learning rate and ε of Adam, where `vantage.train` is given no other.
        max_grad_norm: longest gradient let through to the optimiser; None leaves it as it is.
    """

    wants_gradient: ClassVar[bool] = True
    fragment: ClassVar[int | None] = None
    optimizer_steps: ClassVar[int] = 1

    fit: Fit = field(default_factory=Fit)
    lr: float = 1e-2
    eps: float = 1e-8
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        refuse_unless(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            f"Ascent(max_grad_norm={self.max_grad_norm}): must be positive, or None.",
        )

    def check(self, estimator: Estimator) -> None:
        """Any estimator will do."""

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """One for the policy, one for the fit of V."""
        default = partial(Adam, lr=self.lr, eps=self.eps)
        policy = optimizer_of(passes.policy.parameters(), factory or default, lr)
        return {"policy": policy, **self.fit.optimizers(passes.value)}

    def update(
        self,
        passes: Passes,
        optimizers: dict[str, Optimizer],
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        *,
        gradient: Float[Tensor, " P"] | None = None,
        stale: bool = False,
        factor: float = 1.0,
    ) -> dict[str, Any]:
        """Step uphill along `gradient`, then fit V; see `interface.Update`."""
        assert gradient is not None
        norm = ascend(passes.policy, gradient, optimizers["policy"], self.max_grad_norm)
        return {"grad_norm": norm, **self.fit(passes.value, optimizers, batch, generator)}


def ascend(
    policy: Policy,
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
