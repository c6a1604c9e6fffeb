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
) -> dict[str, dict[str, Any]]:
    """Exact statistics by estimator and name, for those whose trajectories can be enumerated.

    Estimators that couple trajectories keep their sampled statistics: their groups and batches are
    too many to list at the sizes that are audited.
    """
    if star is None or not isinstance(env, Tabular):
        return {}
    values = None
    if value is not None:
        with torch.no_grad():
            values = value(env.mdp.observation).double()
    found: dict[str, dict[str, Any]] = {}
    for estimator in (e.replace(entropy=0.0) for e in estimators if e.couples == "none"):

        def of(mdp: MDP, estimator: Estimator = estimator) -> exact.Expectation:
            return exact.expectation(mdp, policy, estimator, value=values, behaviour=behaviour)

        try:
            expected = of(env.mdp)
            between = _between(env.mdp, of)
        except InputError:  # infinitely many trajectories, or too many: the samples stand
            continue
        variance = float(expected.trace)
        found[estimator.name] = _statistics(expected.mean, variance, star, design) | {
            "between": known(between),
            "within": known(variance - between),
        }
    return found


def _between(mdp: MDP, of: Callable[[MDP], exact.Expectation]) -> float:
    """Σ_s ρ0(s) ‖E[ĝ|s_0 = s] − E ĝ‖²: the variance between start states."""
    starts = mdp.initial.nonzero().squeeze(1)
    each = torch.stack([of(_started(mdp, int(s))).mean for s in starts])
    share = mdp.initial[starts]
    return float(share @ (each - share @ each).square().sum(1))


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
