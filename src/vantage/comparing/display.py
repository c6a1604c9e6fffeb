"""Progress of a comparison: a live table on a terminal, plain lines elsewhere.

What runs have done is read from the ends of their metrics.jsonl: workers need not report.
"""

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from vantage.comparing.jobs import Job
from vantage.comparing.workers import Outcome
from vantage.runs.progress import return_text
from vantage.runs.run import METRICS
from vantage.runs.stored import parsed
from vantage.runs.terminal import Terminal

TAIL = 8192  # bytes; a row is well under 1 kB
LINE_SECONDS = 15.0


class Display:
    """Shows, for every estimator, runs done, steps at hand, return and time left.

    Args:
        jobs: all of the comparison.
        todo: those that are not finished.
        shown: False shows nothing.
        console: where to; standard error by default, so that piped results stay clean.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        todo: Sequence[Job],
        shown: bool = True,
        console: Console | None = None,
    ):
        self.jobs, self.shown = list(jobs), shown
        self.console = console or Terminal(file=sys.stderr)
        self.started = self.printed = time.monotonic()
        self.rows = {job.folder: last_row(job) for job in todo}
        self.done = {job.folder for job in jobs} - self.rows.keys()
        self.reported = 0
        self.live: Live | None = None
        self.first = self._steps()
        if shown and self.done:
            self.console.print(f"{len(self.done)} of {len(jobs)} runs are finished already.")

    def __enter__(self) -> "Display":
        if self.shown and self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4)
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

    def __call__(self, running: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Show what is at hand and how jobs ended."""
        if not self.shown:
            return
        for job in running:
            self.rows[job.folder] = last_row(job) or self.rows[job.folder]
        news = outcomes[self.reported :]
        self.reported = len(outcomes)
        self.done |= {outcome.job.folder for outcome in news if outcome.error is None}
        for outcome in news:
            self.console.print(_ended(outcome), soft_wrap=True)
        if self.live is not None:
            self.live.update(self._table(running, outcomes))
        elif news or time.monotonic() - self.printed > LINE_SECONDS:
            self.printed = time.monotonic()
            now = "; ".join(f"{job} at {_at(self.rows[job.folder])}" for job in running)
            line = self._progress() + (f". Now: {now}" if now else "")
            self.console.print(line, soft_wrap=True)

    def _progress(self) -> str:
        steps = self._steps()
        rate = (steps - self.first) / max(time.monotonic() - self.started, 1e-9)
        left = (sum(job.steps for job in self.jobs) - steps) / rate if rate > 0 else 0
        count = f"{len(self.done)} of {len(self.jobs)} runs done"
        return f"{count}, {duration(left)} left" if left > 0 else count

    def _steps(self) -> float:
        """Steps of all jobs together, none counted beyond what was asked for."""
        return sum(
            job.steps
            if job.folder in self.done
            else min(self.rows[job.folder].get("steps", 0), job.steps)
            for job in self.jobs
        )

    def _table(self, running: Sequence[Job], outcomes: Sequence[Outcome]) -> Group:
        failed = {outcome.job.folder for outcome in outcomes if outcome.error is not None}
        table = Table("environment", "estimator", "done", "failed", "running: seed, steps, return",
                      pad_edge=False)  # fmt: skip
        for world, name in dict.fromkeys((job.world.name, job.contender.name) for job in self.jobs):
            jobs = [j for j in self.jobs if (j.world.name, j.contender.name) == (world, name)]
            now = [f"{job.seed}: {_at(self.rows[job.folder])}" for job in running if job in jobs]
            done = sum(job.folder in self.done for job in jobs)
            count = sum(job.folder in failed for job in jobs)
            cells = (
                world,
                name,
                f"{done} of {len(jobs)}",
                str(count or "–"),
                "\n".join(now) or "–",
            )
            table.add_row(*cells)
        return Group(table, self._progress())


def last_row(job: Job) -> dict[str, Any]:
    """The last whole line of a run's metrics; empty where there is none."""
    try:
        with (job.folder / METRICS).open("rb") as file:
            file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is not whole
        return parsed(lines[-1].decode(), job.folder / METRICS) if lines else {}
    except (OSError, ValueError):  # not there yet, or just being replaced
        return {}


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(59.6), duration(3725)
    ('1:00', '1:02:05')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _at(row: dict[str, Any]) -> str:
    if not row:
        return "the start"
    return f"{row['steps']:,} steps, return {return_text(row['return'])}"


def _ended(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{outcome.job} failed: {outcome.error}"
    result = outcome.result
    score = result["evaluation_return"]
    named = "training" if score is None else "evaluation"
    score = result["training_return"] if score is None else score
    ending = "no finished episode" if score is None else f"{named} return {return_text(score)}"
    return f"{outcome.job}: {ending} after {result['steps']:,} steps, {duration(result['seconds'])}"
