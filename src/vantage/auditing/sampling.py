"""Which trajectories an audit draws, and what is measured on them.

An estimator that compares trajectories of one start state, as groups of completions of one prompt
are compared, is measured on groups that share their start. Every other estimator is measured on
trajectories whose starts are drawn one by one. So an audit has one or two sets of trajectories.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from vantage.auditing.units import (
    CHUNK,
    Design,
    Units,
    empty_units,
    log_prob_under,
    plan_units,
    weights_of,
)
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes
from vantage.errors import InputError
from vantage.estimators.estimator import Estimator, compares
from vantage.gradients.per_trajectory import Room, contributions
from vantage.gradients.sketch import Sketch
from vantage.policies import Policy
from vantage.runs.seeds import seed_of


class Sampling(NamedTuple):
    """One set of trajectories.

    Attributes:
        env: the lanes that they are drawn from.
        design: how many there are, and how they make units.
        estimators: what is measured on them, the reference included where it can be.
    """

    env: Environment
    design: Design
    estimators: list[Estimator]


def samplings(
    env: Environment,
    estimators: list[Estimator],
    reference: Estimator | None,
    trajectories: int,
    batch: int,
    group_size: int,
) -> list[Sampling]:
    """The sets of trajectories that an audit needs.

    Args:
        env: where.
        estimators: to be measured.
        reference: measured on every set, so that bias is a difference on the same trajectories; one
            that compares trajectories is measured on the set with shared starts alone. None: it is
            exact, or sampled apart.
        trajectories, batch, group_size: as in `vantage.audit`.

    Raises:
        InputError: sizes that do not fit; an estimator compares trajectories of one start and the
            environment cannot share one.
    """
    result = []
    for together in (False, True):
        rows = [row for row in estimators if compares(row) == together]
        if reference is not None and reference not in rows:
            here = together if compares(reference) else bool(rows)
            rows = [*rows, reference] if here else rows
        if not rows:
            continue
        shared = group_size if together else 1
        design = plan_units(rows, trajectories, batch, group_size, shared)
        result.append(Sampling(_lanes(env, rows, design), design, rows))
    return result


def _lanes(env: Environment, rows: list[Estimator], design: Design) -> Environment:
    """Lanes to draw from: the environment's own, or others that can start together."""
    if design.shared == 1:
        return env
    try:
        whole = design.batch * max(1, CHUNK // 4 // design.batch)
        return env.sharing(min(whole, design.trajectories))
    except InputError as error:
        names = ", ".join(repr(row.name) for row in rows if compares(row))
        raise InputError(
            f"audit: {names} compares trajectories of one start state. {error} Or leave it out."
        ) from error


def collect(
    plan: Sampling,
    policy: Policy,
    seed: int,
    value: nn.Module | None,
    behaviour: Policy | None,
    sketch: Sketch | None,
    memory: int,
    progress: Callable[[int], None],
) -> Units:
    """Sample trajectories and reduce them to unit gradients, a chunk at a time.

    Args:
        plan: which trajectories, from where, and what is measured on them.
        policy: whose gradient is measured.
        behaviour: the policy that samples; `policy` itself where None.
        sketch: applied to every gradient, or None to keep them whole.
        memory: bytes; a quarter of them bounds one chunk of gradients.
        progress: called with the number of trajectories done.
    """
    env, design, estimators = plan
    shared = design.shared
    per_chunk = env.lanes if shared > 1 else design.batch * max(1, CHUNK // design.batch)
    units: Units | None = None
    room = Room(memory // 4)
    for first in range(0, design.trajectories, per_chunk):
        count = min(per_chunk, design.trajectories - first)
        clock = [time.perf_counter()]
        lanes = env if shared == 1 or count == env.lanes else env.sharing(count)
        batch = episodes(
            lanes, behaviour or policy, count, seed_of(seed, first), value, shared=shared
        )
        clock.append(time.perf_counter())
        log_prob = log_prob_under(policy, batch) if behaviour is not None else batch.log_prob
        clock.append(time.perf_counter())
        weights = []
        for estimator in estimators:
            weights.append(weights_of(policy, estimator, batch, log_prob, design.batch))
            clock.append(time.perf_counter())
        stack = torch.stack(weights)
        if units is None:
            units = empty_units(policy, estimators, design, sketch, batch, stack, room)
        for rows, vectors in contributions(policy, batch, stack, units.method.name, sketch, room):
            for estimator, gradients in zip(estimators, vectors, strict=True):
                units.add(estimator, first + rows, gradients)
        units.note_times(clock, time.perf_counter() - clock[-1], count)
        units.note_worth(batch)
        progress(first + count)
    assert units is not None
    return units
