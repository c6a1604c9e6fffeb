"""The record of an algorithm: an estimator, an update rule, and the settings around them."""

import dataclasses
import difflib
from dataclasses import dataclass, field, fields
from typing import Any

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.estimators import Estimator
from vantage.policies import Policy
from vantage.runs import notebook
from vantage.training import schedules
from vantage.training.interface import OptimizerFactory, Update
from vantage.training.schedules import Schedule, name_of

OF_POLICY = ("log_std", "squash")  # keyword arguments of `env.policy` that `env.value` lacks


@checked
@dataclass(frozen=True)
class Algorithm:
    """An estimator, an update rule, and the settings that were published with them.

    Attributes:
        estimator: how a batch is weighed.
        update: what is done with it.
        name: how tables, messages and run folders call it.
        lanes: environments that step side by side, where the run makes them.
        fragment: steps of every lane per update, episodes carried over.
        batch: whole episodes per update, where there is no fragment.
        lr: learning rate; the rule's own where None.
        schedule: the schedule of the learning rate.
        optimizer: parameters -> torch optimiser; the rule's own where None.
        delay: updates by which the policy that acts is behind.
        normalise: observations and rewards by running statistics, where the run makes the
            environment; or the arguments of `vantage.Normalized`.
        discount: γ, where the run makes the environment; 0.99 where None.
        steps: environment steps of a run that says neither steps nor updates.
        network: keyword arguments of `env.policy` and `env.value` (`hidden`, `activation`,
            `orthogonal`; `log_std` and `squash` of the policy alone), where the run makes the
            networks.
        value: whether it trains a value function.
        action_value: whether that is one of Q(s, ·), `env.value(under=policy)`.
        source: where it was published.
    """

    estimator: Estimator
    update: Update
    name: str = "custom"
    lanes: int = 64
    fragment: int | None = None
    batch: int | None = None
    lr: float | None = None
    schedule: Schedule = schedules.constant
    optimizer: OptimizerFactory | None = None
    delay: int = 0
    normalise: dict[str, Any] | bool = False
    discount: float | None = None
    steps: int | None = None
    network: dict[str, Any] = field(default_factory=dict)
    value: bool = True
    action_value: bool = False
    source: str = ""

    def replace(self, **changes: Any) -> "Algorithm":
        """The algorithm with other settings.

        Raises:
            InputError: it has no such setting, with near matches.
        """
        known = [item.name for item in fields(self)]
        for name in changes:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
            refuse_unless(name in known, f"An algorithm has no setting {name!r}; {hint}")
        return dataclasses.replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """What it asks of the training loop beside its estimator, by argument of `vantage.train`.

        Settings that the algorithm leaves open are left out.
        """
        names = ("update", "fragment", "batch", "lr", "schedule", "optimizer", "delay")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def policy_network(self) -> dict[str, Any]:
        """Keyword arguments of `env.policy`."""
        return dict(self.network)

    def value_network(self, policy: Policy) -> dict[str, Any]:
        """Keyword arguments of `env.value`, for a value function beside that policy."""
        given = {name: each for name, each in self.network.items() if name not in OF_POLICY}
        return given | ({"under": policy} if self.action_value else {})

    def steps_per_update(self) -> int | None:
        """Environment steps of one update; None where whole episodes are collected."""
        return None if self.fragment is None else self.lanes * self.fragment

    def __repr__(self) -> str:
        return f"Algorithm({self})"

    def _repr_html_(self) -> str:
        size = self.steps_per_update()
        rows = {
            "estimator": self.estimator.name,
            "update": self.update,
            "steps an update": "whole episodes" if size is None else f"{size:,}",
            "schedule": name_of(self.schedule),
            "source": self.source,
        }
        return notebook.facts(self.name, rows)

    def __str__(self) -> str:
        size = (
            f"{self.batch or 64} whole episodes"
            if self.fragment is None
            else f"{self.lanes} lanes × {self.fragment} steps"
        )
        rate = "" if self.lr is None else f", lr {self.lr:g}"
        return (
            f"{self.name}: estimator {self.estimator.name}, {type(self.update).__name__}, {size} "
            f"an update{rate}, schedule {name_of(self.schedule)}"
        )
