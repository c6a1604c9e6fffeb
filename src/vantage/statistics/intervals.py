"""Statistics of a gradient with 95 % intervals, from inner products of its unit gradients alone.

Setting. U independent units (trajectories, groups or batches) have gradients g_u with mean G and
covariance Sigma. Kept are inner products only: `gram[u, v] = g_u . g_v`, and, against a reference
r on the same units, `cross[u, v] = g_u . r_v` and `reference[u, v] = r_u . r_v`. An exact reference
g* gives `cross[u] = g_u . g*` and `reference = ||g*||^2`, a number.

Method. Each statistic is the root c of E[A - c B] = 0, where A and B are kernels of two units,
estimated without bias by the mean over pairs u != v. Its interval is the set of c that a
studentised test does not reject. The law of the test comes from a bootstrap over units that
departs from the textbook in three ways:

1. Null imposed. ||G||^2 is degenerate: near zero its estimate is a weighted chi-square, and its
   variance grows with the value tested. So under c the resampled world has the mean norm it should
   have: the sample mean, moved along Sigma gbar (to first order the likeliest such mean), with
   centred noise (Arcones & Gine 1992).
2. Smoothed tails. Each copy of a unit has its deviation from the mean scaled by a lognormal factor
   (Silverman & Young 1987; Polansky & Schucany 1997): a plain bootstrap never sees a square above
   the sample's largest, and is too short. Bandwidth of log ||g_u - gbar||^2: BANDWIDTH x its
   standard deviation x (effective units)^(-1/5), both weighted by ||g_u - gbar||^2. BANDWIDTH = 2
   was chosen by coverage on scalar samples (exponential, uniform, gamma, lognormal, Student and
   squared corridor returns); the normal-reference rule would be 1.06 and covers less.
3. Pairs apart. Variances along gbar and of the degenerate part come from pairs u != v only
   (U-centring, Szekely & Rizzo 2014), so that no unit is compared with itself.

A ratio whose denominator cannot be told from zero gives an unbounded or undetermined set (Fieller
1954), and says so. A note that begins with "undetermined" means that no number is given, one that
begins with "optimistic" that the interval may be too short. Coverage is measured by
`benchmarks/calibration.py`, not proved. The seed is fixed: same input, same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from vantage.errors import InputError

Array = NDArray[np.float64]
SEED, DRAWS, TAIL, BANDWIDTH = 20240229, 499, 0.025, 2.0
FEWEST = 4  # effective units; below, no interval is given
TINY = 1e-300
GRID = np.array([0, 0.4, 0.8, 1.2, 1.6, 2, 2.5, 3, 4, 6, 10, 20, 50, 200, 1000])  # standard errors
CONSTANT = "optimistic: the same in every unit of this sample; rarer units may differ"
FEW = "optimistic: few units decide it; draw more units"


@dataclass(frozen=True)
class Estimate:
    """One statistic: value (nan when undetermined; `note` says why), 95 % interval [low, high]."""

    value: float
    low: float
    high: float
    exact: bool = False
    note: str = ""


# ---- the statistics ----------------------------------------------------------------------------


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


def squared_norm(gram: Any) -> Estimate:
    """N = ||G||^2, the mean of g_u . g_v over u != v; never cut at 0, nor is its interval."""
    return interval(checked(gram, "gram"), 1.0, norm=True)


def variance(gram: Any) -> Estimate:
    """tr Sigma of one unit: sum_u ||g_u - gbar||^2 / (U - 1). Interval on the log scale."""
    return spread([checked(gram, "gram")])


def snr(gram: Any, batch: int | float = 1) -> Estimate:
    """B N / tr Sigma, signal-to-noise ratio of a batch of B units; never cut at 0."""
    return mapped(interval(checked(gram, "gram"), None, norm=True), lambda c: batch * c)


def noise_scale(gram: Any) -> Estimate:
    """tr Sigma / N, the batch where signal equals noise (McCandlish et al. 2018).

    Unbounded above, and undetermined, when N cannot be told from 0.
    """
    return inverted(snr(gram))


def inverted(ratio: Estimate) -> Estimate:
    """The noise scale, in units, from the SNR of one unit: its inverse where N is above 0."""
    inverse = mapped(ratio, lambda c: 1 / c if c > 0 else np.inf)
    if inverse.low < np.inf:
        return replace(inverse, low=inverse.high, high=inverse.low)
    note = "undetermined: ||G||^2 cannot be told from zero, only a lower limit; draw more units"
    return Estimate(np.nan, inverse.high if ratio.high < np.inf else 0.0, np.inf, note=note)


def batch_cosine(gram: Any, batch: int | float) -> Estimate:
    """(1 + tr Sigma / (N B))^(-1/2), cosine of a batch gradient with its mean; 0 where N <= 0."""
    return mapped(snr(gram, batch), lambda c: float(np.sqrt(1 - 1 / (1 + max(c, 0)))))


def scale(cross: Any, reference: Any) -> Estimate:
    """G . G* / ||G*||^2: 1 for an unbiased estimator; reported apart from the direction."""
    across, below = against(cross, reference)
    return determined(below) or interval((across + across.T) / 2, below, norm=False)


def cosine(gram: Any, cross: Any, reference: Any) -> Estimate:
    """Cosine of G and G*, debiased, in [-1, 1]; undetermined where the sign of G . G* is.

    tan^2 = ||G - beta G*||^2 / ||beta G*||^2, beta the scale; the residual is projected off the
    mean of the reference.
    """
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    if refused := determined(below, -1.0, 1.0):
        return refused
    product = interval((across + across.T) / 2, 1.0, norm=False)
    sign = float(np.sign(product.value))
    if not min(sign * product.low, sign * product.high) > abs(product.value) / 2:  # as `determined`
        note = "undetermined: G . G* cannot be told from zero, nor its sign; draw more units"
        unknown = np.isnan(product.value)
        return Estimate(np.nan, -1.0, 1.0, note=product.note if unknown else note)
    beta = product.value / off_diagonal(below)
    residual = matrix - beta * (across + across.T) + beta**2 * below
    along = (across - beta * below).mean(1)
    residual = residual - np.outer(along, along) / below.mean()
    if residual.diagonal().max() <= 1e-12 * matrix.diagonal().max():
        return Estimate(sign, sign, sign, note=product.note or CONSTANT)
    tangent = interval(residual, beta * (across + across.T) - beta**2 * below, norm=True)
    angle = mapped(tangent, lambda c: float(sign / np.sqrt(1 + max(c, 0))))
    return replace(angle, low=min(angle.low, angle.high), high=max(angle.low, angle.high))


def relative_bias(gram: Any, cross: Any, reference: Any) -> Estimate:
    """||G - G*|| / ||G*||, from the U-statistic of its square; [0, high] where none is seen."""
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    if refused := determined(below, 0.0):
        return refused
    difference = matrix - across - across.T + below
    if difference.diagonal().max() <= 1e-12 * matrix.diagonal().max():
        return Estimate(0.0, 0.0, 0.0, note=CONSTANT)
    return mapped(interval(difference, below, norm=True), lambda c: float(np.sqrt(max(c, 0))))


def variance_ratio(first: Any, second: Any) -> Estimate:
    """tr Sigma_e / tr Sigma_f of two estimators on the same units; below 1: less variance in e."""
    return spread([checked(first, "first"), checked(second, "second")])


def decomposition(gram: Any, group: Any) -> tuple[Estimate, Estimate]:
    """(between, within) of completions [n] in groups [n]: Sigma_inter and Sigma_intra (ANOVA).

    within = mean_p w_p, w_p the variance inside group p; between = Var(group means) - mean_p w_p /
    K_p, not cut at 0. The group is the unit. The interval of the difference is MOVER's with
    correlation (Zou 2008), from the intervals of its two terms.
    """
    matrix = checked(gram, "gram", 4)
    label = np.unique(torch.as_tensor(group).cpu().numpy(), return_inverse=True)[1].reshape(-1)
    count = np.bincount(label).astype(np.float64)
    if label.size != len(matrix) or count.size < 2 or count.min() < 2:
        raise InputError(
            f"group: {label.size} labels for {len(matrix)} completions, {count.size} groups, the "
            f"smallest of {count.min():.0f}; give >= 2 groups of >= 2 completions each."
        )
    average = np.zeros((count.size, label.size))
    average[label, np.arange(label.size)] = 1 / count[label]
    means = average @ matrix @ average.T
    inside = (average @ matrix.diagonal() - means.diagonal()) * count / (count - 1)
    inside = np.maximum(inside, 0)
    total, share, within = spread([means]), positive_mean(inside / count), positive_mean(inside)
    deviation = parts(means).second.diagonal()
    vary = deviation.std() * inside.std() > 0
    together = float(np.corrcoef(deviation, inside / count)[0, 1]) if vary else 0.0

    def distance(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 + b**2 - 2 * together * a * b, 0)))

    value = total.value - share.value
    low = value - distance(total.value - total.low, share.high - share.value)
    high = value + distance(total.high - total.value, share.value - share.low)
    return Estimate(value, low, high, note=total.note or within.note), within


# ---- the door ----------------------------------------------------------------------------------


def double(numbers: Any) -> torch.Tensor:
    if isinstance(numbers, torch.Tensor):
        return numbers.detach().cpu().double()
    return torch.as_tensor(numbers, dtype=torch.float64)


def checked(gram: Any, name: str, fewest: int = 2) -> Array:
    """Square, finite, at least `fewest` units, as float64."""
    matrix: Array = double(gram).numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name}: shape {matrix.shape}; give inner products of all units, [U, U].")
    if len(matrix) < fewest:
        raise InputError(f"{name}: {len(matrix)} unit(s), at least {fewest} needed; draw more.")
    if broken := int((~np.isfinite(matrix)).sum()):
        raise InputError(f"{name}: {broken} entries are not finite; drop or repair those units.")
    return matrix


def against(cross: Any, reference: Any) -> tuple[Array, Array]:
    """Kernels [U, U] of g_u . r_v and r_u . r_v; an exact reference is the same r for all units."""
    across = double(cross)
    if across.ndim == 1:
        across = across[:, None].expand(-1, len(across))
    matrix = checked(across, "cross")
    below = double(reference)
    below = below if below.ndim == 2 else below.expand(matrix.shape)
    return matrix, checked(below, "reference")


def determined(below: Array, low: float = -np.inf, high: float = np.inf) -> Estimate | None:
    """None when ||G*||^2 is above twice the 97.5 % point of its estimate under G* = 0.

    That point is at most 2.85 standard deviations, (chi^2_1 - 1) / sqrt 2, reached when all noise
    lies in one direction. Twice, because an estimate that only just passes is too large, and what
    is divided by it too small.
    """
    units, exact = len(below), np.ptp(below) == 0
    noise = 0.0 if exact or units < 4 else pair_moments(below)[1]
    if off_diagonal(below) > 2 * 2.85 * np.sqrt(2 * noise / (units * (units - 1))):
        return None
    note = "undetermined: the squared norm of the reference cannot be told from zero"
    return Estimate(np.nan, low, high, note=note)


def mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (x if np.isnan(x) else function(x) for x in ends)
    return replace(estimate, value=value, low=low, high=high)


# ---- kernels of two units ----------------------------------------------------------------------


class Kernel(NamedTuple):
    """kernel[u, v] = mean + first[u] + first[v] + second[u, v], over all pairs (Hoeffding)."""

    mean: float
    first: Array
    second: Array


def parts(kernel: Array) -> Kernel:
    rows = kernel.mean(1)
    mean = float(rows.mean())
    return Kernel(mean, rows - mean, kernel - rows[:, None] - rows[None, :] + mean)


def deviations(gram: Array) -> Array:
    """||g_u - gbar||^2, rounding taken for zero."""
    size = parts(gram).second.diagonal()
    return np.where(size > 1e-13 * np.abs(gram.diagonal()).max(), size, 0.0)


def off_diagonal(kernel: Array) -> float:
    return float((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)))


def pair_moments(kernel: Array) -> tuple[float, float, Array]:
    """Unbiased: variance of the first-order part, mean square of the second; U-centred kernel."""
    units = len(kernel)
    rows = (kernel.sum(1) - kernel.diagonal()) / (units - 2)
    centred = kernel - rows[:, None] - rows[None, :] + rows.sum() / (units - 1)
    np.fill_diagonal(centred, 0.0)
    square = float((centred**2).sum()) / (units * (units - 3))
    return float(rows.var(ddof=1)) - square / (units - 2), square, centred


# ---- smoothed resamples and their tail ---------------------------------------------------------


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


# ---- variances ---------------------------------------------------------------------------------


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
    """tr Sigma of one Gram matrix, or the ratio of two on the same units.

    The degenerate part ||gbar - G||^2 of the estimate is kept: it is all there is where
    ||g_u - G|| is constant.
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
        moved = w1 @ parts(gram).second / units
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


# ---- roots of E[A - c B] = 0 -------------------------------------------------------------------


class Below(NamedTuple):
    """B, which c multiplies: a number, a kernel of two units, or tr Sigma of the Gram matrix A."""

    value: float  # unbiased
    world: float  # in the resampled world
    first: Array  # [U] half its influence, linear in the deviation
    square: Array  # [U] its influence, square in the deviation
    moved: Array  # [DRAWS, U] shift of `first` with the resampled mean
    wobble: Array  # [DRAWS] degenerate part
    drawn: Array  # [DRAWS] its estimate


class World(NamedTuple):
    """What the test of one c needs. y: half the influence of A; twist: Sigma y."""

    value: float
    norm: float
    along: float
    far: float
    shrink: float
    noise: float
    seen: Array  # [2, 2] covariance of y and of the influence of B
    means: Array  # [3, DRAWS] of y, twist and the influence of B
    spreads: Array  # [4, 4, DRAWS] covariances of y, twist, moved mean, influence of B
    wobble: Array
    traces: Array
    noises: Array


def interval(gram: Array, over: Array | float | None, *, norm: bool) -> Estimate:
    """Root c of E[A - c B] = 0 with its interval. A: `gram`; B: `over`, or tr Sigma of A if None.

    norm: A is a Gram matrix, E A = ||G||^2, and the null mean ||G||^2 = c B is imposed; else A is
    any kernel. The interval is not cut at 0.
    """
    units, top = len(gram), parts(gram)
    size = deviations(gram) if norm else np.zeros(units)
    base = over if over is not None else float(size.sum()) / (units - 1)
    bottom = off_diagonal(base) if isinstance(base, np.ndarray) else base
    centre = off_diagonal(gram) / bottom if bottom else np.nan
    first = parts(base).first if isinstance(base, np.ndarray) else np.zeros(units)
    rounding = 1e-12 * (np.abs(gram).max() + np.abs(centre * np.asarray(base)).max())
    moves = np.where(np.abs(top.first) > rounding, top.first**2, 0.0)
    linear = top.first - centre * first
    deviation = size if norm else np.where(np.abs(linear) > rounding, linear**2, 0.0)
    if not norm and moves.any() and not deviation.any():
        return settled(centre, moves) or Estimate(centre, centre, centre, note=CONSTANT)
    if refused := settled(centre, deviation):
        return refused
    weights = resamples(deviation, BANDWIDTH if norm else 0.0)
    below = denominator(base, size if over is None else np.zeros(units), top.second, weights)
    world = resampled(gram, size, below, weights, norm)
    error = quadratic(world.seen, np.array([2, -centre]))
    flat = isinstance(over, np.ndarray) and error <= 1e-12 * 4 * world.seen[0, 0]
    if flat:
        return Estimate(centre, centre, centre, note=CONSTANT)
    unit = float(np.sqrt(max(error / units + world.noise, 0))) / abs(bottom)
    low = crossing(lambda step: margins(world, below, centre - unit * step, norm)[1])
    high = crossing(lambda step: -margins(world, below, centre + unit * step, norm)[0])
    ends = (centre - unit * low, centre + unit * high)
    return Estimate(centre, *ends, note=tail(deviation))


def moved(second: Array, weights: list[Array]) -> tuple[Array, Array]:
    """Shift of the resampled mean as each unit sees it [DRAWS, U]; degenerate part [DRAWS]."""
    units = len(second)
    shift = weights[0] @ second / units
    own = weights[1] @ second.diagonal() / units
    return shift, ((shift * weights[0]).sum(1) - own) / (units - 1)


def denominator(over: Array | float, square: Array, second: Array, weights: list[Array]) -> Below:
    units, w1, w2 = len(square), weights[0], weights[1]
    still, zero = np.zeros_like(w1), np.zeros(units)
    if isinstance(over, np.ndarray):
        kernel = parts(over)
        shift, wobble = moved(kernel.second, weights)
        drawn = kernel.mean + 2 * w1 @ kernel.first / units + wobble
        value = off_diagonal(over)
        return Below(value, kernel.mean, kernel.first, square, shift, wobble, drawn)
    if not square.any():
        return Below(over, over, zero, square, still, still[:, 0], np.full(DRAWS, over))
    shift = w1 @ second / units
    drawn = (w2 @ square - (shift * w1).sum(1)) / (units - 1)
    return Below(over, over * (units - 1) / units, zero, square, -shift, still[:, 0], drawn)


def resampled(
    gram: Array,
    size: Array,
    below: Below,
    weights: list[Array],
    norm: bool,
) -> World:
    """Moments, over the copies in each draw, of what the influence of A - c B is made of."""
    units, (w1, w2, w3, w4), top = len(gram), weights, parts(gram)
    y, twist, value = top.first, top.second @ top.first / units, off_diagonal(gram)
    shift, wobble = moved(top.second, weights)
    influence = 2 * below.first + below.square
    influences = (y, twist, shift, 2 * (below.first + below.moved))
    columns = [np.broadcast_to(a, w1.shape) for a in influences]
    means = np.array([(w1 * a).mean(1) for a in columns])
    means[3] += w2 @ below.square / units
    moment = np.empty((4, 4, DRAWS))
    for i, a in enumerate(columns):
        for j in range(i, 4):
            moment[i, j] = moment[j, i] = (w2 * a * columns[j]).mean(1)
    for i, a in enumerate(columns):
        cubic = (w3 * a) @ below.square / units
        moment[i, 3] += cubic
        moment[3, i] += cubic
    moment[3, 3] += w4 @ below.square**2 / units
    first, degenerate, centred = pair_moments(gram)
    pairs = units * (units - 1) / 2
    noises = ((w2 @ centred**2) * w2).sum(1) + (w2**2 - w4) @ size**2
    seen = np.cov(np.stack([y, influence]))
    # the variance along gbar counts each unit's own share in gbar; without it, if A is a norm
    shrink = (max(first, 0) + degenerate / units) / max(float(seen[0, 0]), TINY) if norm else 1.0
    return World(
        value=value,
        norm=max(top.mean, TINY),
        along=float(y @ y) / units,
        far=float(y @ twist) / units,
        shrink=float(np.sqrt(min(shrink, 1.0))),
        noise=degenerate / pairs,
        seen=seen,
        means=np.array([w1 @ y, w1 @ twist, 2 * w1 @ below.first]) / units,
        spreads=moment - means[:, None] * means[None, :],
        wobble=wobble,
        traces=(w2 @ size - (shift * w1).sum(1)) / (units - 1),
        noises=noises / (units * (units - 3)) / pairs,
    )


def quadratic(matrix: Array, vector: Array) -> float:
    return float(vector @ matrix @ vector)


def margins(world: World, below: Below, at: Array, norm: bool) -> Array:
    """Observed studentised A - c B minus the quantiles of its law under c = at: [2, len(at)]."""
    units, c = below.first.size, at[:, None]
    if norm:
        reach, kappa, root, slope, root_seen, slope_seen, difference = imposed(world, below, c)
    else:
        one, none = np.ones_like(c), np.zeros_like(c)
        reach, kappa, root, slope, root_seen, slope_seen = one, none, one, c, one, c
        difference = 2 * world.means[0] - c * world.means[2]
        difference = world.shrink * difference + world.wobble - c * below.wobble
    s, lead = world.spreads, 2 * root * reach * world.shrink
    own = 2 * root
    total = (
        lead**2 * (s[0, 0] + 2 * kappa * s[0, 1] + kappa**2 * s[1, 1])
        + own**2 * s[2, 2]
        + slope**2 * s[3, 3]
        - 2 * own * slope * s[2, 3]
        + 2 * lead * own * (s[0, 2] + kappa * s[1, 2])
        - 2 * lead * slope * (s[0, 3] + kappa * s[1, 3])
    )
    law = difference / np.sqrt(np.maximum(np.maximum(total, 0) / units + world.noises, TINY))
    seen = world.seen
    error = 4 * root_seen**2 * seen[0, 0] - 4 * root_seen * slope_seen * seen[0, 1]
    error = (error + slope_seen**2 * seen[1, 1]) / units + world.noise
    test = (world.value - c * below.value) / np.sqrt(np.maximum(error, TINY))
    found: Array = test[:, 0] - np.quantile(law, [TAIL, 1 - TAIL], axis=1)
    return found


def imposed(world: World, below: Below, c: Array) -> tuple[Array, ...]:
    """The world in which ||G||^2 = c B: the mean is reach (gbar + kappa Sigma gbar).

    The influence of the ratio, 2 y / ||gbar||^2 - b / B, is that of the sample; its size under c
    goes with sqrt c. For c < 0, which no mean has, the noise is that of c = 0.
    """
    target, norm, along = np.maximum(c * below.world, 0), world.norm, max(world.along, TINY)
    far, gap = max(world.far, TINY), target - norm
    inside = along**2 + far * gap
    kappa = np.where(inside > 0, gap / (along + np.sqrt(np.maximum(inside, 0))), -along / far)
    reached = norm + 2 * kappa * along + kappa**2 * far
    reach = np.sqrt(target / np.maximum(reached, TINY))
    linear = 2 * world.shrink * reach * (world.means[0] + kappa * world.means[1])
    estimate = target + linear + world.wobble
    drawn = np.maximum(estimate + world.traces / below.first.size, 1e-12 * norm)
    root = np.sqrt(np.maximum(c * below.drawn, 0) / drawn)
    root_seen = np.sqrt(np.maximum(c * below.value, 0) / norm)
    slope = np.where(c < 0, c, root * drawn / np.maximum(below.drawn, 1e-12 * below.value))
    slope_seen = np.where(c < 0, c, root_seen * norm / below.value)
    difference = estimate + np.minimum(c * below.world, 0) - c * below.drawn
    return reach, kappa, root, slope, root_seen, slope_seen, difference


def crossing(margin: Callable[[Array], Array]) -> float:
    """Smallest step > 0 where `margin` turns positive: bracketed, refined, interpolated."""
    steps = GRID
    for _ in range(2):
        value = margin(steps)
        outside = value > 0
        outside[0] = False
        if not outside.any():
            return float(np.inf)
        last = int(np.argmax(outside))
        left, right = float(steps[last - 1]), float(steps[last])
        steps = np.linspace(left, right, 7)
    below, above = min(float(value[last - 1]), 0.0), float(value[last])
    return left + (right - left) * -below / (above - below)
