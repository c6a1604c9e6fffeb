"""Compare estimators over many seeds: train each, in parallel, in a folder that can be resumed."""

import inspect
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.arguments import checked
from vantage.comparing.comparison import Comparison
from vantage.comparing.display import Display
from vantage.comparing.jobs import Contender, Job, World, finished, run
from vantage.comparing.summary import comparison
from vantage.comparing.workers import refuse_to_start_again, run_all
from vantage.environments.lanes_at_once import refuse_unless_compilable
from vantage.errors import InputError, refuse_unless
from vantage.runs.run import versions
from vantage.runs.stored import object_of, write_whole
from vantage.training.algorithm import Algorithm
from vantage.training.door import LANES, resolve
from vantage.training.loop import train

STUDY, RESULT = "study.json", "comparison.json"

EnvironmentSpec = str | Callable[[], object]
Environments = EnvironmentSpec | list[EnvironmentSpec] | tuple[EnvironmentSpec, ...]
OWN = ("env", "policy", "estimator", "value", "steps", "seed", "out", "resume", "threads",
       "progress", "track")  # fmt: skip


@dataclass(frozen=True)
class Study:
    """A comparison before anything is trained: every run of it, and what it is.

    Attributes:
        jobs: every run.
        settings: all that the numbers depend on, as study.json has it.
        out: the folder.
    """

    jobs: list[Job]
    settings: dict[str, Any]
    out: Path

    @property
    def open(self) -> list[Job]:
        """The runs that are not finished."""
        return [job for job in self.jobs if finished(job) is None]


@checked
def compare(
    environment: Environments,
    estimators: Sequence[object] | Mapping[str, object],
    seeds: int | Sequence[int] = 10,
    *,
    steps: int,
    out: str | Path,
    workers: int | None = None,
    threads: int = 1,
    lanes: int | None = None,
    discount: float | None = None,
    environment_settings: Mapping[str, Any] | None = None,
    hidden: tuple[int, ...] = (64, 64),
    value: bool | None = None,
    evaluation_episodes: int = 100,
    normalise: Mapping[str, tuple[float, float]] | None = None,
    target: float | None = None,
    progress: bool = True,
    **settings: object,
) -> Comparison:
    """Train every contender with every seed and say, with 95 % intervals, which is better.

    Runs go side by side in processes of their own. The folder can be resumed: what is finished is
    kept, what was killed carries on from its last checkpoint, what failed is tried again; more
    estimators and seeds may be added later. A script calls it under `if __name__ == "__main__":`.

    Args:
        environment: a Gymnasium id, an importable function that makes an environment with
            `.policy(hidden, seed)` and `.value(hidden, seed)`, or several of these.
        estimators: Estimators and Algorithms, or names of either (an algorithm's, where both bear
            it); or a mapping from a name of your choice to one of these, or to a pair of one of
            these and a dict of further settings of `vantage.train`, which hold for it alone.
        seeds: how many (0, 1, …), or which. At least 2.
        steps: environment steps of every run; it stops at the first update that reaches them.
        out: folder. Each run has an ordinary run folder, OUT/ESTIMATOR/seed-000, below the name of
            the environment where there are several.
        workers: processes at one time; by default, one for every core.
        threads: torch threads of each.
        lanes, discount, environment_settings: of environments made from an id, as for
            `vantage.Gymnasium`; by default the lanes of each algorithm, and 64 for an estimator.
        hidden: widths of the hidden layers. First weights depend on the seed alone.
        value: with a learned value function; by default where the estimator needs one.
        evaluation_episodes: whole episodes of the final policy, actions sampled, whose mean return
            is the score of a run; 0 takes as score the mean of the last 100 training episodes.
        normalise: by environment, the returns that count as 0 and as 1. Needed where there are
            several environments, whose returns mean nothing together.
        target: score that counts as solved, for the optimality gap; 1 where scores are normalised,
            otherwise without it there is no gap.
        progress: a live table on a terminal, plain lines elsewhere.
        **settings: further arguments of `vantage.train`, the same for all.

    Returns:
        Comparison, also written to OUT/comparison.json. Where runs failed it holds those that did
        not, and `.failures`.

    Raises:
        InputError: settings that cannot work; a folder that holds another comparison; one that is
            under way already; or every run failed.
        KeyboardInterrupt: after every run at hand was saved.
    """
    refuse_to_start_again()
    study = plan(
        environment, estimators, seeds, steps=steps, out=out, threads=threads, lanes=lanes,
        discount=discount, environment_settings=environment_settings, hidden=hidden, value=value,
        evaluation_episodes=evaluation_episodes, normalise=normalise, target=target, **settings,
    )  # fmt: skip
    with alone(study.out):
        _open(study)
        todo = study.open
        workers = cores() if workers is None else workers
        with Display(study.jobs, todo, progress) as display:
            outcomes = run_all(run, todo, workers, display)
        failures = [outcome for outcome in outcomes if outcome.error is not None]
        for outcome in failures:
            outcome.job.folder.mkdir(parents=True, exist_ok=True)  # refused before it was made
            (outcome.job.folder / "error.txt").write_text(f"{outcome.error}\n\n{outcome.trace}")
        results = [result for job in study.jobs if (result := finished(job)) is not None]
        refuse_unless(
            results,
            f"compare: every run failed; the first, {failures[0].job}: {failures[0].error}"
            if failures
            else "compare: there is nothing to compare.",
        )
        compared = comparison(study.jobs, study.settings, study.out, failures)
        compared.save(study.out / RESULT)
    return compared


def plan(
    environment: Environments,
    estimators: Sequence[object] | Mapping[str, object],
    seeds: int | Sequence[int],
    *,
    steps: int,
    out: str | Path,
    threads: int,
    lanes: int | None,
    discount: float | None,
    environment_settings: Mapping[str, Any] | None,
    hidden: tuple[int, ...],
    value: bool | None,
    evaluation_episodes: int,
    normalise: Mapping[str, tuple[float, float]] | None,
    target: float | None,
    **settings: object,
) -> Study:
    """Every run of a comparison, checked; the arguments are those of `compare`.

    Raises:
        InputError: as `compare`, before anything is written.
    """
    asked: dict[str, object] = {} if discount is None else {"discount": discount}
    asked |= environment_settings or {}
    given = environment if isinstance(environment, list | tuple) else [environment]
    worlds = [_world(each, asked) for each in given]
    contenders = _contenders(estimators, value, lanes, settings)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check(worlds, contenders, numbers, steps, threads, evaluation_episodes, normalise)
    scales = {name: (float(low), float(high)) for name, (low, high) in (normalise or {}).items()}
    root = Path(out)
    jobs = [
        Job(
            world, contender, seed,
            root / ("" if len(worlds) == 1 else _folder(world.name))
            / _folder(contender.name) / f"seed-{seed:03d}",
            steps, tuple(hidden), evaluation_episodes, threads,
        )
        for seed in numbers
        for world in worlds
        for contender in contenders
    ]  # fmt: skip
    _refuse_what_cannot_travel(jobs)
    described = {
        "environments": {w.name: w.settings if isinstance(w.make, str) else {} for w in worlds},
        "estimators": {c.name: _columns(c) for c in contenders},
        "seeds": numbers,
        "steps": steps,
        "hidden": list(hidden),
        "evaluation_episodes": evaluation_episodes,
        "threads": threads,
        "normalise": {name: list(ends) for name, ends in scales.items()},
        "target": 1.0 if target is None and scales else target,
        "versions": versions(),
    }
    return Study(jobs, json.loads(json.dumps(described, default=repr)), root)


def cores() -> int:
    """Cores this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder: two comparisons must not write to the same runs.

    Raises:
        InputError: another process holds it; or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error}; choose another folder.") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has no such lock
            pass
        except OSError as error:
            raise InputError(
                f"{folder}: a comparison is under way there; wait for it, or choose another folder."
            ) from error
        yield


def _open(study: Study) -> None:
    """Write study.json, or check that the folder's study is this one; seeds and rows may differ."""
    file, settings = study.out / STUDY, study.settings
    if file.exists():
        before = object_of(file)
        refuse_unless(
            isinstance(before.get("estimators"), dict),
            f"{file} names no estimators; restore it from a copy, or choose another folder.",
        )
        for name in settings.keys() - {"versions", "seeds", "estimators", "target"}:
            refuse_unless(
                before.get(name) == settings[name],
                f"{study.out} holds a comparison with {name}={before.get(name)}, not "
                f"{settings[name]}; give that, or choose another folder with out (--out).",
            )
        for name, columns in settings["estimators"].items():
            old = before["estimators"].get(name, columns)
            refuse_unless(
                old == columns,
                f"{study.out} holds {name} with {old}, not {columns}; give the new one another "
                "name, or choose another folder with out (--out).",
            )
        settings = settings | {"estimators": before["estimators"] | settings["estimators"]}
    write_whole(file, json.dumps(settings, indent=2) + "\n")


# ---- what was asked for ------------------------------------------------------------------------


def _world(spec: object, settings: dict[str, object]) -> World:
    name = spec if isinstance(spec, str) else getattr(spec, "__name__", type(spec).__name__)
    return World(name, spec, settings)


def _contenders(
    estimators: Sequence[Any] | Mapping[str, object],
    value: bool | None,
    lanes: int | None,
    settings: dict[str, object],
) -> list[Contender]:
    refuse_unless(
        not isinstance(estimators, str),
        f"compare: estimators={estimators!r} is one name; give a list of them.",
    )
    if isinstance(estimators, Mapping):
        specs = estimators.items()
        return [_contender(name, spec, value, lanes, settings) for name, spec in specs]
    return [_contender(None, spec, value, lanes, settings) for spec in estimators]


def _contender(
    name: str | None,
    spec: object,
    value: bool | None,
    lanes: int | None,
    settings: dict[str, object],
) -> Contender:
    weighs, changes = spec if isinstance(spec, tuple) else (spec, {})
    algorithm, rule = resolve(weighs)
    merged = settings | dict(changes)
    known = inspect.signature(train).parameters
    for setting in merged:
        refuse_unless(
            setting in known and setting not in OWN,
            f"compare: vantage.train has no setting {setting!r} to give."
            if setting not in known
            else f"compare: {setting} is not a setting of one estimator here; see vantage.compare.",
        )
    needed = "value" in rule.needs or merged.get("baseline") == "auto"
    if algorithm is not None:
        needed = needed or algorithm.value
    return Contender(
        name or (rule.name if algorithm is None else algorithm.name),
        rule if algorithm is None else algorithm,
        merged,
        needed if value is None else value,
        (LANES if algorithm is None else algorithm.lanes) if lanes is None else lanes,
    )


def _check(
    worlds: list[World],
    contenders: list[Contender],
    seeds: list[int],
    steps: int,
    threads: int,
    evaluation_episodes: int,
    normalise: Mapping[str, tuple[float, float]] | None,
) -> None:
    for what, names in (
        ("environment", [w.name for w in worlds]),
        ("estimator", [_folder(c.name) for c in contenders]),
        ("seed", [str(seed) for seed in seeds]),
    ):
        refuse_unless(names, f"compare: no {what} was given.")
        twice = sorted({name for name in names if names.count(name) > 1})
        refuse_unless(not twice, f"compare: {what} {', '.join(twice)} is given more than once.")
    refuse_unless(
        len(seeds) >= 2,
        f"compare(seeds={len(seeds)}): an interval needs two runs of each; ten are better.",
    )
    refuse_unless(min(seeds) >= 0, f"compare: seed {min(seeds)} is negative.")
    refuse_unless(steps >= 1, f"compare(steps={steps}): must be at least 1.")
    refuse_unless(threads >= 1, f"compare(threads={threads}): must be at least 1.")
    fewest = min(contender.lanes for contender in contenders)
    refuse_unless(fewest >= 1, f"compare(lanes={fewest}): must be at least 1.")
    refuse_unless(
        evaluation_episodes == 0 or evaluation_episodes >= 2,
        f"compare(evaluation_episodes={evaluation_episodes}): give 0 (score by training) or 2.",
    )
    _check_scales([w.name for w in worlds], normalise)
    for world in worlds:
        env = world.build(contenders[0])  # an unknown id is refused here, not in every worker
        if any(contender.settings.get("compile") for contender in contenders):
            refuse_unless_compilable(env)
        getattr(env, "close", lambda: None)()


def _check_scales(worlds: list[str], normalise: Mapping[str, tuple[float, float]] | None) -> None:
    refuse_unless(
        len(worlds) == 1 or normalise is not None,
        "compare: returns of several environments mean nothing together; give normalise="
        '{"ID": (low, high), ...}, the returns that count as 0 and 1 (of a random policy and of '
        "one that solves it, say).",
    )
    for name, (low, high) in (normalise or {}).items():
        refuse_unless(name in worlds, f"compare(normalise): {name} is none of {', '.join(worlds)}.")
        refuse_unless(
            high > low, f"compare(normalise): {name} has ({low}, {high}); low must be below high."
        )
    missing = [name for name in worlds if normalise is not None and name not in normalise]
    refuse_unless(not missing, f"compare(normalise): no scores of {', '.join(missing)}.")


def _refuse_what_cannot_travel(jobs: list[Job]) -> None:
    for job in jobs:
        try:
            pickle.dumps(job)
        except Exception as error:
            raise InputError(
                f"compare: {job} cannot be sent to another process: {error}. Functions must be "
                "importable: defined at the top of a module, not inside a function or as a lambda."
            ) from error


def _columns(contender: Contender) -> dict[str, object]:
    weighs = contender.estimator
    algorithm = weighs if isinstance(weighs, Algorithm) else None
    estimator = weighs if algorithm is None else algorithm.estimator
    return {
        "columns": estimator.columns(),
        "algorithm": None if algorithm is None else str(algorithm),
        "lanes": contender.lanes,
        "settings": contender.settings,
        "value": contender.value,
    }


def _folder(name: str) -> str:
    """A name as a folder: no separators, nothing a shell or a file system stumbles over.

    >>> _folder("ALE/Pong-v5"), _folder("ppo, lr 0.1")
    ('ALE-Pong-v5', 'ppo-lr-0.1')
    """
    plain = "".join(c if c.isalnum() or c in "-_.=" else " " for c in name)
    return "-".join(plain.split()).lstrip(".") or "unnamed"
