"""Several epochs of minibatch steps over one batch: PPO's update, and A2C's with one of each.

The advantage and each step's share in the average are found once, for the whole batch, before the
first step; every minibatch then takes its rows of both. Steps are shuffled freely where log π of a
step depends on that step alone; a policy with a memory, or a ratio over whole sequences, keeps rows
together. On the first minibatch the policy is the one that sampled: its ratio is 1, exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators import columns
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes
from vantage.training.value import explained_variance, value_target


@dataclass(frozen=True)
class Epochs:
    """An update rule: `epochs` passes over the batch in `minibatches` steps each.

    The value function is trained jointly, by the loss `value_coefficient` × mean (V − target)².

    Attributes:
        epochs, minibatches: how often, and in how many steps.
        value_coefficient: of the value's loss beside the policy's.
        value_clip: hold V within this of its earlier prediction (Schulman et al. 2017's code);
            None: no clipping.
        standardise: centre and scale each minibatch's advantages by themselves. A biased operation
            that PPO's published code has; the estimator's `scale` column is the alternative over
            the whole batch.
        target_kl: stop the epochs once the policy has moved further than 1.5 times this from the
            one that sampled (mean of ρ − 1 − log ρ over a minibatch); None: never.
        refresh: find values, ratios and advantages anew at every epoch, as V-trace wants it.
        lr: learning rate where `vantage.train` is given none.
    """

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
        for name in ("epochs", "minibatches"):
            count = getattr(self, name)
            refuse_unless(count >= 1, f"Epochs({name}={count}): must be at least 1.")
        for name in ("value_clip", "target_kl", "max_grad_norm"):
            amount = getattr(self, name)
            refuse_unless(
                amount is None or amount > 0, f"Epochs({name}={amount}): must be positive, or None."
            )
        refuse_unless(
            self.value_coefficient >= 0,
            f"Epochs(value_coefficient={self.value_coefficient}): must be at least 0.",
        )

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator that this rule cannot serve.

        Raises:
            InputError: it needs scores; or it is standardised twice.
        """
        refuse_unless(
            "scores" not in estimator.needs,
            f"Epochs: {estimator.name!r} needs the score of every step; use vt.updates.Ascent().",
        )
        refuse_unless(
            not (self.standardise and columns.couples(estimator.scale) != "none"),
            f"Epochs(standardise=True) with {estimator.name!r}, whose scale is "
            f"{columns.describe(estimator.scale)}: standardise once; use "
            "estimator.replace(scale=vt.scales.none), or standardise=False.",
        )

    @torch.no_grad()
    def learn(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        stale: bool = False,
    ) -> dict[str, Any]:
        """Step through the batch; returns the update's metrics.

        Args:
            stale: whether an older policy sampled the batch, so that no ratio is 1 by construction.
            generator: shuffles.

        Raises:
            InputError: a gradient that is not finite.
        """
        found = _look(passes, estimator, batch, stale)
        by_steps = passes.policy.memoryless and columns.stepwise(estimator.ratio)
        parts = _steps_shuffled if by_steps else _rows_shuffled
        before, far = found, False
        norms: list[Tensor] = []
        moved: list[tuple[Tensor, _Part]] = []
        for epoch in range(self.epochs):
            if self.refresh and epoch:
                found = _look(passes, estimator, batch, stale=True)
            minibatches = parts(found, self.minibatches, self.standardise, generator)
            moved.clear()
            for number, part in enumerate(minibatches):
                sampled_by_it = not stale and epoch == number == 0
                norm, log_ratio = self._step(passes, optimizer, estimator, part, sampled_by_it)
                norms.append(norm)
                moved.append((log_ratio, part))
                far = self.target_kl is not None and (
                    _kl(log_ratio[part.batch.mask]) > 1.5 * self.target_kl
                )
                if far:
                    break
            if far:
                break
        every = torch.stack(norms)
        refuse_unless(
            every.isfinite().all(),
            "A gradient of this update is not finite; lower lr, or bound it with max_grad_norm. "
            "The last checkpoint holds the policy from before.",
        )
        metrics = {"gradient_norm": every.mean().item(), "optimizer_steps": len(norms)}
        return metrics | _movement(estimator, moved) | _fit(before)

    def _step(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        part: "_Part",
        sampled_by_it: bool,
    ) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns the gradient's norm before clipping, and its log ρ [N, T].

        log ρ is the one that the step's weights were taken with, 0 at steps that do not count.
        """
        batch = part.batch
        log_prob, value = passes.forward(batch.observation, batch.action)
        # None says that the policy is the one that sampled: the ratio is 1, not 1 up to rounding
        current = None if sampled_by_it else log_prob
        weight = estimator.weights(batch, current, part.advantage, part.share)
        bonus = estimator.entropy * part.share if estimator.entropy else None
        slope = None if value is None or part.target is None else self._value_slope(part, value)
        passes.backward(weight, bonus, slope)
        norm = passes.clip(float("inf") if self.max_grad_norm is None else self.max_grad_norm)
        optimizer.step()
        if current is None:
            return norm, torch.zeros_like(batch.log_prob)
        return norm, torch.where(batch.mask, current - batch.log_prob, 0)

    def _value_slope(self, part: "_Part", value: Tensor) -> Tensor:
        """d/dV of the value's loss, a mean over the counted steps of the minibatch."""
        assert part.target is not None
        error = value - part.target
        scale = 2 * self.value_coefficient / part.steps
        if self.value_clip is not None:
            assert part.batch.value is not None
            moved = value - part.batch.value
            held = part.batch.value + moved.clamp(-self.value_clip, self.value_clip) - part.target
            # the worse of the two errors counts, and the held one has no slope where it is held
            free = (error.square() >= held.square()) | (moved.abs() <= self.value_clip)
            error = torch.where(free, error, 0)
        return torch.where(part.batch.mask, error * scale, 0)


_STEPWISE = ("observation", "action", "log_prob", "value")


class _Part(NamedTuple):
    """Steps of a batch with what was found for them from the whole of it."""

    batch: Batch
    advantage: Tensor
    share: Tensor
    target: Tensor | None  # of V
    steps: int  # that count


def _look(passes: Passes, estimator: Estimator, batch: Batch, stale: bool) -> _Part:
    """Advantages, shares and value targets of a batch as the policy and V are now."""
    log_prob = None
    if stale:
        log_prob, value = passes.forward(batch.observation, batch.action)
        batch = replace(batch, value=value)
    advantage, worth = estimator.advantage_and_worth(batch, log_prob)
    target = None if batch.value is None else value_target(estimator, batch, worth, log_prob)
    return _Part(batch, advantage, estimator.share(batch), target, batch.steps)


def _steps_shuffled(
    found: _Part, parts: int, standardise: bool, generator: torch.Generator
) -> Iterator[_Part]:
    """Minibatches of single steps, as batches of one step a row.

    All are of one size: a remainder of less than `parts` steps, random ones, is left out.
    """
    batch = found.batch
    counted = batch.mask.flatten().nonzero().squeeze(1)
    size = len(counted) // parts
    refuse_unless(
        size >= 2,
        f"Epochs(minibatches={parts}): the batch has {len(counted)} steps; a minibatch needs two.",
    )
    order = counted[torch.randperm(len(counted), generator=generator).to(counted.device)]
    order = order[: size * parts]

    def taken(tensor: Tensor) -> Tensor:
        shuffled = tensor.flatten(0, 1).index_select(0, order)
        return shuffled.view(parts, size, 1, *shuffled.shape[1:])

    def split(tensor: Tensor | None) -> Sequence[Any]:
        return [None] * parts if tensor is None else taken(tensor).unbind()

    advantages = taken(found.advantage)
    if standardise:
        advantages = _standardised(advantages, torch.ones_like(advantages), (1, 2))
    seen = zip(*(split(getattr(batch, name)) for name in _STEPWISE), strict=True)
    share = split(found.share * (len(counted) / size))
    # a stepwise ratio reads log_prob and mask alone: the other fields are blank
    blank = batch.log_prob.new_zeros(size, 1)
    true, number = torch.ones_like(blank, dtype=torch.bool), order.new_zeros(size)
    rest = dict.fromkeys(("reward", "discount", "bootstrap"), blank)
    whole = {"boundary": true, "mask": true, "episode": number[:, None], "group": number}
    for fields, advantage, part, target in zip(
        seen, advantages.unbind(), share, split(found.target), strict=True
    ):
        named = dict(zip(_STEPWISE, fields, strict=True))
        minibatch = Batch(**named, **rest, **whole, weight=blank[:, 0])
        yield _Part(minibatch, advantage, part, target, size)


def _rows_shuffled(
    found: _Part, parts: int, standardise: bool, generator: torch.Generator
) -> Iterator[_Part]:
    """Minibatches of whole rows."""
    rows = found.batch.rows
    refuse_unless(
        rows >= parts,
        f"Epochs(minibatches={parts}): this policy or ratio needs whole rows, and the batch has "
        f"{rows}; use fewer minibatches, or more lanes.",
    )
    order = torch.randperm(rows, generator=generator).to(found.share.device)
    for index in order.tensor_split(parts):
        part = found.batch.select(index)
        target = None if found.target is None else found.target[index]
        advantage = found.advantage[index]
        if standardise:
            advantage = _standardised(advantage, part.mask, (0, 1))
        yield _Part(part, advantage, found.share[index] * parts, target, part.steps)


def _standardised(advantage: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(A − Ā)/(σ̂ + 10⁻⁸), moments over the counted steps along `dims`; 0 where all are equal."""
    count = mask.sum(dims, keepdim=True)
    mean = (advantage * mask).sum(dims, keepdim=True) / count
    centred = (advantage - mean) * mask
    deviation = (centred.square().sum(dims, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    noise = 32 * torch.finfo(advantage.dtype).eps * mean.abs()
    return centred * torch.where(deviation > noise, 1 / (deviation + 1e-8), 0)


def _kl(log_ratio: Tensor) -> float:
    """An estimate of KL(π_old ‖ π) that is never negative (k3), from actions of π_old."""
    return float((log_ratio.expm1() - log_ratio).mean())


def _movement(estimator: Estimator, moved: list[tuple[Tensor, "_Part"]]) -> dict[str, Any]:
    """How far the policy was from the one that sampled, over the last epoch as it was taken.

    Args:
        moved: log ρ of every minibatch.
    """
    mask = torch.cat([part.batch.mask for _, part in moved])
    log_ratio = torch.cat([log_ratio for log_ratio, _ in moved])[mask][:, None]
    advantage = torch.cat([part.advantage for _, part in moved])[mask][:, None]
    ratio = log_ratio.exp()
    return {
        "kl": _kl(log_ratio),
        "clip_fraction": (estimator.clip(ratio, advantage) != ratio).float().mean().item(),
        "largest_log_prob_change": log_ratio.abs().max().item(),
    }


def _fit(found: _Part) -> dict[str, Any]:
    """How good V was before the update."""
    if found.target is None or found.batch.value is None:
        return {}
    mask = found.batch.mask
    target, residual = found.target[mask], (found.target - found.batch.value)[mask]
    return {
        "value_loss": residual.square().mean().item(),
        "explained_variance": explained_variance(residual, target),
    }
