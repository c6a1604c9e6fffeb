"""Stale audits: what ratios and clipping do to a gradient some updates after its batch."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Adam

from vantage.auditing.audit import audit
from vantage.auditing.report import Report
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes, lanes_for
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.weighted import gradient
from vantage.policies import Policy
from vantage.training.ascent import ascend
from vantage.training.interface import OptimizerFactory


def audit_stale(
    env: Environment,
    policy: Policy,
    estimators: Sequence[Estimator],
    *,
    updates: Sequence[int] = (0, 1, 4, 16),
    batch: int = 64,
    group_size: int = 8,
    value: nn.Module | None = None,
    lr: float = 1e-2,
    optimizer: OptimizerFactory | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[int, Report]:
    """Audit estimators on batches drawn k updates ago, for several k.

    From `policy`, k gradient steps are taken on one batch of its own, with the first estimator, as
    several optimisation epochs would. The gradient of the policy so reached is then estimated from
    trajectories that `policy` sampled, and compared with one from trajectories of its own.

    Args:
        estimators: what to compare; the first of them takes the steps.
        updates: the k's.
        batch, group_size, value, seed: as in `audit`.
        lr: the learning rate of the steps, with Adam unless `optimizer` is given.
        optimizer: parameters -> torch optimiser.
        **settings: passed on to `audit`.

    Returns:
        A Report for every k.

    Raises:
        InputError: as `audit` does, or a negative k.
    """
    refuse_unless(
        len(updates) > 0 and min(updates) >= 0,
        f"audit_stale(updates={list(updates)}): give numbers of updates, 0 or more.",
    )
    moved = copy.deepcopy(policy)
    steps = (optimizer or partial(Adam, lr=lr))(moved.parameters())
    lanes, together = lanes_for(env, estimators[0], batch, group_size)
    data = episodes(lanes, policy, batch, seed, value, shared=together)
    reports, taken = {}, 0
    for k in sorted(set(updates)):
        for _ in range(k - taken):
            ascend(moved, gradient(moved, data, estimators[0]), steps)
        taken = k
        reports[k] = audit(
            env,
            moved,
            estimators,
            batch=batch,
            group_size=group_size,
            value=value,
            behaviour=policy,
            seed=seed + 1,
            **settings,
        )
    return reports
