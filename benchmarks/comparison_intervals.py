"""Coverage of the intervals of `vantage compare`, on scores whose truth is known.

    python benchmarks/comparison_intervals.py [repetitions]

Five laws of scores as runs have them: normal; lognormal (a few runs far ahead); two modes (30 % of
the runs fail); a ceiling that half the runs reach nearly or wholly; Student's t with 3 degrees of
freedom. For 5, 10 and 20 seeds each interval is made again and again, and counted when it holds the
truth. Beside the method in use stand those it was chosen against. Written to
benchmarks/results/comparison_intervals.json; an error of a coverage c is √(c(1−c)/repetitions).
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vantage.comparing import statistics
from vantage.statistics.intervals import Estimate

Array = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], Array]
RESAMPLES = 999

LAWS: dict[str, Law] = {
    "normal": lambda g, n: g.normal(0, 1, n),
    "skewed": lambda g, n: g.lognormal(0, 1, n),
    "two modes": lambda g, n: np.where(
        g.random(n) < 0.3, g.normal(60, 15, n), g.normal(450, 30, n)
    ),
    "ceiling": lambda g, n: np.minimum(500, g.normal(470, 60, n)),
    "heavy tails": lambda g, n: g.standard_t(3, n),
}


def main(repetitions: int) -> None:
    """Measure, print and write."""
    found: dict[str, Any] = {"repetitions": repetitions}
    for seeds in (5, 10, 20):
        for name, law in LAWS.items():
            row = single(law, seeds, repetitions)
            found[f"{name}, {seeds} seeds"] = row
            print(name, seeds, row, flush=True)
        found[f"four environments, {seeds} seeds"] = row = several(seeds, repetitions)
        print("four environments", seeds, row, flush=True)
    target = Path(__file__).parent / "results" / "comparison_intervals.json"
    target.write_text(json.dumps(found, indent=2) + "\n")


def single(law: Law, seeds: int, repetitions: int) -> dict[str, float]:
    """Coverage of every interval over one environment, by name."""
    rng, far = np.random.default_rng(seeds), np.sort(law(np.random.default_rng(0), 1_000_000))
    gain = float(far.std() / 2)
    truth = {
        "iqm": float(stats.trim_mean(far, 0.25)),
        "mean": float(far.mean()),
        "median": float(np.median(far)),
        "improvement": float(np.mean(far[rng.permutation(len(far))] + gain > far)),
    }
    hits: dict[str, int] = {}
    for _ in range(repetitions):
        x, y = law(rng, seeds), law(rng, seeds)
        made = {
            ("iqm", "in use"): statistics.iqm([x]),
            ("mean", "in use"): statistics.mean([x]),
            ("median", "in use"): statistics.median([x]),
            ("improvement", "in use"): statistics.improvement([x + gain], [y]),
            ("iqm", "percentile"): percentile(x, 0.25, rng),
            ("mean", "percentile"): percentile(x, 0.0, rng),
        }
        for (statistic, method), estimate in made.items():
            held = estimate.low <= truth[statistic] <= estimate.high
            hits[f"{statistic}, {method}"] = hits.get(f"{statistic}, {method}", 0) + held
    return {name: round(count / repetitions, 3) for name, count in hits.items()}


def several(seeds: int, repetitions: int) -> dict[str, float]:
    """Coverage over four environments of different laws and levels."""
    rng = np.random.default_rng([seeds, 4])
    laws: list[Law] = [
        lambda g, n: g.normal(0.2, 0.1, n),
        lambda g, n: np.where(g.random(n) < 0.3, 0.1, 0.6) + g.normal(0, 0.05, n),
        lambda g, n: 0.5 + 0.1 * g.lognormal(0, 0.7, n),
        lambda g, n: np.minimum(1.0, g.normal(0.95, 0.2, n)),
    ]
    far = [law(np.random.default_rng(0), 500_000) for law in laws]
    truth = {
        "iqm": float(stats.trim_mean(np.concatenate(far), 0.25)),
        "mean": float(np.mean([s.mean() for s in far])),
        "median": float(np.median([s.mean() for s in far])),
        "optimality_gap": float(np.mean([np.maximum(0, 1 - s).mean() for s in far])),
    }
    hits = dict.fromkeys(truth, 0)
    for _ in range(repetitions):
        scores = [law(rng, seeds) for law in laws]
        made = {
            "iqm": statistics.iqm(scores),
            "mean": statistics.mean(scores),
            "median": statistics.median(scores),
            "optimality_gap": statistics.optimality_gap(scores, 1.0),
        }
        for name, estimate in made.items():
            hits[name] += estimate.low <= truth[name] <= estimate.high
    return {name: round(count / repetitions, 3) for name, count in hits.items()}


def percentile(scores: Array, trim: float, rng: np.random.Generator) -> Estimate:
    """The plain percentile bootstrap of a trimmed mean."""
    again = scores[rng.integers(0, len(scores), (RESAMPLES, len(scores)))]
    low, high = np.quantile(stats.trim_mean(again, trim, axis=1), [0.025, 0.975])
    return Estimate(float(stats.trim_mean(scores, trim)), float(low), float(high))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
