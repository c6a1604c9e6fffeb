"""A run's state, and one update of it in two halves: `collect` changes nothing, `update` does.

What an environment and a language model have in common stands here: counts, learning rates, the
metrics of signal and time, checkpoints. `control.ControlLearner` and
`vantage.language.training.learner.LanguageLearner` say how a batch is collected and learned from.
"""

import copy
import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.errors import NonFiniteError, refuse_unless
from vantage.policies import Policy
from vantage.runs import checkpoint
from vantage.runs.progress import note
from vantage.runs.retained import intact
from vantage.runs.run import CHECKPOINT, METRICS, line_of, read_metrics, write_metrics
from vantage.runs.seeds import generator_of
from vantage.runs.stored import naming
from vantage.statistics.signal import Signal
from vantage.training.interface import Memory

# What a seed is drawn for, beside (seed, update).
COLLECTING, LEARNING, EVALUATING = 0, 1, 2
SKIPPED = "non_finite_updates"
PATIENCE = 20  # updates in a row that are not finite


@dataclass(frozen=True)
class Collected:
    """What an update has before it changes anything; learners add what they collect."""

    started: float  # time.perf_counter()


class Learner(ABC):
    """Everything that changes in a run.

    Args:
        seed: the seed of everything random.
        modules: what is trained, and what else a checkpoint holds, by name.
        optimizers: the optimizers of them; their learning rates are those that the schedule scales.
        memory: what an update rule keeps from one update to the next, if there is such.

    Attributes:
        policy, value: what is trained; value may be None.
        history: one row of metrics per update.
        skip_non_finite: whether updates that are not finite are undone, and the run goes on.
        unit: the metric that trackers count by, and that the display shows.
        pace: what is counted per second.
    """

    unit: ClassVar[str]
    pace: ClassVar[str]
    policy: Policy
    value: nn.Module | None

    def __init__(
        self,
        seed: int,
        modules: dict[str, nn.Module],
        optimizers: dict[str, Optimizer],
        memory: Memory | None = None,
    ) -> None:
        self.memory = Memory() if memory is None else memory
        self.seed, self.modules, self.optimizers = seed, modules | self.memory.modules, optimizers
        self.history: list[dict[str, Any]] = []
        self.skip_non_finite = False
        self.rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in optimizers.items()
        }

    @abstractmethod
    def done(self) -> float:
        """How much of what was asked for is done; 1 is all."""

    @abstractmethod
    def factor(self) -> float:
        """Of the learning rates of the next update, from the schedule."""

    @abstractmethod
    def collect(self) -> Any:
        """Collect the next batch, a `Collected`; nothing that is saved changes."""

    @abstractmethod
    def learn(
        self, collected: Any, factor: float, generator: torch.Generator
    ) -> tuple[dict[str, object], int]:
        """Change what is trained; returns metrics, and how much was collected in units of pace."""

    @abstractmethod
    def evaluate(self) -> dict[str, object]:
        """Metrics of an evaluation of the policy as it is; nothing that is saved changes."""

    @abstractmethod
    def training_return(self, number: int) -> float | None:
        """The mean return of training as of update `number`, from 1, by the history alone."""

    @abstractmethod
    def settled(self) -> bool:
        """Whether that mean, as it is now, is of as many episodes as it is to be."""

    @abstractmethod
    def policy_at(self, states: dict[str, dict[str, Tensor]]) -> Policy:
        """A copy of the policy, with the states that its modules had."""

    def states(self) -> dict[str, dict[str, Tensor]]:
        """A copy of the state of every module, by name."""
        return {
            name: {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
            for name, module in self.modules.items()
        }

    def export(self, folder: Path) -> None:
        """Add to a kept checkpoint what it needs to be loaded by itself; most need nothing."""
        return

    def position(self) -> dict[str, object]:
        """What else there is to carry on from, as JSON."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """What else there is to carry on from, as tensors."""
        return {}

    @abstractmethod
    def carry_on(self, position: dict[str, object], tensors: dict[str, Tensor]) -> None:
        """Go to where `position` and `tensors` say; modules and history are there already."""

    def update(self, collected: Collected) -> dict[str, Any]:
        """Learn from what was collected, and add the update's metrics to the history."""
        number, factor = len(self.history), self.factor()
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        generator = generator_of(self.seed, number, LEARNING)
        row: dict[str, object] = {"update": number + 1}
        metrics, count = self.learn(collected, factor, generator)
        row |= metrics
        if "policy" in self.optimizers:
            row["learning_rate"] = self.optimizers["policy"].param_groups[0]["lr"]
        seconds = time.perf_counter() - collected.started
        row |= {"step_time": seconds, f"{self.pace}_per_second": count / seconds}
        self.history.append(row)
        return row

    def unless_non_finite(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `step` returns, which changes what is trained.

        Under `skip_non_finite` a step that meets or leaves what is not finite is undone and
        counted: `non_finite_updates` is how many there were since the run began.

        Raises:
            NonFiniteError: there were 20 in a row; or what `step` raises.
        """
        if not self.skip_non_finite:
            return step()
        modules = self.states()
        optimizers = {
            name: copy.deepcopy(each.state_dict()) for name, each in self.optimizers.items()
        }
        kept = dict(self.memory.tensors)
        counts = [row.get(SKIPPED, 0) for row in self.history[-PATIENCE:]]
        count = counts[-1] if counts else 0
        try:
            metrics = step()
            self.refuse_non_finite()
        except NonFiniteError as error:
            for name, module in self.modules.items():
                module.load_state_dict(modules[name])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(optimizers[name])
            self.memory.tensors = kept
            if len(counts) == PATIENCE and count - counts[0] == PATIENCE - 1:
                raise NonFiniteError(f"{PATIENCE} updates in a row were skipped. {error}") from None
            if count == 0:
                note(f"Update {len(self.history) + 1} is skipped, and so are others like it: "
                     f"{error}")  # fmt: skip
            return {SKIPPED: count + 1}
        return metrics | {SKIPPED: count}

    def refuse_non_finite(self) -> None:
        """Refuse parameters and states of optimisers that are NaN or infinite.

        Raises:
            NonFiniteError: naming the first.
        """
        for module, name, tensor in self._trained():
            if not tensor.isfinite().all():
                raise NonFiniteError(
                    f"{name} of the {module} is not finite after update {len(self.history)}: it is "
                    "not saved, and the checkpoint before stays. Lower lr, or bound the gradient "
                    "with max_grad_norm."
                )

    def save(self, folder: Path, recorded: str) -> None:
        """Write a checkpoint into the run folder.

        Args:
            folder: the folder of the run.
            recorded: the checksum of the lines of metrics that the checkpoint builds on.

        Raises:
            NonFiniteError: a parameter is not finite, naming it; the checkpoint before stays.
        """
        self.refuse_non_finite()
        position = {"updates": len(self.history), "metrics": recorded, **self.position()}
        checkpoint.save(
            folder / CHECKPOINT, self.modules, self.optimizers, position, self.tensors()
        )

    def _trained(self) -> Iterator[tuple[str, str, Tensor]]:
        for module, network in self.modules.items():
            for name, parameter in network.named_parameters():
                yield module, name, parameter
        for name, optimizer in self.optimizers.items():
            for state in optimizer.state.values():
                for key, moment in state.items():
                    if isinstance(moment, Tensor):
                        yield f"{name}'s optimiser", key, moment

    def restore(self, folder: Path, resume: bool) -> None:
        """Go back to the last checkpoint, if there is one; metrics after it are made again."""
        source = intact(folder) if resume else None
        if source is not None:
            position, tensors = checkpoint.load(source, self.modules, self.optimizers)
            rows = read_metrics(folder)
            with naming(source / checkpoint.POSITION):
                updates = int(position["updates"])
            refuse_unless(
                len(rows) >= updates,
                f"{folder / METRICS} holds {len(rows)} updates, and the checkpoint is of update "
                f"{updates}: lines were lost. Restore the file from a copy, or start a new run.",
            )
            self.history[:] = rows[:updates]
            refuse_unless(
                checksum(self.history).hexdigest() == position.get("metrics"),
                f"{folder / METRICS}: the first {updates} lines are not those that the checkpoint "
                "builds on: some were changed. Restore the file from a copy, or start a new run.",
            )
            with naming(folder / METRICS):
                self.done()
            with naming(source / checkpoint.POSITION):
                self.carry_on(position, tensors)
        write_metrics(folder, self.history)


def checksum(rows: list[dict[str, Any]]) -> Any:
    """SHA-256 of the lines of metrics.jsonl of these rows, to go on with."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(line_of(row).encode())
    return digest


def evaluation_metrics(
    mean: float, low: float, high: float, where: str = "eval"
) -> dict[str, float]:
    """The mean return of an evaluation and its 95 % interval, by what the metrics begin with."""
    return {f"{where}/return": mean, f"{where}/return_low": low, f"{where}/return_high": high}


def signal_metrics(signal: Signal | None) -> dict[str, int | float | None]:
    """The statistics of a batch's gradient as metrics; none where it was not measured."""
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
