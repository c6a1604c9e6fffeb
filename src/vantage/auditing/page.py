"""An audit as one HTML page: summary, figures, every number, the plan, the settings.

The page is whole in itself: it asks nothing of any network, runs no script, adapts to light and
dark, to narrow and wide, and to paper.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vantage.auditing.figures import signal
from vantage.auditing.planner import scaled
from vantage.auditing.reading import BEFORE, READING, reading
from vantage.auditing.record import Findings
from vantage.pages.document import document, section
from vantage.pages.figures import figure
from vantage.pages.forest import Forest, forest
from vantage.pages.numbers import number
from vantage.pages.settings import settings_table, value_text
from vantage.pages.tables import breakable, cell, escaped, summary, table
from vantage.statistics.intervals import Estimate


def page(report: Findings) -> str:
    """The report as one HTML page; the same report gives the same bytes."""
    title = f"Audit of {report.settings.get('environment', 'a policy')}"
    sections = {
        "What was found": summary(report.summary, report.notes, "Nothing was audited."),
        "What was sampled": _sampled(report),
        "Bias: scale and direction": _bias(report),
        "Signal against batch size": _signal(report),
        "Variance, and what it costs": _needs(report),
        "Every number": _statistics(report),
        "Plan": _plan(report),
        "How to read each number": _reading(report),
        "Settings": _settings(report.settings),
    }
    body = "\n".join(section(name, content) for name, content in sections.items())
    return document(title, _facts(report), body)


def _facts(report: Findings) -> str:
    settings = report.settings
    steps = f", {settings['steps']:,} steps" if "steps" in settings else ""
    worth = f", mean return {number(settings['mean_return'])}" if "mean_return" in settings else ""
    sentence = (
        f"{settings['trajectories']:,} {report.worded('trajectories')}{steps}, batch "
        f"{settings['batch']}, seed {settings['seed']}{worth}. Reference: {report.reference}. "
        "Brackets hold 95 % intervals."
    )
    return f'<p class="faint">{escaped(sentence)}</p>'


def _sampled(report: Findings) -> str:
    """What was looked at: returns and lengths in a sentence, and a few trajectories."""
    if not report.sampled:
        return ""
    shown = "".join(f"<li><code>{escaped(text)}</code></li>" for text in report.examples)
    examples = f"<ul>{shown}</ul>" if shown else ""
    return f"<p>{escaped(report.sampled)}</p>{examples}"


# ---- figures -----------------------------------------------------------------------------------


def _estimates(report: Findings, name: str) -> dict[str, Estimate]:
    return {row.estimator: getattr(row, name) for row in report.rows}


def _figures(plots: Sequence[tuple[Forest, str]], first: int) -> str:
    drawn = [
        figure(plot.title, caption, forest(plot, first + i))
        for i, (plot, caption) in enumerate(plots)
    ]
    return f'<div class="figures">{"".join(drawn)}</div>'


def _bias(report: Findings) -> str:
    scale = Forest("Scale", "scale, G·G* / ‖G*‖²", _estimates(report, "scale"), line=1.0)
    cosine = Forest("Direction", "cosine, cos(G, G*)", _estimates(report, "cosine"), False, 1.0)
    return _figures(
        [
            (scale, "1: the length of the reference. Another scale is another learning rate."),
            (cosine, "1: the direction of the reference. Below 1 the mean gradient is tilted."),
        ],
        1,
    )


def _signal(report: Findings) -> str:
    sentence = (
        f"SNR = B / noise scale, with its 95 % band. Dashed: the target, "
        f"{number(report.plan.target)}. Dotted: the batch audited. Grey: the other estimators. "
        "A band without a line is all that an undetermined noise scale leaves open."
    )
    drawn = [
        figure(row.estimator, "", signal(report, row.estimator, 101 + i))
        for i, row in enumerate(report.rows)
    ]
    return (
        f'<p class="faint">{escaped(sentence)}</p><div class="figures small">{"".join(drawn)}</div>'
    )


def _needs(report: Findings) -> str:
    target = number(report.plan.target)
    variance = Forest(
        report.worded("Variance of one trajectory's gradient"),
        "tr Σ",
        _estimates(report, "variance"),
    )
    needed = Forest(
        report.worded(f"Trajectories a step for SNR {target}"),
        report.worded(f"trajectories, {target} · tr Σ / N"),
        report.plan.trajectories,
        line=float(report.settings["batch"]),
    )
    return _figures(
        [
            (variance, "Estimators of different scale are compared by SNR, not by this."),
            (needed, "Dashed: the batch audited. An arrow: the interval goes on."),
            (_time_of_a_step(report), report.worded(
                "Needed trajectories × measured cost; the interval is that of the trajectories, "
                "the cost taken as measured."
            )),
            (
                Forest(
                    report.worded("Cost of one trajectory"), "seconds", _estimates(report, "cost")
                ),
                "Sampling and gradient passes, which all estimators share, and its own weights.",
            ),
        ],
        11,
    )  # fmt: skip


def _time_of_a_step(report: Findings) -> Forest:
    costs = {row.estimator: row.cost.value for row in report.rows}
    seconds = {
        name: scaled(estimate, costs[name]) if costs.get(name, 0) > 0 else estimate
        for name, estimate in report.plan.trajectories.items()
    }
    return Forest(f"Time of a step of SNR {number(report.plan.target)}", "seconds", seconds)


# ---- tables ------------------------------------------------------------------------------------


def _statistics(report: Findings) -> str:
    if not report.rows:
        return "<p>No estimator was audited.</p>"
    statistics = {row.estimator: row.statistics() for row in report.rows}
    names = list(next(iter(statistics.values())))
    lines = []
    for name in names:
        read = reading(name)
        first = f"{escaped(read.title)}<span>{escaped(report.worded(read.formula))}</span>"
        lines.append((first, [cell(cells[name]) for cells in statistics.values()]))
    units = [
        f"{row.unit} ({report.worded('trajectory') if row.couples == 'none' else row.couples})"
        for row in report.rows
    ]
    lines.append(
        (
            report.worded("unit of independence<span>trajectories in one unit</span>"),
            [escaped(unit) for unit in units],
        )
    )
    lines.append(
        (
            "unbiased when<span>as its columns declare</span>",
            [escaped(row.claim) for row in report.rows],
        )
    )
    heads = ["statistic", *map(breakable, statistics)]
    return table("Every statistic of every estimator", heads, lines, "full")


def _plan(report: Findings) -> str:
    plan = report.plan
    sentence = (
        f"{plan.cheapest} reaches SNR {number(plan.target)} in the least time among those without "
        "a bias of direction by their columns."
        if plan.cheapest is not None
        else f"No batch can be recommended for SNR {number(plan.target)}."
    )
    lines = []
    for name, needed in plan.trajectories.items():
        seconds = plan.seconds.get(name)
        mark = " <span>least time</span>" if name == plan.cheapest else ""
        lines.append(
            (
                f"{breakable(name)}{mark}",
                [cell(needed), "–" if seconds is None else number(seconds)],
            )
        )
    target = number(plan.target)
    heads = ["estimator", report.worded(f"trajectories a step for SNR {target}"), "seconds a step"]
    return f"<p>{escaped(sentence)}</p>{table('Plan', heads, lines)}"


def _reading(report: Findings) -> str:
    names = list(report.rows[0].statistics()) if report.rows else list(READING)
    entries = []
    for name in names:
        read = reading(name)
        formula = f"<code>{escaped(report.worded(read.formula))}</code><br>" if read.formula else ""
        entries.append(
            f"<dt>{escaped(read.title)}</dt><dd>{formula}{escaped(report.worded(read.meaning))}</dd>"
        )
    return f"<p>{escaped(report.worded(BEFORE))}</p><dl>{''.join(entries)}</dl>"


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings as tables; methods and columns, which have several of each, below."""
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "gradients": _methods,
        "estimators": _columns,
    }
    apart = {name: settings[name] for name in shown if isinstance(settings.get(name), Mapping)}
    rest = {name: value for name, value in settings.items() if name not in apart}
    parts = [f'<div class="settings">{settings_table(rest)}</div>']
    parts += [f"<h3>{escaped(name)}</h3>{shown[name](value)}" for name, value in apart.items()]
    return "".join(parts)


def _methods(gradients: Mapping[str, Any]) -> str:
    """Ways to form the gradients, with the times that were measured."""
    taken = gradients.get("method")
    lines = [
        (
            escaped(name) + (" <span>taken</span>" if name == taken else ""),
            [f"{1e3 * seconds:.3g} ms"],
        )
        for name, seconds in gradients.get("seconds_per_trajectory", {}).items()
    ]
    lines += [
        (escaped(name), [f"refused: {escaped(why)}"])
        for name, why in gradients.get("refused", {}).items()
    ]
    return table("Gradient methods", ["method", "measured for one"], lines)


def _columns(estimators: Mapping[str, Any]) -> str:
    """The columns of every estimator."""
    names = list(dict.fromkeys(key for columns in estimators.values() for key in columns))
    lines = [
        (breakable(name), [escaped(value_text(columns.get(key, "–"))) for key in names])
        for name, columns in estimators.items()
    ]
    return table("Columns of the estimators", ["estimator", *map(escaped, names)], lines)
