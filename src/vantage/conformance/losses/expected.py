"""What a loss does on average: over every batch of a small problem, with its probability."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import comb, prod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.conformance.losses.door import Loss, Rows
from vantage.conformance.losses.problems import Problem, with_padding
from vantage.errors import refuse_unless
from vantage.exact.enumeration import multisets
from vantage.gradients.weighted import step_scores

MOST = 20_000  # batches of one problem
NOTHING = 1e-10  # a gradient of rounding errors


class RefusedError(Exception):
    """A loss failed on a batch; the cause is its own error."""


class Batches(NamedTuple):
    """Every batch of P prompts × K completions.

    Attributes:
        members: [U, P K] rows of `problem.every`, prompt by prompt.
        probability: [U].
    """

    members: Int[Tensor, "U N"]
    probability: Float[Tensor, " U"]


@dataclass(frozen=True, eq=False)
class Expected:
    """Exact moments of the step −∂loss/∂z of one batch, beside ∇J.

    Attributes:
        problem, size: of the batches: every prompt once, with `size` completions.
        steps: T of the batches, padding included.
        mean: [P] its expectation; z are the logits.
        gradient: [P] ∇J.
        trace: tr Cov of it.
        reinforce, rloo: the same of these two, on the same batches.
        batches: how many.
        weight: [U, N, T] −∂loss/∂log π of every batch; None where the loss reads logits.
        finite: whether it is finite on every batch.
    """

    problem: Problem
    size: int
    steps: int
    mean: Float[Tensor, " P"]
    gradient: Float[Tensor, " P"]
    trace: float
    reinforce: float
    rloo: float
    batches: Batches
    weight: Float[Tensor, "U N T"] | None
    finite: bool

    @property
    def length(self) -> float:
        """‖∇J‖."""
        return float(self.gradient.norm())

    @property
    def factor(self) -> float:
        """How far it goes along ∇J, in lengths of ∇J."""
        return float(self.mean @ self.gradient / (self.gradient @ self.gradient))

    @property
    def angle(self) -> float:
        """Between it and ∇J, in degrees. 0 where it is 0, 90 where ∇J is 0 and it is not."""
        along = float(self.mean @ self.gradient)
        if self.length < NOTHING or not self.mean.norm() > NOTHING:
            return 90.0 if self.mean.norm() > NOTHING else 0.0
        beside = self.mean * self.length - along * self.gradient / self.length
        return float(torch.rad2deg(torch.atan2(beside.norm(), torch.tensor(along).double())))


def every_batch(problem: Problem, size: int, ordered: bool = False, copies: int = 1) -> Batches:
    """All batches in which every prompt has `size` completions.

    Args:
        ordered: list the orders of completions apart: for losses that look at them.
        copies: groups of each prompt.
    """
    every = problem.every
    members, probability = torch.zeros(1, 0, dtype=torch.long), torch.ones(1, dtype=torch.float64)
    for group in every.group.unique().repeat_interleave(copies):
        rows = (every.group == group).nonzero()
        chance = every.weight[rows[:, 0]] / every.weight[rows[:, 0]].sum()
        if ordered:
            tuples = torch.tensor(list(itertools.product(rows[:, 0].tolist(), repeat=size)))
            places = torch.tensor(list(itertools.product(range(len(rows)), repeat=size)))
            drawn = chance[places].prod(1)
        else:
            tuples, drawn = multisets(rows, chance, size)
        members = torch.cat(
            [members.repeat_interleave(len(tuples), 0), tuples.repeat(len(members), 1)], 1
        )
        probability = (probability[:, None] * drawn).flatten()
    return Batches(members, probability)


def refuse_too_many(problem: Problem, size: int, ordered: bool) -> None:
    """Refuse, before any is evaluated, more batches than can be listed.

    Raises:
        InputError: with their number.
    """
    counts = problem.every.group.unique(return_counts=True)[1].tolist()
    number = prod(n**size if ordered else comb(n + size - 1, size) for n in counts)
    kind = " in every order, as the loss depends on the order of rows" if ordered else ""
    refuse_unless(
        number <= MOST,
        f"verify(num_generations with {size}): {problem.name!r} has {number:,} batches{kind}, and "
        f"{MOST:,} can be listed; use fewer completions per prompt.",
    )


def expected(
    loss: Loss,
    problem: Problem,
    size: int,
    *,
    ordered: bool = False,
    copies: int = 1,
    padding: int = 0,
    reference: Float[Tensor, "S A"] | None = None,
) -> Expected:
    """Evaluate the loss on every batch, and average its step.

    Args:
        loss, problem, size: what is evaluated, where, and on how many completions per prompt.
        ordered, copies: as in `every_batch`.
        padding: masked steps more.
        reference: [S, A] logits of the policy that a KL is measured to; the policy's where None.

    Raises:
        RefusedError: the loss fails on some batch.
    """
    batches = every_batch(problem, size, ordered, copies)
    evaluation = on(problem) if reference is None else Evaluation(problem, reference)
    steps, weights = [], []
    group = torch.arange(batches.members.shape[1]) // size
    for members in batches.members:
        step, weight = evaluation.step(loss, members, group, padding)
        steps.append(step)
        weights.append(weight)
    estimates, p = torch.stack(steps), batches.probability
    mean = p @ estimates
    trace = float(p @ (estimates - mean).square().sum(1))
    known = [weight for weight in weights if weight is not None]
    return Expected(
        problem=problem,
        size=size,
        steps=problem.every.mask.shape[1] + padding,
        mean=mean,
        gradient=problem.gradient,
        trace=trace,
        reinforce=_trace_of_reinforce(problem, size, copies),
        rloo=_trace_of_rloo(problem, size, copies),
        batches=batches,
        weight=torch.stack(known) if len(known) == len(weights) else None,
        finite=bool(estimates.isfinite().all()),
    )


class Evaluation:
    """A problem's rows, ready to be put together to batches."""

    def __init__(self, problem: Problem, reference: Float[Tensor, "S A"] | None = None):
        self.problem = problem
        self.every = problem.every
        self.scores = step_scores(problem.policy, self.every)
        self.reference = problem.policy.logits.detach() if reference is None else reference
        start = self.every.group
        self.greedy = problem.greedy_return[start][:, None].expand_as(self.every.reward)
        self._made: dict[tuple[int, ...], tuple[Batch, Tensor, Tensor]] = {}

    def rows(
        self,
        members: Int[Tensor, " N"],
        group: Int[Tensor, " N"],
        z: Float[Tensor, "S A"],
        padding: int = 0,
    ) -> Rows:
        """A batch of the given completions, as a function of the logits z."""
        batch, scores, greedy = self._put_together(members, group, padding)
        logits, temperature = z[batch.observation], self.problem.temperature
        return Rows(
            log_prob=_at(logits / temperature, batch.action),
            reference_log_prob=_at(self.reference[batch.observation], batch.action),
            logits=logits,
            batch=batch,
            scores=scores,
            greedy_return=greedy,
            temperature=temperature,
        )

    def _put_together(
        self, members: Int[Tensor, " N"], group: Int[Tensor, " N"], padding: int
    ) -> tuple[Batch, Tensor, Tensor]:
        """What of a batch does not depend on the logits, made once.

        Padding shows tokens that the policy gives a log-probability, as it does in practice.
        """
        key = (*members.tolist(), *group.tolist(), padding)
        if key not in self._made:
            count = len(members)
            rows = self.every.select(members)
            rows = rows.map(lambda x: with_padding(x, padding) if padding and x.ndim > 1 else x)
            old = self.problem.sampler.logits.detach()[rows.observation]
            batch = replace(
                rows,
                log_prob=_at(old, rows.action),
                group=group,
                episode=torch.arange(count)[:, None].expand_as(rows.mask).contiguous(),
                weight=torch.full_like(rows.weight, 1 / count),
            )
            greedy = self.greedy[members, :1].expand_as(batch.reward)
            self._made[key] = (batch, with_padding(self.scores[members], padding), greedy)
        return self._made[key]

    def step(
        self,
        loss: Loss,
        members: Int[Tensor, " N"],
        group: Int[Tensor, " N"],
        padding: int = 0,
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, "N T"] | None]:
        """−∂loss/∂z, flat, and −∂loss/∂log π, None where the loss reads the logits.

        Raises:
            RefusedError: the loss fails.
        """
        z = (self.problem.policy.logits.detach() * self.problem.temperature).requires_grad_()
        rows = self.rows(members, group, z, padding)
        try:
            value = loss.call(rows)
            if not value.requires_grad:  # detached: it does nothing to the policy
                return torch.zeros_like(z).flatten(), torch.zeros_like(rows.log_prob)
            slopes = torch.autograd.grad(value.sum(), [z, rows.log_prob], allow_unused=True)
        except Exception as error:  # the user's function, which may fail in any way
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        by_z, by_log_prob = slopes
        step = torch.zeros_like(z) if by_z is None else -by_z
        reads_logits = by_log_prob is None or "logits" in loss.takes
        return step.flatten(), None if reads_logits else -by_log_prob


@cache
def on(problem: Problem) -> Evaluation:
    """The rows of a problem, made once."""
    return Evaluation(problem)


def _at(logits: Float[Tensor, "N T A"], action: Int[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    return logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)


@cache
def _trace_of_reinforce(problem: Problem, size: int, copies: int) -> float:
    return _trace(problem, size, copies, lambda reward: reward)


@cache
def _trace_of_rloo(problem: Problem, size: int, copies: int) -> float:
    def above_others(reward: Tensor) -> Tensor:
        groups = reward.unflatten(1, (-1, size))
        others = (groups.sum(2, keepdim=True) - groups) / max(1, size - 1)
        return (groups - others).flatten(1)

    return _trace(problem, size, copies, above_others)


def _trace(problem: Problem, size: int, copies: int, weigh: Callable[[Tensor], Tensor]) -> float:
    """tr Cov of Σ_i w_i S_i / N with weights that are a function of the rewards [U, N]."""
    every, batches = problem.every, every_batch(problem, size, copies=copies)
    reward = torch.where(every.mask, every.reward, 0).sum(1)
    total = on(problem).scores.sum(1) / problem.temperature
    weight = weigh(reward[batches.members]) / batches.members.shape[1]
    estimates = torch.einsum("un,unp->up", weight, total[batches.members])
    mean = batches.probability @ estimates
    return float(batches.probability @ (estimates - mean).square().sum(1))
