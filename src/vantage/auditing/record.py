"""What an audit found: one row per estimator, every number with an interval or the word exact."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from vantage.auditing.planner import Plan
from vantage.errors import InputError
from vantage.pages.numbers import plain
from vantage.statistics.intervals import Estimate


@runtime_checkable
class Measured(Protocol):
    """What an audit has to know of an estimator, or of a gradient from elsewhere."""

    @property
    def name(self) -> str: ...
    @property
    def couples(self) -> str: ...
    @property
    def bias(self) -> str | None: ...
    @property
    def unbiased(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...


UNDECLARED = "not declared"  # when a gradient from elsewhere is unbiased


def counted(settings: Mapping[str, Any]) -> tuple[str, str]:
    """What a batch counts, one and several of it: trajectories where nothing else is said."""
    one, several = settings.get("counted", ("trajectory", "trajectories"))
    return one, several


@dataclass(frozen=True)
class Row:
    """One estimator. G is its mean gradient, G* the reference; variances count one trajectory.

    Attributes:
        estimator: its name.
        couples: unit of independence: "none" (a trajectory), "group" or "batch".
        unit: trajectories in one unit of the statistics.
        claim: when it is unbiased, as its columns declare.
        bias: ‖G − G*‖ / ‖G*‖.
        scale: G·G* / ‖G*‖²; 1 where the estimator has the right length along G*.
        cosine: cos(G, G*), the direction of the mean gradient.
        squared_norm: ‖G‖².
        variance: tr Σ of one trajectory's gradient: a batch of B has tr Σ / B. For an estimator
            that looks across its group or batch, B times the variance of a batch of the size
            audited.
        variance_ratio: variance over that of the reference.
        snr: B ‖G‖² / tr Σ of a batch.
        noise_scale: tr Σ / ‖G‖², the trajectories at which the SNR is 1.
        batch_cosine: cos(ĝ_B, G), a batch's gradient with its mean.
        pairwise_cosine: cos of two batches' gradients.
        between, within: variance between start states and inside them, per trajectory, from two
            trajectories of each of 64 starts, sampled apart; undetermined for estimators
            that compare trajectories, and where several lanes cannot start from one state.
        aggressiveness: largest |Δ log π(a_t|s_t)| on sampled steps from one step along a batch's
            gradient, per unit of learning rate, to first order.
        cost: seconds per trajectory: sampling, gradient passes and the estimator's own weights.
    """

    estimator: str
    couples: str
    unit: int
    claim: str
    bias: Estimate
    scale: Estimate
    cosine: Estimate
    squared_norm: Estimate
    variance: Estimate
    variance_ratio: Estimate
    snr: Estimate
    noise_scale: Estimate
    batch_cosine: Estimate
    pairwise_cosine: Estimate
    between: Estimate
    within: Estimate
    aggressiveness: Estimate
    cost: Estimate

    def statistics(self) -> dict[str, Estimate]:
        """Every statistic by name."""
        return {
            each.name: value
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), Estimate)
        }


@dataclass(frozen=True)
class Findings:
    """What `vantage.audit` found, as data; a `Report` prints and saves them.

    Attributes:
        rows: one per estimator.
        summary: what a person should know and do, in sentences.
        plan: trajectories per batch that reach the target SNR, by estimator.
        reference: what bias is measured against.
        settings: environment, policy, sizes, seed, versions.
        notes: what limits the numbers (optimistic intervals, sketches).
        sampled: what was looked at, in a sentence: returns, lengths, groups.
        examples: a few of the trajectories as text, where they have one.
    """

    rows: list[Row]
    summary: list[str]
    plan: Plan
    reference: str
    settings: dict[str, Any]
    notes: list[str]
    sampled: str = ""
    examples: list[str] = field(default_factory=list)

    def row(self, estimator: str) -> Row:
        """The row of that estimator.

        Raises:
            InputError: it was not audited.
        """
        rows = {row.estimator: row for row in self.rows}
        if estimator not in rows:
            raise InputError(f"{estimator!r} was not audited; there are {', '.join(rows)}.")
        return rows[estimator]

    def worded(self, text: str) -> str:
        """Text about trajectories, in words of what was counted: draws, units, completions."""
        one, several = counted(self.settings)
        text = text.replace("Trajectories", several.capitalize())
        return text.replace("trajectories", several).replace("trajectory", one)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it; what is undetermined is null."""
        return plain(asdict(self))
