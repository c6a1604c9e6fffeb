"""Unit gradients: what an audit keeps of its samples, one set for all estimators.

A unit is the smallest set of trajectories whose weights depend on nothing outside it: a trajectory,
a group, or a batch for estimators that look across one. Units are independent; they are what
intervals are made from. At most 256 are kept for each estimator: where there are more, neighbours
are averaged, which changes no mean and leaves the units independent.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes, grouped_by
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.per_trajectory import (
    Choice,
    Sketch,
    contributions,
    count_sketch,
    fastest,
    spanning,
)
from vantage.gradients.weighted import scores
from vantage.policies import Policy
from vantage.runs.run import versions

MOST_UNITS = 256
FEWEST_UNITS = 8
CHUNK = 512  # trajectories sampled at a time
LEAST_SKETCH = 1024


@dataclass(frozen=True)
class Design:
    """How trajectories make units and batches; every number counts trajectories.

    Attributes:
        trajectories: in all; a multiple of `batch`.
        batch: of one gradient step, whose quality is reported.
        group: compared with one another by estimators that need groups.
        pool: averaged into one unit where an estimator couples no more than that.
    """

    trajectories: int
    batch: int
    group: int
    pool: int

    def unit(self, estimator: Estimator) -> int:
        """Trajectories in one unit of this estimator."""
        needed = {"none": 1, "group": self.group, "batch": self.batch}[estimator.couples]
        return max(self.pool, needed)


@dataclass
class Units:
    """Unit gradients of several estimators on the same trajectories, and what they cost.

    Attributes:
        design: sizes.
        gradients: [U, k] for each estimator by name; U = trajectories / unit.
        parameters: P.
        sketched: k if gradients are sketches of k numbers, None if they are whole.
        method: how gradients were formed, and the times measured for each way.
        sampling: seconds per trajectory, one number a chunk.
        passes: seconds per trajectory of the gradient passes, which all estimators share.
        weighing: seconds per trajectory of each estimator's weights, by name.
        steps: environment steps used.
        returns: [trajectories] undiscounted.
        example: one batch, to look at steps with.
    """

    design: Design
    gradients: dict[str, Float[Tensor, "U k"]]
    parameters: int
    sketched: int | None
    method: Choice
    example: Batch
    sampling: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    weighing: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    returns: list[float] = field(default_factory=list)

    def note_times(self, clock: list[float], passes: float, count: int) -> None:
        """Keep a chunk's times: the clock before and after sampling, then after each weighing."""
        self.sampling.append((clock[1] - clock[0]) / count)
        self.passes.append((passes + clock[2] - clock[1]) / count)
        for i, name in enumerate(self.weighing):
            self.weighing[name].append((clock[i + 3] - clock[i + 2]) / count)

    def units_of(self, name: str, size: int) -> Float[Tensor, "U k"]:
        """Unit gradients of an estimator, averaged to units of `size` trajectories."""
        own = self.gradients[name]
        factor = size * len(own) // self.design.trajectories
        return own.view(len(own) // factor, factor, -1).mean(1)


def plan_units(estimators: list[Estimator], trajectories: int, batch: int, group: int) -> Design:
    """Sizes that fit one another.

    Raises:
        InputError: sizes that do not, or too few units for an interval, with the arithmetic.
    """
    for name, size in (("trajectories", trajectories), ("batch", batch), ("group_size", group)):
        refuse_unless(size >= 1, f"audit({name}={size}): must be at least 1.")
    grouped = any("group" in e.needs or e.couples == "group" for e in estimators)
    refuse_unless(
        not grouped or (group >= 2 and batch % group == 0),
        f"audit(batch={batch}, group_size={group}): a batch must hold whole groups of two or "
        f"more; take a batch of {max(2, group) * max(1, round(batch / max(2, group)))}.",
    )
    batches = trajectories // batch
    largest = batch if any(e.couples == "batch" for e in estimators) else group if grouped else 1
    units = batches * batch // largest
    refuse_unless(
        batches >= 1 and units >= FEWEST_UNITS,
        f"audit(trajectories={trajectories}, batch={batch}): they make {units} independent units "
        f"of {largest}; an interval needs {FEWEST_UNITS}. Draw "
        f"{FEWEST_UNITS * max(largest, batch)} trajectories, or use a smaller batch.",
    )
    # The pool is a number of trajectories that divides a batch, or several whole batches.
    sizes = [d for d in range(1, batch + 1) if batch % d == 0 and (not grouped or d % group == 0)]
    small = [d for d in (1, *sizes) if batches * batch / d <= MOST_UNITS]
    if small:
        return Design(batches * batch, batch, group, min(small))
    several = -(-batches // MOST_UNITS)
    batches -= batches % several
    return Design(batches * batch, batch, group, several * batch)


def sketch_for(
    policy: Policy, estimators: list[Estimator], design: Design, memory: int, seed: int
) -> Sketch | None:
    """None where whole unit gradients take at most half of `memory` bytes, else a sketch that does.

    Raises:
        InputError: not even the smallest sketch fits, saying what would.
    """
    parameters, width = _size(policy)
    kept = sum(design.trajectories // design.unit(e) for e in estimators) * width
    if kept * parameters <= memory // 2:
        return None
    size = memory // 2 // kept
    refuse_unless(
        size >= LEAST_SKETCH,
        f"audit(memory={memory:,} bytes): {len(estimators)} estimators leave {size} numbers a "
        f"unit, fewer than {LEAST_SKETCH}; give {2 * kept * LEAST_SKETCH:,} bytes, or audit "
        "fewer estimators at once.",
    )
    return count_sketch(parameters, size, seed)


def collect(
    env: Environment,
    policy: Policy,
    estimators: list[Estimator],
    design: Design,
    seed: int,
    value: nn.Module | None,
    behaviour: Policy | None,
    sketch: Sketch | None,
    memory: int,
    progress: Callable[[int], None],
) -> Units:
    """Sample trajectories and reduce them to unit gradients, a chunk at a time.

    Args:
        policy: whose gradient is measured.
        behaviour: the policy that samples; `policy` itself where None.
        sketch: applied to every gradient, or None to keep them whole.
        memory: bytes; a quarter of them bounds one chunk of gradients.
        progress: called with the number of trajectories done.
    """
    per_chunk = design.batch * max(1, CHUNK // design.batch)
    units: Units | None = None
    for first in range(0, design.trajectories, per_chunk):
        count = min(per_chunk, design.trajectories - first)
        clock = [time.perf_counter()]
        chunk_seed = int(np.random.SeedSequence([seed, first]).generate_state(1)[0])
        batch = episodes(env, behaviour or policy, count, chunk_seed, value)
        batch = grouped_by(design.group, batch)
        clock.append(time.perf_counter())
        log_prob = log_prob_under(policy, batch) if behaviour is not None else batch.log_prob
        clock.append(time.perf_counter())
        weights = []
        for estimator in estimators:
            weights.append(weights_of(policy, estimator, batch, log_prob, design.batch))
            clock.append(time.perf_counter())
        stack = torch.stack(weights)
        if units is None:
            units = empty_units(policy, estimators, design, sketch, batch, stack)
        method = units.method.method
        for rows, vectors in contributions(policy, batch, stack, method, sketch, memory // 4):
            for estimator, own in zip(estimators, vectors, strict=True):
                unit = design.unit(estimator)
                place = torch.div(first + rows, unit, rounding_mode="floor")
                units.gradients[estimator.name].index_add_(0, place, own / unit)
        units.note_times(clock, time.perf_counter() - clock[-1], count)
        units.steps += batch.steps
        units.returns += (batch.reward * batch.mask).sum(1).tolist()
        progress(first + count)
    assert units is not None
    return units


def empty_units(
    policy: Policy,
    estimators: list[Estimator],
    design: Design,
    sketch: Sketch | None,
    batch: Batch,
    weights: Float[Tensor, "E N T"],
) -> Units:
    """Units with nothing in them yet, and the gradient method that is quickest for this policy."""
    parameters, _ = _size(policy)
    size = parameters if sketch is None else sketch.size
    zeros = {
        e.name: weights.new_zeros(design.trajectories // design.unit(e), size) for e in estimators
    }
    choice = fastest(policy, batch, spanning(weights)[0])
    example = batch.select(slice(0, design.batch)).reweighted()
    units = Units(design, zeros, parameters, None if sketch is None else size, choice, example)
    units.weighing = {e.name: [] for e in estimators}
    return units


def _size(policy: Policy) -> tuple[int, int]:
    """P, and the bytes of one number."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    return sum(p.numel() for p in trained), trained[0].element_size()


def log_prob_under(policy: Policy, batch: Batch) -> Float[Tensor, "N T"]:
    """log π of what was sampled, under a policy that may be another; 0 where masked."""
    with torch.no_grad():
        log_prob = policy.log_prob(batch.observation, batch.action)
    return torch.where(batch.mask, log_prob, 0)


def weights_of(
    policy: Policy,
    estimator: Estimator,
    batch: Batch,
    log_prob: Tensor,
    batch_size: int,
    **inputs: Float[Tensor, "N T"],
) -> Float[Tensor, "N T"]:
    """The weights of a chunk, scaled so that a unit's gradient is the mean of its trajectories'.

    Args:
        log_prob: [N, T] under the policy that is measured.
        batch_size: trajectories that an estimator which looks across its batch sees at once.
        **inputs: what the estimator needs beyond the batch; scores are found here.

    Raises:
        InputError: a weight is not finite, naming the estimator and the trajectory.
    """
    size = batch_size if estimator.couples == "batch" else batch.rows
    pieces = []
    for start in range(0, batch.rows, size):
        rows = slice(start, start + size)
        part = batch.select(rows).reweighted()
        given: dict[str, Any] = {name: each[rows] for name, each in inputs.items()}
        if "scores" in estimator.needs:
            given["scores"] = scores(policy, part, estimator, **given)
        pieces.append(size * estimator.weights(part, log_prob[rows], **given))
    weights = torch.cat(pieces)
    if not weights.isfinite().all():
        row = int((~weights.isfinite()).any(1).nonzero()[0])
        raise InputError(
            f"Estimator {estimator.name!r} gives trajectory {row} a weight that is not finite; "
            "check its columns with vantage.conformance.check."
        )
    return weights


def described(
    units: Units, rows: list[Estimator], seed: int, environment: str, discount: float, policy: str
) -> dict[str, Any]:
    """The settings of a report: what was sampled, where, and how its gradients were formed."""
    design = units.design
    return {
        "environment": environment,
        "discount": discount,
        "policy": policy,
        "parameters": units.parameters,
        "trajectories": design.trajectories,
        "steps": units.steps,
        "batch": design.batch,
        "group_size": design.group,
        "pool": design.pool,
        "seed": seed,
        "mean_return": sum(units.returns) / len(units.returns),
        "gradients": {
            "method": units.method.name,
            "seconds_per_trajectory": units.method.seconds,
            "refused": units.method.refused,
        },
        "estimators": {row.name: row.columns() for row in rows},
        "versions": versions(),
    }
