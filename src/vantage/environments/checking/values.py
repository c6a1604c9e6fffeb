"""What single numbers in a trace say: forms, types, bounds, ids, NaN, rewards, flags, memory."""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vantage.environments import fitted
from vantage.environments.checking.record import Finding, Severity
from vantage.environments.checking.traces import MalformedError, Moment, Trace, shown_short
from vantage.environments.spaces import Leaf, action_writer, observation_reader, parts
from vantage.errors import InputError

SLACK = 1e-6  # of a bound, relative: rounding of float32
LARGEST = 1e9  # of a reward, before it is remarked on
WIDE = 10.0  # times a Gaussian's first deviation that a range of actions may be, either way
STEPS_APART = 100  # of float32 that the range of an observation should span


def judge(trace: Trace, observations: gymnasium.Space, name: str) -> list[Finding]:
    """Everything that the numbers of one trace show to be wrong, by itself."""
    findings = [*_failures(trace), *(_shape(words) for words in trace.shapes)]
    if trace.moments:
        findings += _observations(trace, observations, name)
        findings += _rewards(trace.steps)
        findings += _flags(trace.steps)
    return [*findings, *_memory(trace)]


def judge_spaces(observations: Any, actions: Any, name: str) -> Iterator[Finding]:
    """Whether policies can act between two spaces, and whether they start at their scale."""
    try:
        observation_reader(observations, name)
        action_writer(actions, getattr(actions, "dtype", None), name)
        fitted.policy(observations, actions, hidden=())
    except InputError as error:
        yield Finding("error", "spaces", str(error))
        return
    if isinstance(actions, spaces.Box) and np.isfinite([actions.low, actions.high]).all():
        half = (actions.high.astype(np.float64) - actions.low) / 2
        middle = (actions.high.astype(np.float64) + actions.low) / 2
        odd = (half > WIDE) | (half < 1 / WIDE) | (np.abs(middle) > WIDE * half)
        if odd.any():
            at = tuple(int(i) for i in np.argwhere(odd)[0])
            yield Finding(
                "note",
                "spaces",
                f"element {list(at)} of an action lies in [{actions.low[at]:.4g}, "
                f"{actions.high[at]:.4g}], and a Gaussian policy starts at 0 with σ = 1.",
                "policy(squash=True) acts at the scale of the bounds; so does "
                "gymnasium.wrappers.RescaleAction(env, -1, 1).",
            )


def _failures(trace: Trace) -> Iterator[Finding]:
    if trace.failure is None:
        return
    step, error = trace.failure
    if isinstance(error, MalformedError):
        remedy = "return what gymnasium.Env documents; shimmy wraps environments of older APIs."
        yield Finding("error", "interface", f"{error}.", remedy)
        return
    where = f"in step {step}" if trace.moments else "in reset"
    fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    remedy = "every action of action_space must be possible, or masked by info['action_mask']."
    if not trace.moments:
        remedy = "reset(seed=..., options=...) must work with a seed and without one."
    yield Finding("error", "runs", f"{where} it raised {shown_short(fault, 200)}.", remedy)


def _shape(words: str) -> Finding:
    return Finding("warning", "interface", f"{words}.", "return a dict, {} where there is nothing.")


def _observations(trace: Trace, space: gymnasium.Space, name: str) -> Iterator[Finding]:
    for part in parts(space, name):
        where = "".join(f"[{key!r}]" for key in part.path)
        values, missing = [], None
        for moment in trace.moments:
            try:
                value = moment.observation
                for key in part.path:
                    value = value[key]
                values.append(np.asarray(value))
            except (KeyError, IndexError, TypeError, ValueError):
                missing = moment.observation
                break
        wanted = part.space.shape or ()
        odd = next((v for v in values if v.shape != wanted or v.dtype.kind not in "biuf"), None)
        if missing is not None:
            yield Finding(
                "error",
                "observation shape",
                f"the observation {shown_short(missing)} has no{where or ' such element'}, which "
                f"observation_space = {shown_short(space)} promises.",
                "return every part of the space, nested as it is.",
            )
        elif odd is not None:
            yield Finding(
                "error",
                "observation shape",
                f"an observation{where} has shape {odd.shape} and dtype {odd.dtype}; "
                f"observation_space says {wanted} and {part.space.dtype}.",
                "declare the shape that is returned, or reshape the observation to it.",
            )
        else:
            yield from _leaf(part.space, np.stack(values), trace.moments, where)


def _leaf(space: Leaf, values: np.ndarray, moments: list[Moment], where: str) -> Iterator[Finding]:
    """What the values [M, *shape] of one leaf show."""
    broken = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if broken.any():
        at = int(np.flatnonzero(broken)[0])
        only = all(moments[i].ends for i in np.flatnonzero(broken))
        yield Finding(
            "error",
            "finite",
            f"{int(broken.sum())} of {len(values)} observations{where} hold NaN or infinity, first "
            f"{_place(moments, at)}"
            + (" (only in observations that end an episode, which V is asked for)." * only or "."),
            "end the episode before the state leaves what can be shown, or bound the quantity.",
        )
        values = values[~broken]
        moments = [m for m, bad in zip(moments, broken, strict=True) if not bad]
    if not len(values):
        return
    if isinstance(space, spaces.Box):
        yield from _bounds(space, values, moments, where)
        yield from _precision(values, where)
    else:
        yield from _ids(space, values, moments, where)
    if values.dtype.kind == "f" and space.dtype is not None and space.dtype.kind in "iu":
        yield _dtype(values, space, where)


def _dtype(values: np.ndarray, space: Leaf, where: str) -> Finding:
    return Finding(
        "warning",
        "dtype",
        f"observations{where} are {values.dtype}; observation_space says {space.dtype}.",
        f"return np.asarray(observation, np.{space.dtype}).",
    )


def _bounds(
    space: spaces.Box, values: np.ndarray, moments: list[Moment], where: str
) -> Iterator[Finding]:
    low, high = (np.asarray(b, np.float64) for b in (space.low, space.high))
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        over = np.maximum(low - wide, wide - high)
        slack = SLACK * np.maximum(1, np.where(wide < low, np.abs(low), np.abs(high)))
    outside = over > np.where(np.isfinite(slack), slack, 0)
    if not outside.any():
        return
    steps = outside.reshape(len(values), -1).any(1)
    worst = np.unravel_index(np.argmax(np.where(outside, over, -np.inf)), over.shape)
    element = tuple(int(i) for i in worst[1:])
    yield Finding(
        "warning",
        "bounds",
        f"{int(steps.sum())} of {len(values)} observations{where} leave their bounds, farthest "
        f"{_place(moments, int(worst[0]))}: element {list(element)} is {float(wide[worst]):.6g}, "
        f"allowed is [{low[element]:.6g}, {high[element]:.6g}].",
        "clip the observation or widen observation_space; networks that scale by the bounds, as "
        "with pictures, rely on them.",
    )


def _precision(values: np.ndarray, where: str) -> Iterator[Finding]:
    """Numbers that float32, which policies read, cannot tell apart."""
    wide = values.astype(np.float64).reshape(len(values), -1)
    spread = wide.max(0) - wide.min(0)
    size = np.minimum(np.abs(wide).max(0), np.finfo(np.float32).max)
    spacing = np.spacing(size.astype(np.float32)).astype(np.float64)
    coarse = (spread > 0) & (spread < STEPS_APART * spacing) & (size > 1)
    for element in np.flatnonzero(coarse)[:1]:
        yield Finding(
            "warning",
            "precision",
            f"element {element} of observations{where} varies by {spread[element]:.3g} around "
            f"{wide[:, element].mean():.6g}, where float32 has steps of {spacing[element]:.3g}: "
            "a policy can hardly tell its values apart.",
            "subtract a constant from it in the environment, before it becomes float32.",
        )


def _ids(
    space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
    values: np.ndarray,
    moments: list[Moment],
    where: str,
) -> Iterator[Finding]:
    if isinstance(space, spaces.MultiBinary):
        first, count = np.zeros(space.shape), np.full(space.shape, 2)
    else:
        first = np.asarray(space.start)
        count = np.asarray(space.n if isinstance(space, spaces.Discrete) else space.nvec)
    outside = (values < first) | (values >= first + count) | (values != np.floor(values))
    if not outside.any():
        return
    at = np.argwhere(outside)[0]
    element = tuple(int(i) for i in at[1:])
    yield Finding(
        "error",
        "ids",
        f"{int(outside.reshape(len(values), -1).any(1).sum())} of {len(values)} observations{where}"
        f" hold ids that do not exist, first {_place(moments, int(at[0]))}: {values[tuple(at)]}"
        f"{f' in element {list(element)}' if element else ''}, possible are {first[element]} to "
        f"{(first + count - 1)[element]}.",
        "count ids from where the space starts, and make the space as large as there are ids.",
    )


def _rewards(steps: list[Moment]) -> Iterator[Finding]:
    numbers = []
    for number, moment in enumerate(steps, 1):
        reward = moment.reward
        try:
            array = np.asarray(reward)
        except ValueError:  # a ragged list
            array = np.empty(0, object)
        if array.size != 1 or array.dtype.kind not in "biuf":
            yield Finding(
                "error",
                "reward",
                f"the reward of step {number} is {shown_short(reward)} of type "
                f"{type(reward).__name__}, not one number.",
                "return float(reward); several objectives must be weighed into one.",
            )
            return
        if array.shape:
            yield Finding(
                "warning",
                "reward",
                f"rewards are arrays of shape {array.shape}; a reward is one number.",
                "return float(reward), or reward.item().",
            )
            yield from _magnitudes([float(np.asarray(m.reward).flat[0]) for m in steps[:number]])
            return
        numbers.append(float(array))
    yield from _magnitudes(numbers)


def _magnitudes(rewards: list[float]) -> Iterator[Finding]:
    for step, reward in enumerate(rewards, 1):
        if not abs(reward) <= np.finfo(np.float32).max:
            beyond = ", which float32 cannot hold" if math.isfinite(reward) else ""
            yield Finding(
                "error",
                "reward",
                f"the reward of step {step} is {reward}{beyond}.",
                "mend the environment, or end the episode before it; scale rewards to about 1.",
            )
            return
    largest = max((abs(reward) for reward in rewards), default=0.0)
    if largest > LARGEST:
        yield Finding(
            "warning",
            "reward",
            f"rewards are as large as {largest:.3g}: their squares, and gradients, overflow or "
            "drown all else.",
            "divide rewards by a constant that brings them to about 1, or train with "
            "normalise=True.",
        )


def _flags(steps: list[Moment]) -> Iterator[Finding]:
    for what in ("terminated", "truncated"):
        kinds: dict[str, tuple[Severity, Any]] = {}
        for moment in steps:
            flag = getattr(moment, what)
            if isinstance(flag, bool | np.bool_):
                continue
            array = np.asarray(flag)
            fits = array.size == 1 and array.dtype.kind in "biuf" and array.flat[0] in (0, 1)
            kinds.setdefault(type(flag).__name__, ("warning" if fits else "error", flag))
        for kind, (severity, flag) in kinds.items():
            yield Finding(
                severity,
                "flags",
                f"{what} is {shown_short(flag)} of type {kind}, not a bool.",
                f"return bool({what}).",
            )


def _memory(trace: Trace) -> Iterator[Finding]:
    taken = len(trace.steps)
    if trace.overwritten:
        yield Finding(
            "warning",
            "buffers",
            f"observations that had been returned were written to in {len(trace.overwritten)} of "
            f"{taken} steps, first in step {trace.overwritten[0] + 1}. Vantage keeps copies; code "
            "that keeps the array has the latest observation everywhere.",
            "return a new array, observation.copy().",
        )
    if trace.changed_actions:
        yield Finding(
            "warning",
            "buffers",
            f"actions it had been given were written to in {len(trace.changed_actions)} of {taken} "
            f"steps, first in step {trace.changed_actions[0] + 1}. Vantage hands out copies; code "
            "that stores the array learns from actions that nobody took.",
            "work on a copy: action = np.array(action).",
        )


def _place(moments: list[Moment], index: int) -> str:
    taken = sum(not moment.starts for moment in moments[: index + 1])
    if moments[index].starts:
        return f"at the reset after {taken} steps"
    return f"in step {taken}" + (", which ended the episode" if moments[index].ends else "")
