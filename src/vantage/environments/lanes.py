"""Lanes of one environment in one process, at the cost of the environment."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from multiprocessing import connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from vantage.environments.spaces import batched
from vantage.errors import InputError, refuse_unless
from vantage.runs.limits import Overdue


class End(NamedTuple):
    """A lane whose episode ended, whether at an end of its own, and its last observation."""

    lane: int
    terminated: bool
    observation: object


class Lanes(SyncVectorEnv):
    """Gymnasium's synchronous vector environment with a `play` in place of its `step`.

    Nothing is read of `info`, and nothing gathered lane by lane but observations and rewards: with
    few lanes that costs more than many an environment. Episodes that end start anew in the same
    step.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        # what `spaces.observation_reader` can read off a list
        self._listed = isinstance(self.single_observation_space, Box | Discrete)
        self._copied: Callable[[Any], Any] = _array if self._listed else _copy

    def play(
        self, actions: np.ndarray, waiting: np.ndarray | None = None
    ) -> tuple[Any, list[float], list[End]]:
        """Act in every lane: a batch of observations, to be copied, rewards, and who ended.

        Args:
            actions: [lanes, ...].
            waiting: [lanes] True where a lane is left as it is; None: nowhere.
        """
        observations: Any = self._env_obs
        rewards: list[float] = []
        ends: list[End] = []
        lane = 0
        try:
            for lane, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
                if waiting is not None and waiting[lane]:
                    rewards.append(0.0)
                    continue
                shown, reward, terminated, truncated, _ = env.step(action)
                # copies: lanes may write into one array, and a reset into that of the step before
                observations[lane] = self._copied(shown)
                rewards.append(number(reward))
                terminal = flag(terminated, "terminated")
                if flag(truncated, "truncated") or terminal:
                    ends.append(End(lane, terminal, observations[lane]))
                    shown, _ = env.reset()
                    observations[lane] = self._copied(shown)
        except (Exception, Overdue) as error:
            error.add_note(f"This was in lane {lane}, whose action was {actions[lane]}.")
            raise
        return self.batch(observations), rewards, ends

    def batch(self, observations: list[object]) -> object:
        """Observations of lanes, as `spaces.observation_reader` takes them."""
        return (
            observations if self._listed else batched(self.single_observation_space, observations)
        )


def worker_death(vector: AsyncVectorEnv, name: str) -> InputError:
    """What to say of lanes whose processes died; ends those of the others.

    Args:
        vector: whose pipes have broken.
        name: the name of the environment.
    """
    ending = connection.wait([process.sentinel for process in vector.processes], timeout=1)
    for process in vector.processes:
        process.join(timeout=1 if process.sentinel in ending else 0)
    codes = {lane: process.exitcode for lane, process in enumerate(vector.processes)}
    dead = {lane: code for lane, code in codes.items() if code is not None}
    _end_processes(vector)
    lanes = ", ".join(f"lane {lane} with exit code {code}" for lane, code in dead.items())
    return InputError(
        f"Processes of {name} died: {lanes or 'none of those that ended says how'}. A negative "
        "code is a signal: -9 often means that memory ran out; take fewer lanes. To see what the "
        "environment does, step it here: vectorization_mode='sync'."
    )


def silent_lanes(vector: Any) -> str:
    """Which lanes have processes that have not answered, to read; ends all of them.

    Args:
        vector: that was interrupted while it waited; "" where its lanes have no processes.
    """
    vector = getattr(vector, "unwrapped", vector)
    if not isinstance(vector, AsyncVectorEnv):
        return ""
    pipes = enumerate(vector.parent_pipes)
    silent = [str(lane) for lane, pipe in pipes if not pipe.poll()]
    _end_processes(vector)
    return f"No answer from lane{'s' * (len(silent) > 1)} {', '.join(silent)}." if silent else ""


def _end_processes(vector: AsyncVectorEnv) -> None:
    for process, pipe in zip(vector.processes, vector.parent_pipes, strict=True):
        process.terminate()
        pipe.close()
    vector.closed = True  # nothing is left that could be asked to end


def refuse_complex(shown: object) -> None:
    """Refuse an observation of complex numbers, whose imaginary parts would be dropped.

    Raises:
        InputError: it is one, or holds one.
    """
    if isinstance(shown, Mapping | list | tuple):
        for part in shown.values() if isinstance(shown, Mapping) else shown:
            refuse_complex(part)
    elif _complex(shown):
        raise InputError(
            f"The environment shows {str(shown)[:80]}, complex numbers; an observation is of real "
            "ones: show real and imaginary parts side by side."
        )


def _complex(value: object) -> bool:
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind == "c" or isinstance(value, complex)


def _array(shown: object) -> np.ndarray:
    array = np.array(shown)
    if array.dtype.kind == "c":
        refuse_complex(array)
    return array


def _copy(shown: object) -> object:
    refuse_complex(shown)
    return deepcopy(shown)


class RealNumbers(gymnasium.Wrapper):
    """Refuses observations and rewards that are no real numbers, in the process of its lane.

    Between processes they are written into arrays of real numbers, which keep no trace.
    """

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment does."""
        shown, info = self.env.reset(**settings)
        refuse_complex(shown)
        return shown, info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment does, its reward as a number."""
        shown, reward, *ends, info = self.env.step(action)
        refuse_complex(shown)
        return shown, number(reward), *ends, info


def number(reward: Any) -> float:
    """A reward as a number, whether it came as one or as an array of one.

    Raises:
        InputError: it is not one number.
    """
    try:
        # NumPy makes a number of a complex one, and a warning
        if not isinstance(reward, str) and not _complex(reward):
            return float(reward)
    except (TypeError, ValueError):
        pass
    alone = np.asarray(reward)
    refuse_unless(
        alone.size == 1 and alone.dtype.kind in "biuf",
        f"The environment returned the reward {str(reward)[:80]!r}; a reward is one number.",
    )
    return float(alone.item())


def flag(value: Any, name: str) -> bool:
    """`terminated` or `truncated` as a bool.

    Raises:
        InputError: it is neither true nor false, such as None or a word.
    """
    if value is True or value is False:
        return value
    alone = np.asarray(value)
    refuse_unless(
        alone.size == 1 and alone.dtype.kind in "biuf" and alone.item() in (0, 1),
        f"The environment returned {name}={str(value)[:80]!r}; it is True or False.",
    )
    return bool(alone.item())
