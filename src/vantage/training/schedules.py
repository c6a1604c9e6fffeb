"""Learning-rate schedules: how much of the run is behind us, from 0 to 1, to a factor of the rate.

Any function of that kind will do: `vt.train(..., schedule=lambda done: 0.5 ** (10 * done))`.
"""

import difflib
import math
from collections.abc import Callable
from typing import Literal

from vantage.errors import refuse_unless

Schedule = Callable[[float], float]
Name = Literal["constant", "linear", "cosine"]


def constant(done: float) -> float:
    """Always 1."""
    return 1.0


def linear(done: float) -> float:
    """From 1 down to 0 in a straight line: the annealing of PPO's published settings.

    >>> linear(0.25)
    0.75
    """
    return 1.0 - done


def cosine(done: float) -> float:
    """From 1 down to 0 along half a cosine (Loshchilov & Hutter 2017).

    >>> round(cosine(0.5), 3)
    0.5
    """
    return 0.5 * (1 + math.cos(math.pi * done))


TABLE: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}


def named(schedule: Schedule | str) -> Schedule:
    """The schedule of that name; a function is its own.

    Raises:
        InputError: no such schedule, with near matches.

    >>> named("linear") is linear
    True
    """
    if not isinstance(schedule, str):
        return schedule
    near = difflib.get_close_matches(schedule, TABLE, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TABLE)}."
    refuse_unless(schedule in TABLE, f"No schedule is called {schedule!r}; {hint}")
    return TABLE[schedule]


def warmed_up(schedule: Schedule, update: int, updates: int, warmup: int) -> float:
    """The factor of an update, from 0, of so many: a ramp over `warmup`, then the schedule.

    >>> [warmed_up(linear, update, 5, 1) for update in range(5)]
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if update < warmup:
        return (update + 1) / warmup
    return schedule((update - warmup) / max(1, updates - warmup))


def name_of(schedule: Schedule) -> str:
    """How config.json calls a schedule."""
    return getattr(schedule, "__name__", repr(schedule))
