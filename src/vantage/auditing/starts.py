"""How much of the variance lies between start states: trajectories that share a start tell."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vantage.auditing.units import log_prob_under, weights_of
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes
from vantage.errors import InputError
from vantage.estimators.estimator import Estimator
from vantage.gradients.per_trajectory import Room, contributions
from vantage.gradients.sketch import Sketch
from vantage.policies import Policy
from vantage.runs.seeds import seed_of
from vantage.statistics import intervals
from vantage.statistics.gram import products
from vantage.statistics.intervals import Estimate

STARTS, EACH = 64, 2  # enough units for an interval, and few trajectories to pay for it

Pair = tuple[Estimate, Estimate]


def decompositions(
    env: Environment,
    policy: Policy,
    estimators: list[Estimator],
    seed: int,
    value: nn.Module | None,
    behaviour: Policy | None,
    method: str,
    sketch: Sketch | None,
    memory: int,
    undetermined: Callable[[str], Estimate],
) -> dict[str, Pair]:
    """(between starts, within starts) of one trajectory's gradient, for every estimator.

    Samples two trajectories from each of 64 starts, apart from those of the audit. An estimator
    that compares trajectories has no gradient of a single one to decompose.

    Args:
        behaviour: the policy that samples; `policy` itself where None.
        method: that forms gradients, by name.
        memory: bytes; a quarter of them bounds one chunk of gradients.
        undetermined: reason -> an estimate without a number.
    """
    pairs = {e.name: _both(undetermined("it compares trajectories")) for e in estimators}
    alone = [e for e in estimators if e.couples == "none"]
    if not alone:
        return pairs
    try:
        lanes = env.sharing(STARTS * EACH)
    except InputError as error:
        return pairs | {e.name: _both(undetermined(str(error))) for e in alone}
    # a word more than the audit's chunks have: these are other episodes
    batch = episodes(
        lanes, behaviour or policy, lanes.lanes, seed_of(seed, 0, 1), value, shared=EACH
    )
    log_prob = log_prob_under(policy, batch) if behaviour is not None else batch.log_prob
    weights = [weights_of(policy, e, batch, log_prob, batch.rows) for e in alone]
    every: Tensor | None = None
    stack, room = torch.stack(weights), Room(memory // 4)
    for rows, vectors in contributions(policy, batch, stack, method, sketch, room):
        if every is None:
            every = vectors.new_empty(len(alone), batch.rows, vectors.shape[-1])
        every[:, rows] = vectors
    assert every is not None
    for estimator, gradients in zip(alone, every, strict=True):
        gram = products(gradients, gradients)
        pairs[estimator.name] = intervals.decomposition(gram, batch.group)
    return pairs


def _both(estimate: Estimate) -> Pair:
    return estimate, estimate
