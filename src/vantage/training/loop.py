"""The training loop: collect, weigh, step; and say at every update how much of it was signal."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from vantage.batch import Batch, sum_by_episode
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes, grouped_by
from vantage.errors import refuse_unless
from vantage.estimator import Estimator
from vantage.policies import Policy
from vantage.report.console import Progress
from vantage.report.run import (
    CHECKPOINT,
    Run,
    append_metrics,
    open_run,
    read_metrics,
    write_metrics,
)
from vantage.signal import Signal, gradient_and_signal
from vantage.training import checkpoint
from vantage.training.auto import best_baseline, next_batch
from vantage.training.interrupts import Interrupts
from vantage.training.settings import Settings, describe
from vantage.training.threads import torch_threads
from vantage.training.value import fit_value

# Takes parameters, gives a torch optimiser; it minimises −J, so any torch optimiser ascends.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
FIRST_BATCH = 64  # of batch="auto"


def train(
    env: Environment,
    policy: Policy,
    estimator: Estimator,
    *,
    value: nn.Module | None = None,
    steps: int | None = None,
    updates: int | None = None,
    batch: int | Literal["auto"] = 64,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lr: float = 1e-2,
    optimizer: OptimizerFactory | None = None,
    value_lr: float = 1e-2,
    value_epochs: int = 5,
    value_minibatch: int = 2048,
    max_grad_norm: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 10.0,
    threads: int = 1,
    progress: bool = True,
) -> Run:
    """Train a policy by gradient ascent on J: θ ← θ + α ĝ, equation [2].

    Each update collects `batch` whole episodes from fresh starts, weighs them with `estimator`,
    takes one step, and fits `value` afterwards. Everything random is drawn from (seed, update), so
    that the same seed gives the same bits and a resumed run is the run that was interrupted.

    Args:
        env: where to learn.
        policy: trained in place.
        estimator: a row of `vantage.estimators`, or your own.
        value: V(s), trained in place; needed by estimators with a value baseline. Where given, an
            episode cut by a time limit is continued by the value of its final observation.
        steps: stop at the first update after which this many environment steps were used.
        updates: stop after this many updates. Give `steps` or `updates`, or both.
        batch: episodes per update; "auto" grows and shrinks it, from 64, to hold `target_snr`.
        target_snr: the gradient's signal-to-noise ratio that batch="auto" holds.
        baseline: "auto" takes, at every update, the unbiased baseline whose gradient had the least
            variance over the updates before, in place of the estimator's own; the log says why.
        group_size: episodes compared with one another, for estimators that need groups.
        lr: learning rate of the default optimiser, Adam.
        optimizer: parameters -> torch optimiser, in place of Adam(lr).
        value_lr, value_epochs, value_minibatch: of the fit of V, by Adam.
        max_grad_norm: longest gradient let through to the optimiser; None leaves it as it is.
        seed: of everything random here.
        out: run folder; None writes nothing.
        resume: carry on the run in `out` from its last checkpoint.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        threads: torch threads; small networks want one.
        progress: show progress: a live display on a terminal, plain lines elsewhere.

    Returns:
        Run with `.history`, one dict per update, and `.path`.

    Raises:
        InputError: settings that cannot work, before anything is collected.
        KeyboardInterrupt: after a checkpoint was written.
    """
    settings = Settings(
        steps=steps,
        updates=updates,
        batch=batch,
        target_snr=target_snr,
        baseline=baseline,
        group_size=group_size,
        lr=lr,
        value_lr=value_lr,
        value_epochs=value_epochs,
        value_minibatch=value_minibatch,
        max_grad_norm=max_grad_norm,
        seed=seed,
        threads=threads,
    )
    settings.check(estimator, value)
    refuse_unless(not resume or out is not None, "train(resume=True): say which run with out=.")
    rules = settings.rules(estimator, value)
    optimizers = {"policy": (optimizer or partial(Adam, lr=lr))(policy.parameters())}
    if value is not None:
        optimizers["value"] = Adam(value.parameters(), lr=value_lr)
    config = describe(env, policy, value, estimator, optimizers["policy"], settings)
    learner = _Learner(env, policy, value, rules, optimizers, settings)
    folder = None if out is None else Path(out)
    if folder is not None:
        open_run(folder, config, resume)
        learner.restore(folder, resume)
    with (
        torch_threads(threads),
        Interrupts() as interrupts,
        Progress(steps, updates, learner.history, progress) as display,
    ):
        _until_done(learner, folder, display, interrupts, checkpoint_seconds)
    return Run(folder, config, learner.history)


def _until_done(
    learner: "_Learner",
    folder: Path | None,
    display: Progress,
    interrupts: Interrupts,
    checkpoint_seconds: float,
) -> None:
    saved_at = time.monotonic()
    while not learner.finished():
        try:
            found = learner.look()
        except BaseException:
            learner.save(folder)  # nothing has been changed yet: what is finished must not be lost
            raise
        row = learner.step(found)
        if folder is not None:
            append_metrics(folder, row)
        display.update(row)
        if time.monotonic() - saved_at > checkpoint_seconds or interrupts.asked:
            learner.save(folder)
            saved_at = time.monotonic()
        interrupts.raise_if_asked()
    learner.save(folder)


@dataclass(frozen=True)
class _Found:
    """What an update saw before it changed anything."""

    started: float
    batch: Batch
    gradient: Tensor
    signal: Signal
    choices: dict[str, Any]  # what "auto" settings chose, and why


@dataclass
class _Learner:
    """The state of a run, and an update of it in two halves: `look` changes nothing."""

    env: Environment
    policy: Policy
    value: nn.Module | None
    rules: dict[str, Estimator]
    optimizers: dict[str, Optimizer]
    settings: Settings
    history: list[dict[str, Any]] = field(default_factory=list)

    def finished(self) -> bool:
        """Whether the steps or the updates asked for are done."""
        steps, updates = self.settings.steps, self.settings.updates
        used = self.history[-1]["steps"] if self.history else 0
        return (steps is not None and used >= steps) or (
            updates is not None and len(self.history) >= updates
        )

    def look(self) -> _Found:
        """Collect a batch and find its gradient."""
        started = time.perf_counter()
        size, choices = self._batch_size()
        rollout_seed, _ = seeds(self.settings.seed, len(self.history))
        batch = episodes(self.env, self.policy, size, rollout_seed, self.value)
        batch = grouped_by(self.settings.group_size, batch)
        found = {
            name: gradient_and_signal(self.policy, batch, rule) for name, rule in self.rules.items()
        }
        chosen, why = best_baseline(self.history, list(self.rules))
        if self.settings.baseline == "auto":
            variance = {name: s.variance * s.trajectories for name, (_, s) in found.items()}
            choices |= {
                "baseline": chosen,
                "baseline_reason": why,
                "baseline_variance": variance,
            }
        gradient, signal = found[chosen]
        refuse_unless(
            gradient.isfinite().all(),
            f"The gradient of update {len(self.history) + 1} is not finite; lower lr, or bound it "
            "with max_grad_norm. The policy is as it was before this update.",
        )
        return _Found(started, batch, gradient, signal, choices)

    def step(self, found: _Found) -> dict[str, Any]:
        """Step uphill, fit V, and add the update's metrics to the history."""
        batch, settings = found.batch, self.settings
        row: dict[str, Any] = {
            "update": len(self.history) + 1,
            "batch": batch.rows,
            "steps": batch.steps + (self.history[-1]["steps"] if self.history else 0),
            **_batch_metrics(self.policy, batch),
            **_signal_metrics(found.signal),
            **found.choices,
        }
        row["gradient_norm"] = ascend(
            self.policy, found.gradient, self.optimizers["policy"], settings.max_grad_norm
        )
        if self.value is not None:
            _, fit_seed = seeds(settings.seed, len(self.history))
            row |= fit_value(
                self.value,
                self.optimizers["value"],
                batch,
                settings.value_epochs,
                settings.value_minibatch,
                torch.Generator().manual_seed(fit_seed),
            )
        seconds = time.perf_counter() - found.started
        row |= {"seconds": seconds, "steps_per_second": batch.steps / seconds}
        self.history.append(row)
        return row

    def save(self, folder: Path | None) -> None:
        """Write a checkpoint."""
        if folder is not None:
            position = {"updates": len(self.history)}
            checkpoint.save(folder / CHECKPOINT, self._modules(), self.optimizers, position)

    def restore(self, folder: Path, resume: bool) -> None:
        """Go back to the last checkpoint, if there is one; metrics after it are made again."""
        if resume and checkpoint.exists(folder / CHECKPOINT):
            position = checkpoint.load(folder / CHECKPOINT, self._modules(), self.optimizers)
            self.history[:] = read_metrics(folder)[: position["updates"]]
        write_metrics(folder, self.history)

    def _batch_size(self) -> tuple[int, dict[str, Any]]:
        size, choices = self.settings.fixed_batch, {}
        if size is None:
            size, why = next_batch(self.history, FIRST_BATCH, self.settings.target_snr)
            choices = {"batch_reason": why}
            if any("group" in rule.needs for rule in self.rules.values()):
                size = max(2, round(size / self.settings.group_size)) * self.settings.group_size
        return size, choices

    def _modules(self) -> dict[str, nn.Module]:
        both = {"policy": self.policy, "value": self.value}
        return {name: module for name, module in both.items() if module is not None}


def seeds(seed: int, update: int) -> tuple[int, int]:
    """The seeds of an update's rollout and of its value fit: functions of (seed, update) alone."""
    rollout, fit = np.random.SeedSequence([seed, update]).generate_state(2).tolist()
    return rollout, fit


def ascend(
    policy: nn.Module,
    gradient: Float[Tensor, " P"],
    optimizer: Optimizer,
    max_grad_norm: float | None = None,
) -> float:
    """One step uphill along a flat gradient; returns its norm before any clipping.

    Torch optimisers minimise, so each parameter's `.grad` is set to −ĝ.
    """
    norm = gradient.norm().item()
    if max_grad_norm is not None and norm > max_grad_norm:
        gradient = gradient * (max_grad_norm / norm)
    position = 0
    for parameter in policy.parameters():
        if parameter.requires_grad:
            piece = gradient[position : position + parameter.numel()]
            parameter.grad = -piece.view_as(parameter).to(parameter.dtype)
            position += parameter.numel()
    optimizer.step()
    return norm


def _batch_metrics(policy: Policy, batch: Batch) -> dict[str, float]:
    returns = sum_by_episode(batch, batch.reward)
    with torch.no_grad():
        entropy = policy.entropy(batch.observation)[batch.mask].mean().item()
    return {
        "return": returns.mean().item(),
        "return_std": returns.std().item(),
        "length": batch.steps / batch.trajectories,
        "entropy": entropy,
    }


def _signal_metrics(signal: Signal) -> dict[str, int | float | None]:
    # a ratio that the data do not determine is null, in memory as on disk
    ratios = {"snr": signal.snr, "noise_scale": signal.noise_scale}
    return {
        "units": signal.units,
        "unit": signal.trajectories,
        "gradient_squared_norm": signal.squared_norm,
        "gradient_variance": signal.variance,
        **{name: ratio if math.isfinite(ratio) else None for name, ratio in ratios.items()},
    }
