"""From the folders of finished runs to a Comparison: scores, statistics, curves, words."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vantage.comparing import statistics
from vantage.comparing.comparison import Comparison
from vantage.comparing.jobs import RECENT, Job, finished
from vantage.comparing.record import Curve, Failure, Pair, Profile, Row
from vantage.comparing.workers import Outcome
from vantage.runs.run import read_metrics

POINTS = 60  # of a learning curve
FEW = 10  # runs, below which the note on coverage is given

Array = NDArray[np.float64]


def comparison(
    jobs: Sequence[Job], settings: dict[str, object], out: Path, failures: Sequence[Outcome]
) -> Comparison:
    """The comparison of every finished job; the order of rows is that of the jobs."""
    done = {job.folder: result for job in jobs if (result := finished(job)) is not None}
    runs = [_run(job, done[job.folder], settings, out) for job in jobs if job.folder in done]
    names = list(dict.fromkeys(job.contender.name for job in jobs))
    worlds = list(dict.fromkeys(job.world.name for job in jobs))
    failed = [
        Failure(o.job.world.name, o.job.contender.name, o.job.seed, o.error or "") for o in failures
    ]
    scores = {name: _scores(runs, name, worlds) for name in names}
    whole = [name for name in names if all(len(s) for s in scores[name])]
    rows = [_row(name, scores[name], runs, jobs, settings) for name in whole]
    pairs = [
        Pair(a, b, statistics.improvement(scores[a], scores[b]))
        for a, b in itertools.combinations(whole, 2)
    ]
    return Comparison(
        rows=rows,
        pairs=pairs,
        runs=runs,
        curves=_curves([job for job in jobs if job.folder in done]),
        profiles=_profiles({n: scores[n] for n in whole}) if len(worlds) > 1 else [],
        failures=failed,
        score=_score_in_words(settings),
        summary=_sentences(rows, pairs),
        notes=_notes(rows, names, failed, settings),
        settings=settings,
    )


def _run(
    job: Job, result: dict[str, object], settings: dict[str, Any], out: Path
) -> dict[str, object]:
    measured = "evaluation_return" if settings["evaluation_episodes"] else "training_return"
    score = result[measured]
    if score is not None and job.world.name in settings["normalise"]:
        low, high = settings["normalise"][job.world.name]
        score = (score - low) / (high - low)
    return {**result, "score": score, "folder": job.folder.relative_to(out).as_posix()}


def _scores(runs: list[dict[str, object]], name: str, worlds: list[str]) -> list[Array]:
    return [
        np.array([
            run["score"] for run in runs
            if run["estimator"] == name and run["environment"] == world and run["score"] is not None
        ], dtype=float)
        for world in worlds
    ]  # fmt: skip


def _row(
    name: str,
    scores: list[Array],
    runs: list[dict[str, Any]],
    jobs: Sequence[Job],
    settings: dict[str, Any],
) -> Row:
    of_name = [run for run in runs if run["estimator"] == name]
    asked = sum(job.contender.name == name for job in jobs)
    target = settings["target"]
    last = [run["training_return"] for run in of_name if run["training_return"] is not None]
    return Row(
        estimator=name,
        runs=len(of_name),
        failed=asked - len(of_name),
        iqm=statistics.iqm(scores),
        mean=statistics.mean(scores),
        median=statistics.median(scores),
        optimality_gap=None if target is None else statistics.optimality_gap(scores, target),
        training=float(np.mean(last)) if last and len(scores) == 1 else None,
        seconds=float(np.mean([run["seconds"] for run in of_name])),
        steps=float(np.mean([run["steps"] for run in of_name])),
    )


# ---- learning curves ---------------------------------------------------------------------------


def _curves(jobs: Sequence[Job]) -> list[Curve]:
    curves = []
    for world in dict.fromkeys(job.world.name for job in jobs):
        histories = {
            job.folder: (job.contender.name, points)
            for job in jobs
            if job.world.name == world and len((points := history_points(job.folder))[0])
        }
        grid = common_grid([points for _, points in histories.values()])
        for name in dict.fromkeys(name for name, _ in histories.values()):
            lines = [
                np.interp(grid, *points)
                for estimator, points in histories.values()
                if estimator == name
            ]
            curves.append(_curve(world, name, grid, np.stack(lines)))
    return curves


def history_points(folder: Path) -> tuple[Array, Array]:
    """Environment steps and mean return of every update of a run in which an episode ended."""
    rows = [row for row in read_metrics(folder) if row["return"] is not None]
    steps = np.array([row["steps"] for row in rows], dtype=float)
    return steps, np.array([row["return"] for row in rows], dtype=float)


def common_grid(histories: Sequence[tuple[Array, Array]]) -> Array:
    """Steps at which every run has been measured before and after: none is extrapolated.

    A single point where the runs have no stretch in common.
    """
    if not histories:
        return np.empty(0)
    first = max(steps[0] for steps, _ in histories)
    last = min(steps[-1] for steps, _ in histories)
    return np.linspace(first, last, POINTS) if last > first else np.array([max(first, last)])


def _curve(world: str, name: str, grid: Array, lines: Array) -> Curve:
    iqm, mean = (statistics.band(lines, which).tolist() for which in ("iqm", "mean"))
    return Curve(world, name, grid.tolist(), *iqm, *mean)


def _profiles(scores: dict[str, list[Array]]) -> list[Profile]:
    everything = np.concatenate([s for values in scores.values() for s in values])
    grid = np.linspace(everything.min(), everything.max(), POINTS)
    return [
        Profile(name, grid.tolist(), *statistics.profile(values, grid).tolist())
        for name, values in scores.items()
    ]


# ---- words -------------------------------------------------------------------------------------


def _score_in_words(settings: dict[str, object]) -> str:
    episodes = settings["evaluation_episodes"]
    words = (
        f"mean undiscounted return of {episodes} evaluation episodes of the final policy, sampled"
        if episodes
        else f"mean return of the last {RECENT} training episodes (whole updates)"
    )
    return words + (", normalised" if settings["normalise"] else "")


def _sentences(rows: list[Row], pairs: list[Pair]) -> list[str]:
    told = []
    for pair in pairs:
        p, first, second = pair.probability, pair.first, pair.second
        if p.low > 0.5:
            told.append(_better(first, second, p.value, p.low, p.high))
        elif p.high < 0.5:
            told.append(_better(second, first, 1 - p.value, 1 - p.high, 1 - p.low))
    open_pairs = len(pairs) - len(told)
    if open_pairs:
        told.append(
            f"{open_pairs} of {len(pairs)} pairs cannot be told apart with these seeds: their "
            "interval of P(first > second) holds ½."
        )
    return [*told, _best(rows)] if rows else told


def _better(first: str, second: str, value: float, low: float, high: float) -> str:
    return (
        f"A run of {first} scores above a run of {second} with probability {value:.2f} "
        f"[{low:.2f}, {high:.2f}]."
    )


def _best(rows: list[Row]) -> str:
    best = max(rows, key=lambda row: row.iqm.value)
    rivals = [
        row.estimator for row in rows
        if row is not best and not (math.isfinite(row.iqm.high) and row.iqm.high < best.iqm.low)
    ]  # fmt: skip
    iqm = f"{best.iqm.value:.4g} [{best.iqm.low:.4g}, {best.iqm.high:.4g}]"
    words = f"Highest IQM: {best.estimator}, {iqm}"
    if not rivals:
        return f"{words}."
    return f"{words}; its interval overlaps that of {', '.join(rivals)}."


def _notes(
    rows: list[Row], names: list[str], failed: list[Failure], settings: dict[str, object]
) -> list[str]:
    notes = []
    if (runs := min((row.runs for row in rows), default=0)) < FEW:
        notes.append(
            f"{runs} runs of an estimator: intervals of so few cover less than 95 % where scores "
            "are skewed or split in two; docs/compare.md has the numbers."
        )
    if len(rows) > 2:
        notes.append(
            "Each interval covers by itself; among many pairs, some will seem different by chance."
        )
    notes += [
        f"{row.estimator}: {row.failed} of {row.runs + row.failed} runs failed or are missing; its "
        "numbers are of those that finished, which may flatter it."
        for row in rows
        if row.failed
    ]
    lost = [name for name in names if name not in {row.estimator for row in rows}]
    notes += [f"{name}: no finished run in some environment; it has no row." for name in lost]
    notes += [f"{f.estimator} on {f.environment}, seed {f.seed}, failed: {f.error}" for f in failed]
    notes += [
        f"{row.estimator}: every run scored the same; that says nothing of rarer outcomes."
        for row in rows
        if row.iqm.note == statistics.CONSTANT
    ]
    if not settings["evaluation_episodes"]:
        notes.append("Training returns are those of a policy that still changes.")
    return notes
