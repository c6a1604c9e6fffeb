"""What a language model said, as the page's browser of transcripts reads it.

Tokens and prompts are written once and named by their place after that: thousands of completions
fit into one page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vantage.errors import InputError
from vantage.reporting.curves import finite
from vantage.runs.terminal import printable
from vantage.runs.transcripts import read_update, spoken, updates_of

COMPLETIONS = 5_000  # in a page
TOKENS = 400_000


class Places:
    """Texts by the order in which they first came, without what acts on who reads them."""

    def __init__(self) -> None:
        self.place: dict[str, int] = {}
        self.texts: list[str] = []

    def of(self, text: str) -> int:
        """The place of a text, which is added where it is new."""
        if text not in self.place:
            self.place[text] = len(self.texts)
            self.texts.append(printable(text, keep="\n\t "))
        return self.place[text]


def completions(folder: Path) -> dict[str, Any] | None:
    """Completions of a run's transcripts, updates evenly chosen where all would be too many.

    None where a folder holds no transcripts.
    """
    updates = updates_of(folder)
    if not updates:
        return None
    tokens, prompts, faults = Places(), Places(), []
    parts: dict[str, None] = {}
    rows: list[list[Any]] = []
    left, size, read = TOKENS, 1, 0
    for update in _evenly(updates, folder):
        try:
            records = read_update(folder, update)
        except InputError as error:
            faults.append(str(error))
            continue
        read += 1
        parts |= {name[7:]: None for r in records for name in r if name.startswith("reward/")}
        for record in records[: COMPLETIONS - len(rows)]:
            row = _row(record, tokens, prompts, list(parts))
            size = len(row[TOKENS_AT])
            if size > left and rows:
                left = 0
                break
            left -= size
            rows.append(row)
    rows.sort(key=lambda row: row[0])
    count = f"{len(rows):,} completions of {read:,} of {len(updates):,} recorded updates."
    return {
        "tokens": tokens.texts, "prompts": prompts.texts, "parts": list(parts),
        "rows": rows, "said": count, "faults": faults,
    }  # fmt: skip


TOKENS_AT = 7  # in a row: update, group, prompt, reward, length, cut, parts, tokens, weights, log π


def _row(
    record: Mapping[str, Any], tokens: Places, prompts: Places, parts: Sequence[str]
) -> list[Any]:
    texts = record["tokens"] if isinstance(record["tokens"], list) else []
    weights, log_probs = ([_short(v) for v in _list(record[n])] for n in ("advantage", "log_prob"))
    alike = weights[0] if weights and len(set(weights)) == 1 else weights
    return [
        record["update"],
        _short(record["group"]),
        prompts.of(spoken(str(record["prompt"]))),
        _short(record["reward"]),
        len(texts),
        bool(record.get("truncated")),
        [_short(record.get(f"reward/{name}")) for name in parts],
        [tokens.of(str(text)) for text in texts],
        alike,
        log_probs,
    ]


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _short(value: Any) -> float | None:
    """Four digits of a number; None of what is none."""
    number = finite(value)
    return None if number != number else float(f"{number:.4g}")


def _evenly(updates: Sequence[int], folder: Path) -> list[int]:
    """The last update first, then others from the last to the first, as many as fit."""
    try:
        several = max(1, len(read_update(folder, updates[-1])))
    except InputError:
        several = 1
    count = min(len(updates), max(1, COMPLETIONS // several))
    places = np.unique(np.linspace(len(updates) - 1, 0, count).round().astype(int))
    return [updates[place] for place in places[::-1]]
