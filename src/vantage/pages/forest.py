"""Figures as SVG text that can stand inside an HTML page, in its colours.

Each figure is small, so that a page can lay several out beside one another or below. Colours are
placeholders while matplotlib draws, and custom properties of the page's style sheet afterwards:
one figure serves a light and a dark page.
"""

import html
import io
import math
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from vantage.statistics.intervals import Estimate

INK, FAINT, GRID, ACCENT, MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
PROPERTIES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    ACCENT: "var(--accent)",
    MARK: "var(--mark)",
}
SETTINGS: dict[Any, object] = {
    "svg.hashsalt": "vantage",  # the same report gives the same bytes
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # names are names, dollars included
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
WIDTH = 4.1  # inches
LONGEST_LINE, LINES = 18, 3  # of a name


@dataclass(frozen=True)
class Forest:
    """One statistic of every estimator, as points with intervals.

    Attributes:
        title: what is shown, in words.
        label: the label of the axis, with the formula.
        estimates: by estimator.
        log: logarithmic axis; values that are not positive are then written, not drawn.
        line: where to draw a line for comparison.
    """

    title: str
    label: str
    estimates: dict[str, Estimate]
    log: bool = True
    line: float | None = None


def forest(plot: Forest, number: int) -> str:
    """SVG of points with intervals, one line an estimator; arrows where an interval leaves it."""
    with matplotlib.rc_context(SETTINGS):
        names = [in_lines(name) for name in plot.estimates]
        lines = max((name.count("\n") for name in names), default=0)
        tall = 0.8 + (0.27 + 0.14 * lines) * len(names)
        figure = Figure(figsize=(WIDTH, tall), layout="constrained")
        axes = figure.subplots()
        low, high = _extent(plot)
        axes.set_xlim(low, high)
        if plot.log:
            axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks := _ticks(low, high, plot.log), [f"{tick:.6g}" for tick in ticks])
        if plot.line is not None:
            axes.axvline(plot.line, color=MARK, linewidth=1.2, dashes=(4, 3))
        for position, estimate in enumerate(plot.estimates.values()):
            _point(axes, position, estimate, (low, high), plot.log)
        axes.set_yticks(range(len(plot.estimates)), names)
        axes.set_ylim(len(plot.estimates) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(plot.label)
        return svg(figure, f"{plot.title}: {plot.label}. {in_words(plot.estimates)}", number)


def in_words(estimates: dict[str, Estimate]) -> str:
    """The same numbers for those who do not see the figure."""
    words = []
    for name, estimate in estimates.items():
        if math.isnan(estimate.value):
            words.append(f"{name} undetermined")
        elif estimate.exact:
            words.append(f"{name} {estimate.value:.3g}, exact")
        else:
            ends = f"from {estimate.low:.3g} to {estimate.high:.3g}"
            words.append(f"{name} {estimate.value:.3g}, {ends}")
    return "; ".join(words) + "."


def svg(figure: Figure, description: str, number: int) -> str:
    """The figure as an inline SVG element with a text alternative; `number` keeps its ids apart."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", text, count=5)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="f{number}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>f{number}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for colour, replacement in PROPERTIES.items():
        text = text.replace(colour, replacement)
    described = f'<svg role="img" aria-label="{html.escape(description)}"'
    return text.replace("<svg", described, 1).strip()


def _point(
    axes: Axes, position: int, estimate: Estimate, limits: tuple[float, float], log: bool
) -> None:
    left, right = limits
    floor = 0.0 if log else -math.inf
    if not math.isfinite(estimate.value) or estimate.value <= floor:
        if math.isfinite(estimate.value):
            why = f"{estimate.value:.3g}, not on this axis"
        else:
            why = "undetermined"
        axes.annotate(
            why, (0.03, position), xycoords=("axes fraction", "data"), va="center", color=INK
        )
        return
    low, high = max(estimate.low, left), min(estimate.high, right)
    axes.plot([low, high], [position, position], color=ACCENT, linewidth=1.8)
    if estimate.low < left:
        axes.plot([left], [position], marker="<", color=ACCENT, markersize=5, clip_on=False)
    if estimate.high > right:
        axes.plot([right], [position], marker=">", color=ACCENT, markersize=5, clip_on=False)
    marker = "D" if estimate.exact else "o"
    axes.plot([estimate.value], [position], marker=marker, color=ACCENT, markersize=5)


def _extent(plot: Forest) -> tuple[float, float]:
    """Limits that hold every value and its interval, but no interval end far from every value."""
    floor = 0.0 if plot.log else -math.inf
    values = [e.value for e in plot.estimates.values()] + [plot.line or math.nan]
    values = [value for value in values if math.isfinite(value) and value > floor]
    if not values:
        return (0.1, 10.0) if plot.log else (-1.0, 1.0)
    drawn = [e for e in plot.estimates.values() if math.isfinite(e.value)]
    ends = [end for e in drawn for end in (e.low, e.high) if math.isfinite(end)]
    if plot.log:
        reach = [end for end in ends if min(values) / 100 < end < max(values) * 100]
        low, high = min(values + reach), max(values + reach)
        margin = max(math.log(high / low) * 0.06, 0.02)
        return low * math.exp(-margin), high * math.exp(margin)
    low, high = min(values + ends), max(values + ends)
    margin = max((high - low) * 0.06, 1e-3)
    return low - margin, high + margin


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """At most six places for ticks inside the limits."""
    if not log or high / low < 4:
        return [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 30 else (1, 3) if high / low < 300 else (1,)
    places = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    inside = [place for place in places if low <= place <= high]
    return inside[:: math.ceil(len(inside) / 6)]


def in_lines(name: str) -> str:
    """A name in lines short enough to stand beside a figure, broken where words of it meet.

    >>> in_lines("reinforce > reinforce_baseline")
    'reinforce >\\nreinforce_baseline'
    """
    lines = [""]
    for word in re.findall(r"[^ _,/(]*[ _,/(]*", name):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > LONGEST_LINE:
            lines.append("")
        lines[-1] += word
    whole = [line.rstrip() for line in lines]
    return "\n".join(
        whole if len(whole) <= LINES else [*whole[: LINES - 1], whole[LINES - 1] + "…"]
    )
