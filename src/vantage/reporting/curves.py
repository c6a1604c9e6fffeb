"""The curves of a run: a few hundred points each, whatever the number of its updates.

A point of a curve is the mean of neighbouring updates, with the least and the largest of them. A
point of the SNR is a ratio of sums over a window, never a mean of ratios, with its interval.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vantage.statistics.bootstrap import FEWEST
from vantage.statistics.gram import Array
from vantage.statistics.pieces import is_trusted, window_snr

POINTS = 240  # of a curve
WINDOWS = 120  # of the SNR at most
PARTS = 40  # a window is one of so many parts of the measured updates
STEPS_OF_A_WINDOW = 2 * FEWEST + 2  # measured updates, at least, for an interval
MOVING = 5  # measured updates of a window where there are too few for intervals
History = Sequence[Mapping[str, Any]]
Curve = dict[str, Any]
Whole = NDArray[np.int64]


class Curves:
    """Every metric of a history as a curve.

    Args:
        history: one record per update; what is no finite number in it is left out.

    Attributes:
        columns: [updates] each, by name; NaN where an update has none.
        grids: what the points of curves stand at, by name: update, steps or tokens, seconds.
    """

    def __init__(self, history: History) -> None:
        names = list(dict.fromkeys(name for row in history for name in row))
        every = {
            name: np.array([finite(row.get(name)) for row in history], dtype=float)
            for name in names
        }
        self.columns = {name: c for name, c in every.items() if np.isfinite(c).any()}
        self.updates = len(history)
        self.grids: dict[str, dict[str, list[float | None]]] = {}
        self.grid_of: dict[bytes, str] = {}
        self.axes = self._axes()

    def curve(self, name: str) -> Curve | None:
        """A metric with its range, or with its interval where `name_low` and `name_high` are there.

        None where no update has it.
        """
        column = self.columns.get(name)
        if column is None:
            return None
        there = np.flatnonzero(np.isfinite(column))
        edges = _edges(len(there), POINTS)
        sizes = np.diff([*edges, len(there)])
        grid = self._grid(there, edges, sizes)
        ends = [self.columns.get(f"{name}_{end}") for end in ("low", "high")]
        if ends[0] is not None and ends[1] is not None:
            low, high = (_means(end[there], edges, sizes) for end in ends if end is not None)
            kind = "interval"
        else:
            low = np.minimum.reduceat(column[there], edges)
            high = np.maximum.reduceat(column[there], edges)
            kind = "range"
        mean = _means(column[there], edges, sizes)
        return {"grid": grid, "y": plain(mean), "low": plain(low), "high": plain(high),
                "band": kind}  # fmt: skip

    @np.errstate(all="ignore")  # of numbers that no run of ours has
    def signal(self) -> tuple[Curve, Curve] | None:
        """The SNR of an update's gradient, and the noise scale in trajectories, over windows."""
        parts = ("units", "unit", "gradient_squared_norm", "gradient_variance")
        if any(name not in self.columns for name in parts):
            return None
        units, size, norm, variance = (self.columns[name] for name in parts)
        there = np.flatnonzero(np.isfinite(units * size * norm * variance) & (units > 0))
        if len(there) == 0:
            return None
        noise, batch = variance[there] / units[there], (units * size)[there]
        windows = _windows(len(there))
        snrs = [window_snr(norm[there][w], noise[w]) for w in windows]
        scales = [float(batch[w].mean()) for w in windows]
        at = np.array([there[w.stop - 1] for w in windows])
        grid = self._grid(at, np.arange(len(at)), np.ones(len(at), dtype=int))
        snr = {
            "grid": grid, "band": "interval",
            "y": plain([e.value for e in snrs]), "low": plain([e.low for e in snrs]),
            "high": plain([e.high for e in snrs]),
            "trusted": [bool(is_trusted(e)) for e in snrs],
        }  # fmt: skip
        scale = snr | {
            "y": plain([_over(b, e.value) for b, e in zip(scales, snrs, strict=True)]),
            "low": plain([_over(b, e.high) for b, e in zip(scales, snrs, strict=True)]),
            "high": plain([_over(b, e.low) for b, e in zip(scales, snrs, strict=True)]),
        }
        return snr, scale

    def _axes(self) -> dict[str, Array]:
        """What curves can be drawn against, by name."""
        axes: dict[str, Array] = {"updates": np.arange(1.0, self.updates + 1)}
        for name, label in (("steps", "steps"), ("num_tokens", "tokens")):
            if name in self.columns and np.isfinite(self.columns[name]).all():
                axes[label] = self.columns[name]
        if "step_time" in self.columns:
            axes["seconds"] = np.nancumsum(self.columns["step_time"])
        return axes

    def _grid(self, there: Whole, edges: Whole, sizes: Whole) -> str:
        key = there[edges].tobytes() + sizes.tobytes()
        if key not in self.grid_of:
            name = self.grid_of[key] = f"g{len(self.grids)}"
            self.grids[name] = {
                label: plain(_means(axis[there], edges, sizes)) for label, axis in self.axes.items()
            }
        return self.grid_of[key]


def finite(value: Any) -> float:
    """A number, or NaN for whatever is none.

    >>> [finite(v) for v in (1, 2.5, True, "3", None, 10**400, float("inf"))]
    [1.0, 2.5, nan, nan, nan, nan, nan]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        plain_number = float(value)
    except OverflowError:
        return math.nan
    return plain_number if math.isfinite(plain_number) else math.nan


def plain(values: Any) -> list[float | None]:
    """Numbers with six digits, as JSON holds them: None for NaN and infinities."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in map(float, values)]


def _edges(count: int, points: int) -> Whole:
    """Where each of at most `points` runs of neighbours begins."""
    return np.unique(np.linspace(0, count, min(count, points), endpoint=False).astype(int))


def _means(column: Array, edges: Whole, sizes: Whole) -> Array:
    # scaled first: sums of numbers near the largest float would not be finite
    with np.errstate(over="ignore", invalid="ignore"):
        return np.add.reduceat(column / np.repeat(sizes, sizes), edges)


def _windows(count: int) -> list[slice]:
    """Trailing windows of measured updates: long enough for intervals, or else the short ones."""
    size = max(STEPS_OF_A_WINDOW, count // PARTS)
    if count < size + 2:
        return [slice(max(0, i + 1 - MOVING), i + 1) for i in range(count)]
    stops = np.unique(np.linspace(size, count, WINDOWS).astype(int))
    return [slice(int(stop) - size, int(stop)) for stop in stops]


def _over(batch: float, snr: float) -> float:
    """The noise scale batch / SNR; NaN where there is no signal: it has no upper end."""
    return batch / snr if snr > 0 else math.nan
