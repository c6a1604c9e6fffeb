"""Figures of a comparison as SVG text that can stand inside an HTML page, in its colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from vantage.comparing.record import Curve, Findings
from vantage.pages.forest import GRID, INK, SETTINGS, in_lines, svg
from vantage.pages.series import coloured, look

WIDTH = 4.6  # inches


@dataclass(frozen=True)
class Line:
    """A line with its band: [points] each."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def curve_lines(curves: Sequence[Curve], statistic: str) -> dict[str, Line]:
    """The curves of one environment, by estimator; `statistic` is "iqm" or "mean"."""
    return {
        curve.estimator: Line(
            curve.steps,
            getattr(curve, statistic),
            getattr(curve, f"{statistic}_low"),
            getattr(curve, f"{statistic}_high"),
        )
        for curve in curves
    }


def bands(
    lines: Mapping[str, Line], order: Sequence[str], labels: tuple[str, str], number: int
) -> str:
    """SVG of lines with bands, and a legend.

    Args:
        lines: by estimator.
        order: every estimator of the page, so that each has one colour throughout.
        labels: the labels of the axes.
        number: keeps the ids of figures apart.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        for name, line in lines.items():
            colour, dashes = look(order.index(name))
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(line.x, line.y, color=colour, linewidth=1.8, dashes=dashes, label=name)
            if len(line.x) == 1:
                axes.plot(line.x, line.y, "o", color=colour)
        _plain(axes)
        if max((max(line.x) for line in lines.values()), default=0) >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.legend(frameon=False, labelcolor=INK, handlelength=2.6, fontsize=8)
        last = "; ".join(
            f"{name} {line.y[-1]:.4g} from {line.low[-1]:.4g} to {line.high[-1]:.4g}"
            for name, line in lines.items()
        )
        caption = f"{labels[1]} against {labels[0]}. At the end: {last}."
        return coloured(svg(figure, caption, number))


def every_run(comparison: Findings, environment: str, number: int) -> str:
    """SVG of every run's score as a dot, with the IQM and its interval where it is the only one."""
    order = [row.estimator for row in comparison.rows]
    alone = len({run["environment"] for run in comparison.runs}) == 1
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.42 * len(order)), layout="constrained")
        axes = figure.subplots()
        told = []
        for place, row in enumerate(comparison.rows):
            colour, _ = look(place)
            scores = sorted(
                run["score"]
                for run in comparison.runs
                if run["estimator"] == row.estimator
                and run["environment"] == environment
                and run["score"] is not None
            )
            height = place + 0.16 + 0.05 * (np.arange(len(scores)) % 3)
            axes.plot(scores, height, "o", color=colour, alpha=0.55, markersize=4.5, mew=0)
            if alone and math.isfinite(row.iqm.low) and math.isfinite(row.iqm.high):
                ends = [row.iqm.low, row.iqm.high]
                axes.plot(ends, [place - 0.12] * 2, color=colour, linewidth=2.2)
            if alone:
                axes.plot([row.iqm.value], [place - 0.12], "D", color=colour, markersize=6)
            if scores:
                told.append(f"{row.estimator}: {len(scores)} from {scores[0]:.4g} "
                            f"to {scores[-1]:.4g}")  # fmt: skip
        _plain(axes, "x")
        axes.set_yticks(range(len(order)), [in_lines(name) for name in order])
        axes.set_ylim(len(order) - 0.4, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("score of a run")
        return coloured(svg(figure, f"Score of every run. {'; '.join(told)}.", number))


def _plain(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
