"""The end of every audit, of environments and of language models: plan, summary, notes, report."""

from collections.abc import Mapping, Sequence
from typing import Any

from vantage.auditing.planner import plan
from vantage.auditing.record import Measured, Row, counted
from vantage.auditing.report import Report
from vantage.auditing.samples import Looked
from vantage.auditing.summary import summarise
from vantage.auditing.units import Units
from vantage.errors import refuse_unless


def refuse_namesakes(estimators: Sequence[Measured]) -> None:
    """Refuse estimators that a report could not tell apart.

    Raises:
        InputError: there are none, or two bear one name.
    """
    refuse_unless(estimators, "audit(estimators=[]): give at least one.")
    names = [estimator.name for estimator in estimators]
    twice = sorted({name for name in names if names.count(name) > 1})
    refuse_unless(
        not twice, f"audit: two estimators are called {twice}; name one with replace(name=...)."
    )


def reported(
    rows: list[Row],
    estimators: Sequence[Measured],
    units: Units,
    reference: str,
    settings: dict[str, Any],
    target_snr: float,
    sample: Looked,
    factors: Mapping[str, float],
) -> Report:
    """The report of measured rows.

    Args:
        rows: one per estimator, in the order of `estimators`.
        units: the unit gradients that the rows were measured from, or one set of them.
        reference: what bias was measured against, in words.
        settings: what was audited.
        target_snr: what the plan is made for.
        sample: what was looked at.
        factors: c of the estimators whose mean is known to be c ∇J, by name.
    """
    planned = plan(
        {row.estimator: row.noise_scale for row in rows},
        {row.estimator: row.cost for row in rows},
        target_snr,
        {estimator.name for estimator in estimators if estimator.bias in ("none", "scale")},
    )
    by_name = {estimator.name: estimator for estimator in estimators}
    _, several = counted(settings)
    summary = summarise(rows, planned, units.design.batch, sample, by_name, factors, several)
    notes = limits(rows, units)
    return Report(rows, summary, planned, reference, settings, notes, str(sample), sample.examples)


def limits(rows: list[Row], units: Units) -> list[str]:
    """What limits the numbers: notes of the estimates, each with where it holds, and a sketch."""
    notes = []
    places: dict[str, list[str]] = {}
    for row in rows:
        for name, estimate in row.statistics().items():
            if estimate.note and not estimate.exact:
                places.setdefault(estimate.note, []).append(f"{row.estimator}: {name}")
    for note, where in places.items():
        shown = ", ".join(where[:6]) + (f" and {len(where) - 6} more" if len(where) > 6 else "")
        notes.append(f"{note} ({shown})")
    if units.sketched is not None:
        error = 100 * (2 / units.sketched) ** 0.5
        notes.append(
            f"gradients of {units.parameters:,} parameters were sketched to {units.sketched:,} "
            f"numbers to stay within memory: squared norms carry a relative error of about "
            f"{error:.1f} % on top of their intervals"
        )
    return notes
