"""Statistics of a gradient with 95 % intervals, from the inner products of its unit gradients alone.

Setting. U independent units (trajectories, groups or batches) have gradients g_u with mean G and covariance Sigma. Kept
are inner products only: `gram[u, v] = g_u . g_v`, and, against a reference r on the same units, `cross[u, v] = g_u . r_v`
and `reference[u, v] = r_u . r_v`. An exact reference g* gives `cross[u] = g_u . g*` and `reference = ||g*||^2`, a number.

Method. Each statistic is the root c of E[A - c B] = 0, where A and B are kernels of two units, estimated without bias by
the mean over pairs u != v. Its interval is the set of c that a studentised test does not reject. The law of the test comes
from a bootstrap over units that departs from the textbook in three ways:

1. Null imposed. ||G||^2 is degenerate: near zero its estimate is a weighted chi-square, and its variance grows with the
   value tested. So under c the resampled world has the mean norm it should have: the sample mean, moved along Sigma gbar
   (to first order the likeliest such mean), with centred noise (Arcones & Gine 1992).
2. Smoothed tails. Each copy of a unit has its deviation from the mean scaled by a lognormal factor (Silverman & Young
   1987; Polansky & Schucany 1997). A plain bootstrap never sees a square above the sample's largest, and is too short.
   Bandwidth of log ||g_u - gbar||^2: BANDWIDTH x its standard deviation x (effective units)^(-1/5), both weighted by
   ||g_u - gbar||^2. BANDWIDTH = 2 was chosen by the coverage of scalar exponential, lognormal, Student and squared
   corridor samples; the normal-reference rule would be 1.06 and covers less.
3. Bias removed. gbar is noisy itself: the variance along G is debiased by U-centring (Szekely & Rizzo 2014).

A ratio whose denominator cannot be told from zero gives an unbounded or undetermined set (Fieller 1954), and says so.
Coverage is measured by `benchmarks/calibration.py`, not proved. The resampling seed is fixed: same input, same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEED, TAIL, BANDWIDTH = 20240229, 0.025, 2.0
FEWEST = 8  # units; below, values come without intervals
TINY = 1e-300


@dataclass(frozen=True)
class Estimate:
    """One statistic: its value (nan when undetermined; `note` says why) and its 95 % interval [low, high]."""

    value: float
    low: float
    high: float
    exact: bool = False
    note: str = ""


# ---- the statistics ----------------------------------------------------------------------------------------------------


def squared_norm(gram: Any) -> Estimate:
    """N = ||G||^2, the mean of g_u . g_v over u != v; value and interval may be negative: they are never cut at 0."""
    matrix = checked(gram, "gram")
    return interval(matrix, 1.0, norm=True)


def variance(gram: Any) -> Estimate:
    """tr Sigma of one unit: sum_u ||g_u - gbar||^2 / (U - 1). Interval on the log scale."""
    return spread([checked(gram, "gram")])


def snr(gram: Any, batch: float = 1) -> Estimate:
    """B N / tr Sigma, the signal-to-noise ratio of a batch of B units (McCandlish et al. 2018); not cut at 0."""
    ratio = interval(checked(gram, "gram"), None, norm=True)
    return mapped(ratio, lambda c: batch * c)


def noise_scale(gram: Any) -> Estimate:
    """tr Sigma / N, the batch at which signal and noise are equal; unbounded when N cannot be told from 0."""
    ratio = snr(gram)
    inverse = mapped(ratio, lambda c: 1 / c if c > 0 else np.inf)
    low, high = inverse.high, inverse.low
    if high < np.inf:
        return replace(inverse, low=low, high=high)
    reason = "||G||^2 cannot be told from zero: only a lower limit; draw more units"
    return Estimate(np.nan, low, high, note="; ".join(filter(None, [ratio.note, reason])))


def batch_cosine(gram: Any, batch: float) -> Estimate:
    """(1 + tr Sigma / (N B))^(-1/2), the cosine of a batch gradient with its own mean; 0 where N is not above 0."""
    return mapped(snr(gram, batch), lambda c: float(np.sqrt(max(c, 0) / (1 + max(c, 0)))))


def scale(cross: Any, reference: Any) -> Estimate:
    """G . G* / ||G*||^2: 1 for an unbiased estimator; reported apart from the direction."""
    across, below = against(cross, reference)
    return determined(below) or interval((across + across.T) / 2, below, norm=False)


def cosine(gram: Any, cross: Any, reference: Any) -> Estimate:
    """Cosine of G and G*, debiased, in [-1, 1]; undetermined where the sign of G . G* is.

    tan^2 = ||G - beta G*||^2 / ||beta G*||^2, beta the scale; the residual is projected off the reference mean.
    """
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    product = interval((across + across.T) / 2, 1.0, norm=False)
    if refused := determined(below, -1.0, 1.0):
        return refused
    if product.low <= 0 <= product.high:
        reason = "G . G* cannot be told from zero, nor its sign; draw more units"
        return Estimate(np.nan, -1.0, 1.0, note=reason)
    beta = product.value / off_diagonal(below)
    residual = matrix - beta * (across + across.T) + beta**2 * below
    along = (across - beta * below).mean(1)
    residual = residual - np.outer(along, along) / below.mean()
    if residual.diagonal().mean() <= 1e-12 * matrix.diagonal().mean():
        return Estimate(np.sign(beta), np.sign(beta), np.sign(beta), note="every unit gradient lies along the reference's")
    tangent = interval(residual, beta * (across + across.T) - beta**2 * below, norm=True)
    angle = mapped(tangent, lambda c: float(np.sign(beta) / np.sqrt(1 + max(c, 0))))
    return replace(angle, low=min(angle.low, angle.high), high=max(angle.low, angle.high))


def relative_bias(gram: Any, cross: Any, reference: Any) -> Estimate:
    """||G - G*|| / ||G*||, from the U-statistic of its square; [0, high] where no bias is seen."""
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    if refused := determined(below, 0.0):
        return refused
    square = interval(matrix - across - across.T + below, below, norm=True)
    return mapped(square, lambda c: float(np.sqrt(max(c, 0))))


def variance_ratio(first: Any, second: Any) -> Estimate:
    """tr Sigma_e / tr Sigma_f of two estimators on the same units (paired): below 1, the first has less variance."""
    return spread([checked(first, "first"), checked(second, "second")])


def decomposition(gram: Any, group: Any) -> tuple[Estimate, Estimate]:
    """(between, within) of completions [n] in groups [n]: Sigma_inter, not cut at 0, and Sigma_intra (one-way ANOVA).

    within = mean_p w_p, w_p the variance inside group p; between = Var(group means) - mean_p w_p / K_p. The group is the
    unit. Interval of the difference by MOVER with correlation (Zou 2008) from those of its two terms.
    """
    matrix = checked(gram, "gram", 4)
    label = np.unique(torch.as_tensor(group).cpu().numpy(), return_inverse=True)[1].reshape(-1)
    count = np.bincount(label).astype(np.float64)
    if count.size < 2 or count.min() < 2:
        raise ValueError(
            f"group: {count.size} groups, the smallest of {count.min():.0f}; give >= 2 groups of >= 2 completions."
        )
    average = np.zeros((count.size, label.size))
    average[label, np.arange(label.size)] = 1 / count[label]
    means = average @ matrix @ average.T
    inside = (average @ matrix.diagonal() - means.diagonal()) * count / (count - 1)
    inside = np.maximum(inside, 0)
    total, share, within = spread([means]), positive_mean(inside / count), positive_mean(inside)
    deviation = parts(means).second.diagonal()
    together = float(np.corrcoef(deviation, inside / count)[0, 1]) if deviation.std() * inside.std() > 0 else 0.0

    def distance(first: float, second: float) -> float:
        return float(np.sqrt(max(first**2 + second**2 - 2 * together * first * second, 0)))

    value = total.value - share.value
    low = value - distance(total.value - total.low, share.high - share.value)
    high = value + distance(total.high - total.value, share.value - share.low)
    return Estimate(value, low, high, note=total.note or within.note), within


# ---- the door ----------------------------------------------------------------------------------------------------------


def checked(gram: Any, name: str, fewest: int = 2) -> Array:
    """Square, finite, at least `fewest` units, as float64."""
    matrix: Array = torch.as_tensor(gram).detach().cpu().double().numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: shape {matrix.shape}; give the inner products of all units, [U, U].")
    if len(matrix) < fewest:
        raise ValueError(f"{name}: {len(matrix)} unit(s); a variance needs at least {fewest}: draw more units.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: {(~np.isfinite(matrix)).sum()} entries are not finite; drop or repair those units.")
    return matrix


def against(cross: Any, reference: Any) -> tuple[Array, Array]:
    """Both kinds of reference as kernels [U, U]: cross[u, v] = g_u . r_v and r_u . r_v; an exact one is the same r for all."""
    across = torch.as_tensor(cross).detach().cpu().double()
    if across.ndim == 1:
        across = across[:, None].expand(-1, len(across))
    matrix = checked(across, "cross")
    below = torch.as_tensor(reference).detach().cpu().double()
    return matrix, checked(below if below.ndim == 2 else below.expand(matrix.shape), "reference")


def determined(below: Array, low: float = -np.inf, high: float = np.inf) -> Estimate | None:
    """None when ||G*||^2 is above zero with confidence, else the undetermined estimate."""
    exact = np.ptp(below) == 0
    smallest = float(below[0, 0]) if exact else squared_norm(below).low
    if smallest > 0:
        return None
    what = "is zero" if exact else "cannot be told from zero; draw more units"
    return Estimate(np.nan, low, high, note=f"undetermined: the squared norm of the reference {what}")


def mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    value, low, high = (x if np.isnan(x) else function(x) for x in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


# ---- kernels of two units ----------------------------------------------------------------------------------------------


class Kernel(NamedTuple):
    """kernel[u, v] = mean + first[u] + first[v] + second[u, v], over all pairs (Hoeffding)."""

    mean: float
    first: Array
    second: Array


def parts(kernel: Array) -> Kernel:
    rows = kernel.mean(1)
    mean = float(rows.mean())
    return Kernel(mean, rows - mean, kernel - rows[:, None] - rows[None, :] + mean)


def off_diagonal(kernel: Array) -> float:
    return float((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)))


def pair_moments(kernel: Array) -> tuple[float, float, Array]:
    """Unbiased: variance of the first-order part, mean square of the second; and the U-centred kernel [U, U]."""
    units = len(kernel)
    rows = (kernel.sum(1) - kernel.diagonal()) / (units - 2)
    centred = kernel - rows[:, None] - rows[None, :] + rows.sum() / (units - 1)
    np.fill_diagonal(centred, 0.0)
    square = float((centred**2).sum()) / (units * (units - 3))
    return float(rows.var(ddof=1)) - square / (units - 2), square, centred


# ---- smoothed resamples and their tail ---------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def copies(units: int) -> tuple[int, Array, Array]:
    """Draws B, the flat place draw * U + unit of every copy, and a standard normal for each."""
    generator, draws = np.random.default_rng(SEED), 999 if units <= 2048 else 499
    place = generator.integers(0, units, size=(draws, units)) + units * np.arange(draws)[:, None]
    return draws, place.reshape(-1), generator.standard_normal(draws * units)


def resamples(size: Array) -> list[Array]:
    """[k - 1][b, u] = sum over the copies of unit u in draw b of factor^k, k = 1..4, where E factor^2 = 1."""
    draws, place, normal = copies(len(size))
    share = size[size > 1e-12 * size.max()] / size.sum()
    spread = np.sqrt(share @ (np.log(share) - share @ np.log(share)) ** 2)
    bandwidth = BANDWIDTH * spread * (share @ share) ** 0.2
    factor = np.exp(bandwidth * normal / 2 - bandwidth**2 / 4)
    powers = (factor, factor**2, factor**3, factor**4)
    return [np.bincount(place, p, draws * len(size)).reshape(draws, -1) for p in powers]


def tail(size: Array) -> str:
    """The reason why an interval may be too short, or "": few units carry the squares, or their tail is too heavy."""
    effective = size.sum() ** 2 / (size @ size)
    if effective < 10:
        return f"optimistic: {effective:.1f} of {len(size)} units carry the variance; draw more units"
    shape = pareto_shape(size)
    return f"optimistic: heavy tail (Pareto shape {shape:.2f} > 0.5); draw more units" if shape > 0.5 else ""


def pareto_shape(size: Array) -> float:
    """Shape of the generalised Pareto law of the largest min(U/5, 3 sqrt U) values (Zhang & Stephens 2009)."""
    count = int(min(len(size) / 5, 3 * np.sqrt(len(size))))
    ordered = np.sort(size)
    excess = ordered[-count:] - ordered[-count - 1]
    quartile = excess[int(count / 4 + 0.5) - 1] if count >= 5 else 0.0
    if quartile <= 1e-12 * ordered[-1]:
        return 0.0
    grid = np.arange(1, 31 + int(np.sqrt(count)))
    theta = 1 / excess[-1] + (1 - np.sqrt(len(grid) / (grid - 0.5))) / (3 * quartile)
    shape = np.log1p(-theta[:, None] * excess).mean(1)
    log_posterior = count * (np.log(-theta / shape) - shape - 1)
    posterior = np.exp(log_posterior - log_posterior.max())
    return float(np.log1p(-(theta @ posterior / posterior.sum()) * excess).mean())


# ---- intervals ---------------------------------------------------------------------------------------------------------


def settled(value: float, size: Array) -> Estimate | None:
    """The estimate where there is nothing to resample: no spread at all, or too few units."""
    if len(size) < FEWEST:
        return Estimate(value, -np.inf, np.inf, note=f"undetermined: {len(size)} units; an interval needs {FEWEST}")
    if size.max() <= 1e-24 * max(value**2, TINY):
        return Estimate(value, -np.inf, np.inf, note="undetermined: no spread between units, so the sample bounds nothing")
    return None


def positive_mean(values: Array) -> Estimate:
    """Mean of positive values [U], on the log scale: smoothed bootstrap-t."""
    units, mean = len(values), float(values.mean())
    if refused := settled(mean, values**2):
        return refused
    _, w2, _, w4 = resamples(values)
    means = np.maximum(w2 @ values / units, TINY)
    errors = np.sqrt(np.maximum(w4 @ values**2 / units / means**2 - 1, TINY) / units)
    return log_interval(mean, values.std(ddof=1) / mean / np.sqrt(units), np.log(means / mean), errors, tail(values))


def log_interval(value: float, error: float, shift: Array, errors: Array, note: str) -> Estimate:
    """value x exp(-t error) between the quantiles of t = shift / errors."""
    if error < 1e-12:
        return Estimate(value, value, value, note=note)
    low, high = np.quantile(shift / np.maximum(errors, 1e-12), [TAIL, 1 - TAIL])
    with np.errstate(over="ignore"):
        return Estimate(value, float(value * np.exp(-high * error)), float(value * np.exp(-low * error)), note=note)


def spread(grams: list[Array]) -> Estimate:
    """tr Sigma of one Gram matrix, or the ratio of two on the same units; the degenerate part ||gbar - G||^2 included."""
    units, signs = len(grams[0]), (1.0, -1.0)
    sizes = [np.maximum(parts(gram).second.diagonal(), 0) for gram in grams]
    traces = [float(size.sum()) / (units - 1) for size in sizes]
    if len(grams) == 2 and traces[1] <= 1e-24 * abs(grams[1]).max():
        return Estimate(np.nan, 0.0, np.inf, note="undetermined: the second estimator has no variance in this sample")
    value = traces[0] / traces[1] if len(grams) == 2 else traces[0]
    if refused := settled(value, sizes[0]):
        return replace(refused, low=0.0)
    joint = sum((size / trace for size, trace in zip(sizes, traces, strict=True)), np.zeros(units))
    w1, w2, w3, w4 = resamples(joint)
    shift, linear, square = np.zeros(len(w1)), np.zeros_like(w1), np.zeros_like(w1)
    influence, kernel = np.zeros(units), np.zeros_like(grams[0])
    for sign, gram, size, trace in zip(signs, grams, sizes, traces, strict=False):
        moved = w1 @ parts(gram).second / units
        drawn = np.maximum((w2 @ size - (moved * w1).sum(1)) / (units - 1), 1e-6 * trace)
        shift += sign * np.log(drawn / trace * units / (units - 1))
        linear -= sign * 2 * moved / drawn[:, None]
        square += sign * size / drawn[:, None]
        influence += sign * size / trace
        kernel += sign * gram / trace
    _, degenerate, centred = pair_moments(kernel)
    mean = (w1 * linear + w2 * square).mean(1)
    spreads = (w2 * linear**2 + 2 * w3 * linear * square + w4 * square**2).mean(1) - mean**2
    pairs = ((w2 @ centred**2) * w2).sum(1) / (units * (units - 3))
    errors = np.sqrt(np.maximum(spreads, 0) / units + 2 * pairs / units**2)
    error = float(np.sqrt(influence.var(ddof=1) / units + 2 * max(degenerate, 0) / units**2))
    return log_interval(value, error, shift, errors, tail(joint))


def interval(gram: Array, over: Array | float | None, *, norm: bool) -> Estimate:
    """Root c of E[A - c B] = 0 with its interval. A: `gram`. B: a kernel [U, U], a number, or None for tr Sigma of `gram`.

    norm: A is a Gram matrix, E A = ||G||^2, and the null mean ||G||^2 = c B is imposed; else A is any kernel.
    """
    units, top = len(gram), parts(gram)
    size = np.maximum(top.second.diagonal(), 0) if norm else np.zeros(units)
    trace = float(size.sum()) / (units - 1)
    below = parts(over) if isinstance(over, np.ndarray) else Kernel(trace if over is None else over, np.zeros(units), 0 * gram)
    bottom = off_diagonal(over) if isinstance(over, np.ndarray) else below.mean
    numerator = off_diagonal(gram)
    quadratic = size if over is None else np.zeros(units)  # influence of B that is square in the deviation
    if bottom == 0:
        return Estimate(np.nan, -np.inf, np.inf, note="undetermined: the denominator is zero in this sample")
    centre = numerator / bottom
    deviation = size if norm else (top.first - centre * below.first) ** 2
    if refused := settled(centre, deviation / (bottom**2 if not norm else 1)):
        return refused if norm or len(gram) < FEWEST else Estimate(centre, centre, centre)
    w1, w2, w3, w4 = resamples(deviation)
    draws = len(w1)

    def moved(second: Array) -> tuple[Array, Array]:
        """Shift of the resampled mean seen by each unit [B, U], and the degenerate part of the estimate [B]."""
        shift = w1 @ second / units
        return shift, ((shift * w1).sum(1) - w2 @ second.diagonal() / units) / (units - 1)

    shift, wobble = moved(top.second)
    traces = (w2 @ size - (shift * w1).sum(1)) / (units - 1)
    below_shift, below_wobble = moved(below.second) if isinstance(over, np.ndarray) else (np.zeros_like(w1), np.zeros(draws))
    world = below.mean * (units - 1) / units if over is None else below.mean
    bottoms = traces if over is None else below.mean + 2 * w1 @ below.first / units + below_wobble
    first_variance, degenerate, centred = pair_moments(gram)
    pairs = units * (units - 1) / 2
    floor = (((w2 @ centred**2) * w2).sum(1) + (w2**2 - w4) @ size**2) / (units * (units - 3)) / pairs

    # moments, over the copies of a draw, of what the estimate's influence is made of: y, its twist, the moved mean, B
    y, norm_square = top.first, max(top.mean, TINY)
    twist = top.second @ y / units
    columns = [np.broadcast_to(y, w1.shape), np.broadcast_to(twist, w1.shape), shift, 2 * (below.first + below_shift)]
    means = [(w1 * a).mean(1) for a in columns]
    means[3] = means[3] + w2 @ quadratic / units
    moment = np.empty((4, 4, draws))
    for i, a in enumerate(columns):
        weighted = w2 * a
        for j in range(i, 4):
            moment[i, j] = moment[j, i] = (weighted * columns[j]).mean(1)
        cubic = (w3 * a) @ quadratic / units
        moment[i, 3] += cubic
        moment[3, i] += cubic
    moment[3, 3] += w4 @ quadratic**2 / units
    spreads = moment - np.array(means)[:, None] * np.array(means)[None, :]
    seen = np.cov(np.stack([y, 2 * below.first + quadratic]))
    along, far = float(y @ y) / units, float(y @ twist) / units
    mean_y, mean_twist, mean_below = w1 @ y / units, w1 @ twist / units, 2 * w1 @ below.first / units
    if norm:  # variance along the direction of G, debiased; the noise's share of ||gbar||^2 says how far to trust it
        part = min(trace / units / norm_square, 1)
        honest = max(first_variance, 0) + part * degenerate / units
        shrink = honest / max(numerator + part * trace / units, TINY) * norm_square / max(seen[0, 0], TINY)
    else:
        raw = np.array([2, -centre]) @ seen @ np.array([2, -centre])
        shrink = 4 * pair_moments(gram - centre * (over if over is not None else 0))[0] / max(raw, TINY)
    shrink = float(np.sqrt(np.clip(shrink, 0, 1)))

    def margins(c: Array) -> Array:
        """Observed studentised value minus the [2.5 %, 97.5 %] quantiles of its law under c: [2, len(c)]."""
        c = c[:, None]
        if norm:
            target = np.maximum(c * world, 0)
            gap, slope = target - norm_square, max(along, TINY)
            root = along**2 + far * gap
            kappa = np.where(root > 0, gap / (slope + np.sqrt(np.maximum(root, 0))), -along / max(far, TINY))
            reach = np.sqrt(target / np.maximum(norm_square + 2 * kappa * along + kappa**2 * far, TINY))
            linear = 2 * shrink * reach * (mean_y + kappa * mean_twist)
            estimate = np.where(target > 0, target, c * world) + linear + wobble
            drawn = np.sqrt(np.maximum(c * bottoms, 0) / np.maximum(target + linear + wobble + traces / units, 1e-12 * norm_square))
            observed = np.sqrt(np.maximum(c * bottom, 0) / norm_square)
            difference = estimate - c * bottoms
        else:
            kappa, reach, drawn, observed = 0 * c, 1.0 + 0 * c, np.ones((1, draws)), 1.0 + 0 * c
            difference = shrink * (2 * mean_y - c * mean_below) + wobble - c * below_wobble
        lead, own = 2 * drawn * reach * shrink, 2 * drawn + (2 * c if over is None else 0)
        s = spreads
        total = (
            lead**2 * (s[0, 0] + 2 * kappa * s[0, 1] + kappa**2 * s[1, 1]) + own**2 * s[2, 2] + c**2 * s[3, 3]
            + 2 * lead * (own * (s[0, 2] + kappa * s[1, 2]) - c * (s[0, 3] + kappa * s[1, 3])) - 2 * own * c * s[2, 3]
        )  # fmt: skip
        law = difference / np.sqrt(np.maximum(np.maximum(total, 0) / units + floor, TINY))
        error = 4 * observed**2 * seen[0, 0] - 4 * observed * c * seen[0, 1] + c**2 * seen[1, 1]
        test = (numerator - c * bottom) / np.sqrt(np.maximum(error / units + degenerate / pairs, TINY))
        return test[:, 0] - np.quantile(law, [TAIL, 1 - TAIL], axis=1)

    error = 4 * seen[0, 0] - 4 * centre * seen[0, 1] + centre**2 * seen[1, 1]
    unit = float(np.sqrt(max(error / units + degenerate / pairs, 0))) / abs(bottom)
    low = crossing(lambda step: margins(centre - unit * step)[1])
    high = crossing(lambda step: -margins(centre + unit * step)[0])
    return Estimate(centre, centre - unit * low, centre + unit * high, note=tail(deviation))


def crossing(margin: Callable[[Array], Array]) -> float:
    """Smallest step > 0 at which `margin` turns positive: a geometric grid, refined twice; inf if none below 1000."""
    steps = np.concatenate([[0.0], np.geomspace(0.4, 1000, 14)])
    for count in (10, 10, 0):
        outside = margin(steps) > 0
        outside[0] = False
        if not outside.any():
            return float(np.inf)
        first = int(np.argmax(outside))
        if count == 0:
            break
        steps = np.linspace(steps[first - 1], steps[first], count)
    return float(steps[first - 1] + steps[first]) / 2
