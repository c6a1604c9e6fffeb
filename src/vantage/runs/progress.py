"""What commands print, and progress: a live display on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from vantage.runs.notebook import Cell, facts
from vantage.runs.terminal import Terminal

# Where commands print. Piped output has no terminal's width to fit: tables keep every digit.
terminal = Terminal(soft_wrap=True, width=None if sys.stdout.isatty() else 140)

# Ratios of one update are noisy: show them over this many, numerator and denominator apart.
WINDOW = 5
CELL_SECONDS = 0.5  # least time between two pictures in a notebook


def return_text(value: float | None) -> str:
    """A return as people read it: one decimal at the least, and three significant digits.

    >>> return_text(21.46), return_text(1234.56), return_text(0.01234), return_text(-1e-12)
    ('21.5', '1,234.6', '0.0123', '-1.00e-12')
    >>> return_text(0.0), return_text(None)
    ('0.0', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or math.isinf(value):
        return f"{value:.1f}"
    size = math.floor(math.log10(abs(value)))
    return f"{value:,.{max(1, 2 - size)}f}" if -5 < size < 12 else f"{value:.2e}"


# What is shown of an update where it is among its metrics: label -> metric, and how it is written.
FIGURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "update": ("update", "{}".format),
    "steps": ("steps", "{:,}".format),
    "return": ("return_100", return_text),
    "reward": ("reward", "{:.3f}".format),
    "dead groups": ("frac_reward_zero_std", "{:.0%}".format),
    "length": ("length", "{:.1f}".format),
    "entropy": ("entropy", "{:.3f}".format),
    "gradient norm": ("grad_norm", "{:.3g}".format),
}


class Progress:
    """Shows return, length, entropy, gradient norm, signal-to-noise ratio, speed and time left.

    Args:
        steps, updates: where training stops; either may be None.
        history: what a resumed run has behind it.
        shown: False shows nothing.
        console: where to; standard error by default, so that piped results stay clean.
        line_seconds: least time between plain lines.
    """

    def __init__(
        self,
        steps: int | None,
        updates: int | None,
        history: list[dict[str, Any]],
        shown: bool = True,
        console: Console | None = None,
        line_seconds: float = 2.0,
    ):
        self.unit, self.goal = ("steps", steps) if steps is not None else ("update", updates)
        self.shown = shown
        self.console = console or Terminal(file=sys.stderr)
        self.line_seconds = line_seconds
        self.recent: deque[dict[str, Any]] = deque(history[-WINDOW:], maxlen=WINDOW)
        self.start_at = history[-1][self.unit] if history else 0
        self.started = self.printed = time.monotonic()
        self.printed_update = 0
        self.live: Live | None = None
        self.cell: Cell | None = None
        self.bar = Bar(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=self.console,
        )
        self.task: TaskID = self.bar.add_task(self.unit, total=self.goal, completed=self.start_at)

    def __enter__(self) -> "Progress":
        if self.shown and self.console.is_jupyter:
            self.cell = Cell()  # a live display there would ask for ipywidgets
        elif self.shown and self.console.is_terminal:
            self.live = Live(self.bar, console=self.console, refresh_per_second=8)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()
        elif self.cell is not None and self.recent:
            self._show()
        elif self.shown and self.recent and self.recent[-1]["update"] != self.printed_update:
            self._line()

    def update(self, row: dict[str, Any]) -> None:
        """Take in one update's metrics."""
        self.recent.append(row)
        self.bar.update(self.task, completed=min(row[self.unit], self.goal or row[self.unit]))
        if self.live is not None:
            self.live.update(Group(self.bar, self._table()))
        elif self.cell is not None:
            if row["update"] == 1 or time.monotonic() - self.printed > CELL_SECONDS:
                self._show()
        elif self.shown and (
            row["update"] == 1 or time.monotonic() - self.printed > self.line_seconds
        ):
            self._line()

    def _show(self) -> None:
        assert self.cell is not None
        done = self.recent[-1][self.unit]
        goal = f"{done:,}" if self.goal is None else f"{done:,} of {self.goal:,}"
        self.cell.show(facts(f"{self.unit}: {goal}", self.figures()))
        self.printed = time.monotonic()

    def figures(self) -> dict[str, str]:
        """What is shown, by name: of the run's metrics, those that it has."""
        last = self.recent[-1]
        shown = {
            label: text(last[name]) if _finite(last[name]) else "–"
            for label, (name, text) in FIGURES.items()
            if name in last
        }
        snr = windowed_snr(list(self.recent))
        shown["SNR"] = f"{snr:.2f}" if _finite(snr) else "–"
        return shown | self._speed() | {"left": self._left()}

    def _speed(self) -> dict[str, str]:
        seconds = max(1e-9, sum(row["step_time"] for row in self.recent))
        return {
            f"{what}/s": f"{count / seconds:,.0f}"
            for what in ("steps", "tokens")
            if (count := sum(r["step_time"] * r.get(f"{what}_per_second", 0) for r in self.recent))
        }

    def _left(self) -> str:
        done = self.recent[-1][self.unit] - self.start_at
        rate = done / max(time.monotonic() - self.started, 1e-9)
        if self.goal is None or rate <= 0:
            return "–"
        seconds = max(0, round((self.goal - self.recent[-1][self.unit]) / rate))
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 3))
        figures = self.figures()
        table.add_row(*figures, style="dim")
        table.add_row(*figures.values())
        return table

    def _line(self) -> None:
        self.printed, self.printed_update = time.monotonic(), self.recent[-1]["update"]
        self.console.print("  ".join(f"{k} {v}" for k, v in self.figures().items()), soft_wrap=True)


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def windowed_snr(rows: list[dict[str, Any]]) -> float:
    """SNR over several updates: Σ N̂ / Σ (tr Σ̂ / U), never a mean of ratios."""
    rows = [row for row in rows if "units" in row]
    signal = sum(row["gradient_squared_norm"] for row in rows)
    noise = sum(row["gradient_variance"] / row["units"] for row in rows)
    return signal / noise if noise > 0 else float("nan")


@contextmanager
def counting(
    what: str, total: int, shown: bool, unit: str = "trajectories"
) -> Iterator[Callable[[int], None]]:
    """Progress of counted work: a bar on a terminal, a line every few seconds elsewhere.

    Yields a function that takes how much is done.
    """
    console = Terminal(file=sys.stderr)
    printed = time.monotonic()
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task(what, total=total)

        def done(count: int) -> None:
            nonlocal printed
            bar.update(task, completed=count)
            if shown and not console.is_terminal and time.monotonic() - printed > 2:
                printed = time.monotonic()
                console.print(f"{what}: {count:,} of {total:,} {unit}")

        yield done


def note(text: str) -> None:
    """A line beside the progress, on standard error: something to know before it goes on."""
    Terminal(file=sys.stderr).print(text, soft_wrap=True)
