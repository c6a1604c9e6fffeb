"""The settings of a run, checked together before anything is collected."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from vantage.environments.interface import Environment
from vantage.errors import refuse_unless
from vantage.estimator import Estimator
from vantage.report.run import versions
from vantage.training.auto import candidates


@dataclass(frozen=True)
class Settings:
    """Numbers and choices of a run; `vantage.train` says what each means."""

    steps: int | None
    updates: int | None
    batch: int | Literal["auto"]
    target_snr: float
    baseline: Literal["auto"] | None
    group_size: int
    lr: float
    value_lr: float
    value_epochs: int
    value_minibatch: int
    max_grad_norm: float | None
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
        whole = ("steps", "updates", "threads", "value_epochs", "value_minibatch")
        counts = {name: getattr(self, name) for name in whole} | {"batch": self.fixed_batch}
        for name, count in counts.items():
            refuse_unless(
                count is None or count >= 1, f"train({name}={count}): must be at least 1."
            )
        for name in ("lr", "value_lr", "target_snr", "max_grad_norm"):
            amount = getattr(self, name)
            refuse_unless(
                amount is None or amount > 0, f"train({name}={amount}): must be positive."
            )
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
        estimator.require({"group", "scores"} | ({"value"} if value is not None else set()))

    def rules(self, estimator: Estimator, value: nn.Module | None) -> dict[str, Estimator]:
        """The estimators to choose from at every update, by baseline; one unless baseline="auto".

        Raises:
            InputError: baseline="auto" with an estimator that no baseline leaves unbiased.
        """
        if self.baseline is None:
            return {"": estimator}
        found = candidates(estimator, value is not None)
        refuse_unless(
            found,
            f"train(baseline='auto'): no baseline leaves {estimator.name!r} unbiased; "
            "its other columns do not.",
        )
        return found


def describe(
    env: Environment,
    policy: nn.Module,
    value: nn.Module | None,
    estimator: Estimator,
    optimizer: Optimizer,
    settings: Settings,
) -> dict[str, Any]:
    """config.json of a run: every setting, resolved."""
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {
        "environment": {
            "name": env.name,
            "lanes": env.lanes,
            "discount": env.discount,
            "settings": getattr(env, "settings", {}),
        },
        "policy": _module(policy),
        "value": None if value is None else _module(value),
        "estimator": {"name": estimator.name, **estimator.columns()},
        "optimizer": {"class": type(optimizer).__name__, **group},
        **asdict(settings),
        "versions": versions(),
    }


def _module(module: nn.Module) -> dict[str, Any]:
    return {
        "class": type(module).__name__,
        "hidden": getattr(module, "hidden", None),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
