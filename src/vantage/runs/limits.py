"""Time limits on what may hang: a reward function, an environment."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

AGAIN_SECONDS = 0.5  # until what swallowed an interruption is interrupted once more


class Overdue(BaseException):
    """A block took longer than its limit. No `except Exception` of what hangs holds it up."""


class TimeLimit:
    """Raises `Overdue` in a block of the main thread that takes longer than `seconds`.

    Used as a context, again and again. A thread looks at the clock and sends the main thread a
    signal, SIGURG, which is ignored elsewhere and ends a wait in the operating system; SIGALRM
    stays free for rewards that use it. Code that never comes back to Python cannot be interrupted.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.deadline: float | None = None
        self.overdue = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="time limit", daemon=True)

    def __enter__(self) -> "TimeLimit":
        self.overdue = False
        self.deadline = time.monotonic() + self.seconds
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.deadline = None
        if self.overdue and kind is None:  # the block swallowed it and came to an end
            raise Overdue

    def _watch(self) -> None:
        # a block that begins during a wait is not due before that wait is over
        wait = self.seconds
        while not self.ended.wait(wait):
            deadline = self.deadline
            wait = self.seconds if deadline is None else deadline - time.monotonic()
            if deadline is not None and wait <= 0:
                wait = AGAIN_SECONDS
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler; one that comes too late finds no block."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.overdue = True
            raise Overdue


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit | None]:
    """A limit to be used in the block; None where there is none.

    Only the main thread can be interrupted, and not on Windows: there is no limit elsewhere.
    """
    if seconds is None or not _interruptible():
        yield None
        return
    limit = TimeLimit(seconds)
    before: Any = signal.signal(signal.SIGURG, limit.interrupt)
    limit.thread.start()
    try:
        yield limit
    finally:
        limit.ended.set()
        limit.thread.join()
        signal.signal(signal.SIGURG, before)


def _interruptible() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and hasattr(signal, "pthread_kill")
