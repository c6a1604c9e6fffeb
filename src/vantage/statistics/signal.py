"""How much of a gradient estimate is signal: unbiased, from the gradients of independent units.

With g_1, ..., g_U the gradients of U independent units and ĝ their mean,

    tr Σ̂ = 1/(U−1) Σ_u ‖g_u − ḡ‖²             variance of one unit
    N̂    = 1/(U(U−1)) Σ_{u≠v} g_u · g_v        ‖G‖², the squared norm of the true gradient
    SNR  = U N̂ / tr Σ̂                         of ĝ, the mean of U units
    B    = tr Σ̂ / N̂                           noise scale: units at which the SNR is 1

N̂ is unbiased and may be negative when the noise drowns the signal; it is never clamped. Ratios are
not unbiased: to average over time, average numerator and denominator apart, then divide.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.weighted import gradient, policy_inputs, row_gradients, weighted_entropy
from vantage.policies import Policy


@dataclass(frozen=True)
class Signal:
    """Statistics of U independent unit gradients.

    Attributes:
        units: U.
        trajectories: how many trajectories make one unit, on average.
        squared_norm: N̂, unbiased for ‖G‖².
        variance: tr Σ̂, unbiased for the trace of one unit's covariance.
    """

    units: int
    trajectories: int | float
    squared_norm: float
    variance: float

    @property
    def snr(self) -> float:
        """N / (tr Σ / U): of the mean over all units."""
        return self.units * self.squared_norm / self.variance if self.variance else float("nan")

    @property
    def noise_scale(self) -> float:
        """tr Σ / N in trajectories: the batch at which signal and noise are equal."""
        ratio = self.variance / self.squared_norm if self.squared_norm else float("nan")
        return ratio * self.trajectories


def unit_signal(
    total: Float[Tensor, " P"], sum_of_squares: float, units: int, trajectories: int = 1
) -> Signal:
    """Statistics from Σ_u g_u and Σ_u ‖g_u‖², which is all they need.

    Args:
        total: Σ_u g_u, [P].
        sum_of_squares: Σ_u ‖g_u‖².
        units: U ≥ 2.
        trajectories: how many make one unit.

    Source: theory of U-statistics; McCandlish et al. 2018 for the noise scale.

    >>> units = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    >>> unit_signal(units.sum(0), float(units.square().sum()), 2)
    Signal(units=2, trajectories=1, squared_norm=3.0, variance=2.0)
    """
    refuse_unless(
        units >= 2,
        f"unit_signal(units={units}): two independent units at least; draw a larger batch.",
    )
    squared_total = float(total.square().sum())
    squared_norm = (squared_total - sum_of_squares) / (units * (units - 1))
    variance = (sum_of_squares - squared_total / units) / (units - 1)
    return Signal(units, trajectories, squared_norm, variance)


def gradient_and_signal(
    policy: Policy, batch: Batch, estimator: Estimator, chunk: int = 64
) -> tuple[Float[Tensor, " P"], Signal]:
    """ĝ of a batch of one trajectory per row, and how much of it is signal.

    The units are the trajectories where their weights do not depend on one another, the groups
    where an estimator looks across a group, and else parts of the batch, each weighed by itself as
    a batch of its own. (An estimator that looks across its batch has another mean at another size:
    the statistics are then those of the parts.) An entropy bonus is part of ĝ and not of the
    statistics: it is no sample of anything.

    Args:
        chunk: rows whose gradients are held in memory at once.
    """
    if estimator.couples == "batch":
        return _by_parts(policy, batch, estimator)
    weights = estimator.weights(batch, **policy_inputs(policy, batch, estimator))
    alone = torch.arange(batch.rows, device=batch.mask.device)
    unit = batch.group if estimator.couples == "group" else alone
    members, size = _members(unit)
    total, squares = torch.zeros(()), 0.0
    for ids in torch.arange(len(members)).split(max(1, chunk // size)):
        rows = members[ids].flatten()
        pieces = row_gradients(policy, batch.select(rows), weights[rows])
        # the units add up to ĝ; U times each is an estimate of ∇J of its own
        units = len(members) * pieces.view(len(ids), size, -1).sum(1)
        total = total + units.sum(0)
        squares += float(units.square().sum())
    gradient = total / len(members)
    if estimator.entropy:
        gradient = gradient + weighted_entropy(policy, batch, estimator.entropy_weights(batch))
    return gradient, unit_signal(total, squares, len(members), size)


def _members(unit: Int[Tensor, " N"]) -> tuple[Int[Tensor, "U K"], int]:
    """The rows of every unit, [U, K]; units must be of one size to be alike."""
    order = torch.argsort(unit, stable=True)
    _, counts = torch.unique(unit, return_counts=True)
    size = int(counts[0])
    refuse_unless(
        bool((counts == size).all()),
        f"Groups of {int(counts.min())} to {int(counts.max())} trajectories: a signal-to-noise "
        "ratio needs groups of one size.",
    )
    return order.view(-1, size), size


def _by_parts(
    policy: Policy, batch: Batch, estimator: Estimator, parts: int = 8
) -> tuple[Float[Tensor, " P"], Signal]:
    """ĝ of the whole batch, and the signal in equal parts, each weighed by itself."""
    # two trajectories at least in a part: an estimator that compares needs something to compare
    parts = min(parts, batch.rows // 2)
    refuse_unless(
        parts >= 2,
        f"Estimator {estimator.name!r} looks across its batch: {batch.rows} trajectories do not "
        "make two parts to compare; draw at least 4.",
    )
    size = batch.rows // parts
    units = [
        gradient(policy, batch.select(slice(start, start + size)).reweighted(), estimator)
        for start in range(0, size * parts, size)
    ]
    stack = torch.stack(units)
    statistics = unit_signal(stack.sum(0), float(stack.square().sum()), parts, size)
    return gradient(policy, batch, estimator), statistics
