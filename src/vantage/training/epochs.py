"""Several epochs of minibatch steps over one batch: PPO's update, and A2C's with one of each.

The advantage and each step's share in the average are found once, for the whole batch, before the
first step; every minibatch then takes its rows of both. Steps are shuffled freely where log π of a
step depends on that step alone; a policy with a memory, or a ratio over whole sequences, keeps rows
together. On the first minibatch the policy is the one that sampled: its ratio is 1, exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators import columns, ratios, selections
from vantage.estimators.estimator import Estimator
from vantage.estimators.penalties import k3
from vantage.gradients.passes import Passes
from vantage.gradients.weighted import policy_inputs
from vantage.training.adam import Adam
from vantage.training.interface import OptimizerFactory, optimizer_of, refuse_unless_finite
from vantage.training.minibatches import (
    Weighed,
    rows_shuffled,
    steps_shuffled,
    tensors_of,
    with_tensors,
)
from vantage.training.value import value_metrics, value_target


@checked
@dataclass(frozen=True)
class Epochs:
    """An update rule: `epochs` passes over the batch in `minibatches` steps each.

    The value function is trained jointly, by the loss `value_coefficient` × mean (V − target)².

    Attributes:
        epochs, minibatches: how often, and in how many steps.
        value_coefficient: the weight of the value's loss beside the policy's.
        value_clip: hold V within this of its earlier prediction (Schulman et al. 2017's code);
            None: no clipping.
        standardise: centre and scale each minibatch's advantages by themselves. A biased operation
            that PPO's published code has; the estimator's `scale` column is the alternative over
            the whole batch.
        target_kl: stop the epochs once the policy has moved further than 1.5 times this from the
            one that sampled (mean of ρ − 1 − log ρ over a minibatch); None: never.
        refresh: find values, ratios and advantages anew at every epoch, as V-trace wants it.
        lr, eps: learning rate and ε of Adam, where `vantage.train` is given no other.
        max_grad_norm: longest gradient of both networks together that is let through to the
            optimiser; None leaves it as it is.
    """

    wants_gradient: ClassVar[bool] = False
    fragment: ClassVar[int | None] = 128

    epochs: int = 4
    minibatches: int = 4
    value_coefficient: float = 0.5
    value_clip: float | None = None
    standardise: bool = False
    target_kl: float | None = None
    refresh: bool = False
    lr: float = 3e-4
    eps: float = 1e-5
    max_grad_norm: float | None = 0.5

    def __post_init__(self) -> None:
        rule = type(self).__name__
        for name in ("epochs", "minibatches"):
            count = getattr(self, name)
            refuse_unless(count >= 1, f"{rule}({name}={count}): must be at least 1.")
        for name in ("value_clip", "target_kl", "max_grad_norm"):
            amount = getattr(self, name)
            refuse_unless(
                amount is None or amount > 0, f"{rule}({name}={amount}): must be positive, or None."
            )
        refuse_unless(
            self.value_coefficient >= 0,
            f"{rule}(value_coefficient={self.value_coefficient}): must be at least 0.",
        )

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator that this rule cannot serve.

        Raises:
            InputError: it needs scores; or it is standardised twice.
        """
        rule = type(self).__name__
        refuse_unless(
            "scores" not in estimator.needs,
            f"{rule}: {estimator.name!r} needs the score of every step; use vt.updates.Ascent().",
        )
        refuse_unless(
            not (self.standardise and columns.couples(estimator.scale) != "none"),
            f"{rule}(standardise=True) with {estimator.name!r}, whose scale is "
            f"{columns.describe(estimator.scale)}: standardise once; use "
            "estimator.replace(scale=vt.scales.none), or standardise=False.",
        )
        refuse_unless(
            not self.standardise or estimator.selection is selections.none,
            f"{rule}(standardise=True) with {estimator.name!r}: centring would bring back the "
            f"steps that {columns.describe(estimator.selection)} leaves out; use "
            "standardise=False, and the scale vt.scales.standardised.",
        )

    @property
    def optimizer_steps(self) -> int:
        """One for every minibatch of every epoch."""
        return self.epochs * self.minibatches

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """One, for policy and value function together."""
        default = partial(Adam, lr=self.lr, eps=self.eps)
        return {"policy": optimizer_of(passes.parameters, factory or default, lr)}

    @torch.no_grad()
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
        """Step through the batch, shuffled by `generator`; see `interface.Update`.

        Raises:
            NonFiniteError: of a gradient.
            InputError: a batch too small for its minibatches.
        """
        return self.stepped(passes, optimizers["policy"], estimator, batch, generator, stale)[0]

    @torch.no_grad()
    def stepped(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        stale: bool,
    ) -> tuple[dict[str, object], Weighed]:
        """`update`, and the batch with its advantages and value targets as it began."""
        weighed = first = _weighed(passes, estimator, batch, stale)
        by_steps = passes.policy.memoryless and estimator.stepwise
        minibatches_of = steps_shuffled if by_steps else rows_shuffled
        far = False
        norms: list[Tensor] = []
        last_epoch: list[tuple[Tensor, Weighed]] = []
        for epoch in range(self.epochs):
            if self.refresh and epoch:
                again = _weighed(passes, estimator, batch, stale=True)
                weighed = again._replace(proximal=first.proximal)
            last_epoch.clear()
            for number, minibatch in enumerate(
                minibatches_of(weighed, self.minibatches, self.standardise, generator)
            ):
                on_policy = not stale and epoch == number == 0
                norm, log_ratio = self._recorded_step(
                    passes, optimizer, estimator, minibatch, on_policy
                )
                norms.append(norm)
                last_epoch.append((log_ratio, minibatch))
                far = self.target_kl is not None and (
                    _kl(log_ratio[minibatch.batch.mask]) > 1.5 * self.target_kl
                )
                if far:
                    break
            if far:
                break
        every = torch.stack(norms)
        refuse_unless_finite(
            every,
            batch,
            "A gradient of this update",
            "The last checkpoint holds the policy from before.",
        )
        metrics = {"grad_norm": every.mean().item(), "optimizer_steps": len(norms)}
        return metrics | _movement(estimator, last_epoch) | _fit(first), first

    def _recorded_step(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        minibatch: Weighed,
        on_policy: bool,
    ) -> tuple[Tensor, Tensor]:
        """`_step`, from a recording where passes and optimiser can be recorded."""
        if passes.recorded is None or type(optimizer) is not Adam:
            return self._step(passes, optimizer, estimator, minibatch, on_policy)
        names, tensors = tensors_of(minibatch)

        def step(*given: Tensor) -> tuple[Tensor, Tensor]:
            weighed = with_tensors(minibatch, names, given)
            return self._step(passes, optimizer, estimator, weighed, on_policy)

        same = (self, estimator, names, minibatch.steps, optimizer.numbers, optimizer.addresses)
        norm, log_ratio = passes.recorded["first step" if on_policy else "step"](
            step, same, *tensors
        )
        return norm, log_ratio

    def _step(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        minibatch: Weighed,
        on_policy: bool,
    ) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns the gradient's norm before clipping, and its log ρ [N, T].

        log ρ is the one that the step's weights were taken with, 0 at steps that do not count.
        """
        batch = minibatch.batch
        log_prob, value = passes.forward(batch.observation, batch.action)
        # None says that the policy is the one that sampled: the ratio is 1, not 1 up to rounding
        current = None if on_policy else log_prob
        inputs = {} if minibatch.proximal is None else {"proximal_log_prob": minibatch.proximal}
        inputs |= {} if minibatch.restrained is None else {"restrained": minibatch.restrained}
        weight = estimator.weights(batch, current, minibatch.advantage, minibatch.share, **inputs)
        bonus = estimator.entropy * minibatch.share if estimator.entropy else None
        fits_value = value is not None and minibatch.target is not None
        slope = self._value_slope(minibatch, value) if fits_value else None
        passes.backward(weight, bonus, slope)
        norm = passes.clip(float("inf") if self.max_grad_norm is None else self.max_grad_norm)
        optimizer.step()
        if current is None:
            return norm, torch.zeros_like(batch.log_prob)
        return norm, torch.where(batch.mask, current - batch.log_prob, 0)

    def _value_slope(self, minibatch: Weighed, value: Tensor | None) -> Tensor:
        """d/dV of the value's loss, a mean over the counted steps of the minibatch."""
        assert value is not None
        assert minibatch.target is not None
        error = value - minibatch.target
        scale = 2 * self.value_coefficient / minibatch.steps
        if self.value_clip is not None:
            before = minibatch.batch.value
            assert before is not None
            moved = value - before
            held = before + moved.clamp(-self.value_clip, self.value_clip) - minibatch.target
            # the worse of the two errors counts, and the held one has no slope where it is held
            free = (error.square() >= held.square()) | (moved.abs() <= self.value_clip)
            error = torch.where(free, error, 0)
        return torch.where(minibatch.batch.mask, error * scale, 0)


def _weighed(passes: Passes, estimator: Estimator, batch: Batch, stale: bool) -> Weighed:
    """Advantages, shares and value targets of a batch as the policy and V are now."""
    log_prob = None
    if stale:
        log_prob, value = passes.forward(batch.observation, batch.action)
        batch = replace(batch, value=value)
    inputs = policy_inputs(passes.policy, batch, estimator)
    advantage, worth = estimator.advantage_and_worth(batch, log_prob, **inputs)
    target = None if batch.value is None else value_target(estimator, batch, worth, log_prob)
    proximal = (batch.log_prob if log_prob is None else log_prob) if estimator.reweighs else None
    held = None
    if estimator.restraint is not None:
        held = estimator.restrained(batch, advantage, log_prob, **inputs)
    return Weighed(batch, advantage, estimator.share(batch), target, proximal, batch.steps, held)


def _kl(log_ratio: Tensor) -> float:
    """An estimate of KL(π_old ‖ π) that is never negative, from log π/π_old of actions of π_old."""
    return float(k3(-log_ratio, beta=1.0).mean())


def _movement(
    estimator: Estimator, minibatches: Sequence[tuple[Tensor, Weighed]]
) -> dict[str, object]:
    """How far the policy was from the one that sampled, over the last epoch as it was taken.

    Args:
        minibatches: log ρ of each, and the minibatch.
    """
    mask = torch.cat([minibatch.batch.mask for _, minibatch in minibatches])
    log_ratio = torch.cat([log_ratio for log_ratio, _ in minibatches])[mask][:, None]
    clipped = [_clipped(estimator, each, minibatch) for each, minibatch in minibatches]
    return {
        "kl": _kl(log_ratio),
        "clip_fraction": torch.cat(clipped)[mask].float().mean().item(),
        "largest_log_prob_change": log_ratio.abs().max().item(),
    }


def _clipped(estimator: Estimator, log_ratio: Tensor, minibatch: Weighed) -> Tensor:
    """[N, T] where the clip changed the ratio."""
    batch, proximal = minibatch.batch, minibatch.proximal
    inputs = {} if proximal is None else {"proximal_log_prob": proximal}
    free = replace(estimator, clip=ratios.unclipped)
    factors = [
        rule.multiplier(batch, batch.log_prob + log_ratio, minibatch.advantage, **inputs)
        for rule in (estimator, free)
    ]
    return factors[0] != factors[1]


def _fit(weighed: Weighed) -> dict[str, Any]:
    """How good V was before the update."""
    predicted = weighed.batch.value
    if weighed.target is None or predicted is None:
        return {}
    mask = weighed.batch.mask
    return value_metrics(predicted[mask], weighed.target[mask])
