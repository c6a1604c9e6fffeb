"""Audits without sampling: on a tabular MDP the statistics have exact values."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage import exact
from vantage.auditing.units import Design
from vantage.environments.interface import Environment
from vantage.environments.tabular import Tabular
from vantage.errors import InputError
from vantage.estimators.estimator import Estimator
from vantage.exact.mdp import MDP
from vantage.exact.row_moments import RowMoments, row_moments
from vantage.policies import Policy
from vantage.statistics.estimate import Estimate, known


def gradient(env: Environment, policy: Policy) -> Float[Tensor, " P"] | None:
    """∇J where the environment is a tabular MDP, else None."""
    return exact.gradient(env.mdp, policy) if isinstance(env, Tabular) else None


def rows(
    env: Environment,
    policy: Policy,
    estimators: list[Estimator],
    design: Design,
    value: nn.Module | None,
    behaviour: Policy | None,
    star: Float[Tensor, " P"] | None,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Exact statistics by estimator and name, and why the other estimators have none.

    Solved along the chain where there are equations for an estimator's columns, whatever the size;
    else from all trajectories listed, where they are few and the estimator does not compare them.
    """
    if star is None or not isinstance(env, Tabular):
        return {}, {}
    values = None
    if value is not None:
        with torch.no_grad():
            values = value(env.mdp.observation).double()
    statistics: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for estimator in estimators:
        try:
            exact_one = _moments(env.mdp, policy, estimator, design, values, behaviour)
        except InputError as error:  # the samples stand
            refused[estimator.name] = str(error)
            continue
        variance = float(exact_one.trace)
        statistics[estimator.name] = _statistics(exact_one.mean, variance, star, design)
        if exact_one.between is not None:
            between = float(exact_one.between)
            statistics[estimator.name] |= {
                "between": known(between),
                "within": known(variance - between),
            }
    return statistics, refused


def _moments(
    mdp: MDP,
    policy: Policy,
    estimator: Estimator,
    design: Design,
    value: Float[Tensor, " S"] | None,
    behaviour: Policy | None,
) -> RowMoments:
    """By equations, or by listing all trajectories; the first reason where neither is possible."""
    estimator = estimator.replace(entropy=0.0)
    sizes = {"group_size": design.group, "batch": design.batch}
    reason = InputError(
        f"{estimator.name!r} compares trajectories of another policy; there are no equations."
    )
    if behaviour is None:
        try:
            return row_moments(mdp, policy, estimator, value=value, **sizes)
        except InputError as error:
            reason = error
    if estimator.couples != "none":
        raise reason

    def of(mdp: MDP) -> exact.Expectation:
        return exact.expectation(mdp, policy, estimator, value=value, behaviour=behaviour)

    expected = of(mdp)
    return RowMoments(expected.mean, expected.trace, _between(mdp, of))


def _between(mdp: MDP, of: Callable[[MDP], exact.Expectation]) -> Tensor:
    """Σ_s ρ0(s) ‖E[ĝ|s_0 = s] − E ĝ‖²: the variance between start states."""
    starts = mdp.initial.nonzero().squeeze(1)
    each = torch.stack([of(_started(mdp, int(s))).mean for s in starts])
    share = mdp.initial[starts]
    return share @ (each - share @ each).square().sum(1)


def _started(mdp: MDP, state: int) -> MDP:
    return replace(mdp, initial=torch.eye(mdp.states, dtype=torch.float64)[state])


def _statistics(
    mean: Float[Tensor, " P"], variance: float, star: Float[Tensor, " P"], design: Design
) -> dict[str, Estimate]:
    squared, true = float(mean @ mean), float(star @ star)
    snr = _ratio(design.batch * squared, variance)
    cosine = 1 / math.sqrt(1 + 1 / snr.value) if snr.value > 0 else 0.0
    return {
        "bias": _root(_ratio(float((mean - star).square().sum()), true)),
        "scale": _ratio(float(mean @ star), true),
        "cosine": _ratio(float(mean @ star), math.sqrt(squared * true)),
        "squared_norm": known(squared),
        "variance": known(variance),
        "snr": snr,
        "noise_scale": _ratio(variance, squared),
        "batch_cosine": known(cosine),
        "pairwise_cosine": known(cosine**2),
    }


def _ratio(above: float, below: float) -> Estimate:
    if below == 0:
        nan = float("nan")
        return Estimate(nan, nan, nan, exact=True, note="its denominator is exactly 0")
    return known(above / below)


def _root(estimate: Estimate) -> Estimate:
    return known(math.sqrt(estimate.value)) if estimate.value >= 0 else estimate
