"""A run from its first update to its last: folder, threads, trackers, display, interrupts."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.errors import refuse_unless
from vantage.runs.interrupts import Interrupts
from vantage.runs.progress import Progress
from vantage.runs.run import Run, append_metrics, open_run
from vantage.runs.threads import torch_threads
from vantage.runs.trackers import Tracker
from vantage.training.learner import Learner


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written and shown; no number in it depends on them.

    Attributes:
        out: run folder; None writes nothing.
        resume: carry on the run in `out` from its last checkpoint.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        track: trackers that receive every update's metrics.
        threads: torch threads.
        progress: show progress.
    """

    out: Path | None
    resume: bool
    checkpoint_seconds: float
    track: Sequence[Tracker]
    threads: int
    progress: bool

    def check(self) -> None:
        """Refuse what cannot work, naming the setting.

        Raises:
            InputError: see `vantage.train`.
        """
        refuse_unless(
            not self.resume or self.out is not None,
            "train(resume=True): say which run with out=.",
        )


def carry_out(
    learner: Learner,
    config: dict[str, Any],
    options: RunOptions,
    *,
    updates: int | None,
    steps: int | None = None,
) -> Run:
    """Update until the learner is done; what is finished is never lost.

    Args:
        learner: at its start; it goes on from the last checkpoint where that is asked for.
        config: written to config.json, or compared with it.
        updates, steps: where the run ends, for the display.

    Raises:
        InputError: a folder that cannot be used, before anything is collected.
        KeyboardInterrupt: after a checkpoint was written.
    """
    folder = options.out
    with torch_threads(options.threads), Interrupts() as interrupts, ExitStack() as stack:
        for tracker in options.track:
            stack.enter_context(closing(tracker))
        if folder is not None:
            open_run(folder, config, options.resume)
            learner.restore(folder, options.resume)
        display = stack.enter_context(Progress(steps, updates, learner.history, options.progress))
        _until_done(learner, options, display, interrupts)
    return Run(folder, config, learner.history)


def _until_done(
    learner: Learner, options: RunOptions, display: Progress, interrupts: Interrupts
) -> None:
    folder = options.out
    saved_at = time.monotonic()

    def save() -> None:
        if folder is not None:
            learner.save(folder)

    while learner.done() < 1:
        try:
            collected = learner.collect()
        except BaseException:
            save()  # nothing has been changed yet: what is finished must not be lost
            raise
        row = learner.update(collected)
        if folder is not None:
            append_metrics(folder, row)
        for tracker in options.track:
            tracker.log(row, row[learner.unit])
        display.update(row)
        if time.monotonic() - saved_at > options.checkpoint_seconds or interrupts.asked:
            save()
            saved_at = time.monotonic()
        interrupts.raise_if_asked()
    save()
