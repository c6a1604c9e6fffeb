"""The audit in sentences: what a person should know, and what to do."""

import math

from vantage.auditing.planner import Plan
from vantage.auditing.record import Row
from vantage.estimators.estimator import Estimator
from vantage.pages.numbers import number
from vantage.statistics.intervals import Estimate


def summarise(
    rows: list[Row], plan: Plan, batch: int, reference: str, estimators: dict[str, Estimator]
) -> list[str]:
    """One sentence per estimator, then what to use and how large a batch it takes."""
    sentences = [_sentence(row, batch, estimators[row.estimator]) for row in rows]
    return [*sentences, _advice(rows, plan, batch)]


def _sentence(row: Row, batch: int, estimator: Estimator) -> str:
    return f"{row.estimator}: {_bias(row, estimator)}; {_signal(row, batch)}."


def _bias(row: Row, estimator: Estimator) -> str:
    if not known(row.bias):
        return f"its bias cannot be told from these samples ({row.bias.note or 'undetermined'})"
    if row.bias.exact and row.bias.note:
        return "the reference that bias is measured against"
    if row.bias.exact and row.bias.value < 1e-9:
        return "unbiased"
    if not row.bias.exact and row.bias.low <= 0:
        kind = (
            "unbiased in theory, and" if estimator.bias == "none" else "its theory says biased, but"
        )
        return f"{kind} no bias is seen here (at most {number(100 * row.bias.high)} %)"
    if not (known(row.cosine) and known(row.scale)):
        return f"biased by {number(100 * row.bias.value)} % of the gradient, direction undetermined"
    length = row.scale.value / max(row.cosine.value, 1e-12)  # ‖G‖ / ‖G*‖
    return (
        f"points the same way as the reference up to a cosine of {number(row.cosine.value)}, "
        f"at {number(length)} times its length"
    )


def _signal(row: Row, batch: int) -> str:
    if not known(row.snr):
        return f"its SNR is undetermined ({row.snr.note})"
    if not row.snr.exact and row.snr.low <= 0:
        high = number(row.snr.high)
        return f"its gradient cannot be told from noise (SNR at most {high} at batch {batch})"
    return f"SNR {number(row.snr.value)} at batch {batch}"


def _advice(rows: list[Row], plan: Plan, batch: int) -> str:
    if plan.cheapest is None:
        return (
            f"No estimator without a bias of direction has a measurable signal; an SNR of "
            f"{number(plan.target)} cannot be planned for. Sample more trajectories."
        )
    needed = plan.trajectories[plan.cheapest]
    high = f"at most {number(needed.high)}" if math.isfinite(needed.high) else "no upper bound"
    extent = "exactly" if needed.exact else high
    verdict = f"{number(needed.value)} trajectories a step would reach SNR {number(plan.target)}"
    return f"Use {plan.cheapest}: {verdict} ({extent}), the least time of those measured."


def known(estimate: Estimate) -> bool:
    """Whether there is a number."""
    return not math.isnan(estimate.value)
