"""Intervals of c, the root of E[A - c B] = 0, by inverting a studentised test of every c.

A and B are kernels of two units. For a Gram matrix A the mean of A is ‖G‖², whose estimate is
degenerate near zero: there it is no longer linear in the units but a weighted chi-square, and its
variance grows with the value tested. So the test of c resamples a world in which ‖G‖² = c B
holds, instead of shifting the sample's own law.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vantage.statistics.bootstrap import BANDWIDTH, CONSTANT, DRAWS, TAIL, resamples, settled, tail
from vantage.statistics.estimate import Estimate
from vantage.statistics.gram import TINY, Array, deviations, hoeffding, off_diagonal, pair_moments

GRID = np.array([0, 0.4, 0.8, 1.2, 1.6, 2, 2.5, 3, 4, 6, 10, 20, 50, 200, 1000])  # standard errors


class Denominator(NamedTuple):
    """B, which c multiplies: a number, a kernel of two units, or tr Σ of the Gram matrix A."""

    value: float  # unbiased
    world: float  # in the resampled world
    first: Array  # [U] half its influence, linear in the deviation
    square: Array  # [U] its influence, square in the deviation
    moved: Array  # [DRAWS, U] shift of `first` with the resampled mean
    wobble: Array  # [DRAWS] degenerate part
    drawn: Array  # [DRAWS] its estimate


class Resampled(NamedTuple):
    """What the test of one c needs. y: half the influence of A; twist: Σ y."""

    value: float
    norm: float
    along: float
    far: float
    shrink: float
    noise: float
    covariance: Array  # [2, 2] covariance of y and of the influence of B
    means: Array  # [3, DRAWS] of y, twist and the influence of B
    spreads: Array  # [4, 4, DRAWS] covariances of y, twist, moved mean, influence of B
    wobble: Array
    traces: Array
    noises: Array


def interval(gram: Array, over: Array | float | None, *, norm: bool) -> Estimate:
    """Root c of E[A - c B] = 0 with its interval. A: `gram`; B: `over`, or tr Σ of A if None.

    norm: A is a Gram matrix, E A = ‖G‖², and the null mean ‖G‖² = c B is imposed; else A is
    any kernel. The interval is not cut at 0.
    """
    units, top = len(gram), hoeffding(gram)
    size = deviations(gram) if norm else np.zeros(units)
    base = over if over is not None else float(size.sum()) / (units - 1)
    bottom = off_diagonal(base) if isinstance(base, np.ndarray) else base
    centre = off_diagonal(gram) / bottom if bottom else np.nan
    first = hoeffding(base).first if isinstance(base, np.ndarray) else np.zeros(units)
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
    error = quadratic(world.covariance, np.array([2, -centre]))
    flat = isinstance(over, np.ndarray) and error <= 1e-12 * 4 * world.covariance[0, 0]
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
    diagonal = weights[1] @ second.diagonal() / units
    return shift, ((shift * weights[0]).sum(1) - diagonal) / (units - 1)


def denominator(
    over: Array | float, square: Array, second: Array, weights: list[Array]
) -> Denominator:
    units, w1, w2 = len(square), weights[0], weights[1]
    still, zero = np.zeros_like(w1), np.zeros(units)
    if isinstance(over, np.ndarray):
        kernel = hoeffding(over)
        shift, wobble = moved(kernel.second, weights)
        drawn = kernel.mean + 2 * w1 @ kernel.first / units + wobble
        value = off_diagonal(over)
        return Denominator(value, kernel.mean, kernel.first, square, shift, wobble, drawn)
    if not square.any():
        return Denominator(over, over, zero, square, still, still[:, 0], np.full(DRAWS, over))
    shift = w1 @ second / units
    drawn = (w2 @ square - (shift * w1).sum(1)) / (units - 1)
    return Denominator(over, over * (units - 1) / units, zero, square, -shift, still[:, 0], drawn)


def resampled(
    gram: Array,
    size: Array,
    below: Denominator,
    weights: list[Array],
    norm: bool,
) -> Resampled:
    """Moments, over the copies in each draw, of what the influence of A - c B is made of."""
    units, (w1, w2, w3, w4), top = len(gram), weights, hoeffding(gram)
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
    observed = np.cov(np.stack([y, influence]))
    # the variance along ḡ counts each unit's own share in ḡ; without it, if A is a norm
    shrink = (
        (max(first, 0) + degenerate / units) / max(float(observed[0, 0]), TINY) if norm else 1.0
    )
    return Resampled(
        value=value,
        norm=max(top.mean, TINY),
        along=float(y @ y) / units,
        far=float(y @ twist) / units,
        shrink=float(np.sqrt(min(shrink, 1.0))),
        noise=degenerate / pairs,
        covariance=observed,
        means=np.array([w1 @ y, w1 @ twist, 2 * w1 @ below.first]) / units,
        spreads=moment - means[:, None] * means[None, :],
        wobble=wobble,
        traces=(w2 @ size - (shift * w1).sum(1)) / (units - 1),
        noises=noises / (units * (units - 3)) / pairs,
    )


def quadratic(matrix: Array, vector: Array) -> float:
    return float(vector @ matrix @ vector)


def margins(world: Resampled, below: Denominator, at: Array, norm: bool) -> Array:
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
    slope_root = 2 * root
    total = (
        lead**2 * (s[0, 0] + 2 * kappa * s[0, 1] + kappa**2 * s[1, 1])
        + slope_root**2 * s[2, 2]
        + slope**2 * s[3, 3]
        - 2 * slope_root * slope * s[2, 3]
        + 2 * lead * slope_root * (s[0, 2] + kappa * s[1, 2])
        - 2 * lead * slope * (s[0, 3] + kappa * s[1, 3])
    )
    law = difference / np.sqrt(np.maximum(np.maximum(total, 0) / units + world.noises, TINY))
    observed = world.covariance
    error = 4 * root_seen**2 * observed[0, 0] - 4 * root_seen * slope_seen * observed[0, 1]
    error = (error + slope_seen**2 * observed[1, 1]) / units + world.noise
    test = (world.value - c * below.value) / np.sqrt(np.maximum(error, TINY))
    lowest: Array = test[:, 0] - np.quantile(law, [TAIL, 1 - TAIL], axis=1)
    return lowest


def imposed(world: Resampled, below: Denominator, c: Array) -> tuple[Array, ...]:
    """The world in which ‖G‖² = c B: the mean is reach (ḡ + kappa Σ ḡ).

    The influence of the ratio, 2 y / ‖ḡ‖² - b / B, is that of the sample; its size under c
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
