"""One update of a language policy from one batch: advantages once, passes, steps.

    advantage, share     of the whole batch, once
    for epoch, minibatch:
        for piece:       whole prompts; its gradient is a sample of its own: the signal's statistics
            for pass:    so many tokens at once; log π, weights, backward
        step

On the first pass over a batch the log-probabilities of sampling are the policy's own: no pass is
spent on scoring.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.estimators.estimator import Estimator
from vantage.language.model.policy import Policy
from vantage.language.scoring.scoring import Pass, Passes, scored_passes
from vantage.statistics.signal import Signal
from vantage.training.interface import refuse_unless_finite
from vantage.training.learner import signal_metrics
from vantage.training.value import value_target


@dataclass
class Weighed:
    """A batch with all that is counted across it, made once.

    Attributes:
        batch: as sampled, with values where there is a value head.
        inputs: what the estimator needs beyond the batch, [N, T] each.
        advantage, share: of the whole batch.
        fixed: [N, T] the weights, where they do not depend on the policy as it is now, else None.
        target: [N, T] what V is fitted to, or None.
        passes: how the batch is gone over.
        log_prob: [N, T] of the policy that the update begins with, where the advantage looks at it
            and the batch's own are of another.
    """

    estimator: Estimator
    batch: Batch
    inputs: dict[str, Tensor]
    passes: Passes
    log_prob: Float[Tensor, "N T"] | None = None
    advantage: Float[Tensor, "N T"] = field(init=False)
    share: Float[Tensor, "N T"] = field(init=False)
    fixed: Float[Tensor, "N T"] | None = field(init=False)
    target: Float[Tensor, "N T"] | None = field(init=False)

    def __post_init__(self) -> None:
        estimator = self.estimator
        self.advantage = estimator.advantage(self.batch, self.log_prob, **self.inputs)
        self.share = estimator.share(self.batch)
        if estimator.restraint is not None:
            held = estimator.restrained(self.batch, self.advantage, self.log_prob, **self.inputs)
            self.inputs = self.inputs | {"restrained": held}
        self.fixed = (
            estimator.weights(self.batch, None, self.advantage, self.share, **self.inputs)
            if estimator.fixed
            else None
        )
        self.target = None
        if self.batch.value is not None:
            worth = estimator.worth(self.batch, self.log_prob, **self.inputs)
            self.target = value_target(estimator, self.batch, worth, self.log_prob)

    def weights(self, one: Pass) -> Float[Tensor, " M"]:
        """The weights of a pass's counted steps, with the policy as it is now."""
        if self.fixed is not None:
            return self.fixed[one.rows][one.mask]
        rows = one.rows
        inputs = {name: grid[rows] for name, grid in self.inputs.items() if name != "scores"}
        grid = self.estimator.weights(
            self.batch.select(rows),
            one.grid(one.log_prob),
            self.advantage[rows],
            self.share[rows],
            **inputs,
        )
        return grid[one.mask]

    def gain(self, one: Pass) -> Float[Tensor, ""]:
        """Σ w log π, and the entropy bonus, of a pass's counted steps; its slope is part of ĝ."""
        gain = (self.weights(one).to(one.log_prob) * one.log_prob).sum()
        if self.estimator.entropy:
            share = self.share[one.rows][one.mask].to(one.entropy)
            gain = gain + self.estimator.entropy * (share * one.entropy).sum()
        return gain

    def value_error(self, one: Pass, value: nn.Module) -> Float[Tensor, ""]:
        """Σ (V − target)² of a pass's counted steps over the number of those of the batch."""
        assert self.target is not None
        predicted = value(one.states)
        target = self.target[one.rows][one.mask].to(predicted)
        return (predicted - target).square().sum() / self.batch.steps


class Step(NamedTuple):
    """A step of the optimiser, with what its passes saw of the policy before it.

    Attributes:
        epoch: over the batch, from 0.
        rows: [n] of the batch in its minibatch.
        log_prob, entropy: [n, T] of the policy, 0 at steps that do not count.
        norm: the norm of the gradient, before clipping.
    """

    epoch: int
    rows: Int[Tensor, " n"]
    log_prob: Float[Tensor, "n T"]
    entropy: Float[Tensor, "n T"]
    norm: float


@dataclass
class Pieces:
    """Gradients of the pieces that a minibatch's was summed from.

    Attributes:
        squares: ‖g‖² of each piece.
        completions: the completions of each piece, those that count.
        cross: g_1 · g_2 of each pair of pieces on the same prompts, where a piece is a half.
    """

    squares: list[float] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    cross: list[float] = field(default_factory=list)


def ascend(
    policy: Policy,
    weighed: Weighed,
    optimizer: Optimizer,
    *,
    epochs: int,
    minibatches: int,
    max_grad_norm: float | None,
    pieces: int,
    value: nn.Module | None,
    value_coefficient: float,
    generator: torch.Generator,
) -> tuple[list[Step], dict[str, object]]:
    """Go over a batch `epochs` times in `minibatches` steps each.

    The first step takes the groups in the order they were drawn, later epochs in random order.

    Args:
        pieces: in which the first step's gradient is summed: 1, or 2 for its signal, or 4 for the
            signal and the noise between and within prompts.

    Returns:
        The steps, and the metrics of the first gradient's signal, as far as it was measured.

    Raises:
        NonFiniteError: of a gradient; the policy is then as it was before that step.
    """
    steps: list[Step] = []
    signal: dict[str, object] = {}
    groups = weighed.batch.group.unique()
    for epoch in range(epochs):
        order = torch.randperm(len(groups), generator=generator) if epoch else None
        chunks = (groups if order is None else groups[order]).chunk(minibatches)
        backward_of = partial(
            backward,
            policy,
            weighed,
            scale=len(chunks),
            value=value,
            value_coefficient=value_coefficient,
        )
        for minibatch in chunks:
            rows = _pieces(weighed.batch, minibatch, 1 if steps else pieces)
            log_prob, entropy, summed = in_pieces(backward_of, weighed.batch, rows, optimizer)
            norm = clip(optimizer, max_grad_norm)
            refuse_unless_finite(
                torch.tensor(norm), weighed.batch, left="The policy is as it was before this step."
            )
            if not steps:
                signal = signal_of(summed, norm)
            optimizer.step()
            steps.append(Step(epoch, torch.cat(rows), log_prob, entropy, norm))
    return steps, signal


def backward(
    policy: Policy,
    weighed: Weighed,
    rows: Int[Tensor, " n"],
    *,
    scale: int = 1,
    value: nn.Module | None = None,
    value_coefficient: float = 0.0,
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Add the slope of −scale × (the gain of these rows − the value's loss) to `.grad`, in passes.

    Returns:
        log π and entropy of the rows' counted steps, on the grid of the batch; 0 elsewhere.
    """
    log_prob = torch.zeros_like(weighed.batch.log_prob)
    entropy = torch.zeros_like(log_prob)
    for one in scored_passes(policy, weighed.batch, weighed.passes, rows):
        loss = -weighed.gain(one) * scale
        if value is not None:
            loss = loss + value_coefficient * scale * weighed.value_error(one, value)
        loss.backward()
        log_prob[one.rows] = one.grid(one.log_prob).to(log_prob)
        entropy[one.rows] = one.grid(one.entropy).to(entropy)
    return log_prob, entropy


Backward = Callable[[Int[Tensor, " n"]], tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]]


def in_pieces(
    backward_of: Backward, batch: Batch, pieces: list[Int[Tensor, " _"]], optimizer: Optimizer
) -> tuple[Float[Tensor, "n T"], Float[Tensor, "n T"], Pieces]:
    """The gradient of all pieces' rows, in `.grad`; and of each by itself, where there are several.

    Args:
        backward_of: adds the gradient of rows to `.grad`; see `backward`.
        pieces: rows of the batch.
        optimizer: the optimizer of the parameters that have gradients.

    Returns:
        log π and entropy [n, T] of the rows, piece after piece, and statistics of the pieces.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    scored = [backward_of(pieces[0])]
    summed = Pieces()
    if len(pieces) > 1:
        total = before = _gradients(trained)
        _add(summed, batch, pieces[0], total)
        for number, rows in enumerate(pieces[1:], 1):
            for p in trained:
                p.grad = None
            scored.append(backward_of(rows))
            gradients = _gradients(trained)
            _add(summed, batch, rows, gradients)
            if len(pieces) == 4 and number % 2:
                # halves of the completions of the same prompts
                summed.cross.append(_dot(before, gradients))
            before = gradients
            # the first piece's own tensors hold the sum from here on
            torch._foreach_add_(total, gradients)
        for p, gradient in zip(trained, total, strict=True):
            p.grad = gradient
    grids = zip(*scored, strict=True)
    log_prob, entropy = (
        torch.cat([grid[rows] for grid, rows in zip(each, pieces, strict=True)]) for each in grids
    )
    return log_prob, entropy, summed


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def _add(summed: Pieces, batch: Batch, rows: Int[Tensor, " n"], gradients: list[Tensor]) -> None:
    summed.squares.append(_dot(gradients, gradients))
    summed.completions.append(int(batch.mask[rows].any(1).sum()))


def _pieces(batch: Batch, groups: Int[Tensor, " g"], count: int) -> list[Int[Tensor, " _"]]:
    """Rows of the minibatch in one piece, two of whole groups, or four: those two halved.

    Pieces go by the order in which groups were drawn, never by length: they must be alike.
    """
    if len(groups) < 2 or count == 1:
        return [_rows_of(batch, groups)]
    pieces = []
    for half in groups.chunk(2):
        rows = _rows_of(batch, half)
        if count == 2:
            pieces.append(rows)
            continue
        place = torch.arange(len(rows))
        size = max(1, len(rows) // len(half))
        first = place % size < size // 2
        pieces += [rows[first], rows[~first]]
    return pieces


def _rows_of(batch: Batch, groups: Int[Tensor, " g"]) -> Int[Tensor, " n"]:
    """The rows of these groups, in order."""
    return torch.isin(batch.group, groups).nonzero().squeeze(1)


def signal_of(pieces: Pieces, norm: float) -> dict[str, object]:
    """Statistics of the gradient from the pieces it was summed from, without bias.

    With ĝ = g_1 + g_2 from shares f_1, f_2 of the prompts and N = ‖∇J‖², E g_1 · g_2 = f_1 f_2 N,
    which gives N̂; ‖ĝ‖² − N̂ estimates the variance V of ĝ. Where each g_u is a sum of two halves of
    the completions of its prompts, E g_u1 · g_u2 = (f_u² N + f_u V_between)/4; the rest of V is
    within prompts. (Estimators that compare the completions of a prompt make the halves slightly
    dependent: for RLOO, V_between is off by a part in (G−1)² of the prompts' mean ‖∇J_prompt‖².)

    Returns, for the gradient of the minibatch:
        What `signal_metrics` gives, with two pieces for units;
        noise/between_prompts, noise/within_prompts: shares of V, where pieces are halves.
    """
    halved = len(pieces.cross) == 2
    squares, counts = pieces.squares, pieces.completions
    if len(squares) < 2:
        return {}
    if halved:
        a, b = pieces.cross
        squares = [squares[0] + squares[1] + 2 * a, squares[2] + squares[3] + 2 * b]
        counts = [counts[0] + counts[1], counts[2] + counts[3]]
    f, g = (count / max(1, sum(counts)) for count in counts)
    if f * g == 0:
        return {}
    squared_norm, noise = _signal_and_noise(squares, counts, norm)
    metrics: dict[str, Any] = signal_metrics(Signal(2, sum(counts) / 2, squared_norm, 2 * noise))
    if halved:
        between = 4 * sum(pieces.cross) - squared_norm * (f * f + g * g)
        metrics["noise/between_prompts"] = between
        metrics["noise/within_prompts"] = noise - between
    return metrics


def _signal_and_noise(squares: list[float], counts: list[int], norm: float) -> tuple[float, float]:
    """N̂ = ‖∇J‖² and the variance of ĝ = Σ_u g_u, without bias, from pieces of any sizes.

    With shares f_u of the completions E ‖g_u‖² = f_u² N + f_u V and E ‖ĝ‖² = N + V.
    """
    total = norm * norm
    together = sum((count / sum(counts)) ** 2 for count in counts)
    squared_norm = (total - sum(squares)) / (1 - together)
    return squared_norm, total - squared_norm


def baseline_variance(
    policy: Policy,
    rules: dict[str, Estimator],
    weighed: Weighed,
    optimizer: Optimizer,
    pieces: int = 8,
) -> dict[str, float]:
    """Variance of one completion's gradient under each rule, on one batch, by the rule's name.

    Each rule's gradient is summed from pieces of whole prompts; the variance is that of the
    batch's gradient times the completions in it. An entropy bonus is no sample and left out. Costs
    a gradient per rule, and the memory of one beyond that of a training step.

    Args:
        rules: that need no other inputs than `weighed` has.
        weighed: the batch; its own estimator is not looked at.

    Returns:
        The variances; none where fewer than two pieces have a completion that counts.
    """
    variance: dict[str, float] = {}
    for name, rule in rules.items():
        anew = replace(weighed, estimator=replace(rule, entropy=0.0))
        summed, norm = gradient_in_pieces(policy, anew, optimizer, pieces)
        counts = summed.completions
        if sum(count > 0 for count in counts) < 2:
            break
        _, noise = _signal_and_noise(summed.squares, counts, norm)
        variance[name] = noise * sum(counts)
    return variance


def gradient_in_pieces(
    policy: Policy, weighed: Weighed, optimizer: Optimizer, pieces: int
) -> tuple[Pieces, float]:
    """ĝ as the first step on a batch has it, in pieces of whole prompts, and its norm; no step."""
    batch = weighed.batch
    rows = [_rows_of(batch, groups) for groups in batch.group.unique().chunk(pieces)]
    _, _, summed = in_pieces(partial(backward, policy, weighed), batch, rows, optimizer)
    norm = clip(optimizer, None)
    optimizer.zero_grad(set_to_none=True)
    return summed, norm


def clip(optimizer: Optimizer, longest: float | None) -> float:
    """Norm of the gradient; where it is longer than allowed it is shortened."""
    grads = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    norm = float(torch.nn.utils.get_total_norm(grads))
    if longest is not None and norm > longest:
        torch._foreach_mul_(grads, longest / norm)
    return norm


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return float(
        sum(torch.dot(x.flatten(), y.flatten()).double() for x, y in zip(a, b, strict=True))
    )
