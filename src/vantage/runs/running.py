"""Updates until a run is done: saved, shown, tracked and interruptible after every one."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vantage.runs.interrupts import Interrupts
from vantage.runs.progress import Progress
from vantage.runs.run import append_metrics
from vantage.runs.trackers import Tracker


@runtime_checkable
class Learning(Protocol):
    """The state of a run, and an update of it in two halves: `look` changes nothing."""

    def finished(self) -> bool:
        """Whether what was asked for is done."""
        ...

    def look(self) -> Any:
        """Collect a batch and what is needed of it."""
        ...

    def step(self, found: Any) -> dict[str, Any]:
        """Change what is trained; returns the update's metrics."""
        ...

    def save(self, folder: Path | None) -> None:
        """Write a checkpoint."""
        ...


def until_done(
    learner: Learning,
    folder: Path | None,
    display: Progress,
    interrupts: Interrupts,
    checkpoint_seconds: float,
    track: Sequence[Tracker],
    unit: str,
) -> None:
    """Update until `learner.finished()`; what is finished is never lost.

    Args:
        folder: of the run; None writes nothing.
        checkpoint_seconds: least time between checkpoints; one is always written at the end.
        unit: the metric that trackers count by: "steps" or "update".

    Raises:
        KeyboardInterrupt: after a checkpoint was written.
    """
    saved_at = time.monotonic()
    while not learner.finished():
        try:
            found = learner.look()
        except BaseException:
            learner.save(folder)  # nothing has been changed yet: what is finished must not be lost
            raise
        row = learner.step(found)
        if folder is not None:
            append_metrics(folder, row)
        for tracker in track:
            tracker.log(row, row[unit])
        display.update(row)
        if time.monotonic() - saved_at > checkpoint_seconds or interrupts.asked:
            learner.save(folder)
            saved_at = time.monotonic()
        interrupts.raise_if_asked()
    learner.save(folder)
