"""A run from its first update to its last: folder, threads, trackers, display, interrupts."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.environments.limits import answering_within
from vantage.errors import InputError, refuse_unless, refuse_unless_within
from vantage.reporting.writing import report_at_end
from vantage.runs.interrupts import Interrupts
from vantage.runs.lock import locked
from vantage.runs.progress import Progress
from vantage.runs.run import Run, open_run, refuse_unless_startable, started_by
from vantage.runs.threads import torch_threads
from vantage.runs.trackers import Tracker
from vantage.training.callbacks import Callback, RunState, call, name_of
from vantage.training.keeping import Keeper
from vantage.training.learner import Learner

KEPT = ("keep_best", "keep_last", "stop_at", "patience", "skip_non_finite", "environment_timeout")
THREADS = 1024  # torch starts each of them


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written and shown, and what is done beside learning.

    No number of the training depends on them, but for the moment at which it ends; a run may be
    resumed with others. `vantage.train` says what each means.
    """

    out: Path | None
    resume: bool
    checkpoint_seconds: float
    evaluate_every: int
    keep_best: bool
    keep_last: int
    stop_at: float | None
    patience: int | None
    callbacks: Sequence[Callback]
    track: Sequence[Tracker]
    threads: int
    progress: bool
    skip_non_finite: bool
    environment_timeout: float | None

    def check(self) -> None:
        """Refuse what cannot work, naming the setting.

        Raises:
            InputError: see `vantage.train`.
        """
        refuse_unless(
            not self.resume or self.out is not None,
            "train(resume=True): say which run with out=.",
        )
        refuse_unless_within(self.threads, 1, "train", "threads")
        refuse_unless(self.threads <= THREADS, f"train(threads={self.threads}): {THREADS} at most.")
        for name in ("evaluate_every", "keep_last"):
            refuse_unless_within(getattr(self, name), 0, "train", name)
        refuse_unless(
            self.checkpoint_seconds >= 0,
            f"train(checkpoint_seconds={self.checkpoint_seconds!r}): give seconds, 0 or more.",
        )
        refuse_unless(
            self.environment_timeout is None or self.environment_timeout > 0,
            f"train(environment_timeout={self.environment_timeout}): give seconds, or None.",
        )
        refuse_unless(
            not self.keep_last or self.out is not None,
            f"train(keep_last={self.keep_last}): checkpoints are kept in a run folder; give out=.",
        )
        refuse_unless(
            self.stop_at is None or self.stop_at == self.stop_at,
            f"train(stop_at={self.stop_at}): give a return, a number.",
        )
        if self.patience is not None:
            refuse_unless_within(self.patience, 1, "train", "patience")
            refuse_unless(
                self.evaluate_every > 0,
                f"train(patience={self.patience}): it counts evaluations; give evaluate_every= "
                "(updates between them).",
            )
        refuse_unless(
            not callable(self.callbacks),
            f"train(callbacks={self.callbacks!r}): give a list of functions, callbacks=[f].",
        )
        for callback in self.callbacks:
            refuse_unless(
                callable(callback),
                f"train(callbacks=...): {callback!r} is no function of (run state, row).",
            )

    def describe(self) -> dict[str, Any]:
        """What config.json says of them."""
        names = [name_of(callback) for callback in self.callbacks]
        counts = {name: getattr(self, name) for name in KEPT}
        return {"evaluate_every": self.evaluate_every, **counts, "callbacks": names}


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
    folder, config = options.out, config | options.describe() | started_by(sys.argv)
    with torch_threads(options.threads), Interrupts() as interrupts, ExitStack() as stack:
        for tracker in options.track:
            stack.enter_context(_closed(tracker))
        stack.enter_context(answering_within(options.environment_timeout))
        learner.skip_non_finite = options.skip_non_finite
        if folder is not None:
            refuse_unless_startable(folder, config, options.resume)
            stack.enter_context(locked(folder))
            open_run(folder, config, options.resume)
            learner.restore(folder, options.resume)
        display = stack.enter_context(Progress(steps, updates, learner.history, options.progress))
        keeper = Keeper(
            learner, folder, options.evaluate_every, options.keep_best, options.keep_last
        )
        try:
            stopped = _until_done(learner, options, keeper, display, interrupts)
        except KeyboardInterrupt:
            if folder is not None and learner.history:
                report_at_end(folder)
            raise
        if folder is not None:
            report_at_end(folder)
    return Run(
        folder,
        config,
        learner.history,
        stopped=stopped,
        best_policy=keeper.best_policy(),
    )


def _until_done(
    learner: Learner,
    options: RunOptions,
    keeper: Keeper,
    display: Progress,
    interrupts: Interrupts,
) -> str | None:
    """Update after update; returns why the run ended before it was done, if it did."""
    state = RunState(learner, options.out)
    state.stopped = keeper.reached(options.stop_at) or keeper.stalled(options.patience)
    saved_at = time.monotonic()
    while learner.done() < 1 and state.stopped is None:
        number = len(learner.history) + 1
        with _saved_first(
            keeper, f"while the batch of update {number} was collected (seed {learner.seed})"
        ):
            collected = learner.collect()
        with _told(keeper, number):
            row = learner.update(collected)
        if options.evaluate_every and number % options.evaluate_every == 0:
            with _saved_first(keeper, f"in the evaluation after update {number}"):
                row.update(learner.evaluate())
        for callback in options.callbacks:
            with _saved_first(keeper, f"in the callback {name_of(callback)} of update {number}"):
                call(callback, state, row)
        state.stopped = (
            state.stopped or keeper.reached(options.stop_at) or keeper.stalled(options.patience)
        )
        keeper.record()
        for tracker in options.track:
            with _saved_first(keeper, f"in {type(tracker).__name__}.log of update {number}"):
                tracker.log(row, row[learner.unit])
        display.update(row)
        due = time.monotonic() - saved_at > options.checkpoint_seconds or interrupts.asked
        if keeper.after_update(due):
            saved_at = time.monotonic()
        interrupts.raise_if_asked()
    keeper.at_end()
    return state.stopped


@contextmanager
def _closed(tracker: Tracker) -> Iterator[None]:
    """Close a tracker after the block; what it raises then does not hide what went wrong before."""
    try:
        yield
    except BaseException as error:
        try:
            tracker.close()
        except Exception as late:
            error.add_note(f"{type(tracker).__name__}.close raised {late!r}, too.")
        raise
    try:
        tracker.close()
    except Exception as error:
        error.add_note(f"Raised in {type(tracker).__name__}.close, after the run was saved.")
        raise


@contextmanager
def _told(keeper: Keeper, number: int) -> Iterator[None]:
    """Note where an exception came from that may leave an update half done, which is not saved."""
    try:
        yield
    except Exception as error:
        saved = "nothing is written" if keeper.folder is None else "the last checkpoint stays"
        error.add_note(f"Raised as update {number} was learned from; {saved}.")
        raise


@contextmanager
def _saved_first(keeper: Keeper, where: str) -> Iterator[None]:
    """Save a checkpoint before an exception leaves the block, and note where it came from."""
    try:
        yield
    except BaseException as error:
        lost = "nothing is written" if keeper.folder is None else f"{keeper.folder} is saved"
        try:
            keeper.save()
        except (InputError, OSError) as unsaved:  # which must not hide what went wrong first
            lost = f"nothing more was saved ({unsaved})"
        if isinstance(error, Exception):
            updates = len(keeper.learner.history)
            error.add_note(f"Raised {where}; {lost}, with {updates} updates.")
        raise
