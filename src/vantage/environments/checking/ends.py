"""How episodes end, and whether they do so in every way of stepping lanes."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import gymnasium
import numpy as np
from gymnasium import logger
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vantage.environments.checking.record import Finding
from vantage.environments.checking.traces import Trace
from vantage.environments.contract import contract
from vantage.environments.fragments import MOST_STEPS
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.lanes import Lanes
from vantage.errors import InputError

REMEDY = "return new arrays, and let an episode depend on its seed and its actions alone."
ALIKE = 5  # episodes of one length from which that is remarked on
# Remarks that say nothing here: environments are checked as they are made, with their wrappers, and
# bounds of observations and actions are looked at by `values.judge_actions` and by what is seen.
BESIDE = ("unwrapped version", "infinity", "symmetric and normalized", "having a spec")


def judge_lengths(traces: list[Trace], limit: int | None) -> Iterator[Finding]:
    """Whether episodes end, and within what training waits for.

    Args:
        traces: the traces of one environment.
        limit: steps after which episodes are declared to be cut off; None where nothing is said.
    """
    lengths = [length for trace in traces for length in trace.lengths()]
    longest = max((len(piece) - 1 for trace in traces for piece in trace.episodes()), default=0)
    if limit is not None and limit > MOST_STEPS:
        yield Finding(
            "warning",
            "length",
            f"episodes may be {limit:,} steps long; training in fragments starts lanes afresh "
            f"after {MOST_STEPS:,} at the latest, so that such an episode never ends.",
            f"vt.train(..., restart={2 * limit}), or a shorter max_episode_steps.",
        )
    if not lengths and limit is None:
        yield Finding(
            "warning",
            "length",
            f"no episode ended in {longest:,} steps, and no limit is declared: batches of whole "
            "episodes would wait for ever.",
            "wrap it: gymnasium.wrappers.TimeLimit(env, max_episode_steps=1000), or register it "
            "with max_episode_steps; a task without an end is trained in fragments.",
        )
    ends = [piece[-1] for trace in traces for piece in trace.episodes() if piece[-1].ends]
    always = all(not end.truncated for end in ends)
    if len(lengths) >= ALIKE and len(set(lengths)) == 1 and lengths[0] > 1 and always:
        yield Finding(
            "note",
            "length",
            f"all {len(lengths)} episodes terminated after exactly {lengths[0]} steps.",
            "where that is a time limit, return truncated=True in place of terminated, so that "
            "the last state keeps its value.",
        )


def judge_modes(make: Callable[[], gymnasium.Env], seed: int, steps: int) -> list[Finding]:
    """Whether lanes, in every autoreset mode, return what one environment returns by itself."""
    ways: dict[str, Callable[[], Gymnasium]] = {
        "lane by lane": lambda: Gymnasium(Lanes([make] * 2))
    }
    for mode in AutoresetMode:
        vector = partial(SyncVectorEnv, [make] * 2, autoreset_mode=mode)
        ways[mode.name] = lambda vector=vector: Gymnasium(vector())  # type: ignore[misc]
    findings = []
    for way, lanes in ways.items():
        env = lanes()
        try:
            report = contract(env, make, steps=steps, seed=seed, tolerance=1e-6)
            wrong = [finding.evidence for finding in report.errors[:1]]
        except InputError as error:
            wrong = [str(error)]
        env.close()
        findings += [
            Finding("error", "ends", f"lanes stepped {way}: {each}", REMEDY) for each in wrong
        ]
    return findings


def by_gymnasium(env: gymnasium.Env, seed: int) -> Iterator[Finding]:
    """What Gymnasium's own checker says of it.

    What it raises is a warning here; what it remarks on, a note.
    """
    env.action_space.seed(seed)
    level = logger.min_level
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        raised = None
        try:
            logger.min_level = logger.WARN
            check_env(env, skip_render_check=True)
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
        finally:
            logger.min_level = level
    if raised is not None:
        yield Finding("warning", "gymnasium", f"check_env raises {raised}")
    messages = [str(one.message) for one in heard if "WARN" in str(one.message)]
    for text in dict.fromkeys(messages):
        plain = text.split("WARN: ", 1)[-1].replace("\x1b[0m", "").strip()
        if not any(words in plain for words in BESIDE):
            yield Finding("note", "gymnasium", plain)


def returns(traces: list[Trace]) -> np.ndarray:
    """Undiscounted returns of the episodes that ended; none where a reward is no number."""
    pieces = [piece for trace in traces for piece in trace.episodes() if piece[-1].ends]
    try:
        return np.array([sum(float(np.asarray(m.reward).item()) for m in p[1:]) for p in pieces])
    except (TypeError, ValueError):
        return np.empty(0)
