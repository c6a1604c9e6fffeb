"""What the training loop asks of an update rule, and how optimisers are made."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import NonFiniteError, refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes

# Takes parameters, gives a torch optimiser; it minimises −J, so any torch optimiser ascends.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

# Beyond these a batch is to blame for a gradient whose square leaves single precision, 3e38. A
# log-probability of -10,000 is that of an action which is never sampled.
LARGE = {"rewards": 1e12, "predictions of the value function": 1e12, "log-probabilities": 1e4}


@dataclass
class Memory:
    """What an update rule keeps from one update to the next, and a checkpoint with it.

    Attributes:
        modules: networks that it trains beside policy and value function, by name.
        tensors: all else, by name. A rule exchanges them and never writes into one: an update that
            is undone gets back those that were there.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Update(Protocol):
    """An update rule: how a batch changes a policy and its value function.

    `vantage.updates` has some; an object with these attributes is one too. A dataclass is written
    to config.json with its fields. A rule that keeps something from one update to the next has a
    method `memory` besides, see `Remembering`.

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
            generator: the generator of everything random here.
            gradient: ĝ of the batch [P], uphill, for a rule that wants it.
            stale: whether an older policy sampled the batch, so that no ratio is 1 by construction.
            factor: the factor of the schedule, for what a rule scales besides learning rates.
        """
        ...


@runtime_checkable
class Remembering(Update, Protocol):
    """An update rule with a memory; `optimizers` and `update` then take `memory=` as well."""

    def memory(self, passes: Passes, generator: torch.Generator) -> Memory:
        """The memory that a run begins with.

        Args:
            passes: the policy and the value function.
            generator: the source of the first weights of its modules.

        Raises:
            InputError: networks that the rule cannot serve, naming the remedy.
        """
        ...


@runtime_checkable
class Particular(Update, Protocol):
    """An update rule that cannot learn from every kind of batch."""

    def check_fragments(self, fragment: int | None, delay: int) -> None:
        """Refuse batches that it cannot learn from, before any is collected.

        Args:
            fragment: steps per lane of a batch; None: whole episodes.
            delay: updates by which the policy that acts is behind.

        Raises:
            InputError: naming the rule, the setting and the remedy.
        """
        ...


def memory_of(update: Update, passes: Passes, generator: torch.Generator) -> dict[str, Memory]:
    """What a rule is given beside all others' arguments: its memory, by keyword, or nothing."""
    if not isinstance(update, Remembering):
        return {}
    return {"memory": update.memory(passes, generator)}


def refuse_restraint(rule: str, estimator: Estimator) -> None:
    """Refuse an estimator with a restraint, for a rule whose step has a bound of its own.

    Args:
        rule: its name, for the message; the bound is its `max_kl`.
        estimator: the estimator.

    Raises:
        InputError: it has one.
    """
    refuse_unless(
        estimator.restraint is None,
        f"{rule}: {estimator.name!r} has a restraint, and max_kl is one already; take it off "
        "with estimator.replace(restraint=None).",
    )


def optimizer_of(
    parameters: Iterable[nn.Parameter], factory: OptimizerFactory, lr: float | None
) -> Optimizer:
    """The optimiser that `factory` makes, at the learning rate `lr` where one is given."""
    optimizer = factory(parameters)
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr
    return optimizer


def refuse_unless_finite(
    gradient: Tensor,
    batch: Batch,
    name: str = "The gradient",
    left: str = "The policy is as it was before this update.",
) -> None:
    """Refuse a gradient, or a norm of one, with NaN, infinity, or a square that is infinite.

    An optimiser that divides by the root of a mean square would stand still on the last, for good.

    Args:
        gradient: any shape.
        batch: what it is of.
        name: what the message calls it.
        left: what the message says of the policy.

    Raises:
        NonFiniteError: naming what of the batch is out of all proportion, rewards first.
    """
    if not gradient.square().isfinite().all():
        fault = "too large to be squared" if gradient.isfinite().all() else "not finite"
        raise NonFiniteError(
            f"{name} is {fault}. {_blame(batch)} Or go on without such updates by skip_non_finite "
            f"(--skip-non-finite). {left}"
        )


def _blame(batch: Batch) -> str:
    """Which numbers of a batch lead to a gradient beyond single precision, and the remedy."""
    for name, tensor, remedy in (
        ("rewards", batch.reward, "divide them, or those of an environment with normalise=True"),
        ("predictions of the value function", batch.value, "lower its learning rate"),
        ("log-probabilities", batch.log_prob, "lower lr, or bound the gradient by max_grad_norm"),
    ):
        at = torch.zeros(()) if tensor is None else tensor[batch.mask].abs().max()
        if not at < LARGE[name]:
            return f"Its {name} reach {at.item():.3g} in size: {remedy}."
    return (
        "Its rewards, values and log-probabilities are of ordinary size, so that an earlier step "
        "was too long, or the estimator divides by something near 0: lower lr, or bound the "
        "gradient by max_grad_norm."
    )
