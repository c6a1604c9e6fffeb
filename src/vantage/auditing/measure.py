"""From unit gradients to the rows of a report."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vantage.auditing.planner import scaled
from vantage.auditing.record import Measured, Row
from vantage.auditing.units import Units
from vantage.estimators.estimator import Estimator
from vantage.gradients.linear_layers import largest_change
from vantage.policies import Policy
from vantage.statistics import intervals
from vantage.statistics.estimate import Estimate, known, mean_interval, time_interval
from vantage.statistics.gram import averaged, products

# The reference's Gram matrix by the size of its units: one for all estimators.
Squares = dict[int, Tensor]
REFERENCE = "the reference itself, by definition"
NO_REFERENCE = "no reference was given"
UNKNOWN = float("nan")
BATCHES = 8  # batches whose steps are looked at for the aggressiveness


def undetermined(why: str) -> Estimate:
    """No number, and the reason."""
    return Estimate(UNKNOWN, UNKNOWN, UNKNOWN, note=why)


def rows(
    policy: Policy | None,
    estimators: Sequence[Measured],
    units: Units,
    reference: Float[Tensor, " P"] | tuple[str, Units] | None,
    decomposed: dict[str, tuple[Estimate, Estimate]],
) -> Iterator[Row]:
    """One row per estimator, each as soon as it is known: intervals take seconds.

    Args:
        policy: whose gradients these are; None where they came from elsewhere.
        reference: the exact gradient, or the name of an unbiased estimator and the units to take it
            from: the same ones, whose different units are independent, or others; None: no bias is
            measured.
        decomposed: variance between and within start states, by estimator.
    """
    squares: Squares = {}
    for estimator in estimators:
        yield _row(policy, estimator, units, reference, squares, decomposed[estimator.name])


def known_factors(
    estimators: list[Estimator], reference: Estimator | None, group: int, discount: float
) -> dict[str, float]:
    """c where E ĝ = c ∇J by algebra alone, of trajectories of the policy itself, by name.

    Args:
        reference: what bias is measured against; None where that is the exact gradient. Where it is
            not known to be unbiased nothing is known of the others either.
        group: trajectories in a group.
        discount: γ of the objective.
    """
    if reference is not None and reference.factor(group, discount) != 1:
        return {}
    factors = {each.name: each.factor(group, discount) for each in estimators}
    return {name: factor for name, factor in factors.items() if factor is not None}


def by_algebra(factors: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Exact scale, cosine and bias of the estimators whose mean is another multiple of ∇J, by name.

    An unbiased estimator has none here: that its measured bias holds 0 is worth seeing.
    """
    return {
        name: {"scale": known(factor), "cosine": known(1.0), "bias": known(abs(factor - 1))}
        for name, factor in factors.items()
        if factor != 1
    }


def _row(
    policy: Policy | None,
    estimator: Measured,
    units: Units,
    reference: Float[Tensor, " P"] | tuple[str, Units] | None,
    squares: Squares,
    decomposed: tuple[Estimate, Estimate],
) -> Row:
    design, name = units.design, estimator.name
    unit = design.unit(estimator)
    vectors = units.gradients[name]
    gram = products(vectors, vectors)
    per_batch = design.batch / unit
    variance = scaled(intervals.variance(gram), unit)
    snr = intervals.snr(gram, per_batch)  # the costly part: what follows from it is not made again
    batch_cosine = intervals.mapped(snr, lambda c: math.sqrt(1 - 1 / (1 + max(c, 0))))
    against = _against(name, vectors, gram, units, reference, squares)
    between, within = decomposed
    return Row(
        estimator=name,
        couples=estimator.couples,
        unit=unit,
        claim=estimator.unbiased,
        **against,
        squared_norm=intervals.squared_norm(gram),
        variance=variance,
        snr=snr,
        noise_scale=scaled(intervals.inverted(snr), design.batch),
        batch_cosine=batch_cosine,
        pairwise_cosine=_squared(batch_cosine),
        between=between,
        within=within,
        aggressiveness=_aggressiveness(policy, name, units),
        cost=_cost(name, units),
    )


def _against(
    name: str,
    vectors: Float[Tensor, "U k"],
    gram: Float[Tensor, "U U"],
    units: Units,
    reference: Float[Tensor, " P"] | tuple[str, Units] | None,
    squares: Squares,
) -> dict[str, Estimate]:
    """Bias, scale, cosine and variance ratio."""
    if reference is None:
        why = undetermined(NO_REFERENCE)
        return {"bias": why, "scale": why, "cosine": why, "variance_ratio": why}
    if isinstance(reference, Tensor):
        cross, square = products(vectors, reference), products(reference[None], reference)[0]
        ratio = undetermined("the reference is exact and has no variance")
    else:
        title, source = reference
        if title == name and source is units:
            one = Estimate(1.0, 1.0, 1.0, True, note=REFERENCE)
            zero = Estimate(0.0, 0.0, 0.0, True, note=REFERENCE)
            return {"bias": zero, "scale": one, "cosine": one, "variance_ratio": one}
        other = source.gradients[title]
        common = min(len(vectors), len(other))  # units of one size, by averages of neighbours
        here, there = len(vectors) // common, len(other) // common
        gram = averaged(gram, here, here)
        if common not in squares:
            squares[common] = averaged(products(other, other), there, there)
        square = squares[common]
        cross = averaged(products(vectors, other), here, there)
        ratio = intervals.variance_ratio(gram, square)
    return {
        "bias": intervals.relative_bias(gram, cross, square),
        "scale": intervals.scale(cross, square),
        "cosine": intervals.cosine(gram, cross, square),
        "variance_ratio": ratio,
    }


def _squared(estimate: Estimate) -> Estimate:
    return replace(estimate, value=estimate.value**2, low=estimate.low**2, high=estimate.high**2)


def _aggressiveness(policy: Policy | None, name: str, units: Units) -> Estimate:
    """Mean over batches of the largest |s_t · ĝ| on the steps of a batch not among them."""
    design = units.design
    if policy is None or units.example is None:
        return undetermined("gradients from elsewhere, without a policy to look at")
    if units.sketched is not None or design.pool > design.batch:
        return undetermined("batch gradients were not kept whole")
    # the first batch is the one looked at: its own gradient is left out
    steps = units.batches_of(name, BATCHES + 1)[1:]
    if len(steps) < 2:
        return undetermined("fewer than three batches")
    agreed = "layers" in units.method.seconds
    return mean_interval(
        largest_change(policy, units.example, steps, agreed, units.at_once).tolist()
    )


def _cost(name: str, units: Units) -> Estimate:
    if not units.weighing[name]:
        return undetermined("these gradients came without the time they took")
    chunks = zip(units.sampling, units.passes, units.weighing[name], strict=True)
    seconds, counts = [sum(parts) for parts in chunks], units.counts
    if len(seconds) > 2:
        seconds, counts = seconds[1:], counts[1:]  # the first chunk pays for warming up
    if len(seconds) < 2:
        value = seconds[0]
        return Estimate(value, value, value, note="measured once: no interval")
    return time_interval(seconds, counts)
