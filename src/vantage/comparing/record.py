"""What a comparison found: one row per estimator, every pair, every run."""

from dataclasses import asdict, dataclass
from typing import Any

from vantage.errors import InputError
from vantage.pages.numbers import plain
from vantage.statistics.intervals import Estimate


@dataclass(frozen=True)
class Row:
    """One estimator, over all its runs; scores are what `Comparison.score` says.

    Attributes:
        estimator: its name.
        runs: how many finished.
        failed: how many did not.
        iqm: mean of the middle half of the runs.
        mean: mean of the runs.
        median: the median of the runs; of several environments' means where there are several.
        optimality_gap: E[max(0, target − score)]; None without a target.
        training: mean return of the last 100 training episodes of every run, averaged over runs;
            None where environments differ.
        seconds: mean seconds of training of a run.
        steps: mean environment steps of a run.
    """

    estimator: str
    runs: int
    failed: int
    iqm: Estimate
    mean: Estimate
    median: Estimate
    optimality_gap: Estimate | None
    training: float | None
    seconds: float
    steps: float


@dataclass(frozen=True)
class Pair:
    """Probability that a run of `first` scores above a run of `second`, ties counted half."""

    first: str
    second: str
    probability: Estimate


@dataclass(frozen=True)
class Curve:
    """Return against environment steps, of one estimator in one environment.

    Attributes:
        steps: [points], the same for every estimator of the environment.
        iqm, mean: [points] over runs, with pointwise 95 % intervals.
        iqm_low, iqm_high, mean_low, mean_high: [points].
    """

    environment: str
    estimator: str
    steps: list[float]
    iqm: list[float]
    iqm_low: list[float]
    iqm_high: list[float]
    mean: list[float]
    mean_low: list[float]
    mean_high: list[float]


@dataclass(frozen=True)
class Profile:
    """Fraction of an estimator's runs that score above each threshold, with 95 % intervals."""

    estimator: str
    thresholds: list[float]
    fraction: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    environment: str
    estimator: str
    seed: int
    error: str


@dataclass(frozen=True)
class Findings:
    """What `vantage.compare` found, as data; a `Comparison` prints and saves them.

    Attributes:
        rows: one per estimator, in the order asked for.
        pairs: every pair of estimators.
        runs: one dict per finished run: environment, estimator, seed, score, evaluation_return,
            training_return, steps, updates, seconds, folder.
        curves: learning curves, by environment and estimator.
        profiles: performance profiles, where there are several environments.
        failures: runs that failed.
        score: what is compared, in words.
        summary: what a person should know, in sentences.
        notes: what limits the numbers.
        settings: environments, estimators, seeds, steps, versions.
    """

    rows: list[Row]
    pairs: list[Pair]
    runs: list[dict[str, Any]]
    curves: list[Curve]
    profiles: list[Profile]
    failures: list[Failure]
    score: str
    summary: list[str]
    notes: list[str]
    settings: dict[str, Any]

    def row(self, estimator: str) -> Row:
        """The row of that estimator.

        Raises:
            InputError: it was not compared.
        """
        rows = {row.estimator: row for row in self.rows}
        if estimator not in rows:
            raise InputError(f"{estimator!r} was not compared; there are {', '.join(rows)}.")
        return rows[estimator]

    def improvement(self, first: str, second: str) -> Estimate:
        """P(first > second) + P(equal)/2, of one run of each.

        Raises:
            InputError: the two were not compared.
        """
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair.probability
            if (pair.first, pair.second) == (second, first):
                p = pair.probability
                return Estimate(1 - p.value, 1 - p.high, 1 - p.low, p.exact, p.note)
        raise InputError(f"{first!r} and {second!r} were not compared with one another.")

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON can hold it; what is undetermined is null."""
        return plain(asdict(self))
