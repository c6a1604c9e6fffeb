"""The training loop: collect, weigh, step; and say at every update how much of it was signal."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from vantage.batch import Batch, sum_by_episode
from vantage.environments.interface import Environment
from vantage.environments.rollout import episodes
from vantage.errors import refuse_unless
from vantage.estimators import Estimator
from vantage.policies import Policy
from vantage.report.console import Progress
from vantage.report.run import (
    CHECKPOINT,
    Run,
    append_metrics,
    open_run,
    read_metrics,
    versions,
    write_metrics,
)
from vantage.signal import Signal, gradient_and_signal
from vantage.training import checkpoint
from vantage.training.interrupts import Interrupts
from vantage.training.threads import torch_threads
from vantage.training.value import fit_value

# Takes parameters, gives a torch optimiser; it minimises −J, so any torch optimiser ascends.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


def train(
    env: Environment,
    policy: Policy,
    estimator: Estimator,
    *,
    value: nn.Module | None = None,
    steps: int | None = None,
    updates: int | None = None,
    batch: int = 64,
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
        batch: episodes per update.
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
    refuse_unless(
        steps is not None or updates is not None,
        "train: give steps= (environment steps) or updates=; without either it would not end.",
    )
    counts = {"steps": steps, "updates": updates, "batch": batch, "threads": threads}
    for name, count in counts.items():
        refuse_unless(count is None or count >= 1, f"train({name}={count}): must be at least 1.")
    refuse_unless(
        batch >= 2, "train(batch=1): a signal-to-noise ratio needs two trajectories at least."
    )
    refuse_unless(
        lr > 0 and value_lr > 0, f"train(lr={lr}, value_lr={value_lr}): must be positive."
    )
    refuse_unless(not resume or out is not None, "train(resume=True): say which run with out=.")
    estimator.require({"value"} if value is not None else set())

    policy_optimizer = (optimizer or partial(Adam, lr=lr))(policy.parameters())
    modules: dict[str, nn.Module] = {"policy": policy}
    optimizers = {"policy": policy_optimizer}
    if value is not None:
        modules["value"] = value
        optimizers["value"] = Adam(value.parameters(), lr=value_lr)
    config = {
        "environment": _describe_environment(env),
        "policy": _describe_module(policy),
        "value": None if value is None else _describe_module(value),
        "estimator": {"name": estimator.name, **estimator.columns()},
        "optimizer": _describe_optimizer(policy_optimizer),
        "steps": steps,
        "updates": updates,
        "batch": batch,
        "value_lr": value_lr,
        "value_epochs": value_epochs,
        "value_minibatch": value_minibatch,
        "max_grad_norm": max_grad_norm,
        "seed": seed,
        "threads": threads,
        "versions": versions(),
    }
    folder = None if out is None else Path(out)
    history: list[dict[str, Any]] = []
    if folder is not None:
        open_run(folder, config, resume)
        if resume and checkpoint.exists(folder / CHECKPOINT):
            position = checkpoint.load(folder / CHECKPOINT, modules, optimizers)
            history = read_metrics(folder)[: position["updates"]]
        write_metrics(folder, history)

    def save() -> None:
        if folder is not None:
            checkpoint.save(folder / CHECKPOINT, modules, optimizers, {"updates": len(history)})

    saved_at = time.monotonic()
    with (
        torch_threads(threads),
        Interrupts() as interrupts,
        Progress(steps, updates, history, progress) as display,
    ):
        while not _finished(history, steps, updates):
            rollout_seed, fit_seed = seeds(seed, len(history))
            started = time.perf_counter()
            try:
                data = episodes(env, policy, batch, rollout_seed, value)
                gradient, signal = gradient_and_signal(policy, data, estimator)
                _refuse_unless_finite(gradient, len(history) + 1)
            except BaseException:
                save()  # nothing has been changed yet: what is finished must not be lost
                raise
            row = {
                "update": len(history) + 1,
                "steps": data.steps + (history[-1]["steps"] if history else 0),
                **_batch_metrics(policy, data),
                "gradient_norm": ascend(policy, gradient, policy_optimizer, max_grad_norm),
                **_signal_metrics(signal),
            }
            if value is not None:
                row |= fit_value(
                    value,
                    optimizers["value"],
                    data,
                    value_epochs,
                    value_minibatch,
                    torch.Generator().manual_seed(fit_seed),
                )
            seconds = time.perf_counter() - started
            row |= {"seconds": seconds, "steps_per_second": data.steps / seconds}
            history.append(row)
            if folder is not None:
                append_metrics(folder, row)
            display.update(row)
            if time.monotonic() - saved_at > checkpoint_seconds or interrupts.asked:
                save()
                saved_at = time.monotonic()
            interrupts.raise_if_asked()
        save()
    return Run(folder, config, history)


def seeds(seed: int, update: int) -> tuple[int, int]:
    """The seeds of an update's rollout and of its value fit: functions of (seed, update) alone."""
    rollout, fit = np.random.SeedSequence([seed, update]).generate_state(2).tolist()
    return rollout, fit


def _finished(history: list[dict[str, Any]], steps: int | None, updates: int | None) -> bool:
    done_steps = steps is not None and bool(history) and history[-1]["steps"] >= steps
    return done_steps or (updates is not None and len(history) >= updates)


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


def _refuse_unless_finite(gradient: Tensor, update: int) -> None:
    refuse_unless(
        gradient.isfinite().all(),
        f"The gradient of update {update} is not finite; lower lr, or bound it with "
        "max_grad_norm. The policy is as it was before this update.",
    )


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


def _signal_metrics(signal: Signal) -> dict[str, int | float]:
    return {
        "units": signal.units,
        "gradient_squared_norm": signal.squared_norm,
        "gradient_variance": signal.variance,
        "snr": signal.snr,
        "noise_scale": signal.noise_scale,
    }


def _describe_environment(env: Environment) -> dict[str, Any]:
    return {
        "name": env.name,
        "lanes": env.lanes,
        "discount": env.discount,
        "settings": getattr(env, "settings", {}),
    }


def _describe_module(module: nn.Module) -> dict[str, Any]:
    return {
        "class": type(module).__name__,
        "hidden": getattr(module, "hidden", None),
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def _describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {"class": type(optimizer).__name__, **group}
