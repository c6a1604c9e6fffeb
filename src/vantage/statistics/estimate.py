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


def time_interval(seconds: list[float]) -> Estimate:
    """Geometric mean of times with a 95 % interval of Student's t of their logarithms.

    Times are positive and their errors are factors; so are the ends of this interval.

    >>> found = time_interval([1.0, 2.0, 4.0])
    >>> round(found.value, 6), 0 < found.low < found.value < found.high
    (2.0, True)
    """
    found = mean_interval([math.log(each) for each in seconds])
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (x if np.isnan(x) else function(x) for x in ends)
    return replace(estimate, value=value, low=low, high=high)
