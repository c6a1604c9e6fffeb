"""What a comparison found: one row per estimator, every pair, every run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vantage.errors import InputError
from vantage.pages.numbers import number, plain, text, written
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
        median: of the runs; of several environments' means where there are several.
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
class Comparison:
    """The result of `vantage.compare`.

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
        found = {row.estimator: row for row in self.rows}
        if estimator not in found:
            raise InputError(f"{estimator!r} was not compared; there are {', '.join(found)}.")
        return found[estimator]

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

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it; what is undetermined is null."""
        return plain(asdict(self))

    def save(self, path: str | Path) -> Path:
        """Write the comparison as JSON or as one HTML page with figures, by the file's ending.

        Raises:
            InputError: another ending.
        """
        from vantage.comparing.page import page

        return written(path, "Comparison", self.to_dict, lambda: page(self))

    def table(self) -> Table:
        """The rows as a table for a terminal."""
        table = Table(caption=f"Score: {self.score}. 95 % intervals in brackets.")
        gap = any(row.optimality_gap is not None for row in self.rows)
        for heading in (
            "estimator", "runs", "IQM", "mean", "median", *["optimality gap"] * gap,
            "training return\nlast 100 episodes", "steps", "seconds a run",
        ):  # fmt: skip
            table.add_column(heading, justify="left" if heading == "estimator" else "right")
        for row in self.rows:
            runs = f"{row.runs}" + (f"\n{row.failed} failed" if row.failed else "")
            table.add_row(
                Text(row.estimator), runs, text(row.iqm), text(row.mean), text(row.median),
                *([text(row.optimality_gap)] if row.optimality_gap is not None else []),
                "–" if row.training is None else number(row.training),
                f"{row.steps:,.0f}", number(row.seconds),
            )  # fmt: skip
        return table

    def pair_table(self) -> Table:
        """The pairs as a table for a terminal."""
        table = Table("first", "second", "P(first > second)", caption="One run of each; ties ½.")
        for pair in self.pairs:
            table.add_row(Text(pair.first), Text(pair.second), text(pair.probability))
        return table

    def __str__(self) -> str:
        console = Console(width=160, force_terminal=False, highlight=False)
        with console.capture() as capture:
            for sentence in self.summary:
                console.print(f"• {sentence}", soft_wrap=True, markup=False)
            console.print(self.table())
            if self.pairs:
                console.print(self.pair_table())
            for note in self.notes:
                console.print(f"Note: {note}", soft_wrap=True, markup=False)
        return capture.get()
