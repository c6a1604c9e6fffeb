"""A comparison as one HTML page: summary, learning curves, every run, every number, settings.

Like the audit's page it is whole in itself: it asks nothing of any network, runs no script, adapts
to light and dark, to narrow and wide, and to paper.
"""

from vantage.comparing.figures import Line, bands, curve_lines, every_run
from vantage.comparing.record import Findings
from vantage.pages import series
from vantage.pages.document import document, section
from vantage.pages.figures import figure
from vantage.pages.forest import Forest, forest
from vantage.pages.numbers import number
from vantage.pages.settings import settings_table
from vantage.pages.tables import breakable, cell, escaped, summary, table

READING = {
    "score": "What one run is judged by; every number but the training return speaks of it.",
    "IQM": "Interquartile mean: the mean of the middle half of the runs (of all environments "
    "together). One lucky or lost run does not move it; rare failures do not show in it.",
    "mean": "Mean over environments of the mean over runs. One run can move it far.",
    "median": "The middle run; of several environments, the environment in the middle by its mean.",
    "optimality gap": "How much is missing to the target on average, runs beyond it counted as at "
    "it. Smaller is better.",
    "training return": "Mean return of the last 100 training episodes, in whole updates, while the "
    "policy still changes. It is not comparable with evaluations.",
    "P(first > second)": "Probability that a run of the first scores above a run of the second, "
    "ties counted half (Mann-Whitney). At ½ neither is better. It says how often, not by how much.",
    "intervals": "Where the same comparison is made again and again with other seeds on the same "
    "environments, about 95 % of them hold the true value; of few runs, fewer do.",
}


def page(comparison: Findings) -> str:
    """The comparison as one HTML page; the same comparison gives the same bytes."""
    title = f"Comparison on {', '.join(comparison.settings['environments'])}"
    conclusions = summary(comparison.summary, comparison.notes, "Nothing was compared.")
    sections = {
        "What was found": conclusions,
        "Learning curves": _curves(comparison),
        "Final scores": _scores(comparison),
        "Every number": _statistics(comparison),
        "Which is better": _pairs(comparison),
        "Every run": _runs(comparison),
        "How to read each number": _words(READING),
        "Settings": f'<div class="settings">{settings_table(comparison.settings)}</div>',
    }
    body = "\n".join(section(name, content) for name, content in sections.items())
    return document(title, _facts(comparison), body, style=series.STYLE)


def _facts(comparison: Findings) -> str:
    settings = comparison.settings
    sentence = (
        f"{len(comparison.rows)} estimators, {len(settings['seeds'])} seeds each, "
        f"{settings['steps']:,} environment steps a run. Score: {comparison.score}. "
        "Brackets and bands hold 95 % intervals."
    )
    return f'<p class="faint">{escaped(sentence)}</p>'


def _order(comparison: Findings) -> list[str]:
    """Every estimator that a figure may show, rows first: colours follow this."""
    names = [row.estimator for row in comparison.rows]
    return list(dict.fromkeys([*names, *(curve.estimator for curve in comparison.curves)]))


def _curves(comparison: Findings) -> str:
    drawn = []
    for place, world in enumerate(dict.fromkeys(curve.environment for curve in comparison.curves)):
        curves = [curve for curve in comparison.curves if curve.environment == world]
        for i, (statistic, label) in enumerate((("iqm", "IQM"), ("mean", "Mean"))):
            labels = ("environment steps", f"training return, {label} over runs")
            lines = curve_lines(curves, statistic)
            drawn.append(
                figure(
                    f"{world}: {label} over runs",
                    "Mean return of each update's episodes, between updates by straight lines. "
                    "Each band covers point by point, not the whole curve at once.",
                    bands(lines, _order(comparison), labels, 1 + 2 * place + i),
                )
            )
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def _scores(comparison: Findings) -> str:
    worlds = list(comparison.settings["environments"])
    drawn = [
        figure(
            f"{world}: every run",
            "A dot is a run. Diamond and bar: IQM with its interval."
            if len(worlds) == 1
            else "A dot is a run.",
            every_run(comparison, world, 201 + i),
        )
        for i, world in enumerate(worlds)
    ]
    if len(worlds) > 1:
        whole = Forest(
            "All environments: IQM", "IQM of normalised scores",
            {row.estimator: row.iqm for row in comparison.rows}, log=False,
        )  # fmt: skip
        drawn.append(figure(whole.title, "Over all runs together.", forest(whole, 301)))
    if comparison.profiles:
        lines = {p.estimator: Line(p.thresholds, p.fraction, p.low, p.high)
                 for p in comparison.profiles}  # fmt: skip
        labels = ("normalised score τ", "fraction of runs above τ")
        drawn.append(
            figure(
                "Performance profile",
                "How many runs score above τ; a curve above another is better at that τ.",
                bands(lines, _order(comparison), labels, 302),
            )
        )
    return f'<div class="figures">{"".join(drawn)}</div>' if comparison.rows else ""


def _statistics(comparison: Findings) -> str:
    if not comparison.rows:
        return "<p>No estimator has a finished run.</p>"
    gap = comparison.rows[0].optimality_gap is not None
    heads = ["estimator", "runs", "IQM", "mean", "median", *["optimality gap"] * gap]
    heads += ["training return<span>last 100 episodes</span>", "steps a run", "seconds a run"]
    lines = [
        (
            breakable(row.estimator),
            [
                str(row.runs) + (f"<span>{row.failed} failed</span>" if row.failed else ""),
                cell(row.iqm), cell(row.mean), cell(row.median),
                *([cell(row.optimality_gap)] if row.optimality_gap is not None else []),
                "–" if row.training is None else number(row.training),
                f"{row.steps:,.0f}", number(row.seconds),
            ],
        )
        for row in comparison.rows
    ]  # fmt: skip
    return table("Statistics of every estimator", heads, lines, "full")


def _pairs(comparison: Findings) -> str:
    if not comparison.pairs:
        return ""
    estimates = {f"{pair.first} > {pair.second}": pair.probability for pair in comparison.pairs}
    plot = Forest("Probability of improvement", "P(first > second)", estimates, False, 0.5)
    lines = [(breakable(name), [cell(estimate)]) for name, estimate in estimates.items()]
    drawn = figure(plot.title, "Dashed: ½, where neither is better.", forest(plot, 401))
    return f'<div class="figures">{drawn}</div>' + table(
        "Every pair", ["pair", "P(first > second)"], lines
    )


def _runs(comparison: Findings) -> str:
    heads = ["run", "score", "evaluation return", "training return", "steps", "updates", "seconds"]
    lines = [
        (
            breakable(run["folder"]),
            [
                *(
                    "–" if run[name] is None else number(run[name])
                    for name in ("score", "evaluation_return", "training_return")
                ),
                f"{run['steps']:,}", f"{run['updates']:,}", number(run["seconds"]),
            ],
        )
        for run in sorted(comparison.runs, key=lambda run: run["folder"])
    ]  # fmt: skip
    return table("Every run", heads, lines, "full")


def _words(words: dict[str, str]) -> str:
    entries = "".join(
        f"<dt>{escaped(name.replace('_', ' '))}</dt><dd>{escaped(value)}</dd>"
        for name, value in words.items()
    )
    return f"<dl>{entries}</dl>"
