"""`vantage compare`: the command, and what --dry-run says of it."""

import math
import time
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vantage.commands.arguments import assignments, literal
from vantage.comparing.compare import Study, compare, cores, plan
from vantage.comparing.display import duration
from vantage.comparing.jobs import Job, networks, seeds
from vantage.errors import InputError, refuse_unless
from vantage.runs.progress import terminal
from vantage.training.loop import train

BURST = 3  # updates that --dry-run times


def compare_command(
    env: Positional[tuple[str, ...]],
    estimators: tuple[str, ...] = ("reinforce", "reinforce_baseline"),
    seeds: int = 10,
    steps: int = 200_000,
    out: Path = Path("runs/compare"),
    workers: int | None = None,
    threads: int = 1,
    env_set: tuple[str, ...] = (),
    lanes: int | None = None,
    discount: float | None = None,
    hidden: tuple[int, ...] = (64, 64),
    value: bool | None = None,
    evaluation_episodes: int = 100,
    low: tuple[float, ...] = (),
    high: tuple[float, ...] = (),
    target: float | None = None,
    set: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    html: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train estimators with many seeds, in parallel, and compare them with 95 % intervals.

    A comparison that was stopped or killed carries on where it was when the same command is given
    again; with more seeds or estimators, only what is new is trained.

    Args:
        env: Gymnasium ids, such as CartPole-v1.
        estimators: rows of the table that `vantage estimators` prints, and algorithms that
            `vantage algorithms` prints, with their lanes and learning rates; a name that both bear
            is the algorithm's.
        seeds: runs of each estimator, with seeds 0, 1, …
        steps: environment steps of every run.
        out: folder; every run has an ordinary run folder in it.
        workers: runs at one time; one for every core by default.
        threads: torch threads of each; small networks want one.
        env_set: settings of the environments, NAME=VALUE, such as is_slippery=False.
        lanes: copies of the environment that run side by side; by default those of each algorithm,
            and 64 for an estimator.
        discount: γ of the objective, in (0, 1]; that of an algorithm that has its own, or 0.99.
        hidden: widths of the hidden layers of policy and value function.
        value: train a value function, too; by default where an estimator needs one.
        evaluation_episodes: episodes of the final policy that score a run; 0 scores by the last 100
            episodes of training.
        low: the return of each environment that counts as 0; needed where there are several.
        high: the return of each environment that counts as 1.
        target: score that counts as solved, for the optimality gap.
        set: further settings of training, NAME=VALUE, or ESTIMATOR.NAME=VALUE for one of them.
        settings: another name for --set.
        html: write the page there; OUT/comparison.html by default.
        dry_run: print how many runs, how many steps and about how long, and stop.
    """
    refuse_unless(
        len(low) == len(high) and len(low) in (0, len(env)),
        f"compare: {len(low)} --low and {len(high)} --high for {len(env)} environments; give one "
        "of each for every environment, in order.",
    )
    common, apart = parse((*set, *settings), estimators)
    arguments: dict[str, Any] = {
        "environment": list(env),
        "estimators": {name: (name, apart[name]) for name in dict.fromkeys(estimators)},
        "seeds": seeds,
        "steps": steps,
        "out": out,
        "threads": threads,
        "lanes": lanes,
        "discount": discount,
        "environment_settings": assignments("--env-set", env_set),
        "hidden": hidden,
        "value": value,
        "evaluation_episodes": evaluation_episodes,
        "normalise": dict(zip(env, zip(low, high, strict=True), strict=True)) if low else None,
        "target": target,
        **common,
    }
    workers = cores() if workers is None else workers
    if dry_run:
        for line in arithmetic(plan(**arguments), workers):
            terminal.print(line, markup=False)
        return
    result = compare(**arguments, workers=workers)
    page = result.save(html or out / "comparison.html")
    terminal.print(str(result), markup=False, end="")
    terminal.print(f"Written: {out / 'comparison.json'}, {page}", markup=False)
    refuse_unless(
        not result.failures,
        f"compare: {len(result.failures)} runs failed; give the same command again to retry them "
        f"(the first, {result.failures[0].estimator}, seed {result.failures[0].seed}: "
        f"{result.failures[0].error})"
        if result.failures
        else "",
    )


def parse(
    settings: tuple[str, ...], estimators: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, dict[str, object]]]:
    """Settings for all, and by estimator.

    >>> parse(("batch=32", "baseline=auto", "rloo.lr=1e-3"), ("rloo", "ppo"))
    ({'batch': 32, 'baseline': 'auto'}, {'rloo': {'lr': 0.001}, 'ppo': {}})

    Raises:
        InputError: not of the form NAME=VALUE, or of an estimator that is not compared.
    """
    common: dict[str, object] = {}
    apart: dict[str, dict[str, object]] = {name: {} for name in estimators}
    for text in settings:
        name, equals, value = text.partition("=")
        owner, dot, setting = name.rpartition(".")
        refuse_unless(
            equals and setting and (not dot or owner in apart),
            f"--set {text}: write NAME=VALUE, or ESTIMATOR.NAME=VALUE with one of "
            f"{', '.join(apart)}.",
        )
        (apart[owner] if dot else common)[setting] = literal(value)
    return common, apart


def arithmetic(study: Study, workers: int) -> list[str]:
    """What a study would take: runs, steps, and time at the speed of a few updates just made."""
    todo = study.open
    steps = sum(job.steps for job in todo)
    lines = [
        f"{len(study.jobs)} runs: {len(study.settings['estimators'])} estimators × "
        f"{len(study.settings['seeds'])} seeds × {len(study.settings['environments'])} environments"
        f"; {len(study.jobs) - len(todo)} finished already.",
        f"{steps:,} environment steps to go, {study.settings['steps']:,} a run, in whole updates.",
        f"Folder: {study.out}",
    ]
    first = {(job.world.name, job.contender.name): job for job in reversed(todo)}
    speeds = {kind: _speed(job) for kind, job in reversed(first.items())}
    lines += [f"{name} on {world}: {speed:,.0f} steps/s" for (world, name), speed in speeds.items()]
    seconds = sum(job.steps / speeds[job.world.name, job.contender.name] for job in todo)
    rounds = seconds / max(1, min(workers, len(todo)))
    return [
        *lines,
        f"About {duration(rounds)} with {workers} workers, if each has a core to itself; at the "
        f"speed of {BURST} updates, evaluations not counted.",
    ]


def _speed(job: Job) -> float:
    """Steps a second of a run's first updates, the very first left out: it warms up."""
    env = job.world.build(job.contender)
    policy, value = networks(env, job, seeds(job.seed))
    started = time.perf_counter()
    history = train(
        env,
        policy,
        job.contender.estimator,
        value=value,
        **{**job.contender.settings, "updates": BURST},
        threads=job.threads,
        progress=False,
    ).history
    later = history[1:] or history
    seconds = sum(row["step_time"] for row in later) or time.perf_counter() - started
    steps = later[-1]["steps"] - (history[0]["steps"] if len(history) > 1 else 0)
    if not steps or math.isnan(seconds):
        raise InputError(f"compare: {job} made no steps in {BURST} updates.")
    return steps / seconds
