"""What every environment promises a rollout, checked against one slow reference.

The reference is a single Gymnasium environment that is stepped by hand, one step at a time, and
reset by hand when an episode ends. Whatever steps many lanes at once (arrays, processes, C++,
tensors, an adapter of one's own) must return lane by lane what the reference returns.
"""

from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from vantage.arguments import checked
from vantage.environments.checking.record import EnvironmentReport, Finding, by_severity
from vantage.environments.interface import Environment, Step
from vantage.environments.normalise import Normalized
from vantage.environments.reference import Answer, LaneReference, SlowNormaliser
from vantage.errors import InputError, refuse_unless

NAMES = (
    "forms",
    "repeatable",
    "kept",
    "ends",
    "dummies",
    "shared starts",
    "reference",
)
TENSORS = ("observation", "reward", "terminated", "truncated", "final_observation", "real")


class Play(NamedTuple):
    """What an environment returned under fixed actions.

    Attributes:
        first: [lanes, ...] of the reset.
        actions: T of [lanes, ...].
        steps: T of them, as returned.
        copies: the copies of the steps, taken at once.
        changed: steps that wrote into their action.
    """

    first: Tensor
    actions: list[Tensor]
    steps: list[Step]
    copies: list[Step]
    changed: list[int]


@checked
def contract(
    env: Environment,
    reference: Callable[[], gymnasium.Env] | None = None,
    *,
    place: Callable[[gymnasium.Env, np.ndarray], None] | None = None,
    actions: Callable[[torch.Generator], Tensor] | None = None,
    steps: int = 100,
    seed: int = 0,
    tolerance: float = 1e-5,
) -> EnvironmentReport:
    """Check that an environment keeps what `Environment` and `Step` promise.

    Run it on an adapter of your own, with the environment it adapts as the reference:

    >>> import vantage as vt
    >>> env = vt.Gymnasium("Acrobot-v1", lanes=3, max_episode_steps=20)
    >>> vt.contract(env, lambda: gymnasium.make("Acrobot-v1", max_episode_steps=20))
    <ok: contract of Acrobot-v1, nothing noticed>

    Checked are: shapes and dtypes (forms); the same bits for the same seed, whatever happened
    before (repeatable); tensors that stay as they were returned, and actions as they were given
    (kept); ends that are of one kind and show both observations (ends); dummy steps that report
    nothing and follow an end (dummies); starts in common, or their refusal (shared starts); and
    equality with the reference, lane by lane and step by step (reference).

    Args:
        env: any environment; it is reset. `Normalized` is checked against a slow account of the
            same statistics, which start where those of `env` are; these do not change.
        reference: makes one environment, stepped by hand; None leaves the comparison out.
        place: puts a reference into the state that a first observation (an array, as the policy
            sees it) shows, for environments that draw their starts in another way. By default lane
            i of `reset(seed)` starts as `reference.reset(seed=seed + i)` does, and later episodes
            as its `reset()`.
        actions: generator -> raw actions [lanes, ...], by default random ones of the space
            `env.actions`, out of bounds now and then.
        steps: T; long enough for episodes to end.
        seed: the seed of environment and actions.
        tolerance: largest difference from the reference, relative to the larger of 1 and what is
            compared.

    Returns:
        A report; `.ok` where every promise was kept.

    Raises:
        InputError: an environment without `actions`, where none are given.
    """
    refuse_unless(steps >= 1, f"contract(steps={steps}): take at least one.")
    draw = actions or random_actions(env)
    steady = _own_statistics(env)
    still: Environment = (
        steady.frozen(raw_rewards=steady.raw_rewards) if isinstance(steady, Normalized) else env
    )
    findings, facts = list[Finding](), dict[str, str]()
    try:
        one = play(still, draw, steps, seed)
        findings += [*forms(env.lanes, one), *repeatable(still, one, draw, seed)]
        findings += [*untouched(one), *ends(one), *dummies(one), *shared_starts(still, seed)]
        ended = sum(int((s.terminated | s.truncated).sum()) for s in one.copies)
        facts["played"] = f"{steps} steps of {env.lanes} lanes, {ended} ends"
        if not ended:
            findings.append(Finding("note", "ends", "no episode ended.", "raise steps."))
        if reference is not None:
            against = [LaneReference(reference(), seed + i, place) for i in range(env.lanes)]
            findings += compared(steady, against, draw, steps, seed, tolerance)
    except InputError:
        raise
    except Exception as error:
        findings.append(
            Finding("error", "runs", f"{type(error).__name__}: {error}", "it must not raise.")
        )
    noticed = {finding.check for finding in findings if finding.severity != "note"}
    names = NAMES if reference is not None else NAMES[:-1]
    passed = [] if "runs" in noticed else [name for name in names if name not in noticed]
    return EnvironmentReport(f"contract of {env.name}", by_severity(findings), passed, facts)


def random_actions(env: Environment) -> Callable[[torch.Generator], Tensor]:
    """A function from a generator to random raw actions [lanes, ...] of an environment's space.

    Raises:
        InputError: the environment has no `actions`, or a space that policies do not act in.
    """
    space = getattr(env, "actions", None)
    lanes = env.lanes
    if isinstance(space, spaces.Discrete):
        size = int(space.n)
        return lambda generator: torch.randint(size, (lanes,), generator=generator)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        sizes = np.full(space.shape, 2) if isinstance(space, spaces.MultiBinary) else space.nvec
        high = torch.as_tensor(sizes.flatten().astype(np.int64))

        def ids(generator: torch.Generator) -> Tensor:
            return (torch.rand(lanes, len(high), generator=generator) * high).long()

        return ids
    refuse_unless(
        isinstance(space, spaces.Box),
        f"{env.name} has no space `actions` that random actions can be drawn from; give "
        "actions=lambda generator: tensor [lanes, ...].",
    )
    assert isinstance(space, spaces.Box)
    low = torch.as_tensor(np.clip(space.low.flatten().astype(np.float32), -1e3, 1e3))
    high = torch.as_tensor(np.clip(space.high.flatten().astype(np.float32), -1e3, 1e3))
    bounded = np.isfinite(space.low).all() and np.isfinite(space.high).all()
    middle, scale = ((low + high) / 2, (high - low) / 2) if bounded else (0.0, 1.0)
    return lambda generator: middle + scale * torch.randn(lanes, len(low), generator=generator)


def play(
    env: Environment, draw: Callable[[torch.Generator], Tensor], steps: int, seed: int
) -> Play:
    """Reset, and take `steps` steps with actions drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    first = env.reset(seed=seed)
    done = Play(first, [], [], [], [])
    for number in range(steps):
        action = draw(generator).to(first.device)
        given = action.clone()
        step = env.step(given)
        if not torch.equal(given, action):
            done.changed.append(number)
        done.actions.append(action)
        done.steps.append(step)
        copies = {name: getattr(step, name).clone() for name in TENSORS}
        done.copies.append(step._replace(**copies))
    return done


def forms(lanes: int, one: Play) -> Iterator[Finding]:
    """Shapes and dtypes of everything that is returned."""
    if one.first.shape[:1] != (lanes,):
        text = f"reset returned shape {tuple(one.first.shape)} for {lanes} lanes."
        yield Finding("error", "forms", text, "return one observation for every lane, lanes first.")
    for number, step in enumerate(one.copies):
        for name in TENSORS:
            tensor = getattr(step, name)
            like = one.first.shape if "observation" in name else (lanes,)
            flag = name in ("terminated", "truncated", "real")
            kind = tensor.dtype == torch.bool if flag else True
            if name == "reward":
                kind = tensor.is_floating_point()
            elif "observation" in name:
                kind = tensor.dtype == one.first.dtype
            if tuple(tensor.shape) != tuple(like) or not kind:
                text = f"{name} of step {number} has shape {tuple(tensor.shape)}, {tensor.dtype}."
                yield Finding("error", "forms", text, f"it must be {tuple(like)}; see `Step`.")
                return


def repeatable(
    env: Environment, one: Play, draw: Callable[[torch.Generator], Tensor], seed: int
) -> Iterator[Finding]:
    """The same bits once more, begun in the middle of other episodes."""
    play(env, draw, 3, seed + 1)
    again = play(env, draw, len(one.steps), seed)
    if not torch.equal(one.first, again.first):
        yield Finding(
            "error",
            "repeatable",
            f"two resets with seed {seed} show different first observations.",
            "let reset(seed) seed everything.",
        )
        return
    for number, (step, other) in enumerate(zip(one.copies, again.copies, strict=True)):
        for name in TENSORS:
            if not _same(getattr(step, name), getattr(other, name)):
                yield Finding(
                    "error",
                    "repeatable",
                    f"after two resets with seed {seed}, equal actions part in step {number}, in "
                    f"{name}.",
                    "let reset(seed) seed everything, and leave nothing from earlier episodes.",
                )
                return


def untouched(one: Play) -> Iterator[Finding]:
    """Whether what was handed out, and in, is as it was."""
    for number, (step, copied) in enumerate(zip(one.steps, one.copies, strict=True)):
        for name in TENSORS:
            if not _same(getattr(step, name), getattr(copied, name)):
                text = f"{name} of step {number} was written to by a later step."
                yield Finding("error", "kept", text, "return a tensor that nobody writes to.")
                return
    if one.changed:
        text = f"the action of step {one.changed[0]} was written to."
        yield Finding("error", "kept", text, "work on a copy of the action.")


def ends(one: Play) -> Iterator[Finding]:
    """Ends of one kind; both observations the same where an episode goes on."""
    for number, step in enumerate(one.copies):
        if bool((step.terminated & step.truncated).any()):
            text = f"step {number} is both terminated and truncated."
            yield Finding(
                "error", "ends", text, "what terminated was not cut off: truncated False."
            )
            return
        going = ~(step.terminated | step.truncated) & step.real
        if not _same(step.observation[going], step.final_observation[going]):
            text = (
                f"observation and final_observation differ in step {number}, where nothing ended."
            )
            yield Finding("error", "ends", text, "they are the same where an episode goes on.")
            return


def dummies(one: Play) -> Iterator[Finding]:
    """Dummy steps report nothing, and come only between an end and a start."""
    between = torch.zeros_like(one.copies[0].real)
    for number, step in enumerate(one.copies):
        dummy = ~step.real
        if bool((dummy & ((step.reward != 0) | step.terminated | step.truncated)).any()):
            text = f"a dummy step, number {number}, reports a reward or an end."
            yield Finding("error", "dummies", text, "reward 0, terminated and truncated False.")
            return
        if bool((dummy & ~between).any()):
            text = f"step {number} is a dummy though no episode had ended before it."
            yield Finding(
                "error", "dummies", text, "real is False only between an end and a start."
            )
            return
        between = step.terminated | step.truncated | (between & dummy)


def shared_starts(env: Environment, seed: int) -> Iterator[Finding]:
    """Pairs of lanes from one state each, or an `InputError` that says why not."""
    try:
        pairs = env.sharing(4)
        first = pairs.reset(seed=seed, shared=2)
    except InputError:
        return
    if first.shape[0] != 4 or not _same(first[0::2], first[1::2]):
        yield Finding(
            "error",
            "shared starts",
            "with shared=2, lanes of one pair start from different observations.",
            "start them from one state, or raise InputError in sharing.",
        )


def compared(
    env: Environment,
    references: list[LaneReference],
    draw: Callable[[torch.Generator], Tensor],
    steps: int,
    seed: int,
    tolerance: float,
) -> list[Finding]:
    """Where a lane first differs from its reference, if one does."""
    generator = torch.Generator().manual_seed(seed)
    slow = SlowNormaliser(env) if isinstance(env, Normalized) else None
    observation = env.reset(seed=seed)
    raw = slow.recorded.first if slow else observation
    expected = [lane.start(raw[i]) for i, lane in enumerate(references)]
    expected = slow.reset(expected) if slow else expected
    parted = _parted(observation, expected, tolerance)
    if parted is not None:
        return [_differs("the first observation", parted[0], 0, observation[parted[0]], parted[1])]
    for number in range(steps):
        action = draw(generator).to(observation.device)
        step = env.step(action)
        shown = slow.recorded.last if slow else step
        answers = [
            lane.step(
                action[i], bool(step.real[i]), shown.observation[i], shown.final_observation[i]
            )
            for i, lane in enumerate(references)
        ]
        if slow is not None:
            answers = slow.step(answers, step)
        for name in Answer._fields:
            value = getattr(step, name)
            parted = _parted(value, [getattr(answer, name) for answer in answers], tolerance)
            if parted is not None:
                return [_differs(name, parted[0], number, value[parted[0]], parted[1])]
        stale = [lane for lane, reference in enumerate(references) if reference.stale]
        if stale:
            return [_stale(stale[0], number)]
    return []


def _parted(
    tensor: Tensor, expected: list[np.ndarray], tolerance: float
) -> tuple[int, np.ndarray] | None:
    """The first lane that is not as expected, and what was."""
    for lane, (one, wanted) in enumerate(zip(tensor, expected, strict=True)):
        got = one.detach().cpu().numpy().astype(np.float64)
        wide = np.asarray(wanted, np.float64)
        if got.shape != wide.shape:
            return lane, wide
        apart = np.abs(got - wide) > tolerance * np.maximum(1, np.abs(wide))
        if apart.any() or (np.isnan(got) != np.isnan(wide)).any():
            return lane, wide
    return None


def _differs(what: str, lane: int, step: int, got: Tensor, wanted: np.ndarray) -> Finding:
    return Finding(
        "error",
        "reference",
        f"{what} of lane {lane} in step {step} is {np.array2string(got.cpu().numpy(), threshold=8)}"
        f"; stepped by hand, one environment at a time, it is "
        f"{np.array2string(wanted, threshold=8)}.",
        "return what the environment does, lane by lane; where it draws its starts in another way "
        "than reset(seed + lane), give place=.",
    )


def _stale(lane: int, step: int) -> Finding:
    return Finding(
        "error",
        "reference",
        f"lane {lane} went on in step {step} without ever showing the first observation of the new "
        "episode: the step before showed the last one of the old.",
        "show the first observation in the step that ends an episode, or in a dummy step after it.",
    )


def _own_statistics(env: Environment) -> Environment:
    """The environment, where it is normalised with statistics that may change."""
    if not isinstance(env, Normalized):
        return env
    other = copy(env)
    other.statistics = deepcopy(env.statistics)
    return other


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(
        torch.equal(one, other)
        or torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)
    )
