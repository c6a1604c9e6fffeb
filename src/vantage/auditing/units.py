"""Unit gradients: what an audit keeps of its samples, one set for all estimators.

A unit is the smallest set of trajectories whose weights depend on nothing outside it: a trajectory,
a group, or a batch for estimators that look across one. Units are independent; they are what
intervals are made from. At most 256 are kept for each estimator: where there are more, neighbours
are averaged, which changes no mean and leaves the units independent.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.auditing.record import Measured
from vantage.batch import Batch, elapsed_discount
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator, compares
from vantage.gradients.per_trajectory import (
    Choice,
    Room,
    fastest,
    spanning,
)
from vantage.gradients.sketch import Sketch, count_sketch
from vantage.gradients.weighted import policy_inputs
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
        batch: the batch of one gradient step, whose quality is reported.
        group: compared with one another by estimators that need groups.
        pool: averaged into one unit where an estimator couples no more than that.
        shared: trajectories from one start state; 1 where every start is drawn by itself.
    """

    trajectories: int
    batch: int
    group: int
    pool: int
    shared: int = 1

    def unit(self, estimator: Measured) -> int:
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
        counts: trajectories of each chunk.
        sampling: seconds per trajectory, one number a chunk.
        passes: seconds per trajectory of the gradient passes, which all estimators share.
        weighing: seconds per trajectory of each estimator's weights, by name.
        returns: [trajectories] undiscounted.
        discounted: [trajectories] discounted returns.
        lengths: [trajectories] steps.
        examples: a few trajectories as text, where they have one.
        example: one batch, to look at steps with; None where there are gradients alone.
        at_once: rows of it that one pass may take; all where None.
    """

    design: Design
    gradients: dict[str, Float[Tensor, "U k"]]
    parameters: int
    sketched: int | None
    method: Choice
    example: Batch | None
    counts: list[int] = field(default_factory=list)
    sampling: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    weighing: dict[str, list[float]] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    discounted: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    at_once: int | None = None

    @property
    def steps(self) -> int:
        """Steps of all trajectories."""
        return sum(self.lengths)

    def note_times(self, clock: list[float], passes: float, count: int) -> None:
        """Keep a chunk's times: the clock before and after sampling, then after each weighing."""
        self.counts.append(count)
        self.sampling.append((clock[1] - clock[0]) / count)
        self.passes.append((passes + clock[2] - clock[1]) / count)
        for i, name in enumerate(self.weighing):
            self.weighing[name].append((clock[i + 3] - clock[i + 2]) / count)

    def note_worth(self, batch: Batch) -> None:
        """Keep what the trajectories of a chunk, one a row, were worth, and how long they were."""
        reward = torch.where(batch.mask, batch.reward, 0).double()
        self.returns += reward.sum(1).tolist()
        self.discounted += (reward * elapsed_discount(batch)).sum(1).tolist()
        self.lengths += batch.mask.sum(1).tolist()

    def batches_of(self, name: str, count: int) -> Float[Tensor, "n k"]:
        """Gradients of an estimator on the first `count` batches, or as many as there are."""
        vectors, design = self.gradients[name], self.design
        factor = design.batch * len(vectors) // design.trajectories
        batches = vectors.split(factor)[: min(count, len(vectors) // factor)]
        return torch.stack([each.mean(0) for each in batches])

    def add(self, estimator: Measured, places: Tensor, vectors: Float[Tensor, "n k"]) -> None:
        """Add gradients of the trajectories numbered `places` to their units."""
        unit = self.design.unit(estimator)
        place = torch.div(places, unit, rounding_mode="floor").to(vectors.device)
        self.gradients[estimator.name].index_add_(0, place, vectors, alpha=1 / unit)


def plan_units(
    estimators: list[Estimator], trajectories: int, batch: int, group: int, shared: int = 1
) -> Design:
    """Sizes that fit one another.

    Args:
        estimators: that are to be measured on these trajectories.
        trajectories: wanted; rounded down to whole batches.
        batch: trajectories of one gradient step.
        group: trajectories that are compared with one another.
        shared: trajectories from one start state, which are not independent: no unit is smaller.

    Raises:
        InputError: sizes that do not, or too few units for an interval, with the arithmetic.
    """
    for name, size in (("trajectories", trajectories), ("batch", batch), ("group_size", group)):
        refuse_unless(size >= 1, f"audit({name}={size}): must be at least 1.")
    grouped = shared > 1 or any(compares(e) for e in estimators)
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
    least = group if grouped else 1
    sizes = [d for d in range(least, batch + 1, least) if batch % d == 0]
    small = [d for d in sizes if batches * batch / d <= MOST_UNITS]
    if small:
        return Design(batches * batch, batch, group, min(small), shared)
    several = -(-batches // MOST_UNITS)
    batches -= batches % several
    return Design(batches * batch, batch, group, several * batch, shared)


def sketch_for(
    policy: Policy, samples: list[tuple[Design, list[Estimator]]], memory: int, seed: int
) -> Sketch | None:
    """None where whole unit gradients take at most half of `memory` bytes, else a sketch that does.

    Args:
        policy: whose gradients are kept.
        samples: what each set of trajectories keeps: its design and its estimators.
        memory: bytes.
        seed: the seed of the sketch, which is the same for all of them.

    Raises:
        InputError: not even the smallest sketch fits, saying what would.
    """
    parameters, width = _size(policy)
    units = sum(design.trajectories // design.unit(e) for design, rows in samples for e in rows)
    return sketch_of(parameters, width, units, memory, seed)


def sketch_of(parameters: int, width: int, units: int, memory: int, seed: int) -> Sketch | None:
    """`sketch_for` vectors of `parameters` numbers of `width` bytes each, `units` of them."""
    if units * width * parameters <= memory // 2:
        return None
    size = memory // 2 // (units * width)
    refuse_unless(
        size >= LEAST_SKETCH,
        f"audit(memory={memory:,} bytes): {units} unit gradients leave {size} numbers each, fewer "
        f"than {LEAST_SKETCH}; give {2 * units * width * LEAST_SKETCH:,} bytes, or audit fewer "
        "estimators at once.",
    )
    return count_sketch(parameters, size, seed)


def empty_units(
    policy: Policy,
    estimators: list[Estimator],
    design: Design,
    sketch: Sketch | None,
    batch: Batch,
    weights: Float[Tensor, "E N T"],
    room: Room,
) -> Units:
    """Units with nothing in them yet, and the gradient method that is quickest for this policy."""
    parameters, _ = _size(policy)
    size = parameters if sketch is None else sketch.size
    zeros = {
        e.name: weights.new_zeros(design.trajectories // design.unit(e), size) for e in estimators
    }
    choice = fastest(policy, batch, spanning(weights)[0], sketch=sketch, room=room)
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
    **inputs: Tensor,
) -> Float[Tensor, "N T"]:
    """The weights of a chunk, scaled so that a unit's gradient is the mean of its trajectories'.

    Args:
        log_prob: [N, T] under the policy that is measured.
        batch_size: trajectories that an estimator which looks across its batch sees at once.
        **inputs: what the estimator needs beyond the batch; scores, and entropies that are not
            given, are found here.

    Raises:
        InputError: a weight is not finite, naming the estimator and the trajectory.
    """
    size = batch_size if estimator.couples == "batch" else batch.rows
    pieces = []
    for start in range(0, batch.rows, size):
        rows = slice(start, start + size)
        rows_alone = batch.select(rows).reweighted()
        given: dict[str, Any] = {name: each[rows] for name, each in inputs.items()}
        given = policy_inputs(policy, rows_alone, estimator, **given)
        pieces.append(size * estimator.weights(rows_alone, log_prob[rows], **given))
    weights = torch.cat(pieces)
    if not weights.isfinite().all():
        row = int((~weights.isfinite()).any(1).nonzero()[0])
        raise InputError(
            f"Estimator {estimator.name!r} gives trajectory {row} a weight that is not finite; "
            "check its columns with vantage.conformance.check."
        )
    return weights


def described(
    sets: list[Units],
    rows: list[Estimator],
    seed: int,
    environment: str,
    discount: float,
    policy: str,
) -> dict[str, Any]:
    """The settings of a report: what was sampled, where, and how its gradients were formed.

    Args:
        sets: the sets of trajectories; sizes are those of each, and the same but for the pool.
    """
    units, returns = sets[0], [value for each in sets for value in each.returns]
    design = units.design
    return {
        "environment": environment,
        "discount": discount,
        "policy": policy,
        "parameters": units.parameters,
        "trajectories": design.trajectories,
        "steps": sum(each.steps for each in sets),
        "batch": design.batch,
        "group_size": design.group,
        "pool": design.pool,
        "seed": seed,
        "mean_return": sum(returns) / len(returns),
        "gradients": {
            "method": units.method.name,
            "seconds_per_trajectory": units.method.seconds,
            "refused": units.method.refused,
        },
        "estimators": {row.name: row.columns() for row in rows},
        "versions": versions(),
    }
