"""Unit gradients: what an audit keeps of its samples, one set for all estimators.

A unit is the smallest set of trajectories whose weights depend on nothing outside it: a trajectory,
a group, or a batch for estimators that look across one. Units are independent; they are what
intervals are made from. At most 512 are kept for each estimator: where there are more, neighbours
are averaged, which changes no mean and leaves the units independent.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes, grouped_by
from vantage.errors import InputError, refuse_unless
from vantage.estimator import Estimator
from vantage.gradients import scores
from vantage.policies import Policy
from vantage.trajectory_gradients import (
    Choice,
    Method,
    contributions,
    count_sketch,
    fastest,
)

MOST_UNITS = 512
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
        batches: [batches, P] gradient of each batch by estimator, for the first few; empty where
            gradients are sketched.
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


def collect(
    env: Environment,
    policy: Policy,
    estimators: list[Estimator],
    design: Design,
    seed: int,
    value: nn.Module | None,
    behaviour: Policy | None,
    memory: int,
    progress: Callable[[int], None],
) -> Units:
    """Sample trajectories and reduce them to unit gradients, a chunk at a time.

    Args:
        policy: whose gradient is measured.
        behaviour: the policy that samples; `policy` itself where None.
        memory: bytes that the unit gradients and one chunk of gradients may take.
        progress: called with the number of trajectories done.
    """
    parameters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    width = next(p for p in policy.parameters() if p.requires_grad).element_size()
    kept = sum(design.trajectories // design.unit(e) for e in estimators) * width
    size, sketch = parameters, None
    if kept * parameters > memory // 2:
        size = memory // 2 // kept
        refuse_unless(
            size >= LEAST_SKETCH,
            f"audit(memory={memory:,} bytes): {len(estimators)} estimators leave {size} numbers a "
            f"unit, fewer than {LEAST_SKETCH}; give {2 * kept * LEAST_SKETCH:,} bytes, or audit "
            "fewer estimators at once.",
        )
        sketch = count_sketch(parameters, size, seed)
    dtype = next(p for p in policy.parameters() if p.requires_grad).dtype
    found: Units | None = None
    choice: Choice | None = None
    sums = {
        e.name: torch.zeros(design.trajectories // design.unit(e), size, dtype=dtype)
        for e in estimators
    }
    per_chunk = design.batch * max(1, CHUNK // design.batch)
    for first in range(0, design.trajectories, per_chunk):
        count = min(per_chunk, design.trajectories - first)
        started = time.perf_counter()
        sampler = behaviour or policy
        batch = grouped_by(design.group, episodes(env, sampler, count, seed + 1 + first, value))
        sampled = time.perf_counter()
        log_prob = _log_prob(policy, batch) if behaviour is not None else batch.log_prob
        weights, seconds = [], {}
        for estimator in estimators:
            begun = time.perf_counter()
            weights.append(_weights(policy, estimator, batch, log_prob, design))
            seconds[estimator.name] = (time.perf_counter() - begun) / count
        weighed = time.perf_counter()

        def choose(basis: Tensor, batch: Batch = batch) -> Method:
            nonlocal choice
            choice = choice or fastest(policy, batch, basis)
            return choice.method

        for rows, vectors in contributions(
            policy, batch, torch.stack(weights), choose, sketch, memory // 4
        ):
            for estimator, own in zip(estimators, vectors, strict=True):
                unit = design.unit(estimator)
                sums[estimator.name].index_add_(0, (first + rows) // unit, own / unit)
        assert choice is not None
        if found is None:
            example = batch.select(slice(0, design.batch)).reweighted()
            found = Units(design, sums, parameters, size if sketch else None, choice, example)
            found.weighing = {e.name: [] for e in estimators}
        found.sampling.append((sampled - started) / count)
        found.passes.append((time.perf_counter() - weighed) / count)
        for name, spent in seconds.items():
            found.weighing[name].append(spent)
        found.steps += batch.steps
        found.returns += (batch.reward * batch.mask).sum(1).tolist()
        progress(first + count)
    assert found is not None
    return found


def _log_prob(policy: Policy, batch: Batch) -> Tensor:
    with torch.no_grad():
        log_prob = policy.log_prob(batch.observation, batch.action)
    return torch.where(batch.mask, log_prob, 0)


def _weights(
    policy: Policy, estimator: Estimator, batch: Batch, log_prob: Tensor, design: Design
) -> Float[Tensor, "N T"]:
    """The weights of a chunk, scaled so that a unit's gradient is the mean of its trajectories'."""
    size = design.batch if estimator.couples == "batch" else batch.rows
    pieces = []
    for start in range(0, batch.rows, size):
        rows = slice(start, start + size)
        part = batch.select(rows).reweighted()
        inputs: dict[str, Any] = {}
        if "scores" in estimator.needs:
            inputs["scores"] = scores(policy, part, estimator)
        pieces.append(size * estimator.weights(part, log_prob[rows], **inputs))
    weights = torch.cat(pieces)
    if not weights.isfinite().all():
        row = int((~weights.isfinite()).any(1).nonzero()[0])
        raise InputError(
            f"Estimator {estimator.name!r} gives trajectory {row} a weight that is not finite; "
            "check its columns with vantage.conformance.check."
        )
    return weights
