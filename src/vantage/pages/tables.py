"""Cells, tables and the summary of a page."""

import html
import math
from collections.abc import Sequence

from vantage.pages.numbers import number
from vantage.statistics.intervals import Estimate


def escaped(value: object) -> str:
    """Text that cannot be taken for HTML."""
    return html.escape(str(value))


def breakable(name: str) -> str:
    """An estimator's name or a path, which may break after underscores and slashes."""
    return escaped(name).replace("_", "_<wbr>").replace("/", "/<wbr>")


def cell(estimate: Estimate) -> str:
    """Value and interval, the word exact, or the reason why there is no number."""
    note = estimate.note
    value, ends = number(estimate.value), f"[{number(estimate.low)}, {number(estimate.high)}]"
    if math.isnan(estimate.value):
        reason = note.removeprefix("undetermined").removeprefix(":").strip() or "no reason recorded"
        bounded = math.isfinite(estimate.low) or math.isfinite(estimate.high)
        limits = f"<span>{ends}</span>" if bounded else ""
        return f'<strong>undetermined</strong>{limits}<span class="why">{escaped(reason)}</span>'
    if estimate.exact:
        return f"<strong>{value}</strong><span>exact</span>"
    if note.startswith("optimistic"):
        flag = f'<span class="flag">* {escaped(note)}</span>'
        return f"<strong>{value} *</strong><span>{ends}</span>{flag}"
    small = f'<span class="why">{escaped(note)}</span>' if note else ""
    return f"<strong>{value}</strong><span>{ends}</span>{small}"


def table(
    label: str, heads: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]], kind: str = ""
) -> str:
    """A table that scrolls by itself. Cells are HTML already; the first of each line heads it."""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{rest}</td>" for rest in others)}</tr>\n'
        for first, others in lines
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(label)}">'
        f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def summary(lines: Sequence[str], notes: Sequence[str], nothing: str) -> str:
    """What was found: the last line is the advice; then what limits the numbers, if anything.

    Args:
        nothing: said where there are no lines.
    """
    *conclusions, advice = lines or [nothing]
    limits = ""
    if notes:
        limits = f'<div class="limits"><h3>What limits these numbers</h3>{_list(notes)}</div>'
    return f'<p class="advice">{escaped(advice)}</p>{_list(conclusions)}{limits}'


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if lines else ""
