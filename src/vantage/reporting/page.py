"""The report of a run as one HTML page."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from vantage.pages import series
from vantage.pages.document import document, script_of, section
from vantage.pages.settings import settings_table
from vantage.pages.tables import escaped, summary, table
from vantage.reporting.completions import completions
from vantage.reporting.facts import checkpoints, facts, resumed
from vantage.reporting.panels import charts, constant
from vantage.reporting.reproducing import reproducing
from vantage.reporting.subject import Subject
from vantage.reporting.summary import summarise

SHORTER = {"Learning": "learning", "Signal": "signal", "Policy": "policy", "Losses": "losses",
           "Speed": "speed", "Other metrics": "other"}  # fmt: skip


def page(subject: Subject, folder: Path, live: dict[str, str] | None = None) -> str:
    """The report as HTML; the same run gives the same bytes.

    Args:
        subject: the run.
        folder: where it is.
        live: the "address" at which the page asks whether it has gone on since "stamp"; None where
            it is a file.
    """
    drawn = charts(subject)
    browser = completions(folder)
    data: dict[str, Any] = {
        "charts": drawn,
        "grids": subject.curves.grids,
        "axes": list(subject.curves.axes),
        "completions": browser,
        "live": live,
    }
    sections = {
        "What was found": ("found", summary(summarise(subject), [], "")),
        **{
            name: (place, _figures(name))
            for name, place in SHORTER.items()
            if any(chart["section"] == name for chart in drawn)
        },
        "What it said": ("said", "" if browser is None else _text("browser.html")),
        "What never changed": ("constant", _constant(subject)),
        "Checkpoints": ("checkpoints", _checkpoints(folder)),
        "Make it again": ("again", _again(subject, folder)),
        "Settings": ("settings", f'<div class="settings">{settings_table(_plain(subject))}</div>'),
    }
    return document(
        subject.title,
        _header(
            subject, folder, {title: place for title, (place, text) in sections.items() if text}
        ),
        "\n".join(section(title, text, place) for title, (place, text) in sections.items()),
        style=style(),
        script=script_of("pages", "charts") + script_of("reporting", "browser", "report"),
        data=data,
        connect="'none'" if live is None else "'self'",
    )


def style() -> str:
    """Beside the style of all pages."""
    return series.STYLE + (files("vantage.pages") / "charts.css").read_text() + _text("report.css")


def tiles(values: dict[str, str]) -> str:
    """Facts, each a name and a value."""
    shown = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="tiles" id="facts">{shown}</dl>'


def _header(subject: Subject, folder: Path, places: dict[str, str]) -> str:
    links = "".join(f'<a href="#{place}">{title}</a>' for title, place in places.items())
    return (
        f'<p class="faint"><code>{escaped(folder)}</code></p>{tiles(facts(subject))}'
        f'<nav aria-label="Sections">{links}</nav>'
    )


def _figures(name: str) -> str:
    """Where the script draws the figures of a section."""
    return (
        f'<div class="charts" data-section="{name}"><noscript>Figures need a script; '
        "this page runs only its own.</noscript></div>"
    )


def _constant(subject: Subject) -> str:
    same = constant(subject)
    values = ", ".join(f"{name} {value}" for name, value in same.items())
    return f"<p>{escaped(values)}.</p>" if values else ""


def _checkpoints(folder: Path) -> str:
    lines = [
        (escaped(name), [escaped(update), escaped(size), f"<code>{escaped(call)}</code>"])
        for name, update, size, call in checkpoints(folder)
    ]
    heads = ["checkpoint", "after update", "size", "loaded by"]
    return table("Checkpoints", heads, lines) if lines else ""


def _again(subject: Subject, folder: Path) -> str:
    parts = [f"<p>{escaped(line)}</p>" for line in resumed(subject.config)]
    for title, text in reproducing(subject.config, folder):
        parts.append(
            f'<p>{escaped(title)}</p><div class="scroll" role="region" tabindex="0" '
            f'aria-label="{escaped(title)}"><pre>{escaped(text)}</pre></div>'
        )
    return "".join(parts)


def _plain(subject: Subject) -> dict[str, Any]:
    """The settings, but for what other sections say."""
    return {name: v for name, v in subject.config.items() if name not in ("resumed", "command")}


def _text(name: str) -> str:
    return (files("vantage.reporting") / name).read_text(encoding="utf-8")
