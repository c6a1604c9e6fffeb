"""Learning-rate schedules: how much of the run is behind us, from 0 to 1, to a factor of the rate.

Any function of that kind will do: `vt.train(..., schedule=lambda done: 0.5 ** (10 * done))`.
"""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


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
