"""A run's state, and one update of it in two halves: `look` collects and changes nothing."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.environments.fragments import Fragments
from vantage.environments.interface import Environment
from vantage.environments.rollout import Finished, episodes_and_returns, grouped_by
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.parameters import flat_parameters, write_parameters
from vantage.gradients.passes import Passes
from vantage.policies import Policy
from vantage.runs import checkpoint
from vantage.runs.run import CHECKPOINT, read_metrics, write_metrics
from vantage.statistics.signal import Signal, gradient_and_signal
from vantage.training.auto import best_baseline, next_batch
from vantage.training.epochs import Epochs
from vantage.training.lanes import lanes_signal
from vantage.training.natural import Natural
from vantage.training.settings import Settings

# Takes parameters, gives a torch optimiser; it minimises −J, so any torch optimiser ascends.
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
FIRST_BATCH = 64  # of batch="auto"
RECENT = 100  # episodes of the running mean return


@dataclass(frozen=True)
class Found:
    """What an update saw before it changed anything."""

    started: float
    batch: Batch
    estimator: Estimator  # with the baseline that was chosen
    finished: Finished
    entropy: float  # mean over steps
    gradient: Tensor | None  # None: the update rule finds its own
    signal: Signal | None  # None: not measured at this update
    choices: dict[str, Any]  # what "auto" settings chose, and why


@dataclass
class Learner:
    """Everything that changes in a run."""

    env: Environment
    policy: Policy
    value: nn.Module | None
    estimator: Estimator
    rules: dict[str, Estimator]  # to choose from at every update; one unless baseline="auto"
    optimizers: dict[str, Optimizer]
    passes: Passes
    settings: Settings
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.fragments = Fragments(self.env, self.passes)
        self.rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        # parameters of the policies that are to act in the next updates, oldest first
        self.waiting: deque[Tensor] = deque([flat_parameters(self.policy)] * self.settings.delay)
        self.restarted_at = 0

    def finished(self) -> bool:
        """Whether the steps or the updates asked for are done."""
        return self._done() >= 1

    def look(self) -> Found:
        """Collect a batch, and find its gradient where the rule wants it whole."""
        started = time.perf_counter()
        return (
            self._look_at_episodes(started)
            if self.settings.fragment is None
            else self._look_at_fragment(started)
        )

    def step(self, found: Found) -> dict[str, Any]:
        """Change the policy and V, and add the update's metrics to the history."""
        batch, settings, rule = found.batch, self.settings, self.settings.update
        self.recent.extend(found.finished.returns.tolist())
        row: dict[str, Any] = {
            "update": len(self.history) + 1,
            "batch": batch.rows if settings.fragment is None else batch.trajectories,
            "steps": batch.steps + self._steps(),
            **self._batch_metrics(found.finished),
            "entropy": found.entropy,
            **_signal_metrics(found.signal),
            **found.choices,
        }
        factor = settings.schedule(min(1.0, self._done()))
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        _, learn_seed = seeds(settings.seed, len(self.history))
        generator = torch.Generator().manual_seed(learn_seed)
        if settings.delay:
            self.waiting.append(flat_parameters(self.policy))
        if isinstance(rule, Epochs):
            stale = settings.delay > 0
            optimizer = self.optimizers["policy"]
            row |= rule.learn(self.passes, optimizer, found.estimator, batch, generator, stale)
        else:
            assert found.gradient is not None
            if isinstance(rule, Natural):
                row |= rule.step(self.policy, found.gradient, batch, found.estimator, factor)
            else:
                row |= rule.step(self.policy, found.gradient, self.optimizers["policy"])
            if self.value is not None:
                row |= rule.fit(self.value, self.optimizers["value"], batch, generator)
        seconds = time.perf_counter() - found.started
        row |= {"seconds": seconds, "steps_per_second": batch.steps / seconds}
        self.history.append(row)
        return row

    def save(self, folder: Path | None) -> None:
        """Write a checkpoint."""
        if folder is not None:
            position = {
                "updates": len(self.history),
                "recent": list(self.recent),
                "restarted_at": self.restarted_at,
            }
            tensors = {f"waiting.{i}": flat for i, flat in enumerate(self.waiting)}
            if self.settings.fragment is not None and self.history:
                tensors |= {f"lanes.{k}": v for k, v in self.fragments.state().items()}
            checkpoint.save(
                folder / CHECKPOINT, self._modules(), self.optimizers, position, tensors
            )

    def restore(self, folder: Path, resume: bool) -> None:
        """Go back to the last checkpoint, if there is one; metrics after it are made again."""
        if resume and checkpoint.exists(folder / CHECKPOINT):
            position, tensors = checkpoint.load(
                folder / CHECKPOINT, self._modules(), self.optimizers
            )
            self.history[:] = read_metrics(folder)[: position["updates"]]
            self.recent.extend(position["recent"])
            self.restarted_at = position["restarted_at"]
            self.waiting = deque(tensors[f"waiting.{i}"] for i in range(self.settings.delay))
            lanes = {k.removeprefix("lanes."): v for k, v in tensors.items() if "lanes." in k}
            if lanes:
                start, _ = seeds(self.settings.seed, self.restarted_at)
                self.fragments.restore(lanes, start)
        write_metrics(folder, self.history)

    # Looking.

    def _look_at_episodes(self, started: float) -> Found:
        size, choices = self._batch_size()
        rollout_seed, _ = seeds(self.settings.seed, len(self.history))
        batch, ended = episodes_and_returns(self.env, self.policy, size, rollout_seed, self.value)
        batch = grouped_by(self.settings.group_size, batch)
        with torch.no_grad():
            entropy = self.policy.entropy(batch.observation)[batch.mask].mean().item()
        chosen, why = best_baseline(self.history, list(self.rules))
        auto = self.settings.baseline == "auto"
        followed = auto or self.settings.batch == "auto"
        if isinstance(self.settings.update, Epochs) and not followed:
            return Found(started, batch, self.rules[chosen], ended, entropy, None, None, choices)
        found = {
            name: gradient_and_signal(self.policy, batch, rule) for name, rule in self.rules.items()
        }
        if auto:
            variance = {name: s.variance * s.trajectories for name, (_, s) in found.items()}
            choices |= {
                "baseline": chosen,
                "baseline_reason": why,
                "baseline_variance": variance,
            }
        gradient, signal = found[chosen]
        self._refuse_unless_finite(gradient)
        return Found(started, batch, self.rules[chosen], ended, entropy, gradient, signal, choices)

    def _look_at_fragment(self, started: float) -> Found:
        settings, number = self.settings, len(self.history)
        assert settings.fragment is not None
        start_seed, _ = seeds(settings.seed, number)
        # Lanes start afresh at times that depend on the count of steps alone: what a resumed run
        # must act again is then bounded.
        if number == 0 or self.fragments.steps >= settings.restart:
            self.fragments.restart(start_seed)
            self.restarted_at = number
        if settings.delay:
            current = flat_parameters(self.policy)
            write_parameters(self.policy, self.waiting.popleft())
        try:
            batch, ended = self.fragments.collect(settings.fragment, start_seed)
        finally:
            if settings.delay:
                write_parameters(self.policy, current)
        gradient = signal = None
        every = settings.signal_every
        measured = every is not None and number % every == 0 and batch.rows > 1
        if measured or not isinstance(settings.update, Epochs):
            gradient, signal = lanes_signal(self.passes, self.estimator, batch, measured)
            self._refuse_unless_finite(gradient)
        entropy = self.fragments.entropy
        return Found(started, batch, self.estimator, ended, entropy, gradient, signal, {})

    def _refuse_unless_finite(self, gradient: Tensor) -> None:
        refuse_unless(
            gradient.isfinite().all(),
            f"The gradient of update {len(self.history) + 1} is not finite; lower lr, or bound it "
            "with max_grad_norm. The policy is as it was before this update.",
        )

    def _batch_size(self) -> tuple[int, dict[str, Any]]:
        size, choices = self.settings.fixed_batch, {}
        if size is None:
            size, why = next_batch(self.history, FIRST_BATCH, self.settings.target_snr)
            choices = {"batch_reason": why}
            if any("group" in rule.needs for rule in self.rules.values()):
                size = max(2, round(size / self.settings.group_size)) * self.settings.group_size
        return size, choices

    def _batch_metrics(self, ended: Finished) -> dict[str, float | None]:
        count = len(ended.returns)
        return {
            "episodes": count,
            "return": ended.returns.mean().item() if count else None,
            "return_std": ended.returns.std().item() if count > 1 else None,
            "return_100": sum(self.recent) / len(self.recent) if self.recent else None,
            "length": ended.lengths.double().mean().item() if count else None,
        }

    # Position.

    def _steps(self) -> int:
        return self.history[-1]["steps"] if self.history else 0

    def _done(self) -> float:
        """How much of what was asked for is done; 1 is all."""
        steps, updates = self.settings.steps, self.settings.updates
        parts = [0.0]
        if steps is not None:
            parts.append(self._steps() / steps)
        if updates is not None:
            parts.append(len(self.history) / updates)
        return max(parts)

    def _modules(self) -> dict[str, nn.Module]:
        every = {
            "policy": self.policy,
            "value": self.value,
            "environment": getattr(self.env, "statistics", None),
        }
        return {name: module for name, module in every.items() if module is not None}


def seeds(seed: int, update: int) -> tuple[int, int]:
    """The seeds of an update's rollout and of its optimisation: of (seed, update) alone."""
    rollout, learning = np.random.SeedSequence([seed, update]).generate_state(2).tolist()
    return rollout, learning


def _signal_metrics(signal: Signal | None) -> dict[str, int | float | None]:
    if signal is None:
        return {}
    # a ratio that the data do not determine is null, in memory as on disk
    ratios = {"snr": signal.snr, "noise_scale": signal.noise_scale}
    return {
        "units": signal.units,
        "unit": signal.trajectories,
        "gradient_squared_norm": signal.squared_norm,
        "gradient_variance": signal.variance,
        **{name: ratio if math.isfinite(ratio) else None for name, ratio in ratios.items()},
    }
