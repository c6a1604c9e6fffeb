"""The settings of a run, checked together before anything is collected."""

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from vantage.environments import making
from vantage.environments.interface import Environment
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.runs.run import versions
from vantage.training.adam import Adam
from vantage.training.epochs import Epochs
from vantage.training.natural import Natural
from vantage.training.schedules import Schedule
from vantage.training.updates import Update

FRAGMENT = 128  # steps per lane, where an update of several epochs is told nothing else
BATCH = 64  # whole episodes elsewhere


@dataclass(frozen=True)
class Settings:
    """Numbers and choices of a run; `vantage.train` says what each means."""

    steps: int | None
    updates: int | None
    update: Update
    fragment: int | None
    batch: int | Literal["auto"] | None
    target_snr: float
    baseline: Literal["auto"] | None
    group_size: int
    lr: float | None
    schedule: Schedule
    delay: int
    restart: int
    signal_every: int | None
    seed: int
    threads: int

    @property
    def fixed_batch(self) -> int | None:
        """The batch, or None where it is chosen as the run goes."""
        return None if self.batch == "auto" else self.batch

    def check(self, estimator: Estimator, value: nn.Module | None) -> None:
        """Refuse what cannot work, naming the setting and the remedy.

        Raises:
            InputError: see `vantage.train`.
        """
        refuse_unless(
            self.steps is not None or self.updates is not None,
            "train: give steps= (environment steps) or updates=; without either it would not end.",
        )
        whole = ("steps", "updates", "threads", "fragment", "restart", "signal_every")
        counts = {name: getattr(self, name) for name in whole} | {"batch": self.fixed_batch}
        for name, count in counts.items():
            refuse_unless(
                count is None or count >= 1, f"train({name}={count}): must be at least 1."
            )
        for name in ("lr", "target_snr"):
            amount = getattr(self, name)
            refuse_unless(
                amount is None or amount > 0, f"train({name}={amount}): must be positive."
            )
        refuse_unless(self.delay >= 0, f"train(delay={self.delay}): must be at least 0.")
        available = {"scores"} | ({"value"} if value is not None else set())
        if self.fragment is None:
            available.add("group")
            self._check_episodes(estimator)
        else:
            self._check_fragments(estimator)
        if isinstance(self.update, Epochs):
            self.update.check(estimator)
        estimator.require(available)

    def _check_episodes(self, estimator: Estimator) -> None:
        batch, size = self.fixed_batch, self.group_size
        refuse_unless(
            batch is None or batch >= 2,
            "train(batch=1): a signal-to-noise ratio needs two trajectories at least.",
        )
        refuse_unless(
            "group" not in estimator.needs
            or (size >= 2 and (batch is None or (batch % size == 0 and batch >= 2 * size))),
            f"train(batch={self.batch}, group_size={size}): {estimator.name!r} compares the "
            "episodes of a group; a batch must hold two or more whole groups of two or more.",
        )
        refuse_unless(
            self.delay == 0,
            f"train(delay={self.delay}): only fragments are collected by an older policy; give "
            "fragment= (steps per lane).",
        )

    def _check_fragments(self, estimator: Estimator) -> None:
        refuse_unless(
            self.batch is None,
            f"train(fragment={self.fragment}, batch={self.batch}): a batch is either `fragment` "
            "steps of every lane or `batch` whole episodes; give one of them.",
        )
        refuse_unless(
            "group" not in estimator.needs,
            f"train(fragment={self.fragment}): {estimator.name!r} compares whole episodes of a "
            "group; give batch= (whole episodes) instead.",
        )
        refuse_unless(
            self.baseline is None,
            "train(baseline='auto') measures whole episodes; give batch= instead of fragment=.",
        )

    def adam(self) -> Any:
        """The default optimiser: parameters -> Adam, with the rule's learning rate and ε."""
        if isinstance(self.update, Natural):
            return None
        lr = self.update.lr if self.lr is None else self.lr
        return partial(Adam, lr=lr, eps=self.update.eps)


def resolved(
    update: Update,
    fragment: int | None,
    batch: int | Literal["auto"] | None,
    estimator: Estimator,
    value: nn.Module | None,
) -> tuple[int | None, int | Literal["auto"] | None]:
    """(fragment, batch) where the user leaves one or both out.

    Several epochs with a value function take fragments, as PPO was published; all else whole
    episodes.
    """
    if fragment is not None or batch is not None:
        return fragment, batch
    many = isinstance(update, Epochs) and value is not None and "group" not in estimator.needs
    return (FRAGMENT, None) if many else (None, BATCH)


def describe(
    env: Environment,
    policy: nn.Module,
    value: nn.Module | None,
    estimator: Estimator,
    optimizer: Optimizer | None,
    settings: Settings,
) -> dict[str, Any]:
    """config.json of a run: every setting, resolved."""
    plain = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {
        "environment": making.describe(env),
        "policy": _module(policy),
        "value": None if value is None else _module(value),
        "estimator": {"name": estimator.name, **estimator.columns()},
        "optimizer": None if optimizer is None else _optimizer(optimizer),
        **plain,
        "schedule": getattr(settings.schedule, "__name__", repr(settings.schedule)),
        "update": {"class": type(settings.update).__name__, **asdict(settings.update)},
        "versions": versions(),
    }


def _optimizer(optimizer: Optimizer) -> dict[str, Any]:
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {"class": type(optimizer).__name__, **group}


def _module(module: nn.Module) -> dict[str, Any]:
    return {
        "class": type(module).__name__,
        "hidden": getattr(module, "hidden", None),
        "made": getattr(module, "made", None),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
