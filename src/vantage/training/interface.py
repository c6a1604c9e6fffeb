"""What the training loop asks of an update rule, and how optimisers are made."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import NonFiniteError
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes

# Takes parameters, gives a torch optimiser; it minimises −J, so any torch optimiser ascends.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


@runtime_checkable
class Update(Protocol):
    """An update rule: how a batch changes a policy and its value function.

    `vantage.updates` has three; an object with these attributes is one too. A dataclass is written
    to config.json with its fields.

    Attributes:
        wants_gradient: whether `update` is given ĝ of the whole batch, with its signal measured;
            a rule that finds gradients of its own leaves it False.
        fragment: steps per lane of a batch where a run with a value function says neither
            `fragment` nor `batch`; None: whole episodes.
        optimizer_steps: steps of the policy's optimiser in one update, at most.
    """

    @property
    def wants_gradient(self) -> bool: ...

    @property
    def fragment(self) -> int | None: ...

    @property
    def optimizer_steps(self) -> int: ...

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator that this rule cannot serve.

        Raises:
            InputError: naming the rule, the estimator and the remedy.
        """
        ...

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """The optimisers that `update` steps, by name; "policy" is the policy's.

        Args:
            passes: the policy and the value function, with the parameters to step.
            factory: makes the policy's optimiser; the rule's own where None.
            lr: its learning rate; that of the optimiser as it was made where None.
        """
        ...

    def update(
        self,
        passes: Passes,
        optimizers: dict[str, Optimizer],
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        *,
        gradient: Tensor | None = None,
        stale: bool = False,
        factor: float = 1.0,
    ) -> dict[str, object]:
        """Change policy and value function, and return metrics, "grad_norm" among them.

        Args:
            passes: the policy and the value function; see `vantage.gradients.passes`.
            optimizers: as `optimizers` made them, at this update's learning rates.
            estimator: weighs the batch.
            batch: as it was collected.
            generator: of everything random here.
            gradient: ĝ of the batch [P], uphill, for a rule that wants it.
            stale: whether an older policy sampled the batch, so that no ratio is 1 by construction.
            factor: of the schedule, for what a rule scales besides learning rates.
        """
        ...


def optimizer_of(
    parameters: Iterable[nn.Parameter], factory: OptimizerFactory, lr: float | None
) -> Optimizer:
    """The optimiser that `factory` makes, at the learning rate `lr` where one is given."""
    optimizer = factory(parameters)
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr
    return optimizer


def refuse_unless_finite(gradient: Tensor, update: int) -> None:
    """Refuse a gradient with NaN or infinity before it is stepped along.

    Raises:
        NonFiniteError: naming the update.
    """
    if not gradient.isfinite().all():
        raise NonFiniteError(
            f"The gradient of update {update} is not finite; lower lr, or bound it with "
            "max_grad_norm, or go on without such updates by skip_non_finite "
            "(--skip-non-finite). The policy is as it was before this update."
        )
