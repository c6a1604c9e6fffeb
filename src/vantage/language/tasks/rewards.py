"""Reward functions: called with what their signature asks for, checked, weighted, added up.

The convention is TRL's: `def reward(completions, **columns) -> list[float | None]`. `prompts`,
`completion_ids` and every column of the data but the prompt arrive by name, and so does what
`reward_logs` offers.
"""

import asyncio
import difflib
import inspect
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vantage.errors import InputError, refuse_unless
from vantage.language.tasks.reward_logs import LOGGING, Logs
from vantage.runs.files import named_in_file
from vantage.runs.limits import Overdue, TimeLimit, time_limit

RewardFunction = Callable[..., object]
REWARD_TIMEOUT = 600.0  # seconds: judges that are models themselves take minutes
GIVEN = ("prompts", "completions", "completion_ids", *LOGGING)


class RewardError(InputError):
    """A reward function failed. The message names the function, the row and the completion."""


class Rewards(NamedTuple):
    """Rewards of N completions.

    Attributes:
        total: [N] weighted sum over the functions that could score the completion; 0 where none
            could.
        scorable: [N] whether any function could. One that none could is no part of a group.
        parts: name of a function -> [N] its own rewards, before its weight; NaN where it said None.
        metrics: what functions logged by `log_metric`: name -> values, in the order of the calls.
        extra: what they logged by `log_extra`: column -> [N] values.
    """

    total: Float[Tensor, " N"]
    scorable: Bool[Tensor, " N"]
    parts: dict[str, Float[Tensor, " N"]]
    metrics: Mapping[str, list[float]] = MappingProxyType({})
    extra: Mapping[str, list[object]] = MappingProxyType({})


class Scorers(NamedTuple):
    """Reward functions by name, and the weight of each."""

    functions: dict[str, RewardFunction]
    weights: tuple[float, ...]


def scorers(
    reward: RewardFunction | Sequence[RewardFunction],
    weights: Sequence[float] | None,
    columns: Sequence[str],
) -> Scorers:
    """Name the functions and check, before anything is generated, that they can be called.

    Raises:
        InputError: not a function, a parameter that is no column, or weights that do not fit.
    """
    functions = [reward] if callable(reward) else list(reward)
    refuse_unless(functions, "Task(reward=[]): give at least one reward function.")
    named: dict[str, RewardFunction] = {}
    for function in functions:
        refuse_unless(
            callable(function),
            f"Task(reward={function!r}): a reward is a function (completions, **columns) -> list "
            "of numbers, or a list of such functions.",
        )
        name = _name(function)
        copies = sum(other.partition("#")[0] == name for other in named)
        name = f"{name}#{copies + 1}" if copies else name
        named[name] = function
        _refuse_unknown_parameters(name, function, columns)
        for column in getattr(function, "reads", ()):
            refuse_unless(
                column in columns,
                f"Reward {name!r} reads the column {column!r}, and the data has "
                f"{', '.join(columns) or 'none but the prompt'}; say which it is, with answer=.",
            )
    shares = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(named)
    refuse_unless(
        len(shares) == len(named) and all(math.isfinite(share) for share in shares),
        f"Task(weights={weights!r}): give one finite number for each of the {len(named)} reward "
        f"functions ({', '.join(named)}).",
    )
    return Scorers(named, shares)


def score(
    scoring: Scorers,
    arguments: dict[str, list[object]],
    labels: Sequence[str],
    seconds: float | None = None,
    state: Any = None,
) -> Rewards:
    """Rewards of N completions. Asynchronous functions run at the same time.

    Args:
        scoring: the functions.
        arguments: lists of N by name: prompts, completions, completion_ids, and the columns.
        labels: N names of the completions' rows, for messages.
        seconds: that it may take; None: any.
        state: how far training is, a `TrainerState`; None: not begun.

    Raises:
        RewardError: a function raised (the exception is its cause), took too long, or returned
            what is no list of N numbers or Nones.
    """
    logs = Logs()
    functions = {
        name: logs.offered(name, function, state) for name, function in scoring.functions.items()
    }
    results = _within(seconds, functions, arguments, labels)
    parts = {
        name: _checked(name, result, arguments["completions"], labels)
        for name, result in results.items()
    }
    stacked = torch.stack(list(parts.values()))
    weights = torch.tensor(scoring.weights, dtype=torch.float64)[:, None]
    missing = stacked.isnan()
    total = torch.where(missing, 0, weights * stacked).sum(0)
    logs.check(len(labels))
    return Rewards(total, ~missing.all(0), parts, logs.metrics, logs.extra)


def load_reward(spec: str) -> RewardFunction:
    """The function that `my_rewards.py:score` names. The file is run.

    Raises:
        InputError: no such file or function, or the file cannot be run.
    """
    function = named_in_file(spec, "Reward", "my_rewards.py:score")
    if not callable(function):
        raise InputError(f"Reward {spec!r}: it is {function!r}, which is no function.")
    return function


def names_parameter(function: RewardFunction, name: str) -> bool:
    """Whether the signature has a parameter of that name."""
    return name in inspect.signature(function).parameters


def _name(function: RewardFunction) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _refuse_unknown_parameters(name: str, function: RewardFunction, columns: Sequence[str]) -> None:
    known = [*GIVEN, *columns]
    for parameter in inspect.signature(function).parameters.values():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        needed = parameter.default is parameter.empty
        near = difflib.get_close_matches(parameter.name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        refuse_unless(
            not (needed and (positional or (by_name and parameter.name not in known))),
            f"Reward {name!r} takes {parameter.name!r}, which is no column of the data; {hint}",
        )


def _asked_for(
    function: RewardFunction, arguments: dict[str, list[object]]
) -> dict[str, list[object]]:
    """The arguments that the signature takes, in lists of the function's own."""
    parameters = inspect.signature(function).parameters
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: list(v) for k, v in arguments.items() if everything or k in parameters}


def _within(
    seconds: float | None,
    functions: dict[str, RewardFunction],
    arguments: dict[str, list[object]],
    labels: Sequence[str],
) -> dict[str, object]:
    """What the functions return, of which an interruption stops the one that takes too long."""
    running: list[str] = []  # what is waited for
    with time_limit(seconds) as limit:
        try:
            with limit or nullcontext():
                return _call_all(functions, arguments, labels, running)
        except Overdue:
            assert seconds is not None
            raise RewardError(
                f"Reward {' and '.join(map(repr, running))} had not returned after {seconds:g} s "
                f"(reward_timeout={seconds:g}) on {len(labels)} completions, from {labels[0]} to "
                f"{labels[-1]}. {_slowest(functions[running[0]], arguments, labels, limit)}Mend "
                "the function, or give the task a longer reward_timeout=."
            ) from None


def _slowest(
    function: RewardFunction,
    arguments: dict[str, list[object]],
    labels: Sequence[str],
    limit: TimeLimit | None,
) -> str:
    """Which completion a function that hung hangs on, when they are scored one by one."""
    assert limit is not None
    number = 0
    try:
        with limit:
            for number in range(len(labels)):
                alone = {key: values[number : number + 1] for key, values in arguments.items()}
                result = function(**_asked_for(function, alone))
                if inspect.isawaitable(result):
                    _run_async([result])
    except Overdue:
        return (
            f"One by one, {number} returned, and that of {labels[number]}, completion "
            f"{arguments['completions'][number]!r}, had not after as long again. "
        )
    except Exception as error:
        return f"One by one, that of {labels[number]} raised {error!r}. "
    return "One by one they returned in that time. "


def _call_all(
    functions: dict[str, RewardFunction],
    arguments: dict[str, list[object]],
    labels: Sequence[str],
    running: list[str],
) -> dict[str, object]:
    results: dict[str, object] = {}
    for name, function in functions.items():
        running[:] = [name]
        try:
            results[name] = function(**_asked_for(function, arguments))
        except Exception as error:
            _abandon(results)
            raise _failure(name, function, arguments, labels, error) from error
    waiting = {name: result for name, result in results.items() if inspect.isawaitable(result)}
    if waiting:
        running[:] = waiting
        for name, result in zip(waiting, _run_async(list(waiting.values())), strict=True):
            if isinstance(result, Exception):
                raise _failure(name, functions[name], arguments, labels, result) from result
            results[name] = result
    return results


def _abandon(results: dict[str, object]) -> None:
    """Close coroutines that will not be awaited, which would otherwise warn."""
    for result in results.values():
        if inspect.iscoroutine(result):
            result.close()


def _run_async(waiting: list[Awaitable[object]]) -> list[object]:
    """Results or exceptions, in order. In a thread: a notebook has an event loop of its own."""

    async def together() -> list[object]:
        return await asyncio.gather(*waiting, return_exceptions=True)

    running = asyncio.run_coroutine_threadsafe(together(), _loop(os.getpid()))
    try:
        return running.result()
    finally:
        running.cancel()  # where an interrupt came before the results


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The event loop of a process's rewards: semaphores and clients that they hold belong to it.

    A thread does not live on in a forked process, so that each has a loop of its own.
    """
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop


def _failure(
    name: str,
    function: RewardFunction,
    arguments: dict[str, list[object]],
    labels: Sequence[str],
    error: Exception,
) -> RewardError:
    """Which completion it was: the first that also fails by itself."""
    for number, label in enumerate(labels):
        alone = {key: values[number : number + 1] for key, values in arguments.items()}
        try:
            result = function(**_asked_for(function, alone))
            if inspect.isawaitable(result):
                result = _run_async([result])[0]
        except Exception as again:
            result = again
        if isinstance(result, Exception):
            return RewardError(
                f"Reward {name!r} raised {result!r} at {label}, completion "
                f"{arguments['completions'][number]!r}; mend the function, or return None for "
                "what cannot be scored."
            )
    return RewardError(
        f"Reward {name!r} raised {error!r} on a batch of {len(labels)} completions from "
        f"{labels[0]} on, and on none of them alone; it must take completions in any number."
    )


def _checked(
    name: str, result: Any, completions: Sequence[object], labels: Sequence[str]
) -> Float[Tensor, " N"]:
    """[N] float64, NaN for None."""
    values = result.tolist() if hasattr(result, "tolist") else result
    refuse = partial(_refuse, name)
    if not isinstance(values, list | tuple):
        refuse(f"returned {result!r}; it must return a list with one number per completion.")
    if len(values) != len(completions):
        refuse(
            f"returned {len(values)} rewards for {len(completions)} completions (from {labels[0]} "
            f"to {labels[-1]}); it must return one for each."
        )
    rewards = []
    for value, completion, label in zip(values, completions, labels, strict=True):
        number = value.item() if hasattr(value, "item") else value
        finite = isinstance(number, int | float) and math.isfinite(number)
        if number is not None and not finite:
            refuse(
                f"gave {value!r} at {label}, completion {completion!r}; a reward is a finite "
                "number, or None for what cannot be scored."
            )
        rewards.append(math.nan if number is None else float(number))
    return torch.tensor(rewards, dtype=torch.float64)


def _refuse(name: str, message: str) -> None:
    raise RewardError(f"Reward {name!r} {message}")
