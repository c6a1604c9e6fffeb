"""How much of the variance lies between start states: trajectories that share a start tell."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from vantage import intervals
from vantage.auditing.units import weights_of
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes
from vantage.errors import InputError
from vantage.estimator import Estimator
from vantage.intervals import Estimate
from vantage.policies import Policy
from vantage.trajectory_gradients import Method, Sketch, contributions

STARTS, ROUNDS = 16, 4  # starts a round, and rounds

Pair = tuple[Estimate, Estimate]


def decompositions(
    env: Environment,
    policy: Policy,
    estimators: list[Estimator],
    group: int,
    seed: int,
    value: nn.Module | None,
    method: Method,
    sketch: Sketch | None,
    undetermined: Callable[[str], Estimate],
) -> dict[str, Pair]:
    """(between starts, within starts) of one trajectory's gradient, for every estimator.

    Samples `group` trajectories from each of 64 starts, apart from those of the audit. An estimator
    that compares trajectories has no gradient of a single one to decompose.

    Args:
        group: trajectories a start, at least 2.
        undetermined: reason -> an estimate without a number.
    """
    found = {e.name: _both(undetermined("it compares trajectories")) for e in estimators}
    alone = [e for e in estimators if e.couples == "none"]
    if group < 2:
        return {e.name: _both(undetermined("one trajectory a start was drawn")) for e in estimators}
    if not alone:
        return found
    try:
        lanes = env.sharing(STARTS * group)
    except InputError as error:
        return found | {e.name: _both(undetermined(str(error))) for e in alone}
    vectors: dict[str, list[torch.Tensor]] = {e.name: [] for e in alone}
    for turn in range(ROUNDS):
        own = int(np.random.SeedSequence([seed, 0, turn]).generate_state(1)[0])
        batch = episodes(lanes, policy, lanes.lanes, own, value, shared=group)
        stack = torch.stack(
            [weights_of(policy, e, batch, batch.log_prob, batch.rows) for e in alone]
        )
        chunks = list(contributions(policy, batch, stack, method, sketch))
        order = torch.argsort(torch.cat([rows for rows, _ in chunks]))
        every = torch.cat([pieces for _, pieces in chunks], 1)[:, order]
        for estimator, each in zip(alone, every, strict=True):
            vectors[estimator.name].append(each)
    start = torch.arange(STARTS * ROUNDS).repeat_interleave(group)
    for name, parts in vectors.items():
        own_units = torch.cat(parts).double()
        found[name] = intervals.decomposition(own_units @ own_units.T, start)
    return found


def _both(estimate: Estimate) -> Pair:
    return estimate, estimate
