"""Where the noise of an environment comes from: its seed, itself, or elsewhere."""

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from vantage.environments.checking.record import Finding
from vantage.environments.checking.traces import (
    Trace,
    actions_of,
    first_difference,
    play,
    played,
)
from vantage.environments.generators import generators

EPISODES = 8  # that are compared with one another, and seeds
ERROR = 1e-3  # chance that equal episodes of a sound environment are called a replay
REMEDY = "draw everything from self.np_random, after super().reset(seed=seed) in reset."

# The generators that everybody shares: how to read their state, and to put it back.
SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "np.random": (np.random.get_state, np.random.set_state),
    "random": (random.getstate, random.setstate),
    "torch": (torch.get_rng_state, torch.set_rng_state),
}


@contextmanager
def global_randomness_kept() -> Iterator[None]:
    """Leave the generators that everybody shares as they were found."""
    states = {name: read() for name, (read, _) in SHARED.items()}
    try:
        yield
    finally:
        for name, state in states.items():
            SHARED[name][1](state)


def _states(env: gymnasium.Env) -> dict[str, bytes]:
    return {
        name: thing.get_state().numpy().tobytes()
        if isinstance(thing, torch.Generator)
        else pickle.dumps(thing)
        for name, thing in generators(env).items()
    }


class Noise(NamedTuple):
    """Episodes of one environment under equal actions.

    Attributes:
        seeded: one for each of `EPISODES` seeds.
        following: as many that follow one another after one seed.
        pinned: generators that every reset without a seed puts back, though steps draw from them.
        sources: generators other than `np_random` that steps draw from.
    """

    seeded: list[Trace]
    following: list[Trace]
    pinned: list[str]
    sources: list[str]


def noise(env: gymnasium.Env, seed: int, steps: int) -> Noise:
    """Play what `judge_noise` looks at; every episode is cut off after `steps` steps."""

    def once(reset_seed: int | None) -> tuple[Trace, dict[str, bytes], dict[str, bytes]]:
        begun: dict[str, bytes] = {}
        trace = play(
            env,
            actions_of(env.action_space, seed),
            steps,
            reset_seed,
            episodes=1,
            after_reset=lambda played_env: begun.update(_states(played_env)),
        )
        return trace, begun, _states(env)

    seeded = [once(seed + i) for i in range(EPISODES)]
    following = [once(seed), *(once(None) for _ in range(EPISODES - 1))]
    drawn = {
        name for _, begun, ended in following for name in begun if ended.get(name) != begun[name]
    }
    unseeded = [begun for _, begun, _ in following[1:]]
    pinned = [name for name in sorted(drawn) if len({begun.get(name) for begun in unseeded}) == 1]
    return Noise(
        [trace for trace, _, _ in seeded],
        [trace for trace, _, _ in following],
        pinned,
        sorted(drawn - {"np_random"}),
    )


def judge_noise(heard: Noise) -> tuple[list[Finding], bool | None]:
    """Whether episodes replay one another; and whether anything is random, None if nothing shows.

    An environment whose seeds give different episodes is said to replay when all episodes after one
    seed are alike and, were they drawn as those of different seeds are, that had a chance below
    `ERROR`.
    """
    alike = [first_difference(a, b) is None for a, b in combinations(heard.seeded, 2)]
    chance = sum(alike) / len(alike)
    first, *rest = heard.following[1:]
    replays = all(first_difference(first, other) is None for other in rest)
    varied = chance < 1 or not replays
    findings = []
    pinned = ", ".join(f"`{name}`" for name in heard.pinned)
    if heard.pinned or (replays and varied and chance ** len(rest) < ERROR):
        cause = f": reset() puts the generator {pinned} back" if pinned else ""
        different = round((1 - chance) * len(alike))
        findings.append(
            Finding(
                "error",
                "reseeding",
                f"{len(rest) + 1} episodes that followed one another, under equal actions, were "
                f"{'the same to the bit' if replays else 'drawn from the same noise'}{cause}. "
                f"Of {len(alike)} pairs of seeds {different} gave different episodes. A policy "
                "learns that one sequence of noise by heart.",
                "seed generators in reset only where seed is not None; " + REMEDY,
            )
        )
    elif heard.sources:
        findings.append(
            Finding(
                "note",
                "own generators",
                f"noise comes from {', '.join(f'`{name}`' for name in heard.sources)} and not from "
                "np_random: lanes that an audit starts from one state hear the same noise, so "
                "what varies within a start cannot be told from what varies between starts.",
                REMEDY,
            )
        )
    return findings, varied or None


def reproducible(
    make: Callable[[], gymnasium.Env], distinct: bool, seed: int, steps: int
) -> list[Finding]:
    """Whether one seed and equal actions give one trajectory, alone and beside another lane.

    Args:
        make: makes a lane, or hands out the one there is.
        distinct: whether `make` makes a new one every time.
        seed: the seed of the lanes.
        steps: the length of each trace.
    """
    env = make()
    actions = env.action_space
    one = play(env, actions_of(actions, seed), steps, seed)
    again = play(env, actions_of(actions, seed), steps, seed)
    parted = first_difference(one, again)
    findings = []
    if parted is not None:
        culprit = _culprit(env, seed, steps)
        findings.append(_unseeded(parted, env) if culprit is None else _global(culprit, parted))
    if distinct and parted is None:
        beside = _beside(make(), make(), seed, steps)
        parted = first_difference(one, beside)
        if parted is not None:
            findings.append(_sharing(parted))
    return findings


def _beside(env: gymnasium.Env, other: gymnasium.Env, seed: int, steps: int) -> Trace:
    """A lane's trace while another lane, of another seed and other actions, steps in turns."""
    trace, disturbing = Trace(), Trace()
    lane = played(env, actions_of(env.action_space, seed), seed, trace)
    noise_maker = played(other, actions_of(other.action_space, seed + 1), seed + 1, disturbing)
    for _ in lane:
        next(noise_maker, None)
        if trace.taken >= steps:
            break
    return trace


def _culprit(env: gymnasium.Env, seed: int, steps: int) -> str | None:
    """The shared generator that, put back before a trace, makes it the same once more."""
    for name, (read, write) in SHARED.items():
        state = read()
        one = play(env, actions_of(env.action_space, seed), steps, seed)
        write(state)
        again = play(env, actions_of(env.action_space, seed), steps, seed)
        if first_difference(one, again) is None:
            return name
    return None


def _global(name: str, parted: tuple[int, str]) -> Finding:
    return Finding(
        "warning",
        "seeding",
        f"it draws from the global generator {name}: equal seeds and actions part in step "
        f"{parted[0]}, in {parted[1]}, and do not once {name} is put back. Lanes of one process "
        "share it, so that no run can be repeated, or resumed to the same bits.",
        REMEDY,
    )


def _unseeded(parted: tuple[int, str], env: gymnasium.Env) -> Finding:
    holds = [f"`{name}`" for name in generators(env) if name != "np_random"]
    cause = (
        f"it holds generators of its own, {', '.join(holds)}"
        if holds
        else "the cause lies in a generator or in state that reset does not touch"
    )
    return Finding(
        "warning",
        "seeding",
        f"two resets with seed and equal actions part in step {parted[0]}, in {parted[1]}; {cause}."
        " No run can be repeated, or resumed to the same bits.",
        "reset everything that episodes depend on; " + REMEDY,
    )


def _sharing(parted: tuple[int, str]) -> Finding:
    return Finding(
        "error",
        "lanes",
        f"a lane with the same seed and actions goes another way while a second one steps beside "
        f"it: they part in step {parted[0]}, in {parted[1]}. Lanes share what should be their own.",
        "keep state on self, made in __init__ or reset: not on the class, in a module, or in a "
        "default argument.",
    )
