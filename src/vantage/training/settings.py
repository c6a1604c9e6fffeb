"""The settings of a run, checked together before anything is collected."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from vantage.environments import making
from vantage.environments.interface import Environment
from vantage.errors import refuse_unless, refuse_unless_positive, refuse_unless_within
from vantage.estimators.estimator import Estimator, compares
from vantage.policies import Policy
from vantage.runs.run import versions
from vantage.training.interface import Particular, Update
from vantage.training.schedules import Schedule, name_of

BATCH = 64  # whole episodes, where a run says nothing else


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
    compile: bool

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
            if count is not None:
                refuse_unless_within(count, 1, "train", name)
        for name in ("lr", "target_snr"):
            amount = getattr(self, name)
            if amount is not None:
                refuse_unless_positive(amount, "train", name)
        for name in ("delay", "seed", "group_size"):
            refuse_unless_within(getattr(self, name), 0, "train", name)
        refuse_penalised([estimator], "train")
        available = {"scores", "entropy"} | ({"value"} if value is not None else set())
        if self.fragment is None:
            available.add("group")
            self._check_episodes(estimator)
        else:
            self._check_fragments(estimator)
        self.update.check(estimator)
        if isinstance(self.update, Particular):
            self.update.check_fragments(self.fragment, self.delay)
        estimator.require(available)

    def _check_episodes(self, estimator: Estimator) -> None:
        batch, size = self.fixed_batch, self.group_size
        refuse_unless(
            batch is None or batch >= 2,
            "train(batch=1): a signal-to-noise ratio needs two trajectories at least.",
        )
        refuse_unless(
            not compares(estimator)
            or (size >= 2 and (batch is None or (batch % size == 0 and batch >= 2 * size))),
            f"train(batch={self.batch}, group_size={size}): {estimator.name!r} compares the "
            "episodes of a group; a batch must hold two or more whole groups of two or more.",
        )
        refuse_unless(
            not (self.compile and self.batch == "auto" and compares(estimator)),
            f"train(compile=True, batch='auto'): {estimator.name!r} takes a lane for every episode "
            "of a batch, and another number of lanes would be compiled anew; give batch= a number.",
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
            not compares(estimator),
            f"train(fragment={self.fragment}): {estimator.name!r} compares whole episodes of a "
            "group; give batch= (whole episodes) instead.",
        )
        refuse_unless(
            self.baseline is None,
            "train(baseline='auto') measures whole episodes; give batch= instead of fragment=.",
        )


def with_changes(
    update: Update,
    epochs: int | None,
    minibatches: int | None,
    max_grad_norm: float | Literal["rule"] | None,
) -> Update:
    """The update rule with what `vantage.train` was given in place of its own.

    Raises:
        InputError: the rule has no such setting, naming both.
    """
    given = {"epochs": epochs, "minibatches": minibatches}
    changes: dict[str, object] = {name: count for name, count in given.items() if count is not None}
    if max_grad_norm != "rule":
        changes["max_grad_norm"] = max_grad_norm
    if not changes:
        return update
    known: list[str] = [item.name for item in fields(update)] if is_dataclass(update) else []
    for name, setting in changes.items():
        refuse_unless(
            name in known,
            f"train({name}={setting}): the update rule {type(update).__name__} has no {name}; "
            f"it has {', '.join(known) or 'no settings'}.",
        )
    return replace(update, **changes)  # type: ignore[type-var]


def resolved(
    update: Update,
    fragment: int | None,
    batch: int | Literal["auto"] | None,
    estimator: Estimator,
    value: nn.Module | None,
) -> tuple[int | None, int | Literal["auto"] | None]:
    """(fragment, batch) where the user leaves one or both out.

    With a value function a rule may have a fragment of its own, as PPO was published; all else
    takes whole episodes.
    """
    if fragment is not None or batch is not None:
        return fragment, batch
    in_fragments = value is not None and not compares(estimator)
    of_rule = update.fragment if in_fragments else None
    return (None, BATCH) if of_rule is None else (of_rule, None)


FEW = 10  # updates: with fewer, nothing is learned that could be seen


def few_updates(settings: Settings, lanes: int) -> str:
    """What to know where the steps asked for make hardly any updates; "" where they do not."""
    size = (settings.fragment or 0) * lanes
    counts = [settings.updates, -(-settings.steps // size) if settings.steps and size else None]
    count = min((each for each in counts if each is not None), default=FEW)
    phase = getattr(settings.update, "phase", 0)
    if count < phase:
        return (
            f"Note: this run has {count} updates, and its auxiliary phase comes after {phase}: it "
            "is PPO without one. Take a shorter phase, or more steps."
        )
    if count >= FEW or settings.updates is not None or settings.steps is None:
        return ""
    return (
        f"Note: {settings.steps:,} steps make {count} update{'s' * (count > 1)} of {size:,} steps "
        f"({lanes} lanes × {settings.fragment}); take fewer lanes, shorter fragments or more steps."
    )


def describe(
    env: Environment,
    policy: Policy,
    value: nn.Module | None,
    estimator: Estimator,
    optimizer: Optimizer | None,
    settings: Settings,
) -> dict[str, object]:
    """config.json of a run: every setting, resolved."""
    plain = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {
        "environment": making.describe(env),
        "policy": _module(policy),
        "value": None if value is None else _module(value),
        "estimator": {"name": estimator.name, **estimator.columns()},
        "optimizer": None if optimizer is None else describe_optimizer(optimizer),
        **plain,
        "schedule": name_of(settings.schedule),
        "update": _update(settings.update),
        "versions": versions(),
    }


def _update(update: Update) -> dict[str, object]:
    settings: dict[str, object] = (
        asdict(update) if is_dataclass(update) and not isinstance(update, type) else {}
    )
    return {"class": type(update).__name__, **settings}


def refuse_penalised(estimators: Iterable[Estimator], caller: str) -> None:
    """Refuse rows with a KL penalty where there is no reference policy to measure it to.

    Raises:
        InputError: naming the first of them.
    """
    for estimator in estimators:
        refuse_unless(
            "reference_log_prob" not in estimator.needs,
            f"{caller}: estimator {estimator.name!r} has a KL penalty (beta), and an environment "
            "has no reference policy to measure it to: give beta=0, or weigh batches by hand with "
            "vantage.gradient(policy, batch, estimator, reference_log_prob=...).",
        )


def describe_optimizer(optimizer: Optimizer) -> dict[str, object]:
    """An optimiser in config.json: its class and the settings of its first group."""
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {"class": type(optimizer).__name__, **group}


def _module(module: nn.Module) -> dict[str, object]:
    return {
        "class": type(module).__name__,
        "hidden": getattr(module, "hidden", None),
        "made": getattr(module, "arguments", None),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
