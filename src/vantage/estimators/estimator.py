"""Estimator: a rule that turns a Batch into weights, put together from columns.

Every estimator of the policy gradient is a weighted sum of scores,

    ĝ = Σ_n Σ_t w_nt ∇ log π(a_nt | s_nt),

so an estimator is a rule for w. Each column of the rule is a small pure function:

    advantage = selection × scale(returns − baseline)              once per batch
    share     = discounting × aggregate                            once per batch
    w         = share × [importance × clip(ratio, advantage) × advantage − KL]  at every pass

The first two depend on the batch as it was sampled, the third on the policy as it is now. A row may
restrain the policy from leaving, at chosen steps, the one that sampled: from its weights there
`restraint` × sgn(log π/μ) is taken. What another policy sampled has its importance weighed; see
`importance`. Entropy is the one regulariser
with a gradient of its own; `gradients.gradient` adds it.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import InputError, refuse_unless
from vantage.estimators import (
    aggregates,
    baselines,
    columns,
    importance,
    ratios,
    returns,
    scales,
    selections,
)
from vantage.estimators.columns import Bias, Condition, Coupling
from vantage.estimators.inputs import apart, bound, given, penalty
from vantage.estimators.senseless import MODULES, refuse_senseless
from vantage.runs import notebook

Column = Callable[..., Tensor]
Inputs = dict[str, object]


@checked
@dataclass(frozen=True)
class Estimator:
    """One row of the table. Build your own from any columns:

    >>> import vantage as vt
    >>> mine = vt.Estimator(returns=vt.returns.to_go, baseline=vt.baselines.value, name="mine")
    >>> print(mine.columns()["baseline"])
    value

    Settings of a column are bound with `functools.partial`, e.g.
    `returns=partial(vt.returns.gae, lambda_=0.95)`.

    Attributes:
        returns: Batch -> [N, T], what a step is worth.
        baseline: (Batch, returns) -> [N, T], what is subtracted.
        scale: (Batch, returns, advantage) -> [N, T], the advantage in its final units.
        selection: (Batch, advantage) -> [N, T], a factor, 0 at steps that are left out.
        ratio: (Batch, log_prob) -> [N, T], how likelier the policy has made what was sampled.
        clip: (ratio, advantage) -> [N, T], the factor of the advantage.
        importance: (Batch, log_prob of the proximal policy) -> [N, T], a further factor.
        aggregate: Batch -> [N, T], how steps and trajectories are averaged.
        discounting: Batch -> [N, T], a factor on each score.
        kl_in_reward: log-ratio to a reference policy [N, T] -> what the reward loses, or None.
        kl_in_loss: the same -> what the weight loses, or None.
        restraint: (Batch, advantage) -> [N, T], the coefficient of |log π/μ| at each step, or None.
        entropy: coefficient of the entropy bonus, per step.
        name: how tables and logs call it.
        source: where it comes from.
    """

    returns: Column = returns.total
    baseline: Column = baselines.none
    scale: Column = scales.none
    selection: Column = selections.none
    ratio: Column = ratios.none
    clip: Column = ratios.unclipped
    importance: Column = importance.none
    aggregate: Column = aggregates.per_trajectory
    discounting: Column = aggregates.undiscounted
    kl_in_reward: Column | None = None
    kl_in_loss: Column | None = None
    restraint: Column | None = None
    entropy: float = 0.0
    name: str = "custom"
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        refuse_senseless(self)

    # What the row says about itself.

    def columns(self) -> dict[str, str]:
        """Every column by name, as a user would write it."""
        named = {name: columns.describe(getattr(self, name)) for name in MODULES}
        return named | {"entropy": f"{self.entropy:g}" if self.entropy else "–"}

    def __repr__(self) -> str:
        used = {k: v for k, v in self.columns().items() if v not in ("–", "none", "unclipped")}
        return f"Estimator({self.name}: {', '.join(f'{k}={v}' for k, v in used.items())})"

    def _repr_html_(self) -> str:
        return notebook.facts(self.name, self.columns())

    @property
    def needs(self) -> frozenset[str]:
        """Inputs beyond the required fields of a Batch, such as "value", "group" or "scores"."""
        every = (name for column in self._columns() for name in columns.needs(column))
        return frozenset(every) - set(columns.AT_HAND)

    @property
    def couples(self) -> Coupling:
        """The unit of independence: trajectories by themselves ("none"), groups, or the batch."""
        kinds = {columns.couples(column) for column in self._columns()}
        return "batch" if "batch" in kinds else "group" if "group" in kinds else "none"

    @property
    def reweighs(self) -> bool:
        """Whether it weighs by the policy at the update's beginning over the one that sampled."""
        return self.importance is not importance.none

    @property
    def fixed(self) -> bool:
        """Whether its weights, given advantage and share, are the same whatever the policy is now.

        That of the advantage itself, which V-trace recomputes, is not asked.
        """
        moved = self.kl_in_loss is not None or self.restraint is not None
        return self.ratio is ratios.none and not self.reweighs and not moved

    @property
    def stepwise(self) -> bool:
        """Whether the factor of a step at a pass looks at that step alone."""
        asked = {name for c in (self.clip, self.kl_in_loss) if c for name in columns.needs(c)}
        return "batch" not in asked and all(map(columns.stepwise, (self.ratio, self.importance)))

    @property
    def bias(self) -> Bias | None:
        """What E ĝ is, on policy: ∇J ("none"), a known multiple of it ("scale"), or neither.

        None where a column of the user's own does not declare it.
        """
        kinds = {columns.bias(column) for column in self._columns()}
        if None in kinds:
            return None
        return "direction" if "direction" in kinds else "scale" if "scale" in kinds else "none"

    @property
    def provided(self) -> frozenset[Condition]:
        """The conditions under which `bias` is claimed."""
        every = {condition for column in self._columns() for condition in columns.provided(column)}
        # the total return carries its discount: no γ^t is missing
        return frozenset(every - ({"undiscounted"} if self.returns is returns.total else set()))

    def factor(self, group: int, discount: float) -> float | None:
        """c where E ĝ = c ∇J on policy by algebra alone, whatever the policy and the environment.

        Args:
            group: trajectories in every group.
            discount: γ of the objective. Below 1 a constant is known of total returns only: other
                columns lack a factor γ^t, or have it and compare returns that do not.

        Returns:
            c, 1 where the row is unbiased; None where there is no such constant, where V would have
            to be the policy's own, where a KL changes the objective, or where a column of the
            user's own does not declare its constant.
        """
        penalised = self.kl_in_reward is not None or self.kl_in_loss is not None
        if self.bias not in ("none", "scale") or "true_value" in self.provided or penalised:
            return None
        if discount < 1 and self.returns is not returns.total:
            return None
        factors = [columns.factor(column, group) for column in self._columns()]
        known = [each for each in factors if each is not None]
        return math.prod(known) if len(known) == len(factors) else None

    @property
    def unbiased(self) -> str:
        """The claim in words, put together from what the columns declare."""
        if self.bias is None:
            return "not stated"
        turns = ", ".join(columns.describe(c) for c in self._columns() if columns.bias(c) != "none")
        if self.bias == "direction":
            return f"never ({turns})"
        claim = " and ".join(columns.CONDITIONS[c] for c in sorted(self.provided)) or "always"
        claim = f"up to a constant factor ({turns})" if self.bias == "scale" else claim
        bounds = ", ".join(columns.describe(c) for c in self._columns() if columns.bounded(c))
        return claim + (f"; off policy never ({bounds})" if bounds else "")

    def replace(self, **changes: object) -> "Estimator":
        """The same row with some columns exchanged, and a name that says so.

        Raises:
            InputError: no such column, with near matches.
        """
        known = [item.name for item in fields(self)]
        for name in changes:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
            refuse_unless(name in known, f"Estimator has no column {name!r}; {hint}")
        new = replace(self, **changes)  # type: ignore[arg-type]
        was, now = self.columns(), new.columns()
        changed = ", ".join(f"{key}={now[key]}" for key in now if now[key] != was[key])
        keeps = "name" in changes or not changed
        return new if keeps else replace(new, name=f"{self.name}({changed})")

    # What it needs, and what it makes of a batch.

    def require(self, available: set[str]) -> None:
        """Refuse, before any work is done, when an input this estimator needs is not there.

        Raises:
            InputError: naming the estimator, the input and the remedy.
        """
        for name in sorted(self.needs - available):
            remedy = columns.REMEDIES.get(name, f"the input {name}= that its column declares")
            raise InputError(f"Estimator {self.name!r} needs {remedy}.")

    @torch.no_grad()
    def advantage(
        self, batch: Batch, log_prob: Float[Tensor, "N T"] | None = None, **inputs: object
    ) -> Float[Tensor, "N T"]:
        """selection × scale(returns − baseline), 0 where the mask is False: of the whole batch.

        Args:
            batch: as sampled.
            log_prob: [N, T] under the current policy, where it is not the one that sampled; V-trace
                and some selections look at it.
            **inputs: what `needs` names and the batch does not hold, such as scores, greedy_return
                [N, T] or reference_log_prob [N, T].

        Raises:
            InputError: an input is missing.
        """
        return self.advantage_and_worth(batch, log_prob, **inputs)[0]

    @torch.no_grad()
    def worth(
        self, batch: Batch, log_prob: Float[Tensor, "N T"] | None = None, **inputs: object
    ) -> Float[Tensor, "N T"]:
        """The returns column of the batch, after the KL in its rewards."""
        named = {"log_prob": batch.log_prob if log_prob is None else log_prob} | inputs
        return bound(self.returns, named)(self._penalised(batch, inputs))

    @torch.no_grad()
    def advantage_and_worth(
        self, batch: Batch, log_prob: Float[Tensor, "N T"] | None = None, **inputs: object
    ) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
        """`advantage` and `worth`, for one price."""
        self.require(given(batch, self.needs, inputs))
        named = {"log_prob": batch.log_prob if log_prob is None else log_prob} | inputs
        rewarded = self._penalised(batch, inputs)
        worth = bound(self.returns, named)(rewarded)
        above = worth - bound(self.baseline, named)(rewarded, worth)
        above = torch.where(batch.mask, above, 0)
        scaled = torch.where(batch.mask, bound(self.scale, named)(rewarded, worth, above), 0)
        selected = bound(self.selection, named)(batch, scaled)
        return torch.where(batch.mask, selected * scaled, 0), worth

    @torch.no_grad()
    def share(self, batch: Batch) -> Float[Tensor, "N T"]:
        """discounting × aggregate, 0 where the mask is False: once per batch, of all of it."""
        return torch.where(batch.mask, self.discounting(batch) * self.aggregate(batch), 0)

    @torch.no_grad()
    def restrained(
        self,
        batch: Batch,
        advantage: Float[Tensor, "N T"],
        log_prob: Float[Tensor, "N T"] | None = None,
        **inputs: object,
    ) -> Float[Tensor, "N T"]:
        """The coefficient of |log π/μ| at each step: once per batch, of all of it; 0 without one.

        Args:
            batch, log_prob, **inputs: as in `advantage`.
            advantage: what that gave.
        """
        if self.restraint is None:
            return torch.zeros_like(advantage)
        named = {"log_prob": batch.log_prob if log_prob is None else log_prob} | inputs
        return torch.where(batch.mask, bound(self.restraint, named)(batch, advantage), 0)

    @torch.no_grad()
    def weights(
        self,
        batch: Batch,
        log_prob: Float[Tensor, "N T"] | None = None,
        advantage: Float[Tensor, "N T"] | None = None,
        share: Float[Tensor, "N T"] | None = None,
        **inputs: object,
    ) -> Float[Tensor, "N T"]:
        """w in ĝ = Σ w ∇ log π, without a graph; 0 where the mask is False.

        With the batch alone: its weights on policy. In several passes, or several epochs, compute
        `advantage` and `share` of the whole batch once and give each pass its rows of them, so that
        the passes add up to the batch:

            advantage, share = estimator.advantage(batch), estimator.share(batch)
            w = estimator.weights(batch.select(rows), log_prob, advantage[rows], share[rows])

        Args:
            batch: the batch, or the rows of it that the other arguments are for.
            log_prob: [N, T] under the current policy; None: on policy.
            advantage, share: as above; None: computed from `batch` as a whole.
            **inputs: as in `advantage`, the rows' own; and of `multiplier`; and `restrained` [N,
                T], for a row with a restraint, of the whole batch as above.

        Raises:
            InputError: an input is missing, or an advantage is given without the share, or what is
                restrained, that belongs to it, where that depends on the whole batch.
        """
        if advantage is not None and share is None:
            refuse_unless(
                columns.couples(self.aggregate) == "none",
                f"Estimator {self.name!r}: weights(advantage=...) needs share=estimator.share("
                f"batch)[rows] too: {columns.describe(self.aggregate)} counts the whole batch's "
                "steps.",
            )
        current = batch.log_prob if log_prob is None else log_prob
        restrained = inputs.pop("restrained", None)
        if advantage is None:
            advantage = self.advantage(batch, current, **inputs)
            restrained = self.restrained(batch, advantage, current, **inputs)
        if share is None:
            share = self.share(batch)
        weight = self.multiplier(batch, current, advantage, **inputs) * advantage
        if self.kl_in_loss is not None:
            weight = weight - self._penalty(self.kl_in_loss, batch, current, inputs)
        if self.restraint is not None:
            if not isinstance(restrained, Tensor):
                raise InputError(
                    f"Estimator {self.name!r}: weights(advantage=...) needs restrained="
                    "estimator.restrained(batch, advantage)[rows] too: it ranks the whole batch."
                )
            weight = weight - restrained * apart(batch, current).sign()
        return torch.where(batch.mask, share * weight, 0)

    def multiplier(
        self,
        batch: Batch,
        log_prob: Float[Tensor, "N T"],
        advantage: Float[Tensor, "N T"],
        **inputs: object,
    ) -> Float[Tensor, "N T"]:
        """importance × clip(ratio, advantage): what the advantage is multiplied by at a pass.

        Args:
            batch, log_prob, advantage: as in `weights`, of the same rows.
            **inputs: `proximal_log_prob` [N, T], under the policy at which the update began: what
                ratios compare with, and importance weighs. Where it is left out it is `log_prob`
                for an estimator that reweighs, as at the first step, else `batch.log_prob`.
        """
        given_one = inputs.get("proximal_log_prob")
        proximal = given_one if isinstance(given_one, Tensor) else log_prob
        follows = self.reweighs or proximal is given_one
        anchor = replace(batch, log_prob=proximal) if follows else batch
        clip = bound(self.clip, {"batch": batch, "log_prob": log_prob})
        factor = clip(self.ratio(anchor, log_prob), advantage)
        return self.importance(batch, proximal) * factor if self.reweighs else factor

    def entropy_weights(
        self, batch: Batch, share: Float[Tensor, "N T"] | None = None
    ) -> Float[Tensor, "N T"]:
        """The weight of ∇H(π(·|s_nt)) in ĝ: the entropy coefficient times the step's share."""
        return self.entropy * (self.share(batch) if share is None else share)

    def _columns(self) -> list[Column]:
        return [column for name in MODULES if (column := getattr(self, name)) is not None]

    def _penalised(self, batch: Batch, inputs: Inputs) -> Batch:
        """The batch with the KL, under the policy that sampled it, taken from its rewards."""
        if self.kl_in_reward is None:
            return batch
        penalised = self._penalty(self.kl_in_reward, batch, batch.log_prob, inputs)
        return replace(batch, reward=batch.reward - penalised)

    def _penalty(self, column: Column, batch: Batch, log_prob: Tensor, inputs: Inputs) -> Tensor:
        reference = inputs.get("reference_log_prob")
        if not isinstance(reference, Tensor):
            self.require(set(self.needs - {"reference_log_prob"}))
            raise AssertionError("a KL column that does not declare reference_log_prob")
        return penalty(column, batch, log_prob, reference)


def compares(estimator: Estimator) -> bool:
    """Whether it compares the trajectories of one start state or prompt."""
    return "group" in estimator.needs or estimator.couples == "group"
