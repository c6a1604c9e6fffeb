"""The audit in sentences: what a person should know, and what to do."""

import math
from collections.abc import Mapping

from vantage.auditing.planner import Plan
from vantage.auditing.record import UNDECLARED, Measured, Row
from vantage.auditing.samples import Looked
from vantage.pages.numbers import number
from vantage.statistics.intervals import Estimate

UNTOLD = (
    "Without a reference nothing says which of these gradients climbs J: give the exact gradient, "
    "or name one that is known to be unbiased."
)
TILTED = (
    "None of these is known to climb J, and none is recommended for its signal: audit one that is "
    "beside them, as rloo or reward_to_go."
)


def summarise(
    rows: list[Row],
    plan: Plan,
    batch: int,
    sample: Looked,
    estimators: Mapping[str, Measured],
    factors: Mapping[str, float],
    several: str = "trajectories",
) -> list[str]:
    """What is so of each estimator, once where it is so of several; then what to use, and how large
    a batch it takes.

    One sentence where all trajectories were worth the same: samples have no more to say then,
    unless an estimator takes a KL besides.

    Args:
        factors: c of the estimators whose mean is known to be c ∇J, by name.
        several: what a batch counts: trajectories, completions, draws.
    """
    penalised = any("reference_log_prob" in each.needs for each in estimators.values())
    if sample.alike and not penalised and not any(row.snr.exact for row in rows):
        return [sample.nothing_to_learn()]
    names_of: dict[str, list[str]] = {}
    for row in rows:
        name = row.estimator
        sentence = f"{_bias(row, estimators[name], factors.get(name))}; {_signal(row, batch)}"
        names_of.setdefault(sentence, []).append(name)
    sentences = [f"{listed(names)}: {sentence}." for sentence, names in names_of.items()]
    if all(each.bias == "unknown" for each in estimators.values()):
        return [*sentences, UNTOLD]
    if not any(each.bias in ("none", "scale") for each in estimators.values()):
        return [*sentences, TILTED]
    return [*sentences, _advice(rows, plan, several)]


def listed(names: list[str]) -> str:
    """Names as a sentence lists them.

    >>> listed(["rloo", "grpo", "ppo"])
    'rloo, grpo and ppo'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _bias(row: Row, estimator: Measured, factor: float | None) -> str:
    if not known(row.bias):
        return f"its bias cannot be told from these samples ({row.bias.note or 'undetermined'})"
    if row.bias.exact:
        return _exact_bias(row)
    high = number(100 * row.bias.high)
    if factor == 1 and row.bias.low > 0:
        return (
            f"unbiased in theory: that the interval of its bias, {number(100 * row.bias.low)} to "
            f"{high} %, leaves out 0 is the one time in twenty that a 95 % interval misses"
        )
    if row.bias.low <= 0:
        if row.claim == UNDECLARED:
            return f"no bias is seen here (at most {high} %)"
        condition = row.claim.partition("; off policy")[0]
        where = "" if condition == "always" or factor == 1 else f" where {condition}"
        kind = (
            f"unbiased in theory{where}, and"
            if estimator.bias == "none"
            else "its theory says biased, but"
        )
        return f"{kind} no bias is seen here (at most {high} %)"
    if not (known(row.cosine) and known(row.scale)):
        return f"biased by {number(100 * row.bias.value)} % of the gradient, direction undetermined"
    return _direction(row.cosine.value, row.scale.value)


def _exact_bias(row: Row) -> str:
    if row.bias.note:
        return "the reference that bias is measured against"
    if row.bias.value < 1e-9:
        return "unbiased"
    if 1 - row.cosine.value < 1e-9:
        return f"climbs J itself, with {number(row.scale.value)} times its gradient: another lr"
    return _direction(row.cosine.value, row.scale.value)


def _direction(cosine: float, scale: float) -> str:
    if cosine <= 0:
        return (
            f"points away from the reference: cosine {number(cosine)}, so that its steps lead down"
        )
    length = scale / cosine  # ‖G‖ / ‖G*‖
    return (
        f"points the same way as the reference up to a cosine of {number(cosine)}, "
        f"at {number(length)} times its length"
    )


def _signal(row: Row, batch: int) -> str:
    if not known(row.snr):
        return f"its SNR is undetermined ({row.snr.note})"
    if not row.snr.exact and row.snr.low <= 0:
        high = number(row.snr.high)
        return f"its gradient cannot be told from noise (SNR at most {high} at batch {batch})"
    return f"SNR {number(row.snr.value)} at batch {batch}"


def _advice(rows: list[Row], plan: Plan, several: str) -> str:
    if plan.cheapest is None:
        return (
            f"No estimator without a bias of direction has a measurable signal; an SNR of "
            f"{number(plan.target)} cannot be planned for. Sample more {several}."
        )
    needed = plan.trajectories[plan.cheapest]
    high = f"at most {number(needed.high)}" if math.isfinite(needed.high) else "no upper bound"
    extent = "exactly" if needed.exact else high
    verdict = f"{number(needed.value)} {several} a step would reach SNR {number(plan.target)}"
    others = [name for name in plan.tied if name != plan.cheapest]
    if not others:
        return f"Use {plan.cheapest}: {verdict} ({extent}), the least time of those measured."
    return (
        f"Use {plan.cheapest}: {verdict} ({extent}). {listed(others)} may take as little time: "
        "these samples do not tell them apart."
    )


def known(estimate: Estimate) -> bool:
    """Whether there is a number."""
    return not math.isnan(estimate.value)
