"""Checks of environments that step all their lanes themselves: vector environments, tensors."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

from vantage.environments.checking.record import Finding
from vantage.environments.checking.traces import Moment, Trace, duplicate, equal
from vantage.environments.contract import Play
from vantage.environments.spaces import batched


def vector_traces(vector: VectorEnv, seed: int, steps: int) -> tuple[list[Trace], list[Finding]]:
    """A trace of every lane under equal actions in all lanes, and what is wrong with the batches.

    Args:
        vector: reset with `seed`, stepped, and reset by mask where it asks for that.
        seed: the seed of environment and actions.
        steps: how many.
    """
    lanes, mode = vector.num_envs, vector.metadata.get("autoreset_mode")
    traces = [Trace() for _ in range(lanes)]
    findings: list[Finding] = []
    space = vector.single_action_space
    space.seed(seed)
    shown, _ = vector.reset(seed=seed)
    for trace, observation in zip(traces, _split(vector, shown), strict=True):
        trace.moments.append(Moment(None, observation))
    ended = np.zeros(lanes, bool)
    for step in range(steps):
        action = space.sample()
        batch = batched(space, [action] * lanes)
        shown, *rest, info = vector.step(batch)
        findings += [] if findings else list(_batches(rest, lanes, step))
        if findings:
            return traces, findings
        if not equal(batch, batched(space, [action] * lanes)):
            for trace in traces:
                trace.changed_actions.append(step)
        now = np.asarray(rest[1]) | np.asarray(rest[2])
        finals = info.get("final_obs") if mode == AutoresetMode.SAME_STEP else None
        if mode == AutoresetMode.SAME_STEP and now.any() and finals is None:
            text = f"step {step} ended an episode, and info has no 'final_obs'."
            remedy = "put the last observations there, an object array with None elsewhere."
            return traces, [*findings, Finding("error", "ends", text, remedy)]
        for lane, observation in enumerate(_split(vector, shown)):
            moments = traces[lane].moments
            if mode == AutoresetMode.NEXT_STEP and ended[lane]:
                moments.append(Moment(None, observation))
                continue
            final = finals[lane] if finals is not None and now[lane] else observation
            moments.append(Moment(action, final, *(column[lane] for column in rest)))
            if mode == AutoresetMode.SAME_STEP and now[lane]:
                moments.append(Moment(None, observation))
        ended = now if mode != AutoresetMode.NEXT_STEP else now & ~ended
        if mode == AutoresetMode.DISABLED and now.any():
            shown, _ = vector.reset(options={"reset_mask": now})
            for lane, observation in enumerate(_split(vector, shown)):
                if now[lane]:
                    traces[lane].moments.append(Moment(None, observation))
    return traces, findings


def _split(vector: VectorEnv, batch: object) -> list[object]:
    """Observations lane by lane, copies."""
    return [duplicate(one) for one in iterate(vector.observation_space, batch)]


def _batches(rest: list[object], lanes: int, step: int) -> Iterator[Finding]:
    for name, column in zip(("reward", "terminated", "truncated"), rest, strict=True):
        array = np.asarray(column)
        kinds = "fiu" if name == "reward" else "b"
        if array.shape != (lanes,) or array.dtype.kind not in kinds:
            yield Finding(
                "error",
                "reward" if name == "reward" else "flags",
                f"{name} of step {step} has shape {array.shape} and dtype {array.dtype} for "
                f"{lanes} lanes.",
                f"return an array of shape ({lanes},), "
                f"{'floats' if name == 'reward' else 'bools'}.",
            )


def play_traces(play: Play, lanes: int) -> list[Trace]:
    """A trace of every lane from what an environment behind the one interface returned."""
    traces = [Trace([Moment(None, _row(play.first, i))]) for i in range(lanes)]
    for action, step in zip(play.actions, play.copies, strict=True):
        for lane, trace in enumerate(traces):
            if not bool(step.real[lane]):
                trace.moments.append(Moment(None, _row(step.observation, lane)))
                continue
            ends = (bool(step.terminated[lane]), bool(step.truncated[lane]))
            reward = float(step.reward[lane])
            moment = Moment(_row(action, lane), _row(step.final_observation, lane), reward, *ends)
            trace.moments.append(moment)
            fresh = _row(step.observation, lane)
            if any(ends) and not equal(fresh, moment.observation):
                trace.moments.append(Moment(None, fresh))
    return traces


def _row(tensor: Any, lane: int) -> np.ndarray:
    return tensor[lane].detach().cpu().numpy().copy()


def judge_alike(traces: list[Trace], other: list[Trace]) -> Iterator[Finding]:
    """Whether lanes replay one another under equal actions, though another seed differs.

    Args:
        traces: the traces of the lanes, under equal actions.
        other: the same after a reset with another seed.
    """
    same = all(_alike(traces[0], trace) for trace in traces[1:])
    if len(traces) > 1 and same and not _alike(traces[0], other[0]):
        yield Finding(
            "error",
            "lanes",
            f"all {len(traces)} lanes return the same numbers under equal actions, while another "
            "seed gives others: they hear one sequence of noise.",
            "give every lane a generator of its own: seed + lane, or SeedSequence(seed).spawn.",
        )


def _alike(one: Trace, other: Trace) -> bool:
    return len(one.moments) == len(other.moments) and all(
        equal(a.observation, b.observation) and equal(a.reward, b.reward)
        for a, b in zip(one.moments, other.moments, strict=True)
    )


def observation_space(env: object, row: np.ndarray) -> gymnasium.Space | None:
    """The space that rows of an environment's tensors lie in; None where they are laid out anew."""
    space = getattr(env, "observations", None)
    if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.Box):
        return None
    return space if (space.shape or ()) == row.shape else None
