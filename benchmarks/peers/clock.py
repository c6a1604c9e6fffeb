"""What every trainer's script shares: settings come in, one line of JSON goes out.

Standard library only, because it runs in the interpreter of every peer.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

EPISODES = 100  # that a return counted as reached is the mean of


def settings() -> SimpleNamespace:
    """The settings of this measurement: the script's only argument, as JSON."""
    return SimpleNamespace(**json.loads(sys.argv[1]))


def say(**figures: Any) -> None:
    """Give the result back, on a line of its own."""
    print("\n" + json.dumps(figures), flush=True)


class Clock:
    """Times one part of a process, and the whole of it from its start.

    Args:
        started: `time.time()` of the moment before the process was started.
    """

    def __init__(self, started: float):
        self.started = started

    def begin(self) -> None:
        """Warm-up is over."""
        self.startup = time.time() - self.started
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def end(self, steps: int) -> None:
        """`steps` environment steps were taken since `begin`."""
        seconds, cpu_seconds = time.perf_counter() - self.wall, time.process_time() - self.cpu
        say(
            steps=steps,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            startup=self.startup,
            total_seconds=time.time() - self.started,
        )


class Solved(Exception):  # noqa: N818, it is good news
    """The mean return of the last 100 training episodes is what was asked for."""


class Returns:
    """Watches the returns of training episodes.

    Args:
        target: mean return of the last 100 episodes that ends the run.
        started: `time.time()` of the moment before the process was started.
    """

    def __init__(self, target: float, started: float):
        self.target, self.started = target, started
        self.recent: deque[float] = deque(maxlen=EPISODES)

    def add(self, returns: Iterable[float], steps: int) -> None:
        """Take in episodes in the order in which they ended, `steps` environment steps into a run.

        Raises:
            Solved: after its line of JSON was given back.
        """
        for value in returns:
            self.recent.append(float(value))
            if len(self.recent) == EPISODES and self.mean >= self.target:
                self.report(steps, solved=True)
                raise Solved

    @property
    def mean(self) -> float:
        """Mean return so far, of the last 100 episodes."""
        return sum(self.recent) / max(1, len(self.recent))

    def report(self, steps: int, solved: bool) -> None:
        """How long it took, from the start of the process."""
        seconds, cpu_seconds = time.time() - self.started, time.process_time()
        figures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "steps": steps}
        say(solved=solved, **figures, mean_return=self.mean)


def timed(given: SimpleNamespace, batch: int, update: Callable[[], object]) -> None:
    """Time updates of `batch` steps each after a warm-up."""
    clock = Clock(given.started)
    for _ in range(given.warmup):
        update()
    clock.begin()
    for _ in range(given.updates):
        update()
    clock.end(given.updates * batch)


def solved(given: SimpleNamespace, batch: int, update: Callable[[], Iterable[float]]) -> None:
    """Update until the target is reached; an update gives the returns of episodes that ended."""
    returns, steps = Returns(given.target, given.started), 0
    while steps < given.steps:
        steps += batch
        try:
            returns.add(update(), steps)
        except Solved:
            return
    returns.report(steps, solved=False)
