"""Figures of training runs."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from vantage.runs.progress import WINDOW, windowed_snr

matplotlib.use("Agg", force=False)

History = list[dict[str, object]]


def learning_curves(histories: dict[str, History], path: str | Path, title: str = "") -> Path:
    """`learning_figure` as a file.

    Args:
        histories: `run.history` by label.
        path: a PNG, SVG or PDF.
        title: above the panels.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    learning_figure(histories, title).savefig(target, dpi=150)
    return target


def learning_figure(histories: dict[str, History], title: str = "") -> Figure:
    """Mean return and gradient SNR against environment steps, one line per run.

    The SNR is a ratio of sums over a window of updates. Its axis is linear, because the unbiased
    estimate may fall below 0 where the signal is gone.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    returns, signal = figure.subplots(1, 2)
    for label, history in histories.items():
        steps = [row["steps"] for row in history]
        returns.plot(steps, [row["return"] for row in history], label=label)
        windows = [history[max(0, i + 1 - WINDOW) : i + 1] for i in range(len(history))]
        signal.plot(steps, [windowed_snr(window) for window in windows], label=label)
    returns.set(xlabel="environment steps", ylabel="mean return of the batch")
    signal.set(
        xlabel="environment steps", ylabel=f"gradient signal-to-noise ratio, {WINDOW} updates"
    )
    signal.axhline(0, color="0.6", linewidth=0.8)
    for axes in (returns, signal):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    returns.legend(frameon=False)
    figure.suptitle(title)
    return figure
