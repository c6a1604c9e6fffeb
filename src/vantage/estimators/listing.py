"""The table of estimators for people: on a terminal, and as Markdown for the documentation."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from importlib.resources import files

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vantage.errors import InputError
from vantage.estimators import (
    aggregates,
    baselines,
    importance,
    penalties,
    ratios,
    returns,
    scales,
    selections,
    shrinkage,
)
from vantage.estimators.columns import PARTS, bias, describe, function_of, parts
from vantage.estimators.estimator import MODULES, Estimator
from vantage.estimators.table import ALIASES, TABLE, named

# What a column is when the row does not choose it; such entries are left out of the table.
DEFAULTS = Estimator().columns()
# Where columns are, in the order in which an estimator applies them.
COLUMN_MODULES = (
    returns,
    baselines,
    shrinkage,
    scales,
    selections,
    ratios,
    importance,
    aggregates,
    penalties,
)
HEADINGS = ("estimator", "returns", "baseline", "and", "needs", "couples", "unbiased when")


def table() -> RenderableType:
    """Every row of the table, with the columns it chooses."""
    view = Table(title="Estimators", title_justify="left", show_lines=False, pad_edge=False)
    for heading in ("estimator", "returns − baseline", "and", "unbiased when"):
        view.add_column(heading, style="bold" if heading == "estimator" else None, overflow="fold")
    for name, worth, baseline, others, _, _, claim in rows():
        view.add_row(name, worth if baseline == "none" else f"{worth} − {baseline}", others, claim)
    return Group(view, Text("vantage estimators NAME explains a row, or a column.", style="dim"))


def explain(name: str) -> RenderableType:
    """A row or a column by its name, `gae` or `returns.gae`; both where both bear it.

    Raises:
        InputError: nothing bears the name; the message has near matches and what mentions it.
    """
    columns = [column for key, column in catalogue().items() if name in (key, key.split(".")[1])]
    if name in TABLE or name in ALIASES:
        return Group(_row(ALIASES.get(name, name), name), *map(_column, columns))
    if not columns:
        raise InputError(_unknown(name))
    return Group(*map(_column, columns))


def catalogue() -> dict[str, Callable[..., object]]:
    """Every column of the package by its module and name, `returns.gae`, in reading order."""
    return {
        f"{module.__name__.rsplit('.', 1)[1]}.{name}": function
        for module in COLUMN_MODULES
        for name, function in vars(module).items()
        if getattr(function, "__module__", "") == module.__name__
        and getattr(function, "__name__", "") == name
        and "Equation" in parts(function)
    }


def rows_by_column() -> dict[Callable[..., object], list[str]]:
    """The rows of the table that have each column, whatever its settings."""
    users: dict[Callable[..., object], list[str]] = {}
    for name in TABLE:
        row = named(name)
        choices = (getattr(row, heading) for heading in MODULES)
        for column in dict.fromkeys(function_of(each) for each in choices if each is not None):
            users.setdefault(column, []).append(name)
    return users


def _unknown(name: str) -> str:
    """What to say of a name that nothing bears."""
    words = {**TABLE, **catalogue()}
    near = difflib.get_close_matches(name, [key.split(".")[-1] for key in words], n=3)
    text = name.lower()
    mentions = [key for key, item in words.items() if text in (inspect.getdoc(item) or "").lower()]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    if mentions:
        hint = f"{hint} It is mentioned by {', '.join(mentions[:6])}."
    return (
        f"No estimator and no column is called {name!r}; "
        f"{hint.strip() or 'vantage estimators prints the table.'}"
    )


def _column(function: Callable[..., object]) -> RenderableType:
    """One column: its equation, shapes, claim, source, and the rows that have it."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    docstring = parts(function)
    for heading in PARTS:
        facts.add_row(heading, Text(docstring.get(heading, "not stated")))
    facts.add_row("In the rows", Text(", ".join(rows_by_column().get(function, ())) or "none"))
    module = function.__module__.rsplit(".", 1)[1]
    title = Text(f"{module}.{function.__name__}", style="bold") + Text(f"  {docstring['Summary']}")
    return Group(title, Padding(facts, (1, 0)))


def _row(name: str, asked: str) -> RenderableType:
    """One row: its equation, columns, claim, source and citations."""
    estimator = named(name)
    docstring = parts(TABLE[name])
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for heading, text in (
        ("Equation", docstring.get("Equation", "see its columns")),
        ("Unbiased when", "\n".join([estimator.unbiased, *_reasons(estimator)])),
        ("Couples", _coupling(estimator)),
        ("Needs", ", ".join(sorted(estimator.needs)) or "nothing but the batch"),
        ("Settings", _settings(name)),
        ("Source", without_keys(estimator.source) or "not stated"),
    ):
        facts.add_row(heading, Text(text))
    columns = Table("column", "choice", "equation", pad_edge=False)
    for heading in MODULES:
        column = getattr(estimator, heading)
        if column is not None:
            columns.add_row(
                heading, estimator.columns()[heading], parts(column).get("Equation", "–")
            )
    title = Text(estimator.name, style="bold") + Text(f"  {docstring['Summary']}")
    if asked != name:
        title += Text(f"  ({asked} is its former name)", style="dim")
    return Group(title, Padding(facts, (1, 0)), columns, Text(bibtex(estimator.source)))


def markdown() -> str:
    """The table as Markdown; names of columns may be broken where words of them meet."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for name, *cells in rows():
        cells = [
            re.sub(r"(?<=\w)([_(])(?=\w)", r"\1<wbr>", cell.replace("|", "\\|")) for cell in cells
        ]
        lines.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
    return "\n".join(lines)


def columns_markdown() -> str:
    """Every column with its equation, shapes, claim, source and rows, as Markdown."""
    lines: list[str] = []
    heading, users = "", rows_by_column()
    for key, function in catalogue().items():
        module, name = key.split(".")
        if module != heading:
            heading = module
            summary = (sys.modules[function.__module__].__doc__ or "").split("\n\n")[0]
            lines += [f"## `{module}`", "", " ".join(summary.split()), ""]
        docstring = parts(function)
        lines += [f"### `{name}` {{ #{module}-{name} }}", "", docstring["Summary"], ""]
        lines += [f"- **{part}**: {_plain(docstring[part])}" for part in PARTS if part in docstring]
        names = ", ".join(f"`{row}`" for row in users.get(function, ())) or "none of the table"
        lines += [f"- **Rows**: {names}", ""]
    return "\n".join(lines).rstrip()


def _plain(text: str) -> str:
    """Text in which nothing is taken for Markdown but code between backquotes."""
    prose = re.split(r"(`[^`]*`)", text)
    prose[::2] = [
        re.sub(r"([*_>|\[\]])", r"\\\1", part).replace("<", "&lt;") for part in prose[::2]
    ]
    return "".join(prose)


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
    columns = estimator.columns()
    others = [
        columns[name]
        for name in columns
        if name not in ("returns", "baseline") and columns[name] != DEFAULTS[name]
    ]
    return (
        estimator.name,
        columns["returns"],
        columns["baseline"],
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


def without_keys(source: str) -> str:
    """A source without the keys of its citations."""
    return re.sub(r"\s*\[[a-z]+\d{4}\]", "", source)
