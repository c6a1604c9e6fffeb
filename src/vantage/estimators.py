"""The table of estimators: each row a rule that turns a Batch into weights.

Every estimator of the policy gradient is a weighted sum of scores,

    ĝ = Σ_n Σ_t w_nt ∇ log π(a_nt | s_nt),

so an estimator is a rule for w. The rule is put together from columns, each a small pure function:

    w = aggregate × discounting × (returns − baseline)
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vantage import baselines, returns
from vantage.batch import Batch, elapsed_discount
from vantage.columns import Coupling, couples, describe, needs
from vantage.errors import InputError, refuse_unless

Returns = Callable[[Batch], Tensor]
Baseline = Callable[[Batch, Tensor], Tensor]
Discounting = Callable[[Batch], Tensor]
Aggregate = Callable[[Batch], Tensor]


def undiscounted(batch: Batch) -> Float[Tensor, "N T"]:
    """No factor on the score.

    Equation: 1.
    Shapes: [N, T].
    Source: the practice of nearly every library (Nota & Thomas 2020 name its price).
    Unbiased when: γ = 1, or the returns column is `total`.
    """
    return torch.ones_like(batch.reward)


def discounted(batch: Batch) -> Float[Tensor, "N T"]:
    """The factor γ^t that the gradient of the discounted objective has.

    Equation: Γ_t = Π_{k<t} γ_k within the trajectory.
    Shapes: [N, T].
    Source: Sutton & Barto 2018, section 13.3.
    Unbiased when: the returns column is `to_go` and rows hold whole episodes.
    """
    return elapsed_discount(batch)


def per_trajectory(batch: Batch) -> Float[Tensor, "N T"]:
    """Sum over the steps of a trajectory, weighted mean over trajectories: [5].

    Equation: w_n (1/m for m sampled trajectories, the probability for enumerated ones).
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return batch.weight[:, None].expand_as(batch.reward)


@dataclass(frozen=True)
class Estimator:
    """One row of the table. Build your own from any columns:

    >>> import vantage as vt
    >>> mine = vt.Estimator(returns=vt.returns.to_go, baseline=vt.baselines.value, name="mine")
    >>> print(mine.columns()["baseline"])
    value

    Attributes:
        returns: Batch -> [N, T], what a step is worth.
        baseline: (Batch, returns) -> [N, T], what is subtracted.
        discounting: Batch -> [N, T], a factor on each score.
        aggregate: Batch -> [N, T], how steps and trajectories are averaged.
        name: how tables and logs call it.
        unbiased: the claim, in words, that the tests check by enumeration.
        source: where it comes from.
    """

    returns: Returns = returns.total
    baseline: Baseline = baselines.none
    discounting: Discounting = undiscounted
    aggregate: Aggregate = per_trajectory
    name: str = "custom"
    unbiased: str = field(default="not stated", compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name, column in self._columns().items():
            refuse_unless(
                callable(column),
                f"Estimator({name}={column!r}): a column is a function over a Batch; "
                f"take one from vantage.{name if name in ('returns',) else name + 's'} "
                "or write your own.",
            )
        if self.returns is returns.total and self.discounting is discounted:
            raise InputError(
                "Estimator(returns=total, discounting=discounted): the total return is discounted "
                "already and a second γ^t would bias it; use discounting=undiscounted, or "
                "returns=to_go."
            )

    def _columns(self) -> dict[str, Callable[..., Tensor]]:
        return {
            "returns": self.returns,
            "baseline": self.baseline,
            "discounting": self.discounting,
            "aggregate": self.aggregate,
        }

    def columns(self) -> dict[str, str]:
        """Every column by name, as a user would write it."""
        return {name: describe(column) for name, column in self._columns().items()}

    @property
    def needs(self) -> frozenset[str]:
        """Optional inputs the columns use: {"value"} for a value function."""
        return frozenset(name for column in self._columns().values() for name in needs(column))

    @property
    def couples(self) -> Coupling:
        """The unit of independence: rows of its own ("none"), groups, or the whole batch."""
        kinds = {couples(column) for column in self._columns().values()}
        return "batch" if "batch" in kinds else "group" if "group" in kinds else "none"

    def require(self, available: set[str]) -> None:
        """Refuse, before any work is done, when an input this estimator needs is not there.

        Raises:
            InputError: naming the estimator, the input and the remedy.
        """
        remedies = {"value": "a value function: pass value=env.value()"}
        for name in sorted(self.needs - available):
            raise InputError(f"Estimator {self.name!r} needs {remedies[name]}.")

    def advantage(self, batch: Batch) -> Float[Tensor, "N T"]:
        """returns − baseline, 0 where the mask is False."""
        self.require({"value"} if batch.value is not None else set())
        worth = self.returns(batch)
        return (worth - self.baseline(batch, worth)) * batch.mask

    def weights(self, batch: Batch) -> Float[Tensor, "N T"]:
        """w in ĝ = Σ w ∇ log π, without a graph; 0 where the mask is False."""
        with torch.no_grad():
            return self.advantage(batch) * self.discounting(batch) * self.aggregate(batch)

    def replace(self, **columns: object) -> "Estimator":
        """The same row with some columns exchanged."""
        return replace(self, **columns)  # type: ignore[arg-type]


def reinforce() -> Estimator:
    """[5]: every score weighted by the whole return of its trajectory."""
    return Estimator(name="reinforce", unbiased="always", source="Williams 1992")


def reinforce_mean() -> Estimator:
    """[6] with the mean return of the batch as the baseline."""
    return Estimator(
        baseline=baselines.batch_mean,
        name="reinforce_mean",
        unbiased="never: the mean contains the trajectory's own return",
        source="Williams 1992",
    )


def reward_to_go() -> Estimator:
    """[8] with Q estimated by the rewards from the step on, and no baseline."""
    return Estimator(
        returns=returns.to_go,
        discounting=discounted,
        name="reward_to_go",
        unbiased="always",
        source="Baxter & Bartlett 2001; Sutton et al. 2000",
    )


def reinforce_baseline() -> Estimator:
    """[8]: rewards-to-go minus a learned state value."""
    return Estimator(
        returns=returns.to_go,
        baseline=baselines.value,
        discounting=discounted,
        name="reinforce_baseline",
        unbiased="V was fitted without this batch, and truncations bootstrap from the true value",
        source="Sutton & Barto 2018, section 13.4",
    )


TABLE: dict[str, Callable[[], Estimator]] = {
    row.__name__: row for row in (reinforce, reinforce_mean, reward_to_go, reinforce_baseline)
}
