"""Audits of a language policy: how good is its gradient on this task, under these estimators?

The statistics are those of `vantage.audit`, from the same code; here the trajectories are
completions, groups are prompts, and pairs of completions of one prompt tell what of the variance
lies between prompts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vantage.arguments import checked
from vantage.auditing import measure
from vantage.auditing.report import Report
from vantage.auditing.reporting import refuse_namesakes, reported
from vantage.auditing.samples import COMPLETIONS, sample_of
from vantage.auditing.units import (
    Design,
    Units,
    described,
    empty_units,
    plan_units,
    sketch_for,
    weights_of,
)
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import named
from vantage.gradients.per_trajectory import Sketch, contributions
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.rollout import Environment, Rollout, prompts_of, rollout
from vantage.language.scoring.scoring import plan_passes
from vantage.language.scoring.trial import settle_packing
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import (
    inputs_of,
    refuse_infinite_kl,
    refuse_missing_value,
    valued,
)
from vantage.pages.numbers import number
from vantage.runs.progress import counting
from vantage.runs.seeds import generator_of
from vantage.runs.threads import torch_threads
from vantage.statistics import intervals
from vantage.statistics.intervals import Estimate

Pair = tuple[Estimate, Estimate]
PROMPTS = 64  # of which two completions are kept apart: enough for an interval


@checked
def audit(
    task: Task,
    policy: Policy,
    estimators: Sequence[Estimator],
    *,
    trajectories: int = 512,
    batch: int = 64,
    seed: int = 0,
    value: ValueHead | None = None,
    reference: Estimator | None = None,
    reference_policy: Policy | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    target_snr: float = 4.0,
    memory: int = 4 << 30,
    threads: int = 1,
    progress: bool = True,
) -> Report:
    """Bias, variance, SNR and more of each estimator's gradient, with 95 % intervals.

    One set of completions and of gradient passes serves every estimator. Prompts are drawn from the
    training rows; their order is that of `Task.stream`.

    The unit of independence is the prompt with its K completions, for every estimator. "Variance"
    is that of a unit times K: of a batch of B completions, B times the variance of its gradient.
    Where an estimator does not compare completions it is K V_between + V_within, of one completion.

    Args:
        task, policy: what is asked, and whose gradient is measured; it is not changed.
        estimators: with different names.
        trajectories: completions to sample, rounded down to whole batches.
        batch: completions of one gradient step, whose quality is reported.
        seed: of everything random here.
        value: V(s_t), for estimators that need it.
        reference: an unbiased estimator to measure bias against, on other units of the same
            completions; RLOO where prompts have several completions, else leave-one-out over the
            batch.
        reference_policy: what a KL is measured to; a LoRA policy's own model without its adapter
            where None.
        environment, turns: as in `rollout`.
        target_snr: what the plan is made for.
        memory: bytes for unit gradients; larger models are sketched to stay within them.
        threads: torch threads.
        progress: show progress.

    Raises:
        InputError: sizes, inputs or names that cannot work, before anything is sampled.
    """
    rows, size = list(estimators), task.num_generations
    context = _Context(task, policy, value, reference_policy, environment, turns)
    yardstick = _checked(rows, reference, context)
    design = plan_units([*rows, yardstick], trajectories, batch, size, shared=size)
    refuse_unless(
        batch % size == 0,
        f"audit(batch={batch}): a batch holds whole groups of num_generations={size}.",
    )
    settle_packing("audit", policy, prompts_of("audit", task, policy, task.train), size)
    among = yardstick.name in {row.name for row in rows}
    sampled = rows if among else [*rows, yardstick]
    sketch = sketch_for(policy, [(design, sampled)], memory, seed)
    # backward passes of backward passes, and passes over all rows at once, have this kernel only
    with torch_threads(threads), sdpa_kernel(SDPBackend.MATH):
        with counting("audit", design.trajectories, progress) as done:
            units, within = _collect(context, sampled, design, seed, sketch, memory, done)
        factors = measure.known_factors(rows, yardstick, size, 1.0)
        algebra = measure.by_algebra(factors)
        measured = []
        with counting("statistics", len(rows), progress, "estimators") as done:
            for row in measure.rows(policy, rows, units, (yardstick.name, units), within):
                measured.append(replace(row, **algebra.get(row.estimator, {})))
                done(len(measured))
    against = f"{yardstick.name} on the same completions"
    settings = described([units], rows, seed, task.name, 1.0, type(policy.base).__name__)
    settings |= {"task": task.describe(), "model": policy.describe()}
    settings["counted"] = (COMPLETIONS.one, COMPLETIONS.several)
    sample = sample_of([units], COMPLETIONS)
    return reported(measured, rows, units, against, settings, target_snr, sample, factors)


class _Context(NamedTuple):
    """Where completions come from, and what estimators may look at beside their rewards."""

    task: Task
    policy: Policy
    value: ValueHead | None
    reference: Policy | None
    environment: Environment | None
    turns: int


def _checked(rows: list[Estimator], reference: Estimator | None, context: _Context) -> Estimator:
    """The estimator that bias is measured against; refuses what cannot be audited."""
    refuse_namesakes(rows)
    grouped = context.task.num_generations > 1
    yardstick = reference or named("rloo" if grouped else "reinforce_leave_one_out")
    groups = {"group"} if grouped else set()
    for estimator in [*rows, yardstick]:
        estimator.require(groups | {"scores", "greedy_return", "value", "reference_log_prob"})
        refuse_missing_value("audit", estimator, context.value)
        refuse_unless(
            context.reference is not None
            or context.policy.has_adapter
            or "reference_log_prob" not in estimator.needs,
            f"audit: {estimator.name!r} measures a KL to a reference policy: pass "
            "reference_policy=, a language.Policy.",
        )
        refuse_infinite_kl("audit", estimator, context.policy)
    return yardstick


def _collect(
    context: _Context,
    estimators: list[Estimator],
    design: Design,
    seed: int,
    sketch: Sketch | None,
    memory: int,
    progress: Callable[[int], None],
) -> tuple[Units, dict[str, Pair]]:
    """Sample a batch at a time and reduce it to unit gradients; and the variance of one completion
    between and within prompts, for estimators that do not compare completions."""
    task, policy, value, reference, environment, turns = context
    size, groups = task.num_generations, design.batch // task.num_generations
    units: Units | None = None
    alone = [e for e in estimators if e.couples == "none"]
    pairs: dict[str, list[Tensor]] = {e.name: [] for e in alone}
    for first in range(0, design.trajectories, design.batch):
        clock = [time.perf_counter()]
        rows_ = task.stream(first // size, groups, seed)
        generator = generator_of(seed, first)
        drawn = rollout(task, policy, rows_, generator, environment=environment, turns=turns)
        drawn = replace(drawn, batch=drawn.batch.to(policy.device))
        passes = plan_passes(drawn.batch, policy)
        batch = valued(drawn.batch, policy, value, passes)
        clock += [time.perf_counter()] * 2
        weights = []
        for estimator in estimators:
            # found for each anew: the time they take is part of what the estimator costs
            given = inputs_of(estimator, task, policy, reference, drawn, passes)
            weights.append(
                weights_of(policy, estimator, batch, batch.log_prob, design.batch, **given)
            )
            clock.append(time.perf_counter())
        stack = torch.stack(weights)
        if units is None:
            units = empty_units(policy, estimators, design, sketch, batch, stack)
        by_row: dict[str, Tensor] = {}
        chunks = contributions(policy, batch, stack, units.method.method, sketch, memory // 4)
        for rows, vectors in chunks:
            for estimator, gradients in zip(estimators, vectors, strict=True):
                unit = design.unit(estimator)
                place = torch.div(first + rows, unit, rounding_mode="floor").to(gradients.device)
                units.gradients[estimator.name].index_add_(0, place, gradients / unit)
                if estimator.name in pairs and size > 1 and first // size < PROMPTS:
                    held = by_row.setdefault(
                        estimator.name, gradients.new_zeros(batch.rows, gradients.shape[1])
                    )
                    held[rows] = gradients
        for name, vectors in by_row.items():
            # two completions of each prompt tell the two parts apart
            pairs[name].append(vectors.view(groups, size, -1)[:, :2].flatten(0, 1))
        units.note_times(clock, time.perf_counter() - clock[-1], batch.rows)
        units.note_worth(batch)
        if not units.examples:
            units.examples = _examples(task, policy, drawn)
        progress(first + batch.rows)
    assert units is not None
    return units, _decomposed(estimators, pairs)


def _examples(task: Task, policy: Policy, drawn: Rollout) -> list[str]:
    """Three completions of the first prompts, one each where there are as many, on a line each."""
    size = task.num_generations
    rows = (range(0, len(drawn.rows), size) if len(drawn.rows) >= 3 * size else range(3))[:3]
    written = []
    for row in rows:
        if row < len(drawn.rows):
            completion = policy.tokenizer.decode(drawn.completion_ids[row])
            prompt = task.prompts[drawn.rows[row]]
            asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            written.append(
                f"{asked!r} -> {completion!r}: reward {number(float(drawn.reward[row]))}"
            )
    return written


def _decomposed(estimators: list[Estimator], pairs: dict[str, list[Tensor]]) -> dict[str, Pair]:
    why = measure.undetermined("it compares completions, or prompts have one completion each")
    decompositions = {e.name: (why, why) for e in estimators}
    for name, pieces in pairs.items():
        if pieces:
            vectors = torch.cat(pieces).double()
            group = torch.arange(len(vectors)) // 2
            decompositions[name] = intervals.decomposition(vectors @ vectors.T, group)
    return decompositions
