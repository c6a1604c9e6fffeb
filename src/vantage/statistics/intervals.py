"""Statistics of a gradient with 95 % intervals, from inner products of its unit gradients alone.

Setting. U independent units (trajectories, groups or batches) have gradients g_u with mean G and
covariance Σ. Kept are inner products only: `gram[u, v] = g_u . g_v`, and, against a reference
r on the same units, `cross[u, v] = g_u . r_v` and `reference[u, v] = r_u . r_v`. An exact reference
g* gives `cross[u] = g_u . g*` and `reference = ‖g*‖²`, a number.

Method. Each statistic is the root c of E[A - c B] = 0, where A and B are kernels of two units,
estimated without bias by the mean over pairs u != v. Its interval is the set of c that a
studentised test does not reject. The law of the test comes from a bootstrap over units that
departs from the textbook in three ways:

1. Null imposed. ‖G‖² is degenerate: near zero its estimate is a weighted chi-square, and its
   variance grows with the value tested. So under c the resampled world has the mean norm it should
   have: the sample mean, moved along Σ ḡ (to first order the likeliest such mean), with
   centred noise (Arcones & Gine 1992).
2. Smoothed tails. Each copy of a unit has its deviation from the mean scaled by a lognormal factor
   (Silverman & Young 1987; Polansky & Schucany 1997): a plain bootstrap never sees a square above
   the sample's largest, and is too short. Bandwidth of log ‖g_u - ḡ‖²: BANDWIDTH x its
   standard deviation x (effective units)^(-1/5), both weighted by ‖g_u - ḡ‖². BANDWIDTH = 2
   was chosen by coverage on scalar samples (exponential, uniform, gamma, lognormal, Student and
   squared corridor returns); the normal-reference rule would be 1.06 and covers less.
3. Pairs apart. Variances along ḡ and of the degenerate part come from pairs u != v only
   (U-centring, Szekely & Rizzo 2014), so that no unit is compared with itself.

A ratio whose denominator cannot be told from zero gives an unbounded or undetermined set (Fieller
1954), and says so. A note that begins with "undetermined" means that no number is given, one that
begins with "optimistic" that the interval may be too short. Coverage is measured by
`benchmarks/calibration.py`, not proved. The seed is fixed: same input, same bits.
"""

from dataclasses import replace

import numpy as np
import torch

from vantage.errors import InputError
from vantage.statistics.bootstrap import CONSTANT, positive_mean, spread
from vantage.statistics.estimate import Estimate, mapped, mean_interval, time_interval
from vantage.statistics.gram import (
    Array,
    against,
    checked,
    hoeffding,
    off_diagonal,
    pair_moments,
)
from vantage.statistics.roots import interval

__all__ = [
    "Estimate",
    "batch_cosine",
    "cosine",
    "decomposition",
    "inverted",
    "mapped",
    "mean_interval",
    "noise_scale",
    "relative_bias",
    "scale",
    "snr",
    "squared_norm",
    "time_interval",
    "variance",
    "variance_ratio",
]


def squared_norm(gram: object) -> Estimate:
    """N = ‖G‖², the mean of g_u·g_v over u ≠ v; never cut at 0, nor is its interval."""
    return interval(checked(gram, "gram"), 1.0, norm=True)


def variance(gram: object) -> Estimate:
    """tr Σ of one unit: Σ_u ‖g_u - ḡ‖² / (U - 1). Interval on the log scale."""
    return spread([checked(gram, "gram")])


def snr(gram: object, batch: int | float = 1) -> Estimate:
    """B N / tr Σ, signal-to-noise ratio of a batch of B units; never cut at 0."""
    return mapped(interval(checked(gram, "gram"), None, norm=True), lambda c: batch * c)


def noise_scale(gram: object) -> Estimate:
    """tr Σ / N, the batch where signal equals noise (McCandlish et al. 2018).

    Unbounded above, and undetermined, when N cannot be told from 0.
    """
    return inverted(snr(gram))


def inverted(ratio: Estimate) -> Estimate:
    """The noise scale, in units, from the SNR of one unit: its inverse where N is above 0."""
    inverse = mapped(ratio, lambda c: 1 / c if c > 0 else np.inf)
    if inverse.low < np.inf:
        return replace(inverse, low=inverse.high, high=inverse.low)
    note = "undetermined: the interval of the SNR holds 0: no upper limit; draw more units"
    return Estimate(np.nan, inverse.high if ratio.high < np.inf else 0.0, np.inf, note=note)


def batch_cosine(gram: object, batch: int | float) -> Estimate:
    """(1 + tr Σ / (N B))^(-1/2), cosine of a batch gradient with its mean; 0 where N <= 0."""
    return mapped(snr(gram, batch), lambda c: float(np.sqrt(1 - 1 / (1 + max(c, 0)))))


def scale(cross: object, reference: object) -> Estimate:
    """G·G* / ‖G*‖²: 1 for an unbiased estimator; reported apart from the direction."""
    across, below = against(cross, reference)
    return determined(below) or interval((across + across.T) / 2, below, norm=False)


def cosine(gram: object, cross: object, reference: object) -> Estimate:
    """Cosine of G and G*, debiased, in [-1, 1]; undetermined where the sign of G . G* is.

    tan² = ‖G - β G*‖² / ‖β G*‖², β the scale; the residual is projected off the
    mean of the reference.
    """
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    if refused := determined(below, -1.0, 1.0):
        return refused
    product = interval((across + across.T) / 2, 1.0, norm=False)
    sign = float(np.sign(product.value))
    nearest = sign * min(sign * product.low, sign * product.high)
    if not sign * nearest > abs(product.value) / 2:  # as `determined`
        unknown = np.isnan(product.value)
        note = product.note if unknown else _no_direction(product.value, nearest)
        return Estimate(np.nan, -1.0, 1.0, note=note)
    beta = product.value / off_diagonal(below)
    residual = matrix - beta * (across + across.T) + beta**2 * below
    along = (across - beta * below).mean(1)
    residual = residual - np.outer(along, along) / below.mean()
    if residual.diagonal().max() <= 1e-12 * matrix.diagonal().max():
        return Estimate(sign, sign, sign, note=product.note or CONSTANT)
    tangent = interval(residual, beta * (across + across.T) - beta**2 * below, norm=True)
    angle = mapped(tangent, lambda c: float(sign / np.sqrt(1 + max(c, 0))))
    return replace(angle, low=min(angle.low, angle.high), high=max(angle.low, angle.high))


def _no_direction(product: float, nearest: float) -> str:
    """Why G·G*, whose interval reaches `nearest` towards 0, gives no direction."""
    if not product * nearest > 0:
        return "undetermined: G . G* cannot be told from zero, nor its sign; draw more units"
    return (
        "undetermined: for a direction the interval of G . G* has to stay beyond half its "
        f"estimate of {product:.3g}, and reaches {nearest:.3g}; its sign takes less. Draw more "
        "units"
    )


def relative_bias(gram: object, cross: object, reference: object) -> Estimate:
    """‖G - G*‖ / ‖G*‖, from the U-statistic of its square; [0, high] where none is seen."""
    matrix = checked(gram, "gram")
    across, below = against(cross, reference)
    if refused := determined(below, 0.0):
        return refused
    difference = matrix - across - across.T + below
    if difference.diagonal().max() <= 1e-12 * matrix.diagonal().max():
        return Estimate(0.0, 0.0, 0.0, note=CONSTANT)
    return mapped(interval(difference, below, norm=True), lambda c: float(np.sqrt(max(c, 0))))


def variance_ratio(first: object, second: object) -> Estimate:
    """tr Σ_e / tr Σ_f of two estimators on the same units; below 1: less variance in e."""
    return spread([checked(first, "first"), checked(second, "second")])


def decomposition(gram: object, group: object) -> tuple[Estimate, Estimate]:
    """(between, within) of completions [n] in groups [n]: Σ_inter and Σ_intra (ANOVA).

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
    deviation = hoeffding(means).second.diagonal()
    vary = deviation.std() * inside.std() > 0
    together = float(np.corrcoef(deviation, inside / count)[0, 1]) if vary else 0.0

    def distance(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 + b**2 - 2 * together * a * b, 0)))

    value = total.value - share.value
    low = value - distance(total.value - total.low, share.high - share.value)
    high = value + distance(total.high - total.value, share.value - share.low)
    return Estimate(value, low, high, note=total.note or within.note), within


def determined(below: Array, low: float = -np.inf, high: float = np.inf) -> Estimate | None:
    """None when ‖G*‖² is above twice the 97.5 % point of its estimate under G* = 0.

    That asks for more than an interval of ‖G*‖² above 0, and the note says so. The 97.5 %
    point is at most 2.85 standard deviations, (χ²₁ - 1) / sqrt 2, reached when all noise
    lies in one direction. Twice, because an estimate that only just passes is too large, and what
    is divided by it too small.
    """
    units, exact = len(below), np.ptp(below) == 0
    noise = 0.0 if exact or units < 4 else pair_moments(below)[1]
    signal, needed = off_diagonal(below), 2 * 2.85 * np.sqrt(2 * noise / (units * (units - 1)))
    if signal > needed:
        return None
    note = "undetermined: the squared norm of the reference is 0"
    if needed > 0:
        note = (
            f"undetermined: to be divided by, ‖G*‖² has to exceed {needed:.3g}, twice what "
            f"noise alone may reach, and is {signal:.3g}; to be above 0 takes less. Draw more units"
        )
    return Estimate(np.nan, low, high, note=note)
