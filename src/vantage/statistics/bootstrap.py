"""Smoothed resamples of units, the tail that limits them, and intervals of variances.

Each copy of a unit in a resample has its deviation from the mean scaled by a lognormal factor: a
plain bootstrap never sees a square above the sample's largest, and its intervals are too short.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vantage.statistics.estimate import Estimate
from vantage.statistics.gram import TINY, Array, deviations, hoeffding, pair_moments

SEED, DRAWS, TAIL, BANDWIDTH = 20240229, 499, 0.025, 2.0
FEWEST = 4  # effective units; below, no interval is given
CONSTANT = "optimistic: the same in every unit of this sample; rarer units may differ"
FEW = "optimistic: few units decide it; draw more units"


@lru_cache(maxsize=2)
def copies(units: int) -> tuple[NDArray[np.int64], Array]:
    """Flat place draw * U + unit of every copy in DRAWS resamples, a standard normal for each."""
    generator = np.random.default_rng(SEED)
    unit = generator.integers(0, units, size=(DRAWS, units))
    place = (unit + units * np.arange(DRAWS)[:, None]).reshape(-1)
    return place, generator.standard_normal(DRAWS * units)


def resamples(size: Array, smooth: int | float = BANDWIDTH) -> list[Array]:
    """[k - 1][b, u] = sum over the copies of u in draw b of factor^k, k = 1..4; E factor^2 = 1."""
    place, normal = copies(len(size))
    share = size[size > 1e-12 * size.max()] / size.sum()
    deviation = np.sqrt(share @ (np.log(share) - share @ np.log(share)) ** 2)
    width = smooth * deviation * (share @ share) ** 0.2
    factor = np.exp(width * normal / 2 - width**2 / 4)
    square = factor * factor
    powers = (factor, square, square * factor, square * square)
    shape = (DRAWS, len(size))
    return [np.bincount(place, p, np.prod(shape)).astype(float).reshape(shape) for p in powers]


def effective(size: Array) -> float:
    """(sum size)^2 / sum size^2: as many equal units would weigh the same (Kish)."""
    return float(size.sum() ** 2 / max(size @ size, TINY))


def tail(size: Array) -> str:
    """Why an interval may be too short, or "": few units carry it, or their tail is too heavy."""
    carriers = effective(size)
    if carriers < 10:
        return f"optimistic: {carriers:.1f} of {len(size)} units carry it; draw more units"
    shape = pareto_shape(size)
    heavy = f"optimistic: heavy tail (Pareto shape {shape:.2f} > 0.7); draw more units"
    return heavy if shape > 0.7 else ""


def pareto_shape(size: Array) -> float:
    """Shape of the generalised Pareto law of the largest min(U/5, 3 sqrt U) values.

    Zhang & Stephens 2009, drawn towards 1/2 by ten prior observations as in Pareto-smoothed
    importance sampling (Vehtari et al. 2024), whose limit of 0.7 is used too.
    """
    count = int(min(len(size) / 5, 3 * np.sqrt(len(size))))
    ordered = np.sort(size)
    excess = ordered[-count:] - ordered[-count - 1] if count >= 5 else np.zeros(1)
    quartile = excess[max(int(count / 4 + 0.5) - 1, 0)]
    if quartile <= 1e-12 * ordered[-1]:
        return 0.0
    grid = np.arange(1, 31 + int(np.sqrt(count)))
    theta = 1 / excess[-1] + (1 - np.sqrt(len(grid) / (grid - 0.5))) / (3 * quartile)
    theta = theta[np.abs(theta * excess[-1]) > 1e-9]
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    log_posterior = count * (np.log(-theta / shape) - shape - 1)
    posterior = np.exp(log_posterior - log_posterior.max())
    best = theta @ posterior / posterior.sum()
    return float((np.log1p(-best * excess).sum() + 10 * 0.5) / (count + 10))


def settled(value: float, size: Array) -> Estimate | None:
    """The estimate where resampling has nothing to say: too few units, or too few that differ.

    Below FEWEST effective units the chance exp(-FEWEST) that a sample holds none of the units that
    matter is near the 2.5 % an interval may leave out.
    """
    if len(size) < 2 * FEWEST:
        note = f"undetermined: {len(size)} units; an interval needs {2 * FEWEST}"
        return Estimate(value, -np.inf, np.inf, note=note)
    if size.max() <= TINY:
        note = (
            "undetermined: no spread between units, so the sample bounds nothing; draw more units"
        )
        return Estimate(np.nan, -np.inf, np.inf, note=note)
    if (carriers := effective(size)) < FEWEST:
        note = f"undetermined: {carriers:.1f} of {len(size)} units carry it; draw more units"
        return Estimate(np.nan, -np.inf, np.inf, note=note)
    return None


# Variances.


def positive_mean(values: Array) -> Estimate:
    """Mean of positive values [U], on the log scale: smoothed bootstrap-t."""
    units, mean = len(values), float(values.mean())
    if refused := settled(mean, values):
        return replace(refused, low=0.0)
    _, w2, _, w4 = resamples(values)
    means = np.maximum(w2 @ values / units, TINY)
    errors = np.sqrt(np.maximum(w4 @ values**2 / units / means**2 - 1, TINY) / units)
    error = float(values.std(ddof=1) / mean / np.sqrt(units))
    return log_interval(mean, error, np.log(means / mean), errors, tail(values))


def log_interval(value: float, error: float, shift: Array, errors: Array, note: str) -> Estimate:
    """value x exp(-t error) between the quantiles of t = shift / errors."""
    low, high = np.quantile(shift / np.maximum(errors, 1e-12), [TAIL, 1 - TAIL])
    ends = np.exp(np.clip([-high * error, -low * error], -700, 700))
    return Estimate(value, float(value * ends[0]), float(value * ends[1]), note=note)


def spread(grams: list[Array]) -> Estimate:
    """tr Σ of one Gram matrix, or the ratio of two on the same units.

    The degenerate part ‖ḡ - G‖² of the estimate is kept: it is all there is where
    ‖g_u - G‖ is constant.
    """
    units = len(grams[0])
    sizes = [deviations(gram) for gram in grams]
    traces = [float(size.sum()) / (units - 1) for size in sizes]
    value = traces[0] if len(grams) == 1 else traces[0] / max(traces[1], TINY)
    for size in reversed(sizes):
        if refused := settled(value, size):
            return replace(refused, low=0.0)
    joint = sum((s / t for s, t in zip(sizes, traces, strict=True)), np.zeros(units))
    w1, w2, w3, w4 = resamples(joint)
    shift, linear, square = np.zeros(DRAWS), np.zeros_like(w1), np.zeros_like(w1)
    influence, kernel = np.zeros(units), np.zeros_like(grams[0])
    for sign, gram, size, trace in zip((1.0, -1.0), grams, sizes, traces, strict=False):
        moved = w1 @ hoeffding(gram).second / units
        drawn = np.maximum((w2 @ size - (moved * w1).sum(1)) / (units - 1), 1e-6 * trace)
        shift += sign * np.log(drawn / trace * units / (units - 1))
        linear -= sign * 2 * moved / drawn[:, None]
        square += sign * size / drawn[:, None]
        influence += sign * size / trace
        kernel += sign * gram / trace
    _, degenerate, centred = pair_moments(kernel)
    mean = (w1 * linear + w2 * square).mean(1)
    variances = (w2 * linear**2 + 2 * w3 * linear * square + w4 * square**2).mean(1) - mean**2
    pairs = ((w2 @ centred**2) * w2).sum(1) / (units * (units - 3))
    errors = np.sqrt(np.maximum(variances, 0) / units + 2 * pairs / units**2)
    error = float(np.sqrt(influence.var(ddof=1) / units + 2 * max(degenerate, 0) / units**2))
    if error < 1e-9:
        return Estimate(value, value, value, note=CONSTANT)
    few = len(grams) == 2 and effective(influence**2) < FEWEST
    return log_interval(value, error, shift, errors, FEW if few else tail(joint))
