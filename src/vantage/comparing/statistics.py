"""Statistics of few runs, with 95 % intervals: Agarwal et al. 2021, intervals chosen by coverage.

Everything here takes the scores of one estimator as a list of arrays, one per environment, each
[runs]. Runs are independent and environments are fixed: what an interval covers is the value that
infinitely many seeds on these environments would give.

Each interval is the one that covered best where truth is known (`benchmarks/comparison.py`; the
numbers are in docs/compare.md). With few runs that is not the percentile bootstrap.

- IQM: the stratified percentile bootstrap, its tails expanded for small samples (Hesterberg 2015,
  section 3.1): a bootstrap of n runs is narrower than it should be by √((n−1)/n), and has the
  tails of a normal law where a t law is called for. It stays within the range of the runs seen.
- Mean and optimality gap: Student's t, with the degrees of freedom of Welch and Satterthwaite where
  there are several environments. A studentised bootstrap covers a little more of skewed scores, but
  has no end where most runs reach the same ceiling.
- Median: of one environment's runs, a pair of order statistics, which needs no assumption; of
  several environments' means, as for the IQM.
- Probability of improvement: the score interval of Newcombe (2006), method 5, which a sample
  without any overlap does not collapse.

Resamples come from a fixed seed: same scores, same bits.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from vantage.statistics.intervals import Estimate

Array = NDArray[np.float64]
Scores = Sequence[Array]  # one array of runs per environment

SEED, RESAMPLES, BATCH, LEVEL = 20210830, 1999, 500, 0.95
TAIL = (1 - LEVEL) / 2
TINY = 1e-9
QUARTER = 0.25  # what the IQM leaves out at either end
CONSTANT = "optimistic: the same in every run; rarer outcomes may differ"
ONE = "undetermined: one run says nothing of the spread"


def iqm(scores: Scores) -> Estimate:
    """Interquartile mean: the mean of the middle half of all runs of all environments."""
    return _percentile(scores, _pooled(QUARTER))


def band(curves: Array, statistic: str) -> Array:
    """IQM or mean over runs at every point, with pointwise intervals: [3, points].

    Whole runs are resampled. Each interval covers at its own point, not the curve at once.

    Args:
        curves: [runs, points].
        statistic: "iqm" or "mean".
    """
    middle = _pooled(QUARTER if statistic == "iqm" else 0.0)
    value = middle(curves, axis=0)
    if len(curves) < 2:
        return np.stack([value, value * np.nan, value * np.nan])
    if statistic == "mean":
        return _student([curves])
    return np.stack([value, *_expanded([curves], middle)])


def mean(scores: Scores) -> Estimate:
    """Mean over environments of the mean over runs."""
    return _means(scores)


def optimality_gap(scores: Scores, target: float) -> Estimate:
    """What is missing to the target, runs above it not making up for others: E[max(0, target − x)].

    Agarwal et al. 2021, with target 1 for normalised scores.
    """
    return _means([np.maximum(0.0, target - s) for s in scores])


def median(scores: Scores) -> Estimate:
    """The median run of one environment; of several, the median environment's mean run."""
    if len(scores) == 1:
        return _median_run(scores[0])

    def middle(*samples: Array, axis: int = -1) -> Array:
        return np.asarray(np.median(np.stack([s.mean(axis) for s in samples]), axis=0))

    return _percentile(scores, middle)


def improvement(first: Scores, second: Scores) -> Estimate:
    """P(X > Y) + P(X = Y)/2 of a run X of the first and a run Y of the second.

    The Mann-Whitney statistic, averaged over environments. Its variance at a probability θ is taken
    as Hanley & McNeil (1982) have it, θ(1−θ)/(mn) · [1 + (N−1)((1−θ)/(2−θ) + θ/(1+θ))] with
    N = (m+n)/2, and the interval holds every θ that lies within 1.96 of its own standard errors.
    """
    pairs = list(zip(first, second, strict=True))
    value = float(np.mean([_greater(x, y) for x, y in pairs]))
    normal = float(scipy.stats.norm.ppf(1 - TAIL))

    def error(theta: float) -> float:
        return math.sqrt(sum(_variance(theta, len(x), len(y)) for x, y in pairs)) / len(pairs)

    def outside(theta: float) -> float:
        return abs(value - theta) - normal * error(theta)

    # the error vanishes at 0 and 1, where every interval would end at once
    low = 0.0 if value == 0 else scipy.optimize.brentq(outside, 0.0, min(value, 1 - TINY))
    high = 1.0 if value == 1 else scipy.optimize.brentq(outside, max(value, TINY), 1.0)
    return Estimate(value, float(low), float(high))


def profile(scores: Scores, thresholds: Array) -> Array:
    """Fraction of runs above each threshold, with Wilson's interval; [3, thresholds].

    Environments weigh alike. Where they differ the interval is wider than it need be, because runs
    are taken as drawn from all of them.
    """
    above = np.mean([(s[:, None] > thresholds).mean(0) for s in scores], axis=0)
    runs, z = sum(map(len, scores)), float(scipy.stats.norm.ppf(1 - TAIL))
    middle = (above + z**2 / (2 * runs)) / (1 + z**2 / runs)
    half = z * np.sqrt(above * (1 - above) / runs + z**2 / (4 * runs**2)) / (1 + z**2 / runs)
    return np.stack([above, middle - half, middle + half])


# ---- the intervals -----------------------------------------------------------------------------


def _pooled(trim: float) -> Callable[..., Array]:
    """The trimmed mean of all samples together, as scipy's bootstrap takes a statistic."""

    def statistic(*samples: Array, axis: int = -1) -> Array:
        return np.asarray(scipy.stats.trim_mean(np.concatenate(samples, axis), trim, axis=axis))

    return statistic


def _percentile(scores: Scores, statistic: Callable[..., Array]) -> Estimate:
    value = float(statistic(*scores))
    if _fewest(scores) < 2:
        return _noted(scores, value, math.nan, math.nan)
    low, high = _expanded(scores, statistic)
    return _noted(scores, value, float(low), float(high))


def _expanded(samples: Sequence[Array], statistic: Callable[..., Array]) -> tuple[Array, Array]:
    """Ends of the expanded percentile interval; runs are the first axis of each sample."""
    freedom = sum(len(s) - 1 for s in samples)
    runs = _fewest(samples)
    # far enough out that the interval is as wide as that of Student's t would be
    out = math.sqrt(runs / (runs - 1)) * float(scipy.stats.t.ppf(1 - TAIL, freedom))
    level = 1 - 2 * float(scipy.stats.norm.sf(out))
    interval = scipy.stats.bootstrap(
        tuple(samples), statistic, n_resamples=RESAMPLES, batch=BATCH, vectorized=True, axis=0,
        confidence_level=level, method="percentile", rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return np.asarray(interval.low), np.asarray(interval.high)


def _means(scores: Scores) -> Estimate:
    if _fewest(scores) < 2:
        return _noted(scores, float(np.mean([s.mean() for s in scores])), math.nan, math.nan)
    return _noted(scores, *_student(scores).tolist())


def _student(samples: Sequence[Array]) -> Array:
    """Mean over environments of means over runs, and its t interval; [3, ...].

    Args:
        samples: one array [runs, ...] per environment, two runs at least.
    """
    value = np.mean([s.mean(0) for s in samples], axis=0)
    squares = np.stack([s.var(0, ddof=1) / len(s) for s in samples])
    total = squares.sum(0)
    freedom = np.array([len(s) - 1 for s in samples]).reshape(-1, *[1] * total.ndim)
    below = (squares**2 / freedom).sum(0)
    degrees = np.where(below > 0, total**2 / np.where(below > 0, below, 1), freedom.sum())
    half = scipy.stats.t.ppf(1 - TAIL, degrees) * np.sqrt(total) / len(samples)
    return np.stack([value, value - half, value + half])


def _median_run(scores: Array) -> Estimate:
    """The narrowest symmetric pair of order statistics that covers 95 %, or the whole range.

    That the k-th smallest and the k-th largest of n miss the median has probability
    2 P(Binomial(n, ½) < k).
    """
    n, ordered = len(scores), np.sort(scores)
    k = max(1, int(scipy.stats.binom.ppf(TAIL, n, 0.5)))
    covered = 1 - 2 * float(scipy.stats.binom.cdf(k - 1, n, 0.5))
    note = "" if covered >= LEVEL else f"optimistic: the range of {n} runs covers {covered:.1%}"
    low, high = float(ordered[k - 1]), float(ordered[n - k])
    return _noted([scores], float(np.median(scores)), low, high, note)


def _greater(x: Array, y: Array) -> float:
    return float(np.mean(np.sign(x[:, None] - y[None, :]) / 2 + 0.5))


def _variance(theta: float, m: int, n: int) -> float:
    rest = (m + n) / 2 - 1
    return (
        theta * (1 - theta) / (m * n)
        * (1 + rest * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
    )  # fmt: skip


def _fewest(scores: Scores) -> int:
    return min(map(len, scores))


def _noted(scores: Scores, value: float, low: float, high: float, note: str = "") -> Estimate:
    """The estimate, saying so where the runs cannot tell how uncertain it is."""
    if _fewest(scores) < 2:
        return Estimate(value, math.nan, math.nan, note=ONE)
    if all(np.ptp(s) == 0 for s in scores):
        return Estimate(value, value, value, note=CONSTANT)
    return Estimate(value, low, high, note=note)
