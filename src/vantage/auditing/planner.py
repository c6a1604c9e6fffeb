"""The planner: from measured variance to the batch and group size that reach a target SNR.

A batch of B independent trajectories has SNR = B N / tr Σ: a target takes B = SNR · tr Σ / N.
With several trajectories from each start, P starts of K trajectories have variance

    between / P + within / (P K),

and with a cost c_start for every start (a prompt to read) and c for every trajectory, the cheapest
group is K* = √((c_start / c) · within / between).
"""

import math
from dataclasses import dataclass, replace

from vantage.errors import refuse_unless
from vantage.statistics.intervals import Estimate


@dataclass(frozen=True)
class Plan:
    """Trajectories per gradient step that reach the target, by estimator.

    Attributes:
        target: SNR asked for.
        trajectories: an estimate each, rounded to nothing; undetermined where the SNR is.
        cheapest: the estimator that reaches the target in the least time, or None.
        seconds: expected time of one such step, by estimator.
        tied: estimators whose time is not told from that of the cheapest, itself among them: their
            intervals, of trajectories times cost, hold a common time.
    """

    target: float
    trajectories: dict[str, Estimate]
    seconds: dict[str, float]
    cheapest: str | None
    tied: tuple[str, ...] = ()


def plan(
    noise_scale: dict[str, Estimate],
    cost: dict[str, Estimate],
    target: float,
    candidates: set[str],
) -> Plan:
    """What each estimator needs to reach an SNR, and which does it at the least cost.

    Args:
        noise_scale: trajectories at which the SNR is 1, by estimator.
        cost: seconds per trajectory, by estimator.
        target: SNR to reach.
        candidates: estimators that may be recommended (those without a bias of direction).
    """
    refuse_unless(target > 0, f"audit(target_snr={target}): must be positive.")
    needed = {name: scaled(scale, target) for name, scale in noise_scale.items()}
    seconds = {
        name: estimate.value * cost[name].value
        for name, estimate in needed.items()
        if estimate.value is not None and math.isfinite(estimate.value) and estimate.value > 0
    }
    able = [name for name in seconds if name in candidates]
    best = min(able, key=lambda name: seconds[name]) if able else None
    if best is None:
        return Plan(target, needed, seconds, None)
    longest = needed[best].high * cost[best].high
    tied = tuple(name for name in able if needed[name].low * cost[name].low <= longest)
    return Plan(target, needed, seconds, best, tied)


def predicted_snr(noise_scale: Estimate, batch: int) -> Estimate:
    """SNR = B / noise scale of a batch of another size.

    >>> predicted_snr(Estimate(32.0, 16.0, 64.0), 64)
    Estimate(value=2.0, low=1.0, high=4.0, exact=False, note='')
    """

    def of(value: float) -> float:
        return batch / value if value else math.inf

    return replace(
        noise_scale,
        value=of(noise_scale.value),
        low=of(noise_scale.high),
        high=of(noise_scale.low),
    )


def predicted_variance(between: float, within: float, starts: int, per_start: int) -> float:
    """Trace of the covariance of a batch of P starts × K trajectories.

    Source: two-level design; Σ_inter/P + Σ_intra/(PK).
    """
    return between / starts + within / (starts * per_start)


def best_group_size(between: float, within: float, cost_start: float, cost: float) -> float:
    """K* = √((c_start/c) within/between), at least 1: the group of least variance for its cost.

    Infinite where all variance is within starts; 1 where a start costs nothing.

    >>> best_group_size(between=1.0, within=16.0, cost_start=1.0, cost=1.0)
    4.0
    """
    refuse_unless(cost > 0 and cost_start >= 0, "best_group_size: costs must be positive.")
    if between <= 0:
        return math.inf if cost_start > 0 else 1.0
    return max(1.0, math.sqrt(cost_start / cost * within / between))


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate times a positive constant."""
    return replace(
        estimate,
        value=estimate.value * factor,
        low=estimate.low * factor,
        high=estimate.high * factor,
    )
