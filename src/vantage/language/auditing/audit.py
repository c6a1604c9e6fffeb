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
    weights_of,
)
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import named
from vantage.gradients.per_trajectory import contributions
from vantage.gradients.sketch import Sketch, count_sketch
from vantage.language.auditing.footprint import PROMPTS, Footprint, footprint
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.generation import Decoding
from vantage.language.sampling.rollout import Environment, Rollout, prompts_of, rollout
from vantage.language.scoring.arithmetic import Shape, shape_of
from vantage.language.scoring.scoring import plan_passes
from vantage.language.scoring.trial import settle_packing
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import (
    AVAILABLE,
    inputs_of,
    refuse_frozen,
    refuse_infinite_kl,
    refuse_missing_value,
    valued,
)
from vantage.pages.numbers import number
from vantage.runs.progress import counting
from vantage.runs.seeds import generator_of
from vantage.runs.threads import torch_threads
from vantage.statistics import intervals
from vantage.statistics.gram import products
from vantage.statistics.intervals import Estimate

Pair = tuple[Estimate, Estimate]


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
        seed: the seed of everything random here.
        value: V(s_t), for estimators that need it.
        reference: an unbiased estimator to measure bias against, on other units of the same
            completions; RLOO where prompts have several completions, else leave-one-out over the
            batch.
        reference_policy: what a KL is measured to; a LoRA policy's own model without its adapter
            where None.
        environment, turns: as in `rollout`.
        target_snr: what the plan is made for.
        memory: bytes that the audit may take beyond what the process holds when it begins, the
            model among it. Gradients are sketched and formed in chunks, by the quickest method that
            fits, completions decoded and scored in parts to stay within them; `footprint` says how.
        threads: torch threads.
        progress: show progress.

    Raises:
        InputError: sizes, inputs or names that cannot work, before anything is sampled.
    """
    rows, size = list(estimators), task.num_generations
    context = _Context(task, policy, value, reference_policy, environment, turns)
    yardstick = _yardstick(reference, size)
    refuse_frozen("audit", policy)
    _check(rows, yardstick, context)
    design = _design([*rows, yardstick], trajectories, batch, size)
    prompts = prompts_of("audit", task, policy, task.train)
    sampled = _sampled(rows, yardstick)
    trained = [p for p in policy.parameters() if p.requires_grad]
    count = sum(p.numel() for p in trained)
    shape = shape_of(policy.base, trained[0].element_size(), count)
    steps = policy.max_completion_length * (1 if environment is None else turns)
    plan = footprint(shape, design, sampled, max(map(len, prompts)), steps, memory)
    settle_packing("audit", policy, prompts, size)
    # backward passes of backward passes, and passes over all rows at once, have this kernel only
    with torch_threads(threads), sdpa_kernel(SDPBackend.MATH):
        with counting("audit", design.trajectories, progress) as done:
            units, within = _collect(context, sampled, design, seed, plan, done)
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


def audit_footprint(
    shape: Shape,
    estimators: Sequence[Estimator],
    *,
    num_generations: int,
    prompt: int,
    completion: int,
    trajectories: int = 512,
    batch: int = 64,
    reference: Estimator | None = None,
    memory: int = 4 << 30,
) -> tuple[Design, Footprint]:
    """What `audit` would sample, and the memory that it would take, from the sizes of a model.

    Args:
        shape: the shape of the model.
        num_generations: completions of a prompt.
        prompt, completion: most tokens of each.
        estimators, trajectories, batch, reference, memory: as in `audit`.

    Raises:
        InputError: sizes that cannot work, or that do not fit.
    """
    rows = list(estimators)
    yardstick = _yardstick(reference, num_generations)
    design = _design([*rows, yardstick], trajectories, batch, num_generations)
    sampled = _sampled(rows, yardstick)
    return design, footprint(shape, design, sampled, prompt, completion, memory)


def _design(estimators: list[Estimator], trajectories: int, batch: int, size: int) -> Design:
    """How completions make units and batches."""
    design = plan_units(estimators, trajectories, batch, size, shared=size)
    refuse_unless(
        batch % size == 0,
        f"audit(batch={batch}): a batch holds whole groups of num_generations={size}.",
    )
    return design


def _yardstick(reference: Estimator | None, size: int) -> Estimator:
    """The estimator that bias is measured against."""
    return reference or named("rloo" if size > 1 else "reinforce_leave_one_out")


def _sampled(rows: list[Estimator], yardstick: Estimator) -> list[Estimator]:
    """All whose gradients are formed."""
    return rows if yardstick.name in {row.name for row in rows} else [*rows, yardstick]


class _Context(NamedTuple):
    """Where completions come from, and what estimators may look at beside their rewards."""

    task: Task
    policy: Policy
    value: ValueHead | None
    reference: Policy | None
    environment: Environment | None
    turns: int


def _check(rows: list[Estimator], yardstick: Estimator, context: _Context) -> None:
    """Refuse what cannot be audited."""
    refuse_namesakes(rows)
    groups = {"group"} if context.task.num_generations > 1 else set()
    for estimator in [*rows, yardstick]:
        estimator.require(groups | AVAILABLE)
        refuse_missing_value("audit", estimator, context.value)
        refuse_unless(
            context.reference is not None
            or context.policy.has_adapter
            or "reference_log_prob" not in estimator.needs,
            f"audit: {estimator.name!r} measures a KL to a reference policy: pass "
            "reference_policy=, a language.Policy.",
        )
        refuse_infinite_kl("audit", estimator, context.policy)


def _collect(
    context: _Context,
    estimators: list[Estimator],
    design: Design,
    seed: int,
    plan: Footprint,
    progress: Callable[[int], None],
) -> tuple[Units, dict[str, Pair]]:
    """Sample a batch at a time and reduce it to unit gradients; and the variance of one completion
    between and within prompts, for estimators that do not compare completions."""
    task, policy, value, reference, environment, turns = context
    size, groups = task.num_generations, design.batch // task.num_generations
    units: Units | None = None
    engine = Decoding(rows=plan.decoded)
    sketch: Sketch | None = None
    if plan.sketched is not None:
        sketch = count_sketch(plan.parameters, plan.sketched, seed)
    pairs: dict[str, Tensor] = {}
    for first in range(0, design.trajectories, design.batch):
        clock = [time.perf_counter()]
        rows_ = task.stream(first // size, groups, seed)
        generator = generator_of(seed, first)
        drawn = rollout(
            task, policy, rows_, generator, engine=engine, environment=environment, turns=turns
        )
        drawn = replace(drawn, batch=drawn.batch.to(policy.device))
        passes = plan_passes(drawn.batch, policy, token_budget=plan.token_budget)
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
            units = empty_units(policy, estimators, design, sketch, batch, stack, plan.room)
            units.at_once = plan.looked
            pairs = _empty_pairs(units, estimators, size)
        method = units.method.name
        for rows, vectors in contributions(policy, batch, stack, method, sketch, plan.room):
            for estimator, gradients in zip(estimators, vectors, strict=True):
                units.add(estimator, first + rows, gradients)
                if estimator.name in pairs:
                    _keep(pairs[estimator.name], first + rows, gradients, size)
        units.note_times(clock, time.perf_counter() - clock[-1], batch.rows)
        units.note_worth(batch)
        if not units.examples:
            units.examples = _examples(task, policy, drawn)
        progress(first + batch.rows)
    assert units is not None
    return units, _decomposed(estimators, pairs)


def _empty_pairs(units: Units, estimators: list[Estimator], size: int) -> dict[str, Tensor]:
    """Room for the gradients of two completions of each prompt, which tell variance between from
    that within; for estimators that do not compare completions."""
    alone = [e.name for e in estimators if e.couples == "none" and size > 1]
    count = 2 * min(PROMPTS, units.design.trajectories // size)
    like = units.gradients[estimators[0].name]
    return {name: like.new_zeros(count, like.shape[1]) for name in alone}


def _keep(pairs: Tensor, places: Tensor, vectors: Tensor, size: int) -> None:
    """Put the gradients of the first two completions of each prompt into their place."""
    paired = (places % size < 2) & (places // size < PROMPTS)
    pairs[(places // size * 2 + places % size)[paired]] = vectors[paired]


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


def _decomposed(estimators: list[Estimator], pairs: dict[str, Tensor]) -> dict[str, Pair]:
    why = measure.undetermined("it compares completions, or prompts have one completion each")
    decompositions = {e.name: (why, why) for e in estimators}
    for name, vectors in pairs.items():
        group = torch.arange(len(vectors)) // 2
        decompositions[name] = intervals.decomposition(products(vectors, vectors), group)
    return decompositions
