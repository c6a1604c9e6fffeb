"""Transcripts to read: tokens coloured by their advantage, in a terminal and in a report."""

import html
import unicodedata

from rich.console import Console
from rich.style import Style
from rich.text import Text

from vantage.language.transcripts.records import Record
from vantage.runs.transcripts import spoken

# Green raises a token's probability, red lowers it; a token of the largest advantage has the full
# colour, one of advantage 0 the paper's.
RAISED, LOWERED = (46, 160, 67), (218, 54, 51)


def show(records: list[Record], console: Console) -> None:
    """Print records: tokens coloured on a terminal, plain text with the advantages elsewhere."""
    scale = largest_advantage(records)
    for record in records:
        console.print(Text(heading(record), style="bold"))
        console.print(Text(visible(spoken(record["prompt"]), keep="\n"), style="dim"))
        console.print(_coloured(record, scale) if console.is_terminal else _plain(record))
        console.print()


def as_html(records: list[Record], title: str = "Transcripts") -> str:
    """An HTML fragment: one <article> a record, tokens coloured by advantage, numbers on hover."""
    scale = largest_advantage(records)
    parts = [f'<section class="transcripts"><h2>{html.escape(title)}</h2>']
    for record in records:
        tokens = "".join(
            f'<span style="background:{_css(advantage / scale)}" '
            f'title="advantage {advantage:.3g}, log π {log_prob:.3g}">'
            f"{html.escape(visible(token, keep=' '))}</span>"
            for token, advantage, log_prob in _steps(record)
        )
        prompt = html.escape(visible(spoken(record["prompt"]), keep="\n "))
        parts.append(
            f"<article><h3>{html.escape(heading(record))}</h3>"
            f'<p style="white-space:pre-wrap;opacity:.7">{prompt}</p>'
            f'<p style="white-space:pre-wrap;font-family:monospace">{tokens}</p></article>'
        )
    return "\n".join([*parts, "</section>"])


def heading(record: Record) -> str:
    """Update, group, rewards and length of a record in one line."""
    update = f"update {record['update']}, " if "update" in record else ""
    reward = "not scorable" if record["reward"] is None else f"reward {record['reward']:.4g}"
    parts = {k[7:]: v for k, v in record.items() if k.startswith("reward/")}
    detail = ", ".join(f"{k} {'–' if v is None else f'{v:.4g}'}" for k, v in parts.items())
    several = f" ({detail})" if len(parts) > 1 else ""
    extra = {k[6:]: v for k, v in record.items() if k.startswith("extra/")}
    several += "".join(f", {k} {visible(str(v), keep=' ')}" for k, v in extra.items())
    cut = ", cut at the limit" if record["truncated"] else ""
    return (
        f"{update}group {record['group']}, row {record['row']}: {reward}{several}, "
        f"{record['length']} tokens{cut}"
    )


def visible(text: str, keep: str = "") -> str:
    """Text in which nothing acts on a terminal: control and direction characters are written out.

    >>> visible("a" + chr(27) + "[2J" + chr(10)), visible("a b", keep=" ")
    ('a\\\\x1b[2J⏎', 'a b')
    """
    return "".join(_written(c) if c not in keep else c for c in text)


def largest_advantage(records: list[Record]) -> float:
    """The largest |advantage| of any token; 1 where there is none, to divide by."""
    return max((abs(a) for record in records for a in record["advantage"]), default=0.0) or 1.0


def _written(character: str) -> str:
    if character == "\n":
        return "⏎"
    acts = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if acts else character


def _steps(record: Record) -> list[tuple[str, float, float]]:
    return list(zip(record["tokens"], record["advantage"], record["log_prob"], strict=True))


def _coloured(record: Record, scale: float) -> Text:
    line = Text()
    for token, advantage, _ in _steps(record):
        red, green, blue = _mixed(advantage / scale, (32, 32, 32))
        style = Style(color="white", bgcolor=f"rgb({red},{green},{blue})")
        line.append(visible(token), style)
    return line


def _plain(record: Record) -> Text:
    """The completion, and its advantage: once where all tokens share it, else token by token."""
    steps = _steps(record)
    distinct = {f"{advantage:+.3g}" for _, advantage, _ in steps}
    text = visible(record["completion"], keep="\n")
    if len(distinct) <= 1:
        return Text(f"{text}\n[advantage {''.join(distinct) or '–'}]")
    return Text(" ".join(f"{visible(token)}[{advantage:+.3g}]" for token, advantage, _ in steps))


def _mixed(share: float, paper: tuple[int, int, int]) -> tuple[int, ...]:
    colour = RAISED if share > 0 else LOWERED
    amount = min(1.0, abs(share))
    return tuple(round(p + amount * (c - p)) for c, p in zip(colour, paper, strict=True))


def _css(share: float) -> str:
    red, green, blue = RAISED if share > 0 else LOWERED
    return f"rgba({red},{green},{blue},{min(1.0, abs(share)) * 0.6:.2f})"
