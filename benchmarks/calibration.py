"""How often do the 95 % intervals of `vantage.statistics.intervals` hold the truth?

    OMP_NUM_THREADS=1 python benchmarks/calibration.py --audits 1000

Every case draws audits of U units of a problem with a known answer, asks for every statistic, and
counts how often the interval holds the exact value: `coverage` over the audits where the statistic
is determined, `undetermined` the share of the others. Audits whose gradients are all zero are
counted as `empty`. The noise scale and the batch cosine are monotone maps of the SNR and share its
coverage. Width is relative to an oracle, 3.92 standard deviations of the estimate over audits; it
says little where most audits are undetermined or the estimate is heavy-tailed itself.
"""

import json
import platform
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import torch
import tyro
from calibration_cases import CASES, Array, Case
from calibration_worlds import WORLDS
from rich.console import Console
from rich.table import Table

from vantage.statistics import intervals

RESULTS = Path(__file__).parent / "results" / "calibration.json"
BATCH = 64
LONG = {"article", "groups graded", "gaussian P=1000 snr 0.1"}  # cases also run at 1024 units


@dataclass
class Arguments:
    """Measure coverage."""

    audits: int = 1000
    units: tuple[int, ...] = (64, 256)
    long_audits: int = 0
    """audits at 1024 units, for a few cases"""
    cases: str = ""
    """comma-separated beginnings of case names; all when empty"""
    estimators: int = 1
    """how many estimators of a case are audited; its reference counts last, and serves the paired
    statistics of the others in any case"""
    quick: bool = False
    """50 audits of 64 units"""
    add: bool = False
    """keep the runs that the results file holds already"""
    out: Path = RESULTS
    seed: int = 0


Row = tuple[str, str, intervals.Estimate, float]
Record = dict[str, object]


def statistics(case: Case, drawn: dict[str, Array], names: list[str]) -> Iterator[Row]:
    """(estimator, statistic, estimate, truth) of one audit. drawn: name -> [U, P]."""
    for name in names:
        units, mean, trace = drawn[name], case.mean[name], case.trace[name]
        gram, norm = units @ units.T, float(mean @ mean)
        if case.completions:
            group = np.arange(len(units)) // case.completions
            between, within = intervals.decomposition(gram, group)
            yield name, "between", between, float(case.between or 0)
            yield name, "within", within, float(case.within or 0)
            continue
        yield name, "squared norm", intervals.squared_norm(gram), norm
        yield name, "variance", intervals.variance(gram), trace
        yield name, "snr", intervals.snr(gram, BATCH), BATCH * norm / trace
        if name == case.reference:
            continue
        sampled, target = drawn[case.reference], case.mean[case.reference]
        cross, reference, square = units @ sampled.T, sampled @ sampled.T, float(target @ target)
        yield (
            name,
            "variance ratio",
            intervals.variance_ratio(gram, reference),
            trace / case.trace[case.reference],
        )
        if square < 1e-20:
            continue
        pairs = (("exact", units @ target, square), ("sampled", cross, reference))
        for kind, across, below in pairs:
            yield (
                name,
                f"scale, {kind}",
                intervals.scale(across, below),
                float(mean @ target) / square,
            )
            bias = float(np.sqrt((mean - target) @ (mean - target) / square))
            yield name, f"relative bias, {kind}", intervals.relative_bias(gram, across, below), bias
            angle = float(mean @ target / np.sqrt(norm * square))
            yield name, f"cosine, {kind}", intervals.cosine(gram, across, below), min(angle, 1.0)


def audit(case: Case, units: int, audits: int, count: int, seed: int) -> list[Record]:
    """Coverage rows of one case."""
    generator = np.random.default_rng([seed, units])
    others = [name for name in case.mean if name != case.reference] or list(case.mean)
    names = others[-count:] if "groups" in case.name else others[:count]
    names += [case.reference] * (case.reference in case.mean and count > len(others))
    found: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    empty, done = 0, 0
    while done < audits:
        chunk = min(20 if "large" in case.tags else 500, audits - done)
        drawn = case.sample(generator, chunk, units)
        done += chunk
        for row in range(chunk):
            one = {name: gradients[row] for name, gradients in drawn.items()}
            if not all(gradients.any() for gradients in one.values()):
                empty += 1
                continue
            for name, statistic, e, truth in statistics(case, one, names):
                slack = 1e-9 * abs(truth)
                below, above = truth < e.low - slack, truth > e.high + slack
                optimistic = "optimistic" in e.note
                found[name, statistic].append(
                    (below, above, np.isnan(e.value), optimistic, e.high - e.low, e.value)
                )
    return [summary(case, units, key, np.array(rows), empty) for key, rows in found.items()]


def summary(case: Case, units: int, key: tuple[str, str], rows: Array, empty: int) -> Record:
    """One row of the table."""
    undetermined, optimistic = rows[:, 2] == 1, rows[:, 3] == 1
    below, above, _, _, width, value = rows[~undetermined].T
    count = max(len(below), 1)
    inside = 1 - below - above
    rate = float(inside.sum()) / count
    vouched = inside[~optimistic[~undetermined]]
    oracle = 3.92 * float(value.std()) if len(value) > 1 else 0.0
    median = float(np.median(width)) if len(width) else np.inf
    plain = oracle > 1e-9 * abs(float(np.mean(value))) and np.isfinite(median) if len(value) else 0
    return {
        "case": case.name,
        "truth": case.truth,
        "units": units,
        "estimator": key[0],
        "statistic": key[1],
        "audits": len(rows),
        "empty": empty,
        "coverage": round(rate, 4) if len(below) else None,
        "standard_error": round(max(rate * (1 - rate), 0.01) ** 0.5 / count**0.5, 4),
        "truth_below": round(float(below.sum()) / count, 4),
        "truth_above": round(float(above.sum()) / count, 4),
        "undetermined": round(float(undetermined.mean()), 4),
        "optimistic": round(float(optimistic.mean()), 4),
        "coverage_not_optimistic": round(float(vouched.mean()), 4) if vouched.size else None,
        "not_optimistic": int(vouched.size),
        "unbounded": round(float((~np.isfinite(width)).sum()) / count, 4),
        "median_width": median if np.isfinite(median) else None,
        "width_over_oracle": round(median / oracle, 3) if plain else None,
    }


def table(rows: list[Record]) -> Table:
    columns = [
        "case",
        "units",
        "estimator",
        "statistic",
        "coverage",
        "standard_error",
        "truth_below",
        "truth_above",
    ]
    columns += [
        "undetermined",
        "optimistic",
        "coverage_not_optimistic",
        "unbounded",
        "width_over_oracle",
    ]
    result = Table(*columns, title="Coverage of 95 % intervals")
    for row in rows:
        off = row["coverage"] is not None and not 0.93 <= float(str(row["coverage"])) <= 0.97
        result.add_row(
            *("" if row[c] is None else str(row[c]) for c in columns),
            style="yellow" if off else None,
        )
    return result


def save(path: Path, rows: list[Record], seconds: float, earlier: list[Record]) -> None:
    """{"runs": [...]}: each run with its command, versions and rows."""
    run: Record = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/calibration.py " + shlex.join(sys.argv[1:]),
        "seconds": round(seconds),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": [*earlier, run]}, indent=1))


def main(arguments: Arguments) -> None:
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
    known = arguments.add and arguments.out.exists()
    earlier = json.loads(arguments.out.read_text())["runs"] if known else []
    wanted = tuple(filter(None, arguments.cases.split(",")))
    audits, sizes = (50, (64,)) if arguments.quick else (arguments.audits, arguments.units)
    plan = [
        (case, units, audits)
        for units in sizes
        for case in (*CASES, *WORLDS)
        if not wanted or case.name.startswith(wanted)
    ]
    if arguments.long_audits:
        plan += [(case, 1024, arguments.long_audits) for case in CASES if case.name in LONG]
    for case, units, number in plan:
        rows += audit(case, units, number, arguments.estimators, arguments.seed)
        print(
            f"{time.perf_counter() - start:7.0f} s  {case.name}, {units} units",
            file=sys.stderr,
            flush=True,
        )
        save(arguments.out, rows, time.perf_counter() - start, earlier)
    Console(width=190).print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
