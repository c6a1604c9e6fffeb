"""The door: everything about one environment, and the part of it that training runs first."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch

from vantage.arguments import checked
from vantage.environments.checking import costs, ends, lanes, randomness
from vantage.environments.checking.record import EnvironmentReport, Finding, by_severity
from vantage.environments.checking.subject import LANES, Subject, lane_of, opened
from vantage.environments.checking.traces import (
    Trace,
    actions_of,
    first_difference,
    masks_actions,
    play,
)
from vantage.environments.checking.values import judge, judge_spaces
from vantage.environments.contract import contract, random_actions
from vantage.environments.contract import play as play_lanes
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment
from vantage.environments.lanes import Lanes
from vantage.errors import refuse_unless

# What the numbers of a trace are looked at for, and all that one environment is.
VALUES = (
    "interface",
    "runs",
    "observation shape",
    "dtype",
    "finite",
    "bounds",
    "ids",
    "precision",
    "reward",
    "flags",
    "buffers",
)
WHOLE = ("seeding", "reseeding", "lanes", "ends", "length", "memory", "gymnasium")
CHECKS = ("spaces", *VALUES, *WHOLE)
# Findings of these kinds stop whatever is collected: training refuses at once.
FATAL = ("spaces", "interface", "runs", "observation shape", "finite", "ids", "reward", "flags")
MASKED = "masks"
SHORT = 100  # steps of a trace that is repeated
TRACES = 60  # of so many steps that a check takes besides the longest
LONG = 20_000  # steps: time limits below it are waited for
QUICK = 64  # steps of the part that training runs


@checked
def check_environment(
    env: object, *, steps: int = 2000, seed: int = 0, seconds: float = 20.0, measure: bool = True
) -> EnvironmentReport:
    """Check an environment for what training needs of it, with a remedy for all that is wrong.

    Looked at, under random actions: what is returned (forms, dtypes, bounds, ids, NaN, the size of
    rewards, flags, numbers that float32 cannot tell apart); memory (arrays written to after they
    were handed out, or handed in; growth); noise (two traces from one seed, two lanes side by
    side, episodes that replay one another, generators that are not its own); ends (in every
    autoreset mode, against one environment stepped by hand; lengths against the time limit and
    training's `restart`); Gymnasium's own checker; and speed.

    >>> import vantage as vt
    >>> vt.check_environment("CartPole-v1", measure=False).ok
    True

    Args:
        env: an id ("CartPole-v1", "module:Id-v0", "tensor/...", "envpool/..."), a Gymnasium
            environment, a class, a function that makes one, a vector environment, or one of
            Vantage's. What can be copied or made again is; else the environment itself is stepped.
        steps: the length of the longest trace.
        seed: the seed of everything random here. The generators that the process shares
            (`np.random`, `random`, `torch`) are left as they were.
        seconds: after about so many the traces are cut off, whatever `steps`.
        measure: also memory and speed, which differ from run to run.

    Returns:
        EnvironmentReport: print it; `.ok` where there are neither errors nor warnings.

    Raises:
        InputError: what is given is no environment and makes none; unknown ids.
    """
    refuse_unless(steps >= 1, f"check_environment(steps={steps}): take at least one.")
    refuse_unless(seconds > 0, f"check_environment(seconds={seconds}): give it some.")
    with _undisturbed():
        subject = opened(env)
        if subject.single is not None:
            return _check_single(subject, subject.single, steps, seed, seconds, measure)
        if subject.vector is not None:
            return _check_vector(subject, steps, seed, seconds, measure)
        return _check_lanes(subject, steps, seed, seconds, measure)


def quick_check(env: Environment, seed: int = 0, seconds: float = 0.25) -> list[Finding]:
    """The part of `check_environment` that takes milliseconds, on a lane of its own.

    Errors and warnings alone. Nothing is looked at where lanes cannot be made again. The
    environment itself, and the generators that the process shares, are left as they were.

    Args:
        env: what is about to be trained on.
        seed: the seed of the lane and its actions.
        seconds: after which the traces are cut off.
    """
    make = lane_of(env)
    if make is None:
        return []
    until = time.monotonic() + seconds
    with _undisturbed():
        lane = make()
        trace = _survey(lane, QUICK, seed, until)
        findings = judge(trace, lane.observation_space, env.name)
        if not any(finding.severity == "error" for finding in findings):
            if time.monotonic() < until:
                findings += randomness.reproducible(lambda: lane, False, seed, QUICK // 4)
            if time.monotonic() < until:
                findings += randomness.judge_noise(randomness.noise(lane, seed, QUICK // 8))[0]
        lane.close()
    return [finding for finding in by_severity(findings) if finding.severity != "note"]


def before_training(env: Environment) -> list[str]:
    """What the quick check has to say before a run, a line for each finding.

    Raises:
        InputError: something is wrong that would end the run, or make it worthless.
    """
    findings = quick_check(env)
    for finding in findings:
        refuse_unless(
            finding.severity != "error" or finding.check not in FATAL,
            f"{env.name} cannot be trained on. {finding}",
        )
    return [
        f"{env.name}: {finding} (vantage.check_environment looks at more)" for finding in findings
    ]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Shared generators as they were, and no warnings of what is reported anyway."""
    with randomness.global_randomness_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_single(
    subject: Subject,
    make: Callable[[], gymnasium.Env],
    steps: int,
    seed: int,
    seconds: float,
    measure: bool,
) -> EnvironmentReport:
    begun, until = time.monotonic(), time.monotonic() + seconds
    env = make()
    findings = list(judge_spaces(env.observation_space, env.action_space, subject.name))
    if any(finding.severity == "error" for finding in findings):
        return _report(subject.name, findings, {}, [])
    ran = ["spaces", *VALUES]
    limit = _limit(env) or 0
    trace = _survey(env, max(steps, limit * (limit < LONG)), seed, until - seconds / 2)
    findings += judge(trace, env.observation_space, subject.name)
    # so short that all traces that follow take no longer than this one may
    rate = len(trace.steps) / (time.monotonic() - begun)
    short = min(SHORT, max(SHORT // 10, int(rate * seconds / 2 / TRACES)))
    if not any(finding.check in FATAL for finding in findings if finding.severity == "error"):
        ran += [check for check in WHOLE[:-2] if subject.distinct or check not in ("lanes", "ends")]
        findings += _aliases(env, seed, short)
        findings += randomness.reproducible(make, subject.distinct, seed, short)
        replays, varied = randomness.judge_noise(randomness.noise(env, seed, short))
        findings += replays
        if varied is None and not replays:
            findings.append(_nothing_random())
        findings += ends.judge_lengths([trace], _limit(env))
        wrong = [finding for finding in findings if finding.check in ("seeding", "lanes")]
        if subject.distinct and not wrong:
            findings += _unless_masked(env, seed, ends.judge_modes(make, seed, short))
    ran.append("gymnasium")
    remarks = _gymnasium(make() if subject.distinct else env, seed, findings)
    findings += _unless_masked(env, seed, remarks)
    if not subject.distinct:
        findings.append(_cannot_be_copied())
    facts = _facts(env.observation_space, env.action_space, [trace], _limit(env))
    fatal = any(finding.severity == "error" or finding.check == MASKED for finding in findings)
    if measure and not fatal:
        ran.append("memory")
        findings += costs.judge_memory(env, seed, 5 * short, max(1.0, until - time.monotonic()))
        lanes_env = Gymnasium(Lanes([make] * LANES)) if subject.distinct else None
        return _report(subject.name, findings, facts, ran, lanes_env)
    return _report(subject.name, findings, facts, ran)


def _check_vector(
    subject: Subject, steps: int, seed: int, seconds: float, measure: bool
) -> EnvironmentReport:
    vector = subject.vector
    assert vector is not None
    env = Gymnasium(vector)  # refuses a mode that is not declared
    few = max(1, min(steps, 4 * SHORT))
    traces, findings = lanes.vector_traces(vector, seed, few)
    for trace in traces:
        findings += judge(trace, vector.single_observation_space, subject.name)
    if not findings:
        findings += lanes.judge_alike(traces, lanes.vector_traces(vector, seed + 1, few)[0])
    outcome = contract(env, steps=SHORT, seed=seed)
    findings += outcome.findings
    findings += ends.judge_lengths(traces, _limit(vector))
    facts = _facts(vector.single_observation_space, vector.single_action_space, traces, None)
    wrong = any(finding.severity == "error" for finding in findings)
    ran = [*VALUES, *outcome.passed, "lanes", "length"]
    return _report(subject.name, findings, facts, ran, env if measure and not wrong else None)


def _check_lanes(
    subject: Subject, steps: int, seed: int, seconds: float, measure: bool
) -> EnvironmentReport:
    env: Any = subject.lanes
    report = contract(env, steps=SHORT, seed=seed)
    findings = report.findings
    if "runs" in {finding.check for finding in findings}:
        return _report(subject.name, findings, report.facts, [])
    draw = random_actions(env)

    def alike(generator: torch.Generator) -> torch.Tensor:
        action = draw(generator)
        return action[:1].expand_as(action).clone()

    few = max(1, min(steps, 4 * SHORT))
    played = [play_lanes(env, alike, few, seed + i) for i in range(2)]
    traces, other = (lanes.play_traces(one, env.lanes) for one in played)
    space = lanes.observation_space(env, traces[0].moments[0].observation)
    limit = getattr(getattr(env, "dynamics", None), "horizon", None)
    if space is not None:
        for trace in traces:
            findings += judge(trace, space, subject.name)
    findings += lanes.judge_alike(traces, other)
    findings += ends.judge_lengths(traces, limit)
    facts = _facts(getattr(env, "observations", None), env.actions, traces, limit)
    ran = [*(VALUES if space is not None else ()), *report.passed, "lanes", "length"]
    return _report(subject.name, findings, facts, ran, env if measure else None)


def _survey(env: gymnasium.Env, steps: int, seed: int, until: float) -> Trace:
    return play(
        env, actions_of(env.action_space, seed), steps, seed, stop=lambda: time.monotonic() > until
    )


def _limit(env: Any) -> int | None:
    spec = env.spec
    return None if spec is None else spec.max_episode_steps


def _aliases(env: gymnasium.Env, seed: int, steps: int) -> Iterator[Finding]:
    """Whether writing into a returned observation changes the environment."""

    def deface(observation: object) -> None:
        inside = observation.values() if isinstance(observation, dict) else [observation]
        for array in inside:
            if isinstance(array, np.ndarray) and array.flags.writeable:
                array[...] = 0

    left = play(env, actions_of(env.action_space, seed), steps, seed)
    spoilt = play(env, actions_of(env.action_space, seed), steps, seed, after_step=deface)
    again = play(env, actions_of(env.action_space, seed), steps, seed)
    parted = first_difference(left, spoilt)
    if parted is not None and first_difference(left, again) is None:
        yield Finding(
            "note",
            "buffers",
            f"the observation is the environment's own state: writing to it changes {parted[1]} in "
            f"step {parted[0]}. Vantage does not; a wrapper that scales in place would.",
            "return a copy, observation.copy().",
        )


def _gymnasium(env: gymnasium.Env, seed: int, so_far: list[Finding]) -> list[Finding]:
    """What Gymnasium's checker says; where something is wrong already, only as a note."""
    wrong = any(finding.severity != "note" for finding in so_far)
    remarks = list(ends.by_gymnasium(env, seed))
    return [Finding("note", f.check, f.evidence, f.remedy) for f in remarks] if wrong else remarks


def _unless_masked(env: gymnasium.Env, seed: int, findings: list[Finding]) -> list[Finding]:
    """The findings, made with any action; where some are forbidden, a note in their place."""
    wrong = [finding for finding in findings if finding.severity != "note"]
    if not wrong or not masks_actions(env, seed):
        return findings
    return [
        Finding(
            "note",
            MASKED,
            "it does not bear actions that info['action_mask'] forbids: what plays any action was "
            f"left out ({wrong[0].evidence}).",
            "train with action_mask, so that policies keep to it too.",
        )
    ]


def _nothing_random() -> Finding:
    return Finding(
        "note",
        "seeding",
        f"{randomness.EPISODES} seeds, and as many episodes, gave one and the same trajectory "
        "under equal actions: nothing here is random.",
    )


def _cannot_be_copied() -> Finding:
    return Finding(
        "note",
        "lanes",
        "this object can be neither copied nor made again: it was stepped itself, lanes side by "
        "side were not compared, and training cannot have more than one.",
        "give the class, or a function that makes the environment.",
    )


def _facts(
    observations: object, actions: gymnasium.Space, traces: list[Trace], limit: int | None
) -> dict[str, str]:
    lengths = [length for trace in traces for length in trace.lengths()]
    taken = sum(len(trace.steps) for trace in traces)
    facts = {"observations": str(observations), "actions": str(actions)}
    facts["played"] = f"{taken:,} steps, {len(lengths)} episodes"
    if lengths:
        facts["lengths"] = f"{min(lengths)} to {max(lengths)}, mean {np.mean(lengths):.1f}"
    gains = ends.returns(traces)
    if len(gains):
        facts["returns"] = f"{gains.min():.4g} to {gains.max():.4g} under random actions"
    if limit is not None:
        facts["limit"] = f"{limit:,} steps"
    return facts


def _report(
    name: str,
    findings: list[Finding],
    facts: dict[str, str],
    ran: list[str],
    timed: Environment | None = None,
) -> EnvironmentReport:
    """The report; passed is what was looked at, and what nothing wrong was noticed of."""
    noticed = {finding.check for finding in findings if finding.severity != "note"}
    if any(finding.check == MASKED for finding in findings):
        noticed |= {"ends", "gymnasium"}  # left out
    speed = None
    if timed is not None:
        speed = costs.speed(timed, timed.policy(), random_actions(timed), seconds=1.0)  # type: ignore[attr-defined]
        rate = 1 / speed.environment
        facts["speed"] = (
            f"{rate:,.0f} steps/s in {speed.lanes} lanes; with the default policy "
            f"{speed.policy_share:.0%} of the time of collecting and one gradient pass is left to "
            "the policy"
        )
    return EnvironmentReport(
        name,
        by_severity(findings),
        [check for check in dict.fromkeys(ran) if check not in noticed],
        facts,
        None if speed is None else 1 / speed.environment,
        None if speed is None else speed.policy_share,
    )
