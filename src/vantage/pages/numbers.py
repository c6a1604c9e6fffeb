"""Numbers as people read them and as JSON can hold them; files of either kind."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vantage.errors import refuse_unless
from vantage.statistics.intervals import Estimate


def text(estimate: Estimate) -> str:
    """An estimate in a table: value and interval, the word exact, or why there is no number."""
    if estimate.exact:
        return f"{number(estimate.value)}\nexact"
    if estimate.value is None or math.isnan(estimate.value):
        return "–\nundetermined" if estimate.note else "–"
    flag = "*" if estimate.note.startswith("optimistic") else ""
    return f"{number(estimate.value)}{flag}\n[{number(estimate.low)}, {number(estimate.high)}]"


def number(value: float) -> str:
    """Three significant digits, without needless exponents.

    >>> number(1234.5), number(0.01234), number(-3.0), number(float("inf"))
    ('1,230', '0.0123', '-3.00', '∞')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or math.isnan(value):
        return "0" if value == 0 else "–"
    size = math.floor(math.log10(abs(value)))
    if not -5 < size < 7:
        return f"{value:.2e}"
    rounded = round(value, 2 - size)
    return f"{rounded:,.{max(0, 2 - size)}f}"


def counted(count: int, noun: str, plural: str = "s") -> str:
    """A number with its noun.

    >>> counted(1, "pass", "es"), counted(2048, "step")
    ('1 pass', '2,048 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def written(
    path: str | Path, kind: str, data: Callable[[], dict[str, Any]], page: Callable[[], str]
) -> Path:
    """Write `data()` as JSON or `page()` as HTML, by the file's ending.

    Raises:
        InputError: another ending, naming `kind`.
    """
    target = Path(path)
    refuse_unless(
        target.suffix in (".json", ".html"),
        f"{kind}.save({str(path)!r}): the name must end in .json or .html.",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data(), indent=2) + "\n" if target.suffix == ".json" else page()
    target.write_text(text, encoding="utf-8")
    return target


def plain(value: Any) -> Any:
    """Records as JSON can hold them: NaN is null, infinities are words."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
