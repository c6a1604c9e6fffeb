"""Traces: what one lane returned under a fixed list of actions, kept as it was returned.

One environment, a lane of a vector environment and a lane behind the one interface are all played
into the same record, so that every judgement is written once.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

HELD = 6  # observations and actions that are watched at a time


@dataclass
class Moment:
    """What one call returned.

    Attributes:
        action: None at a reset.
        observation: a copy, as returned.
        reward, terminated, truncated: as returned; None at a reset.
    """

    action: object
    observation: Any
    reward: object = None
    terminated: object = None
    truncated: object = None

    @property
    def starts(self) -> bool:
        """Whether it is a reset."""
        return self.action is None

    @property
    def ends(self) -> bool:
        """Whether an episode ended with it."""
        return not self.starts and (truth(self.terminated) or truth(self.truncated))


@dataclass
class Trace:
    """One lane under fixed actions.

    Attributes:
        moments: resets and steps, in order.
        overwritten: steps whose observation was written to after it had been returned.
        changed_actions: steps whose action was written to.
        failure: what was raised, with the step at which; None where nothing was.
        shapes: things returned in another form than asked for, in words, first of each kind.
    """

    moments: list[Moment] = field(default_factory=list)
    overwritten: list[int] = field(default_factory=list)
    changed_actions: list[int] = field(default_factory=list)
    failure: tuple[int, Exception] | None = None
    shapes: list[str] = field(default_factory=list)
    taken: int = 0  # steps so far
    ended: int = 0  # episodes so far

    @property
    def steps(self) -> list[Moment]:
        """The moments that are no resets."""
        return [moment for moment in self.moments if not moment.starts]

    def episodes(self) -> list[list[Moment]]:
        """Moments in pieces, each from a reset on; the last may not have ended."""
        pieces: list[list[Moment]] = []
        for moment in self.moments:
            if moment.starts or not pieces:
                pieces.append([])
            pieces[-1].append(moment)
        return pieces

    def lengths(self) -> list[int]:
        """Steps of the episodes that ended."""
        return [len(piece) - 1 for piece in self.episodes() if piece[-1].ends]


def truth(flag: object) -> bool:
    """A flag as a bool, whatever it was returned as; False for what is none."""
    try:
        return bool(np.asarray(flag).any())
    except (TypeError, ValueError):
        return False


def actions_of(space: gymnasium.Space, seed: int) -> Callable[[object], object]:
    """A function from `info` to a random action that is allowed, the same sequence for one seed."""
    copied = copy.deepcopy(space)
    copied.seed(seed)

    def draw(info: object) -> object:
        mask = info.get("action_mask") if isinstance(info, dict) else None
        if mask is not None and isinstance(copied, gymnasium.spaces.Discrete):
            return copied.sample(np.asarray(mask, np.int8))
        return copied.sample()

    return draw


def masks_actions(env: gymnasium.Env, seed: int) -> bool:
    """Whether a reset says which actions are possible."""
    returned: object = env.reset(seed=seed)
    info = returned[-1] if isinstance(returned, tuple) else None
    return isinstance(info, dict) and "action_mask" in info


def play(
    env: gymnasium.Env,
    actions: Callable[[object], object],
    steps: int,
    seed: int | None,
    *,
    episodes: int | None = None,
    after_reset: Callable[[gymnasium.Env], None] = lambda env: None,
    after_step: Callable[[object], None] = lambda observation: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trace:
    """Play one environment: reset with `seed`, step, reset without a seed where an episode ends.

    Args:
        env: reset and stepped as Gymnasium has it.
        actions: from `actions_of`.
        steps: how many at most.
        seed: the seed of the first reset; None: reset without one.
        episodes: stop after so many have ended.
        after_reset: called with the environment after the first reset.
        after_step: called with every observation that was returned, itself and not a copy.
        stop: asked before every step.
    """
    trace = Trace()
    for _ in played(env, actions, seed, trace, after_reset, after_step):
        enough = episodes is not None and trace.ended >= episodes
        if trace.taken >= steps or enough or stop():
            break
    return trace


def played(
    env: gymnasium.Env,
    actions: Callable[[object], object],
    seed: int | None,
    trace: Trace,
    after_reset: Callable[[gymnasium.Env], None] = lambda env: None,
    after_step: Callable[[object], None] = lambda observation: None,
) -> Iterator[None]:
    """`play` a call at a time, into `trace`, so that several lanes can be played in turns."""
    step, ended, first = 0, True, True
    info: object = {}
    # what was handed out lately, with a copy of how it was: it must stay so
    held: deque[tuple[list[int], object, object]] = deque(maxlen=HELD)
    while True:
        try:
            if ended:
                observation, info = _reset(env, seed if first else None, trace)
                if first:
                    after_reset(env)
                moment, first = Moment(None, duplicate(observation)), False
            else:
                action = actions(_told(observation, info))
                given = duplicate(action)
                observation, *rest, info = _step(env, given, trace)
                moment = Moment(action, duplicate(observation), *map(duplicate, rest))
                held.append((trace.changed_actions, given, action))
        except Exception as error:
            trace.failure = (step, error)
            return
        for changed, thing, copied in held:
            if step not in changed and not equal(thing, copied):
                changed.append(step)
        held.append((trace.overwritten, observation, moment.observation))
        step += not moment.starts
        ended = moment.ends
        trace.moments.append(moment)
        trace.taken, trace.ended = step, trace.ended + ended
        after_step(observation)
        yield


def _told(observation: Any, info: object) -> object:
    """`info`, with the mask of actions that an entry of the observation tells."""
    shown = isinstance(observation, dict) and "action_mask" in observation
    if not shown or not isinstance(info, dict):
        return info
    return {**info, "action_mask": observation["action_mask"]}


class MalformedError(Exception):
    """A call returned something that cannot be taken apart."""


def _reset(env: gymnasium.Env, seed: int | None, trace: Trace) -> tuple[object, object]:
    returned = env.reset() if seed is None else env.reset(seed=seed)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise MalformedError(
            f"reset() returned {shown_short(returned)} instead of (observation, info)"
        )
    if not isinstance(returned[1], dict):
        _once(trace, f"reset() returned an info of type {type(returned[1]).__name__}, not dict")
    return returned


def _step(env: gymnasium.Env, action: object, trace: Trace) -> tuple[object, ...]:
    returned = env.step(action)
    if not (isinstance(returned, tuple) and len(returned) == 5):
        size = f"{len(returned)} things" if isinstance(returned, tuple) else shown_short(returned)
        raise MalformedError(
            f"step() returned {size} instead of (observation, reward, terminated, truncated, info)"
        )
    if not isinstance(returned[4], dict):
        _once(trace, f"step() returned an info of type {type(returned[4]).__name__}, not dict")
    return returned


def _once(trace: Trace, words: str) -> None:
    if words not in trace.shapes:
        trace.shapes.append(words)


def shown_short(thing: object, most: int = 60) -> str:
    """What a thing looks like, cut off after `most` characters."""
    text = " ".join(repr(thing).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def duplicate(thing: object) -> object:
    """A copy that shares no memory; arrays, which most things are, in no time."""
    if type(thing) is np.ndarray and not thing.dtype.hasobject:
        return thing.copy()
    if isinstance(thing, bool | int | float | np.generic):
        return thing
    return copy.deepcopy(thing)


def equal(one: object, other: object) -> bool:
    """Whether two observations, actions or rewards are the same to the bit; NaN equals NaN."""
    if type(one) is type(other) and isinstance(one, bool | int | np.bool_ | np.integer):
        return bool(one == other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "fc" and b.dtype.kind in "fc":
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(np.array_equal(a, b))


def first_difference(one: Trace, other: Trace) -> tuple[int, str] | None:
    """Where two traces part: how many steps had been taken, and in what; None where they do not.

    Traces of different lengths are compared as far as both go.
    """
    step = 0
    for a, b in zip(one.moments, other.moments, strict=False):
        step += not a.starts
        if a.starts != b.starts:
            return step, "the end of an episode"
        for what in ("observation", "reward", "terminated", "truncated"):
            if not equal(getattr(a, what), getattr(b, what)):
                return step, "first observation" if a.starts else what
    return None
