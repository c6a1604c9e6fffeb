"""The figure that only an audit has: the signal-to-noise ratio of other batch sizes."""

import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vantage.auditing.planner import predicted_snr
from vantage.auditing.record import Findings
from vantage.pages.forest import ACCENT, FAINT, GRID, MARK, SETTINGS, in_words, svg


def signal(report: Findings, estimator: str, number: int) -> str:
    """SVG of the SNR that the noise scale predicts for other batch sizes, with its band."""
    batch, target = int(report.settings["batch"]), report.plan.target
    ends = [row.noise_scale.high for row in report.rows] + [target * batch, batch * 4]
    largest = max(end for end in ends if math.isfinite(end) and end < 1e4 * batch)
    sizes = np.geomspace(1, max(largest, 8), 25)
    one = {row.estimator: predicted_snr(row.noise_scale, 1) for row in report.rows}
    ratio = one[estimator]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(3.2, 2.4), layout="constrained")
        axes = figure.subplots()
        bottom, top = min(0.01, target / 100), max(100.0, target * 10)
        axes.set(xlim=(1, sizes[-1]), ylim=(bottom, top), xscale="log", yscale="log")
        for other in one.values():
            if math.isfinite(other.value):
                axes.plot(sizes, sizes * other.value, color=GRID, linewidth=1)
        low = ratio.low if math.isfinite(ratio.low) else 0.0
        high = ratio.high if math.isfinite(ratio.high) and ratio.high > 0 else top
        band = np.clip(np.outer((low, high), sizes), bottom, top)
        axes.fill_between(sizes, band[0], band[1], color=ACCENT, alpha=0.25, linewidth=0)
        if math.isfinite(ratio.value):
            axes.plot(sizes, sizes * ratio.value, color=ACCENT, linewidth=1.8)
        axes.axhline(target, color=MARK, linewidth=1.2, dashes=(4, 3))
        axes.axvline(batch, color=FAINT, linewidth=0.9, dashes=(1, 2))
        for axis, start, end in ((axes.xaxis, 1.0, float(sizes[-1])), (axes.yaxis, bottom, top)):
            axis.set_minor_locator(NullLocator())
            places = [10.0**k for k in range(-6, 9) if start <= 10.0**k <= end * 1.001]
            axis.set_ticks(places, [f"{place:g}" for place in places])
        axes.set(xlabel=report.worded("batch B, trajectories"), ylabel="SNR")
        needed = report.plan.trajectories.get(estimator)
        counted = report.worded(f"trajectories for SNR {target:g}")
        words = in_words({counted: needed}) if needed else ""
        described = f"Predicted SNR of {estimator} against batch size, with its band. {words}"
        return svg(figure, described, number)
