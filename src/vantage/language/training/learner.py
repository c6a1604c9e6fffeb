"""How a language model learns: draw prompts, complete and score them, weigh, step."""

import copy
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.columns import look_at
from vantage.estimators.estimator import Estimator
from vantage.gradients.parameters import flat_parameters, write_parameters
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.generation import Engine, synchronise
from vantage.language.sampling.merging import exchanged
from vantage.language.sampling.rollout import Environment, Rollout, rollout
from vantage.language.scoring.scoring import plan_passes, score_batch
from vantage.language.scoring.trial import beyond_rounding
from vantage.language.tasks.task import Task
from vantage.language.training.ascent import Weighed, ascend, baseline_variance
from vantage.language.training.evaluation import evaluate
from vantage.language.training.inputs import PROXIMAL, inputs_and_scores, valued
from vantage.language.training.masters import Masters
from vantage.language.training.metrics import (
    group_rewards,
    logged_metrics,
    reward_metrics,
    step_metrics,
)
from vantage.language.training.settings import Settings
from vantage.language.training.trainer_state import trainer_state
from vantage.runs.checkpoint import seal
from vantage.runs.progress import note
from vantage.runs.seeds import generator_of
from vantage.statistics.intervals import mean_interval
from vantage.training.auto import best_baseline
from vantage.training.learner import COLLECTING, Collected, Learner, evaluation_metrics
from vantage.training.schedules import warmed_up

MODEL = "model"  # in a run folder, and in kept checkpoints
PATIENCE = 5  # updates in a row without anything to learn from
RECENT = 5  # batches of the mean reward of training
# (update from 1, what was drawn, [N, T] advantages): for transcripts
Watcher = Callable[[int, Rollout, Tensor], None]


@dataclass(frozen=True)
class Drawn(Collected):
    """Completions with their rewards."""

    rollout: Rollout
    seconds: float  # it took to draw and score them
    prompts_drawn: int  # since the run began
    baseline: str  # of the learner's estimators
    choices: dict[str, object]  # what "auto" chose, and why


@dataclass(frozen=True)
class Sources:
    """Where completions come from, and what estimators look at beside their rewards.

    Attributes:
        reference: the policy that a KL is measured to; None: the policy without its adapter.
    """

    task: Task
    engine: Engine
    environment: Environment | None
    reference: Policy | None


class LanguageLearner(Learner):
    """A language model that learns from the rewards of a task.

    Args:
        estimators: to choose from at every update; one unless baseline="auto".
        optimizer: steps the parameters of `masters`, and the value head's.
        masters: the masters of the policy's parameters, as they are saved.
    """

    unit, pace = "update", "tokens"
    policy: Policy
    value: ValueHead | None

    def __init__(
        self,
        sources: Sources,
        policy: Policy,
        value: ValueHead | None,
        estimators: dict[str, Estimator],
        optimizer: Optimizer,
        settings: Settings,
        masters: Masters,
    ) -> None:
        modules: dict[str, nn.Module] = {"policy": TrainedParameters(policy, masters)}
        modules |= {} if value is None else {"value": value}
        super().__init__(settings.seed, modules, {"policy": optimizer})
        self.sources, self.policy, self.value = sources, policy, value
        self.estimators, self.settings = estimators, settings
        self._told: set[str] = set()
        # parameters of the policies that are to sample in the next updates, oldest first
        self.waiting: deque[Tensor] = deque([flat_parameters(policy)] * settings.delay)
        self.latest: tuple[Rollout, Tensor] | None = None  # of the last update, with advantages

    def done(self) -> float:
        """The share of the updates asked for."""
        return len(self.history) / self.settings.updates

    def factor(self) -> float:
        """A ramp over the warm-up, then the schedule over the rest."""
        settings = self.settings
        return warmed_up(settings.schedule, len(self.history), settings.updates, settings.warmup)

    def collect(self) -> Drawn:
        """Draw prompts and completions, and score them."""
        started = time.perf_counter()
        refuse_unless(
            not all("skipped" in row for row in self.history[-PATIENCE:])
            or len(self.history) < PATIENCE,
            f"{PATIENCE} updates in a row had nothing to learn from: {self._skipped()}.",
        )
        current = flat_parameters(self.policy) if self.waiting else None
        if current is not None:
            write_parameters(self.policy, self.waiting[0])
        try:
            synchronise(self.sources.engine, self.policy)
            return self._collected(started)
        finally:
            if current is not None:
                write_parameters(self.policy, current)

    def _collected(self, started: float) -> Drawn:
        """What the policy, as it is, says to the next prompts."""
        groups, choices = self.settings.groups(self.history, self.sources.task.num_generations)
        first = self.history[-1]["prompts_drawn"] if self.history else 0
        drawn, count = self._draw(first, groups, 0), groups
        for again in range(self.settings.resample_dead_groups):
            dead = group_rewards(drawn)[1] == 0
            missing = int(dead.sum())
            if missing == 0:
                break
            more = self._draw(first + count, missing, again + 1)
            count += missing
            drawn = exchanged(drawn, dead, more, self.settings.mask_truncated_completions)
        baseline, why = best_baseline(self.history, list(self.estimators))
        if self.settings.baseline == "auto":
            choices |= {"baseline": baseline, "baseline_reason": why}
        seconds = time.perf_counter() - started
        return Drawn(started, drawn, seconds, first + count, baseline, choices)

    def learn(
        self, collected: Drawn, factor: float, generator: torch.Generator
    ) -> tuple[dict[str, object], int]:
        """Weigh the batch and step uphill."""
        update, drawn = len(self.history), collected.rollout
        row: dict[str, Any] = {
            "batch": drawn.batch.rows,
            **reward_metrics(drawn),
            **collected.choices,
            "prompts_drawn": collected.prompts_drawn,
            "num_tokens": drawn.tokens + (self.history[-1]["num_tokens"] if update else 0),
            "generation_time": collected.seconds,
        }
        logged_metrics(drawn, row)  # refused before a step where it can be
        if self.settings.delay:
            self.waiting.popleft()
            self.waiting.append(flat_parameters(self.policy))
        if not usable(drawn.batch, self.estimators[collected.baseline]):
            self.latest = drawn, torch.zeros_like(drawn.batch.log_prob)
            self._say("skipped", f"update {update + 1} is skipped: {self._skipped()}")
            row |= {"skipped": True}
        else:
            row |= self.unless_non_finite(partial(self._step, collected, generator))
        return row | logged_metrics(drawn, row), drawn.tokens

    def _step(self, collected: Drawn, generator: torch.Generator) -> dict[str, Any]:
        """The steps of an update, and what they say of it."""
        settings, update, drawn = self.settings, len(self.history), collected.rollout
        weighed = self._weighed(drawn, self.estimators[collected.baseline])
        optimizer = self.optimizers["policy"]
        variance = {}
        if settings.measures_baselines(update):
            variance = baseline_variance(self.policy, self.estimators, weighed, optimizer)
        size = self.sources.task.num_generations
        steps, signal = ascend(
            self.policy,
            weighed,
            optimizer,
            epochs=settings.epochs,
            minibatches=settings.minibatches,
            max_grad_norm=settings.max_grad_norm,
            pieces=settings.pieces(update, weighed.batch.steps, size),
            value=self.value,
            value_coefficient=settings.value_coefficient,
            generator=generator,
        )
        self.latest = drawn, weighed.advantage
        row = {
            **step_metrics(steps, weighed),
            **signal,
            **({"baseline_variance": variance} if variance else {}),
            "completions_per_row": weighed.passes.together,
        }
        mean, most = (row[f"sampling/log_prob_difference_{name}"] for name in ("mean", "max"))
        if not settings.delay and beyond_rounding(self.policy, mean, most):
            self._say(
                "sampler",
                f"update {update + 1}: the engine's log-probabilities differ from the policy's by "
                f"{mean:.2g} nats on average and {most:.2g} at most, more than rounding. Rows with "
                "a ratio or an importance correct for it, the others are biased; "
                "vantage.language.conformance(policy, engine=...) measures it.",
            )
        return row

    def evaluate(self) -> dict[str, Any]:
        """The reward of greedy completions of prompts that are held out: of each set, and of all.

        A set's metrics begin with eval/NAME; those of all prompts together with eval.
        """
        row: dict[str, Any] = {}
        rewards: list[float] = []
        task = self.sources.task
        for name, numbers in (task.held_out_sets or {"": task.held_out}).items():
            result = evaluate(
                task,
                self.policy,
                numbers,
                environment=self.sources.environment,
                turns=self.settings.turns,
                state=self._state(),
            )
            where = f"eval/{name}" if name else "eval"
            row |= {f"{where}/{logged}": mean for logged, mean in result.metrics.items()}
            row |= evaluation_metrics(result.mean, result.low, result.high, where)
            rewards += result.rewards.tolist()
        every = mean_interval(rewards)
        return row | evaluation_metrics(every.value, every.low, every.high)

    def training_return(self, number: int) -> float | None:
        """The mean reward of the last five batches."""
        rows = self.history[max(0, number - RECENT) : number]
        returns = [row["return"] for row in rows if _is_number(row["return"])]
        return sum(returns) / len(returns) if returns else None

    def settled(self) -> bool:
        """Whether there have been five batches."""
        return len(self.history) >= RECENT

    def policy_at(self, states: dict[str, dict[str, Tensor]]) -> Policy:
        """A copy of the policy."""
        policy = copy.deepcopy(self.policy)
        TrainedParameters(policy, Masters([])).load_state_dict(states["policy"])
        return policy

    def export(self, folder: Path) -> None:
        """The model as transformers loads it."""
        self.policy.save_pretrained(folder / MODEL)
        seal(folder / MODEL)

    def tensors(self) -> dict[str, Tensor]:
        """The policies that are to sample."""
        return {f"waiting.{i}": flat for i, flat in enumerate(self.waiting)}

    def carry_on(self, position: dict[str, object], tensors: dict[str, Tensor]) -> None:
        """The policies that are to sample; the rest is in the modules and the history."""
        if self.settings.delay:
            self.waiting = deque(tensors[f"waiting.{i}"] for i in range(self.settings.delay))

    def _weighed(self, drawn: Rollout, estimator: Estimator) -> Weighed:
        settings, sources = self.settings, self.sources
        batch = drawn.batch.check()
        passes = plan_passes(batch, self.policy, settings.shared_prompts, settings.token_budget)
        batch = valued(batch, self.policy, self.value, passes)
        looked_at = look_at("log_prob", estimator.returns, estimator.selection, estimator.restraint)
        # later steps leave the policy behind that the update began with
        left = estimator.reweighs and settings.epochs * settings.minibatches > 1
        log_prob = entropy = None
        if looked_at or left or "entropy" in estimator.needs:
            log_prob, entropy = score_batch(self.policy, batch, passes)
        inputs = inputs_and_scores(
            estimator, sources.task, self.policy, sources.reference, drawn, batch, passes, entropy
        )
        if left:
            inputs[PROXIMAL] = log_prob
        return Weighed(estimator, batch, inputs, passes, log_prob if looked_at else None)

    def _skipped(self) -> str:
        """Why there was nothing to learn from, and what to change."""
        return (
            "no prompt has two completions that count, those that were cut or could not be scored "
            "left out. Raise max_completion_length, leave mask_truncated_completions out, or mend "
            "the reward"
        )

    def _say(self, what: str, text: str) -> None:
        """A line on the console, once a run."""
        if what not in self._told:
            self._told.add(what)
            note(text)

    def _draw(self, start: int, groups: int, again: int) -> Rollout:
        sources, settings = self.sources, self.settings
        return rollout(
            sources.task,
            self.policy,
            sources.task.stream(start, groups, settings.seed),
            generator_of(settings.seed, len(self.history), COLLECTING, again),
            engine=sources.engine,
            environment=sources.environment,
            turns=settings.turns,
            mask_truncated_completions=settings.mask_truncated_completions,
            state=self._state(),
        )

    def _state(self) -> Any:
        return trainer_state(self.settings, self.history, len(self.sources.task))


def usable(batch: Batch, estimator: Estimator) -> bool:
    """Whether an estimator finds anything to learn from in a batch."""
    counted = batch.mask.any(1)
    least = 2 if "group" in estimator.needs else 1
    return bool(counted.any()) and int(batch.group[counted].bincount().max()) >= least


def _is_number(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


class TrainedParameters(nn.Module):
    """A policy's trained parameters, once each, as something that can be saved and loaded.

    Those in half precision are saved as their masters, in float32.
    """

    def __init__(self, policy: Policy, masters: Masters):
        super().__init__()
        trainable = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
        self.masters, self.trained = masters, {name: masters.of(p) for name, p in trainable}

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        return {name: p.detach() for name, p in self.trained.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Any, *args: object, **kwargs: object) -> Any:  # type: ignore[override]
        refuse_unless(
            state.keys() == self.trained.keys(),
            "The checkpoint holds the parameters of another model than the policy given.",
        )
        for name, tensor in state.items():
            self.trained[name].copy_(tensor)
        self.masters.round()
