"""Settings as people read them: names and values in a table, records below their name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vantage.pages.numbers import number
from vantage.pages.tables import escaped

DEEPEST = 4  # records within records that are shown as such


def settings_table(settings: Mapping[str, Any], deep: int = 0) -> str:
    """Single values first, then every record under a heading of its own."""
    single = {name: value for name, value in settings.items() if not _nests(value)}
    nested = {name: value for name, value in settings.items() if _nests(value)}
    parts = [pairs({named(name): value_text(value) for name, value in single.items()})]
    if parts[0] and not deep:
        parts[0] = f'<div class="record"><h3>the run</h3>{parts[0]}</div>'
    for name, value in nested.items():
        if deep < DEEPEST:
            records = value if isinstance(value, list | tuple) else [value]
            inner = "".join(settings_table(record, deep + 1) for record in records)
        else:
            inner = f"<p>{escaped(_flat(value))}</p>"
        parts.append(f'<div class="record"><h3>{escaped(named(name))}</h3>{inner}</div>')
    return "".join(parts)


def pairs(words: Mapping[str, str]) -> str:
    """Names and their values, two to a line; both escaped here."""
    lines = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(value)}</td></tr>'
        for name, value in words.items()
    )
    return f'<table class="pairs"><tbody>{lines}</tbody></table>' if lines else ""


def named(name: object) -> str:
    """The name of a setting in words.

    >>> [named(name) for name in ("max_kl", "lambda_")]
    ['max kl', 'lambda']
    """
    return str(name).replace("_", " ").strip()


def value_text(value: Any) -> str:
    """A setting's value as people read it, and never as code.

    >>> [value_text(v) for v in (True, None, 64, 0.0003, [64, 64], "linear", [])]
    ['yes', 'none', '64', '0.0003', '64, 64', 'linear', 'none']
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.12g}" if math.isfinite(value) else number(value)
    if isinstance(value, Mapping | list | tuple):
        return _flat(value) or "none"
    return str(value)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{named(name)} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_flat(inner) for inner in value)
    return value_text(value)


def _nests(value: Any) -> bool:
    """Whether it is a record with something in it, or a list of such."""
    if isinstance(value, Mapping):
        return bool(value)
    several = isinstance(value, list | tuple) and bool(value)
    return several and all(isinstance(inner, Mapping) and inner for inner in value)
