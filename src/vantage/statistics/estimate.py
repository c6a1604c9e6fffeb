"""An estimate with its 95 % interval, means with Student's t, and functions of an estimate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch


@dataclass(frozen=True)
class Estimate:
    """One statistic: value (nan when undetermined; `note` says why), 95 % interval [low, high]."""

    value: float
    low: float
    high: float
    exact: bool = False
    note: str = ""


def known(value: float) -> Estimate:
    """An exact value."""
    return Estimate(value, value, value, exact=True)


def mean_interval(values: list[float]) -> Estimate:
    """Mean with a 95 % interval of Student's t."""
    sample = torch.tensor(values, dtype=torch.float64)
    mean, count = float(sample.mean()), len(values)
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * float(sample.std()) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


FEWEST_TIMES = 5  # below, Student's t makes factors of thousands of a few per cent of jitter


def time_interval(seconds: list[float], counts: list[int] | None = None) -> Estimate:
    """Seconds a trajectory: all time over all trajectories, with a 95 % interval or the range.

    From five times on the interval is that of the mean's logarithm, by its relative standard error
    and Student's t: its ends are positive. Of fewer it is the least and the largest, and says so.

    Args:
        seconds: per trajectory, of one chunk each.
        counts: trajectories of each chunk; the same in all where it is left out.

    >>> found = time_interval([1.0, 4.0], [3, 1])
    >>> found.value, found.low, found.high
    (1.75, 1.0, 4.0)
    """
    times = np.array(seconds, dtype=np.float64)
    share = np.ones(len(times)) if counts is None else np.array(counts, dtype=np.float64)
    share = share / share.sum()
    value, chunks = float(share @ times), len(times)
    if chunks < FEWEST_TIMES:
        note = f"optimistic: the range of {chunks} timings, too few for an interval"
        return Estimate(value, float(times.min()), float(times.max()), note=note)
    spread = share**2 @ (times - value) ** 2 * chunks / (chunks - 1)
    half = float(scipy.stats.t.ppf(0.975, chunks - 1)) * math.sqrt(spread) / value
    return Estimate(value, value * math.exp(-half), value * math.exp(half))


def mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (x if np.isnan(x) else function(x) for x in ends)
    return replace(estimate, value=value, low=low, high=high)
