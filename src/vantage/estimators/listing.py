"""The table of estimators for people: on a terminal, and as Markdown for the documentation."""

import inspect
import re
from importlib.resources import files

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vantage.estimators.columns import bias, describe, parts
from vantage.estimators.estimator import MODULES, Estimator
from vantage.estimators.table import TABLE, named

# What a column is when the row does not choose it; such entries are left out of the table.
DEFAULTS = Estimator().columns()
HEADINGS = ("estimator", "returns", "baseline", "and", "needs", "couples", "unbiased when")


def table() -> RenderableType:
    """Every row of the table, with the columns it chooses."""
    view = Table(title="Estimators", title_justify="left", show_lines=False, pad_edge=False)
    for heading in ("estimator", "returns − baseline", "and", "unbiased when"):
        view.add_column(heading, style="bold" if heading == "estimator" else None, overflow="fold")
    for name, worth, baseline, others, _, _, claim in rows():
        view.add_row(name, worth if baseline == "none" else f"{worth} − {baseline}", others, claim)
    return Group(view, Text("vantage estimators NAME explains a row.", style="dim"))


def explain(name: str) -> RenderableType:
    """One row: its equation, columns, claim, source and citations.

    Raises:
        InputError: no such row, with near matches.
    """
    estimator = named(name)
    said = parts(TABLE[name])
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for heading, text in (
        ("Equation", said.get("Equation", "see its columns")),
        ("Unbiased when", "\n".join([estimator.unbiased, *_reasons(estimator)])),
        ("Couples", _coupling(estimator)),
        ("Needs", ", ".join(sorted(estimator.needs)) or "nothing but the batch"),
        ("Settings", _settings(name)),
        ("Source", _without_keys(estimator.source) or "not stated"),
    ):
        facts.add_row(heading, Text(text))
    columns = Table("column", "choice", "equation", pad_edge=False)
    for heading in MODULES:
        column = getattr(estimator, heading)
        if column is not None:
            columns.add_row(
                heading, estimator.columns()[heading], parts(column).get("Equation", "–")
            )
    title = Text(estimator.name, style="bold") + Text(f"  {said['Summary']}")
    return Group(title, Padding(facts, (1, 0)), columns, Text(bibtex(estimator.source)))


def markdown() -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for name, *cells in rows():
        cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
    return "\n".join(lines)


def rows() -> list[tuple[str, ...]]:
    """The cells of every row, as HEADINGS orders them."""
    return [_cells(named(name)) for name in TABLE]


def bibtex(source: str) -> str:
    """The BibTeX entries that a source names by their keys in square brackets."""
    text = files("vantage").joinpath("citations.bib").read_text(encoding="utf-8")
    entries = {
        re.split("[{,]", entry, maxsplit=2)[1]: entry for entry in text.strip().split("\n\n")
    }
    return "\n\n".join(entries[key] for key in _keys(source) if key in entries)


def _cells(estimator: Estimator) -> tuple[str, ...]:
    chosen = estimator.columns()
    others = [
        chosen[name]
        for name in chosen
        if name not in ("returns", "baseline") and chosen[name] != DEFAULTS[name]
    ]
    return (
        estimator.name,
        chosen["returns"],
        chosen["baseline"],
        ", ".join(others) or "–",
        ", ".join(sorted(estimator.needs)) or "–",
        estimator.couples,
        estimator.unbiased,
    )


def _reasons(estimator: Estimator) -> list[str]:
    """What each column that biases the gradient says about it."""
    columns = [getattr(estimator, name) for name in MODULES]
    biased = [c for c in columns if c is not None and bias(c) in ("scale", "direction")]
    return [f"{describe(c)}: {parts(c).get('Unbiased when', '–')}" for c in biased]


def _coupling(estimator: Estimator) -> str:
    return {
        "none": "nothing: trajectories are independent units",
        "group": "the trajectories of a group: groups are the independent units",
        "batch": "the whole batch: batches are the independent units",
    }[estimator.couples]


def _settings(name: str) -> str:
    return ", ".join(str(p) for p in inspect.signature(TABLE[name]).parameters.values()) or "none"


def _keys(source: str) -> list[str]:
    return re.findall(r"\[([a-z]+\d{4})\]", source)


def _without_keys(source: str) -> str:
    return re.sub(r"\s*\[[a-z]+\d{4}\]", "", source)
