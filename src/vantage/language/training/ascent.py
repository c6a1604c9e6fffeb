"""One update of a language policy from one batch: advantages once, passes, steps.

    advantage, share     of the whole batch, once
    for epoch, minibatch:
        for piece:       whole prompts; its gradient is a sample of its own: the signal's statistics
            for pass:    so many tokens at once; log π, weights, backward
        step

On the first pass over a batch the log-probabilities of sampling are the policy's own: no pass is
spent on scoring.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import ratios
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import explained_variance
from vantage.language.scoring.scoring import Pass, Passes, scored_passes


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
    """

    estimator: Estimator
    batch: Batch
    inputs: dict[str, Tensor]
    passes: Passes
    advantage: Float[Tensor, "N T"] = field(init=False)
    share: Float[Tensor, "N T"] = field(init=False)
    fixed: Float[Tensor, "N T"] | None = field(init=False)
    target: Float[Tensor, "N T"] | None = field(init=False)

    def __post_init__(self) -> None:
        own = self.estimator
        self.advantage = own.advantage(self.batch, **self.inputs)
        self.share = own.share(self.batch)
        frozen = own.ratio is ratios.none and own.kl_in_loss is None
        self.fixed = (
            own.weights(self.batch, None, self.advantage, self.share, **self.inputs)
            if frozen
            else None
        )
        valued = self.batch.value is not None
        self.target = own.worth(self.batch, **self.inputs) if valued else None

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


@dataclass
class Pieces:
    """Gradients of the pieces of a minibatch, as they are summed.

    Attributes:
        squares: ‖g‖² of each piece.
        completions: of each piece, those that count.
        cross: g_1 · g_2 of each pair of pieces on the same prompts, where a piece is a half.
    """

    squares: list[float] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    cross: list[float] = field(default_factory=list)


@dataclass
class Seen:
    """What the passes of an update saw, for its metrics. Sums are over counted steps."""

    steps: int = 0
    fresh_steps: int = 0  # before the first step
    entropy: float = 0.0
    difference: float = 0.0
    difference_max: float = 0.0
    low: float = 0.0
    high: float = 0.0
    log_ratio: Tensor | None = None
    value_error: float = 0.0
    signal: dict[str, float] = field(default_factory=dict)
    grad_norms: list[float] = field(default_factory=list)


def ascend(
    policy: Policy,
    weighed: Weighed,
    optimizer: Optimizer,
    *,
    num_iterations: int,
    minibatches: int,
    max_grad_norm: float | None,
    pieces: int,
    value: nn.Module | None,
    value_coefficient: float,
    generator: torch.Generator,
) -> Seen:
    """Go over a batch `num_iterations` times in `minibatches` steps each.

    The first step takes the groups in the order they were drawn, later epochs in random order.

    Args:
        pieces: in which the first step's gradient is summed: 1, or 2 for its signal, or 4 for the
            signal and the noise between and within prompts.

    Raises:
        InputError: a gradient that is not finite; the policy is then as it was before that step.
    """
    seen = Seen()
    groups = weighed.batch.group.unique()
    for epoch in range(num_iterations):
        order = torch.randperm(len(groups), generator=generator) if epoch else None
        parts = (groups if order is None else groups[order]).chunk(minibatches)
        seen.log_ratio = torch.zeros(weighed.batch.rows)
        for number, part in enumerate(parts):
            fresh = epoch == 0 and number == 0
            parts_of_it = _pieces(weighed.batch, part, pieces if fresh else 1)
            optimizer.zero_grad(set_to_none=True)
            trainer = _Backward(policy, weighed, value, value_coefficient, len(parts), seen, fresh)
            found = trainer.over(parts_of_it, optimizer)
            norm = _clip(optimizer, max_grad_norm)
            refuse_unless(
                norm == norm and norm != float("inf"),
                "The gradient is not finite; lower lr, or look at the rewards of this update. The "
                "policy is as it was before this step.",
            )
            if fresh:
                seen.signal = signal_of(found, norm)
            seen.grad_norms.append(norm)
            optimizer.step()
    return seen


@dataclass
class _Backward:
    """Backward passes of one minibatch."""

    policy: Policy
    weighed: Weighed
    value: nn.Module | None
    value_coefficient: float
    minibatches: int
    seen: Seen
    fresh: bool  # no step was taken yet: the policy is the one that sampled

    def over(self, pieces: list[Int[Tensor, " _"]], optimizer: Optimizer) -> Pieces:
        """Leave the gradient of −ĝ of the pieces' rows in the parameters' `.grad`."""
        found = Pieces()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        total: list[Tensor] | None = None
        before: list[Tensor] = []
        for number, rows in enumerate(pieces):
            for one in scored_passes(self.policy, self.weighed.batch, self.weighed.passes, rows):
                self._loss(one).backward()
            if not self.fresh or len(pieces) == 1:
                continue
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            found.squares.append(_dot(own, own))
            found.completions.append(int(self.weighed.batch.mask[rows].any(1).sum()))
            if len(pieces) == 4:
                found.cross += [_dot(before, own)] if number % 2 else []
                before = own
            last = number == len(pieces) - 1
            if total is None:
                total = own
            else:
                torch._foreach_add_(total, own)
            for p, piece in zip(trained, total, strict=True):
                p.grad = piece if last else None
        return found

    def _loss(self, one: Pass) -> Tensor:
        weights = self.weighed.weights(one).to(one.log_prob)
        gain = (weights * one.log_prob).sum()
        estimator = self.weighed.estimator
        if estimator.entropy:
            share = self.weighed.share[one.rows][one.mask].to(one.entropy)
            gain = gain + estimator.entropy * (share * one.entropy).sum()
        loss = -gain * self.minibatches
        if self.value is not None:
            loss = loss + self._value_loss(one)
        self._note(one)
        return loss

    def _value_loss(self, one: Pass) -> Tensor:
        """Mean squared error over all counted steps of the batch, this pass's part of it."""
        assert self.value is not None
        assert self.weighed.target is not None
        predicted = self.value(one.states)
        target = self.weighed.target[one.rows][one.mask].to(predicted)
        error = (predicted - target).square().sum() / self.weighed.batch.steps
        self.seen.value_error += float(error.detach())
        return self.value_coefficient * self.minibatches * error

    @torch.no_grad()
    def _note(self, one: Pass) -> None:
        seen, batch = self.seen, self.weighed.batch
        sampled = batch.log_prob[one.rows][one.mask].to(one.log_prob)
        log_ratio = one.log_prob.detach() - sampled
        assert seen.log_ratio is not None
        seen.log_ratio[one.rows] = one.grid(log_ratio).sum(1).to(seen.log_ratio)
        seen.steps += len(sampled)
        seen.entropy += float(one.entropy.sum())
        if self.fresh:
            seen.fresh_steps += len(sampled)
            seen.difference += float(log_ratio.abs().sum())
            seen.difference_max = max(seen.difference_max, float(log_ratio.abs().max()))
        else:
            self._note_clipping(one)

    def _note_clipping(self, one: Pass) -> None:
        estimator, batch = self.weighed.estimator, self.weighed.batch.select(one.rows)
        if estimator.ratio is ratios.none:
            return
        ratio = estimator.ratio(batch, one.grid(one.log_prob))
        factor = estimator.clip(ratio, self.weighed.advantage[one.rows])
        clipped = (factor != ratio) & one.mask
        self.seen.low += float((clipped & (ratio < 1)).sum())
        self.seen.high += float((clipped & (ratio > 1)).sum())


def _pieces(batch: Batch, groups: Int[Tensor, " g"], count: int) -> list[Int[Tensor, " _"]]:
    """Rows of the minibatch in one part, two of whole groups, or four: those two halved.

    Parts go by the order in which groups were drawn, never by length: they must be alike.
    """
    if len(groups) < 2 or count == 1:
        return [_rows_of(batch, groups)]
    made = []
    for half in groups.chunk(2):
        rows = _rows_of(batch, half)
        if count == 2:
            made.append(rows)
            continue
        place = torch.arange(len(rows))
        size = max(1, len(rows) // len(half))
        first = place % size < size // 2
        made += [rows[first], rows[~first]]
    return made


def _rows_of(batch: Batch, groups: Int[Tensor, " g"]) -> Int[Tensor, " n"]:
    """The rows of these groups, in order."""
    return torch.isin(batch.group, groups).nonzero().squeeze(1)


def signal_of(pieces: Pieces, norm: float) -> dict[str, float]:
    """Statistics of the gradient from the pieces it was summed from, without bias.

    With ĝ = g_1 + g_2 from shares f_1, f_2 of the prompts and N = ‖∇J‖², E g_1 · g_2 = f_1 f_2 N,
    which gives N̂; ‖ĝ‖² − N̂ estimates the variance V of ĝ. Where each g_u is a sum of two halves of
    the completions of its prompts, E g_u1 · g_u2 = (f_u² N + f_u V_between)/4; the rest of V is
    within prompts. (Estimators that compare the completions of a prompt make the halves slightly
    dependent: for RLOO, V_between is off by a part in (G−1)² of the prompts' mean ‖∇J_prompt‖².)

    Returns, for the gradient of the minibatch:
        units, unit: how many pieces, completions in each.
        gradient_squared_norm: N̂. gradient_variance: of the estimate that one piece makes.
        noise/between_prompts, noise/within_prompts: parts of V, where pieces are halves.
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
    found: dict[str, float] = {
        "units": 2,
        "unit": sum(counts) / 2,
        "gradient_squared_norm": squared_norm,
        "gradient_variance": 2 * noise,
    }
    if halved:
        between = 4 * sum(pieces.cross) - squared_norm * (f * f + g * g)
        found["noise/between_prompts"] = between
        found["noise/within_prompts"] = noise - between
    return found


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

    Each rule's gradient is summed from parts of whole prompts; the variance is that of the
    batch's gradient times the completions in it. An entropy bonus is no sample and left out. Costs
    a gradient per rule, and the memory of one beyond that of a training step.

    Args:
        rules: that need no other inputs than `weighed` has.
        weighed: the batch; its own estimator is not looked at.

    Returns:
        The variances; none where fewer than two parts have a completion that counts.
    """
    found: dict[str, float] = {}
    for name, rule in rules.items():
        own = replace(weighed, estimator=replace(rule, entropy=0.0))
        summed, norm = in_pieces(policy, own, optimizer, pieces)
        counts = summed.completions
        if sum(count > 0 for count in counts) < 2:
            break
        _, noise = _signal_and_noise(summed.squares, counts, norm)
        found[name] = noise * sum(counts)
    return found


def in_pieces(
    policy: Policy, weighed: Weighed, optimizer: Optimizer, pieces: int
) -> tuple[Pieces, float]:
    """ĝ as the first step on a batch finds it, in parts of whole prompts, and its norm; no step."""
    batch = weighed.batch
    parts = [_rows_of(batch, some) for some in batch.group.unique().chunk(pieces)]
    optimizer.zero_grad(set_to_none=True)
    seen = Seen(log_ratio=torch.zeros(batch.rows))
    found = _Backward(policy, weighed, None, 0.0, 1, seen, fresh=True).over(parts, optimizer)
    norm = _clip(optimizer, None)
    optimizer.zero_grad(set_to_none=True)
    return found, norm


def _clip(optimizer: Optimizer, longest: float | None) -> float:
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


def effective_sample_size(log_ratio: Float[Tensor, " N"]) -> float:
    """(Σ w)²/(N Σ w²) of the sequences' importance weights w = Π_t ρ_t: 1 on policy."""
    weight = (log_ratio - log_ratio.max()).double().exp()
    return float(weight.sum().square() / weight.square().sum() / len(weight))


def seen_metrics(seen: Seen, weighed: Weighed) -> dict[str, Any]:
    """What the passes saw, under the names that users know."""
    batch = weighed.batch
    steps = max(1, seen.steps)
    kept = batch.mask.any(1)
    row: dict[str, Any] = {
        "entropy": seen.entropy / steps,
        "grad_norm": seen.grad_norms[0],
        "clip_ratio/low": seen.low / steps,
        "clip_ratio/high": seen.high / steps,
        "sampling/log_prob_difference_mean": seen.difference / max(1, seen.fresh_steps),
        "sampling/log_prob_difference_max": seen.difference_max,
    }
    if seen.log_ratio is not None and bool(kept.any()):
        row["ess"] = effective_sample_size(seen.log_ratio[kept])
    if weighed.target is not None and batch.value is not None:
        row["value_loss"] = seen.value_error
        row["explained_variance"] = explained_variance(
            batch.value[batch.mask], weighed.target[batch.mask]
        )
    if "reference_log_prob" in weighed.inputs:
        apart = torch.where(batch.mask, batch.log_prob - weighed.inputs["reference_log_prob"], 0)
        row["kl"] = float((torch.expm1(-apart) + apart).sum()) / batch.steps
    return row
