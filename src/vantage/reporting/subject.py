"""A run as its report looks at it, whatever its folder says: nothing in it is taken for granted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vantage.pages.numbers import number
from vantage.reporting.curves import Curves, History
from vantage.statistics.gram import Array

PART = 10  # the beginning and the end of a run are a tenth of its updates each,
LEAST = 5  # and this many at least


@dataclass(frozen=True)
class Subject:
    """A run's settings and history.

    Attributes:
        config: as config.json has it; a stranger's may hold anything.
        history: one record per update.
    """

    config: Mapping[str, Any]
    history: History

    @cached_property
    def curves(self) -> Curves:
        """Its metrics."""
        return Curves(self.history)

    @property
    def language(self) -> bool:
        """Whether a language model was trained."""
        return "task" in self.config

    @property
    def worth(self) -> str:
        """What a return is called."""
        return "reward" if self.language else "return"

    @property
    def rows(self) -> str:
        """What a batch is counted in."""
        return "completions" if self.language else "episodes"

    @property
    def where(self) -> str:
        """The environment or task."""
        return name_in(self.config.get("environment") or self.config.get("task")) or "a task"

    @property
    def how(self) -> str:
        """The algorithm or estimator."""
        algorithm = self.config.get("algorithm")
        return algorithm if isinstance(algorithm, str) else self.estimator

    @property
    def estimator(self) -> str:
        """The estimator."""
        return name_in(self.config.get("estimator")) or "an estimator"

    @property
    def title(self) -> str:
        """What ran where."""
        return f"{self.how} on {self.where}"

    def metric(self, name: str) -> Array:
        """The finite values of a metric, in order."""
        column = self.curves.columns.get(name)
        return np.empty(0) if column is None else column[np.isfinite(column)]

    def last(self, name: str) -> float | None:
        """Its last value."""
        values = self.metric(name)
        return float(values[-1]) if len(values) else None

    @property
    def evaluation_sets(self) -> list[str]:
        """Names of the held-out sets that were evaluated apart."""
        matches = (
            re.fullmatch("eval/(.+)/return", name, re.DOTALL) for name in self.curves.columns
        )
        return [match[1] for match in matches if match]

    def evaluation(self, where: str = "eval") -> tuple[str, str] | None:
        """The last evaluation in words: its mean, and its interval, empty where there is none."""
        score = self.last(f"{where}/return")
        if score is None:
            return None
        low, high = self.last(f"{where}/return_low"), self.last(f"{where}/return_high")
        ends = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
        return number(score), ends

    def early(self, name: str) -> Array:
        """Its values in the first tenth of the updates."""
        values = self.metric(name)
        return values[: _span(len(values))]

    def late(self, name: str) -> Array:
        """Its values in the last tenth of the updates."""
        values = self.metric(name)
        return values[len(values) - _span(len(values)) :]

    def late_mean(self, name: str) -> float | None:
        """Their mean; None where there is none."""
        values = self.late(name)
        return float(values.mean()) if len(values) else None

    @property
    def share_done(self) -> float | None:
        """How much of what was asked for is done; None where nothing says it."""
        shares = []
        for goal, metric in (("steps", "steps"), ("updates", "update")):
            asked, done = self.config.get(goal), self.last(metric)
            if isinstance(asked, int) and asked > 0 and done is not None:
                shares.append(done / float(min(asked, 1 << 62)))
        return max(shares, default=None)


def name_in(record: Any) -> str:
    """The name that a record bears, or that it is."""
    name = record.get("name") if isinstance(record, Mapping) else record
    return name if isinstance(name, str) else ""


def _span(count: int) -> int:
    return min(max(LEAST, count // PART), count // 2) if count > 1 else count
