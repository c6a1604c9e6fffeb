"""Estimates with their intervals: as a figure of one panel, and as columns of numbers."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vantage.statistics.intervals import Estimate

if TYPE_CHECKING:
    import matplotlib.figure


def interval_figure(estimates: Mapping[str, Estimate], label: str) -> "matplotlib.figure.Figure":
    """A point and its interval on a line for each name, the first at the top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.6 + 0.35 * len(estimates)), layout="constrained")
    axes = figure.subplots()
    for place, estimate in enumerate(estimates.values()):
        if math.isfinite(estimate.value):
            axes.plot([estimate.value], [place], "o", color="C0")
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            axes.plot([estimate.low, estimate.high], [place, place], color="C0")
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def columns_of(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """`name`, `name_low` and `name_high` of every estimate."""
    return {
        f"{name}{ending}": getattr(estimate, field)
        for name, estimate in estimates.items()
        for ending, field in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
