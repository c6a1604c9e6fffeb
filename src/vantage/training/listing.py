"""The table of algorithms as people read it: `vantage algorithms`, `vantage algorithms ppo`."""

import inspect

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vantage.estimators.columns import parts
from vantage.estimators.listing import bibtex, without_keys
from vantage.training.algorithm import Algorithm
from vantage.training.algorithms import TABLE, named, settings_of
from vantage.training.schedules import name_of
from vantage.training.tuned import Row, rows


def table() -> RenderableType:
    """Every algorithm, with what it was published with."""
    view = Table(title="Algorithms", title_justify="left", pad_edge=False)
    for heading in ("algorithm", "estimator", "update rule", "a batch", "lr, schedule", "source"):
        view.add_column(heading, style="bold" if heading == "algorithm" else None, overflow="fold")
    for name in TABLE:
        algorithm = named(name)
        view.add_row(
            name,
            algorithm.estimator.name,
            type(algorithm.update).__name__,
            _batch(algorithm),
            f"{_rate(algorithm)}, {name_of(algorithm.schedule)}",
            without_keys(algorithm.source),
        )
    hint = "vantage algorithms NAME explains one; vantage algorithms tuned lists settings that are "
    return Group(view, Text(hint + "known to work, environment by environment.", style="dim"))


MEASURED = (
    "Return of the last 100 episodes of training, actions sampled: the mean over runs, one a seed, "
    "and the lowest and highest of them."
)
HEADINGS = ("environment", "algorithm", "a batch", "γ", "steps", "return here", "source")


def tuned_table() -> RenderableType:
    """Settings that are known to work, environment by environment, with the returns of runs."""
    view = Table(title="vantage train ENV --tuned", title_justify="left", pad_edge=False)
    for heading in HEADINGS:
        view.add_column(heading, style="bold" if heading == "environment" else None)
    for row in rows().values():
        view.add_row(*_cells(row))
    return Group(view, Text(MEASURED, style="dim"))


def tuned_markdown() -> str:
    """The same for the documentation."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows().values()]
    return "\n".join([*lines, "", MEASURED])


def _cells(row: Row) -> tuple[str, ...]:
    algorithm = row.build()
    batch = f"{row.lanes} × {algorithm.fragment}"
    steps = f"{row.steps:,}"
    return row.env, row.algorithm, batch, f"{row.discount:g}", steps, row.outcome(), row.source


def explain(name: str) -> RenderableType:
    """One algorithm: what it does, its settings with their defaults, source and citation.

    Raises:
        InputError: no such algorithm, with near matches.
    """
    algorithm = named(name)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for heading, text in (
        ("Estimator", f"{algorithm.estimator.name} ({_columns(algorithm)})"),
        ("Update rule", str(algorithm.update)),
        ("A batch", _batch(algorithm)),
        ("Learning rate", f"{_rate(algorithm)}, schedule {name_of(algorithm.schedule)}"),
        ("Normalised", _normalised(algorithm)),
        ("Source", without_keys(algorithm.source)),
    ):
        facts.add_row(heading, Text(text))
    settings = Table("setting", "default", "meaning", pad_edge=False)
    meanings = _meanings(TABLE["ppo"]) | _meanings(TABLE[name])
    for setting, parameter in settings_of(name).items():
        settings.add_row(setting, repr(parameter.default), meanings.get(setting, ""))
    title = Text(name, style="bold") + Text(f"  {parts(TABLE[name])['Summary'].split('Args:')[0]}")
    return Group(title, Padding(facts, (1, 0)), settings, Text(bibtex(algorithm.source)))


def _batch(algorithm: Algorithm) -> str:
    if algorithm.fragment is None:
        return f"{algorithm.batch or 64} whole episodes"
    size = algorithm.steps_per_update()
    lanes = f"{algorithm.lanes} lane{'s' * (algorithm.lanes > 1)}"
    return f"{lanes} × {algorithm.fragment} steps = {size:,}"


def _rate(algorithm: Algorithm) -> str:
    optimizer = algorithm.optimizer
    rate_of_rule = (
        getattr(optimizer, "keywords", {}).get("lr")
        if optimizer
        else getattr(algorithm.update, "lr", None)
    )
    rate = algorithm.lr if algorithm.lr is not None else rate_of_rule
    return "steps of a given KL" if rate is None else f"{rate:g}"


def _normalised(algorithm: Algorithm) -> str:
    asked = algorithm.normalise
    if not asked:
        return "no"
    given = asked if isinstance(asked, dict) else {}
    kinds = ("observations", "rewards")
    return " and ".join(kind for kind in kinds if given.get(kind, True))


def _columns(algorithm: Algorithm) -> str:
    return ", ".join(v for v in algorithm.estimator.columns().values() if v not in ("none", "–"))


def _meanings(function: object) -> dict[str, str]:
    """What the Args part of a docstring says of every setting."""
    text = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    meanings: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, rest = line.strip().partition(": ")
            meanings[name] = rest
        elif name:
            meanings[name] += " " + line.strip()
    return meanings
