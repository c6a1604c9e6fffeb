"""Processes that do jobs: each starts afresh, does one job after another, and may fail alone.

`concurrent.futures` has a pool of processes, but one worker that is killed, for want of memory say,
breaks the whole of it.
"""

import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import torch

from vantage.errors import InputError, refuse_unless

READY, DONE, FAILED = "ready", "done", "failed"
POLL_SECONDS = 0.5
MOST_DEATHS = 3
PATIENCE_SECONDS = 30.0  # for a run to finish its update and save, when all is stopped

Progress = Callable[[Sequence[Any], Sequence["Outcome"]], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: which.
        result: what the function returned; None where it failed.
        error: what went wrong in a line; None where nothing did.
        trace: the worker's traceback, where there is one.
    """

    job: Any
    result: Any = None
    error: str | None = None
    trace: str = ""


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    job: object = None
    ready: bool = False


def run_all(
    function: Callable[[Any], object], jobs: Sequence[object], workers: int, progress: Progress
) -> list[Outcome]:
    """Do every job in `workers` processes; one that raises or dies loses that job only.

    Args:
        function: importable; takes a job, returns what can be pickled.
        jobs: picklable.
        workers: processes at one time.
        progress: called with the jobs at hand and the outcomes so far, twice a second.

    Returns:
        Outcomes in the order in which jobs ended.

    Raises:
        InputError: workers < 1, or they cannot start because the calling script starts again in
            each.
        KeyboardInterrupt: after every worker has saved and ended.
    """
    refuse_unless(workers >= 1, f"workers={workers}: there must be one at least.")
    refuse_to_start_again()
    waiting, outcomes = deque(jobs), list[Outcome]()
    crew = [_start(function) for _ in range(min(workers, len(jobs)))]
    deaths = 0  # of workers in a row that had not begun
    try:
        while crew:
            for pipe in connection.wait([worker.pipe for worker in crew], POLL_SECONDS):
                worker = next(worker for worker in crew if worker.pipe is pipe)
                alive = _listen(worker, outcomes)
                deaths = 0 if worker.ready else deaths + 1
                if not worker.ready:
                    _refuse_deaths_before_beginning(worker, deaths)
                if alive and waiting:
                    worker.job = waiting.popleft()
                    with suppress(OSError):  # it has just died: the next look finds that out
                        worker.pipe.send(worker.job)
                    continue
                worker.pipe.close()  # tells a worker that waits to end
                crew.remove(worker)
                if waiting:
                    crew.append(_start(function))
            progress([worker.job for worker in crew if worker.job is not None], outcomes)
    finally:
        _stop(crew)
    return outcomes


def refuse_to_start_again() -> None:
    """Refuse to run where a worker is only just importing the script that started it.

    Raises:
        InputError: saying how the script is mended.
    """
    beginning = getattr(multiprocessing.process.current_process(), "_inheriting", False)
    refuse_unless(
        not beginning,
        'compare: put the call under `if __name__ == "__main__":`; every worker imports the script '
        "and would start the comparison again.",
    )


def _start(function: Callable[[object], object]) -> _Worker:
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(there, function), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _listen(worker: _Worker, outcomes: list[Outcome]) -> bool:
    """Take in what a worker said; False where it has died."""
    try:
        message, *rest = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        if worker.ready:
            outcomes.append(Outcome(worker.job, error=f"its process {_death(code)}"))
        worker.job = None
        return False
    if message == READY:
        worker.ready = True
        return True
    outcomes.append(
        Outcome(worker.job, result=rest[0])
        if message == DONE
        else Outcome(worker.job, error=rest[0], trace=rest[1])
    )
    worker.job = None
    return True


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by signal {-code}; if memory ran out, use fewer workers"


def _refuse_deaths_before_beginning(worker: _Worker, deaths: int) -> None:
    """A worker that ends as it starts has lost no job: another is started, within reason.

    One that is killed may have been unlucky; one that ends by itself would do so again.

    Raises:
        InputError: it ended by itself, or is one of several that were killed, saying how.
    """
    code = worker.process.exitcode
    refuse_unless(
        code < 0,
        f"compare: a worker ended with exit code {code} before it began; its own message stands "
        'above. In a script, call compare under `if __name__ == "__main__":`.',
    )
    refuse_unless(
        deaths < MOST_DEATHS,
        f"compare: {deaths} workers in a row died before they began a run; the last {_death(code)}."
        " Runs that are done are kept: the same command carries on from them.",
    )


def _stop(crew: list[_Worker]) -> None:
    """Ask every worker to save and end (SIGTERM), and wait; then insist."""
    for worker in crew:
        worker.process.terminate()
    for worker in crew:
        worker.process.join(PATIENCE_SECONDS)
        worker.process.kill()
        worker.process.join()


# ---- in the worker -----------------------------------------------------------------------------


def _serve(pipe: connection.Connection, function: Callable[[object], object]) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the comparison alone, which then asks its workers to save
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    pipe.send((READY,))
    while True:
        try:
            job = pipe.recv()
            pipe.send((DONE, function(job)))
        except (EOFError, KeyboardInterrupt):
            return
        except Exception as error:  # whatever it is, the other jobs go on
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            pipe.send((FAILED, f"{kind}{error}", traceback.format_exc()))


def _end_with_parent() -> None:
    """Two processes must never write to one run: a comparison carried on finds the old one gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
