"""Training a language model by policy gradient: draw, score, weigh, step; signal in view."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.generation import Decoding, Engine
from vantage.language.sampling.rollout import Environment, Rollout, rollout
from vantage.language.scoring.scoring import plan_passes
from vantage.language.tasks.task import Task
from vantage.language.training.ascent import Weighed, ascend, baseline_variance, seen_metrics
from vantage.language.training.evaluation import evaluate
from vantage.language.training.inputs import inputs_and_scores, valued
from vantage.language.training.progress import LanguageProgress
from vantage.language.training.settings import Schedule, Settings, describe
from vantage.runs import checkpoint
from vantage.runs.interrupts import Interrupts
from vantage.runs.run import (
    CHECKPOINT,
    Run,
    open_run,
    read_metrics,
    write_metrics,
)
from vantage.runs.running import until_done
from vantage.runs.threads import torch_threads
from vantage.runs.trackers import Tracker
from vantage.training.auto import best_baseline

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
# (update from 1, what was drawn, [N, T] advantages): for transcripts
Watcher = Callable[[int, Rollout, Tensor], None]
MODEL = "model"


def train(
    task: Task,
    policy: Policy,
    estimator: Estimator,
    *,
    updates: int,
    batch: int | Literal["auto"] = 64,
    target_snr: float = 1.0,
    baseline: Literal["auto"] | None = None,
    baseline_every: int = 10,
    lr: float = 1e-5,
    schedule: Schedule = "constant",
    warmup: int = 0,
    optimizer: OptimizerFactory | None = None,
    num_iterations: int = 1,
    minibatches: int = 1,
    max_grad_norm: float | None = 1.0,
    reference: Policy | None = None,
    value: ValueHead | None = None,
    value_coefficient: float = 0.1,
    mask_truncated_completions: bool = False,
    resample_dead_groups: int = 0,
    engine: Engine | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    shared_prompts: bool | Literal["auto"] = "auto",
    token_budget: int = 16384,
    signal_every: int | Literal["auto"] = "auto",
    decompose_every: int = 10,
    evaluate_every: int = 0,
    watch: Watcher | None = None,
    track: Sequence[Tracker] = (),
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    threads: int = 1,
    progress: bool = True,
) -> Run:
    """Train a language model on the rewards of a task by gradient ascent: θ ← θ + α ĝ.

    Each update draws batch / num_generations prompts, completes each `num_generations` times,
    scores the completions, weighs them with `estimator`, and takes num_iterations × minibatches
    steps. Everything random is drawn from (seed, update): the same seed gives the same bits, and a
    resumed run is the run that was interrupted.

    Args:
        task: prompts and rewards; it says how many completions a prompt gets.
        policy: trained in place; a LoRA policy trains its adapter.
        estimator: a row of `vantage.estimators`, or your own.
        updates: batches to learn from.
        batch: completions of an update, in whole groups of `task.num_generations`; "auto" starts
            with 64 and follows the measured noise scale: at each update the size that would have
            held `target_snr` over the last five, between 16 and 1,024, changing by a factor of two
            at most.
        target_snr: signal-to-noise ratio of a batch's gradient that batch="auto" holds.
        baseline: "auto" takes, at every update, the baseline whose gradient had the least variance
            when last measured, among those that leave the estimator unbiased: means of the other
            completions of the prompt or of the batch, whole or by half, V where there is a value
            head, and none.
        baseline_every: updates between those measurements. One costs a gradient per baseline.
        lr: learning rate of the default optimiser, AdamW without weight decay.
        schedule: of the rate after the warm-up: constant, or to 0 along a line or a cosine.
        warmup: updates over which the rate rises to `lr`.
        optimizer: parameters -> torch optimiser, in place of AdamW(lr); `lr` and schedule drive it.
        num_iterations: epochs over each batch.
        minibatches: steps of an epoch, each on as many whole groups.
        max_grad_norm: longest gradient let through to the optimiser; None leaves it as it is.
        reference: the policy that a KL is measured to, where the estimator has one. By default the
            policy as it is given: without its adapter under LoRA, else a frozen copy.
        value: for estimators with a value baseline: trained jointly.
        value_coefficient: of the value's mean squared error in the loss.
        mask_truncated_completions: leave completions cut at the limit out of loss and baselines.
        resample_dead_groups: rounds of drawing other prompts in place of those whose completions
            all got one reward and teach nothing. The gradient is then that of the prompts that have
            a signal, which is another objective.
        engine: draws completions; the package's own where None.
        environment: answers completions, turn by turn, at most `turns`; see `rollout`.
        shared_prompts: compute the prompt of a group once in the gradient; "auto" where token
            counts say that it pays. The metrics say how many completions shared a row.
        token_budget: tokens of one forward and backward pass. No result depends on it.
        signal_every: updates between measurements of the gradient's signal-to-noise ratio and noise
            scale; 0 never; "auto" every one, or every fifth where a batch is so small that its
            gradient in two pieces would cost much more than in one.
        decompose_every: updates between measurements of the gradient's noise between and within
            prompts, which split the passes in four; 0 never.
        evaluate_every: updates between evaluations on held-out prompts, greedily; 0 never.
        watch: called with each update's rollout and advantages.
        track: trackers that receive every update's metrics, with the update as their step.
        seed: of everything random here.
        out: run folder; None writes nothing. At the end `out/model` loads in transformers by path.
        resume: carry on the run in `out` from its last checkpoint, with the policy given anew.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        threads: torch threads.
        progress: show progress.

    Returns:
        Run with `.history`, one dict per update, and `.path`.

    Raises:
        InputError: settings that cannot work, before anything is generated.
        RewardError: a reward function failed; what was learned before is saved.
        KeyboardInterrupt: after a checkpoint was written.
    """
    settings = Settings(
        updates=updates,
        batch=batch,
        target_snr=target_snr,
        baseline=baseline,
        baseline_every=baseline_every,
        lr=lr,
        schedule=schedule,
        warmup=warmup,
        num_iterations=num_iterations,
        minibatches=minibatches,
        max_grad_norm=max_grad_norm,
        value_coefficient=value_coefficient,
        mask_truncated_completions=mask_truncated_completions,
        resample_dead_groups=resample_dead_groups,
        shared_prompts=shared_prompts,
        token_budget=token_budget,
        signal_every=signal_every,
        decompose_every=decompose_every,
        evaluate_every=evaluate_every,
        turns=turns,
        seed=seed,
        threads=threads,
    )
    settings.check(task, policy, estimator, value)
    rules = settings.rules(estimator, value, task.num_generations)
    refuse_unless(not resume or out is not None, "train(resume=True): say which run with out=.")
    trained = [p for p in policy.parameters() if p.requires_grad]
    trained += list(value.parameters()) if value is not None else []
    default = partial(AdamW, lr=lr, weight_decay=0.0, fused=True)
    made = (optimizer or default)(trained)
    engine = engine or Decoding()
    config = describe(task, policy, estimator, made, value, engine, settings)
    needed = "reference_log_prob" in estimator.needs
    learner = _Learner(
        task=task,
        policy=policy,
        rules=rules,
        optimizer=made,
        settings=settings,
        value=value,
        reference=_reference(policy, reference) if needed else None,
        engine=engine,
        environment=environment,
        watch=watch,
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        open_run(folder, config, resume)
        learner.restore(folder, resume)
    with (
        torch_threads(threads),
        Interrupts() as interrupts,
        LanguageProgress(updates, learner.history, progress) as display,
        ExitStack() as stack,
    ):
        for tracker in track:
            stack.enter_context(closing(tracker))
        until_done(learner, folder, display, interrupts, checkpoint_seconds, track, "update")
    if folder is not None:
        policy.save_pretrained(folder / MODEL)
    return Run(folder, config, learner.history)


def _reference(policy: Policy, given: Policy | None) -> Policy | None:
    """A frozen copy of the policy as it is; None where its adapter can be switched off instead."""
    if given is not None:
        return given
    if policy.has_adapter:
        return None
    frozen = copy.deepcopy(policy)
    frozen.requires_grad_(False)
    return frozen


@dataclass(frozen=True)
class _Found:
    """What an update saw before it changed anything."""

    started: float
    drawn: Rollout
    seconds: float
    prompts_drawn: int
    baseline: str  # of the learner's rules
    choices: dict[str, Any]  # what "auto" chose, and why


@dataclass
class _Learner:
    """The state of a run, and an update of it in two halves: `look` changes nothing."""

    task: Task
    policy: Policy
    rules: dict[str, Estimator]  # to choose from at every update; one unless baseline="auto"
    optimizer: Optimizer
    settings: Settings
    value: ValueHead | None
    reference: Policy | None
    engine: Engine
    environment: Environment | None
    watch: Watcher | None
    history: list[dict[str, Any]] = field(default_factory=list)

    def finished(self) -> bool:
        """Whether the updates asked for are done."""
        return len(self.history) >= self.settings.updates

    def look(self) -> _Found:
        """Draw prompts and completions, and score them."""
        started = time.perf_counter()
        groups, choices = self.settings.groups(self.history, self.task.num_generations)
        begun = self.history[-1]["prompts_drawn"] if self.history else 0
        drawn = self._draw(begun, groups, 0)
        count = groups
        for again in range(self.settings.resample_dead_groups):
            alive = _alive(drawn)
            missing = groups - int(alive.sum())
            if missing == 0:
                break
            more = self._draw(begun + count, missing, again + 1)
            count += missing
            drawn = _filled(drawn, alive, more, self.settings.mask_truncated_completions)
        chosen, why = best_baseline(self.history, list(self.rules))
        if self.settings.baseline == "auto":
            choices |= {"baseline": chosen, "baseline_reason": why}
        seconds = time.perf_counter() - started
        return _Found(started, drawn, seconds, begun + count, chosen, choices)

    def step(self, found: _Found) -> dict[str, Any]:
        """Weigh the batch, step uphill, and add the update's metrics to the history."""
        settings, update = self.settings, len(self.history)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(update)
        batch = found.drawn.batch.check()
        passes = plan_passes(batch, self.policy, settings.shared_prompts, settings.token_budget)
        batch = valued(batch, self.policy, self.value, passes)
        rule = self.rules[found.baseline]
        inputs = inputs_and_scores(
            rule, self.task, self.policy, self.reference, found.drawn, batch, passes
        )
        weighed = Weighed(rule, batch, inputs, passes)
        measured = {}
        if settings.measures_baselines(update):
            measured = baseline_variance(self.policy, self.rules, weighed, self.optimizer)
        size = self.task.num_generations
        seen = ascend(
            self.policy,
            weighed,
            self.optimizer,
            num_iterations=settings.num_iterations,
            minibatches=settings.minibatches,
            max_grad_norm=settings.max_grad_norm,
            pieces=settings.pieces(update, batch.steps, size),
            value=self.value,
            value_coefficient=settings.value_coefficient,
            generator=torch.Generator().manual_seed(_seed(settings.seed, update, 1)),
        )
        if self.watch is not None:
            self.watch(update + 1, found.drawn, weighed.advantage)
        row: dict[str, Any] = {
            "update": update + 1,
            "batch": found.drawn.batch.rows,
            **_reward_metrics(found.drawn),
            **seen_metrics(seen, weighed),
            **_signal_metrics(seen.signal),
            **found.choices,
            **({"baseline_variance": measured} if measured else {}),
            "completions_per_row": passes.together,
            "learning_rate": settings.lr_at(update),
            "prompts_drawn": found.prompts_drawn,
            "num_tokens": found.drawn.tokens + (self.history[-1]["num_tokens"] if update else 0),
        }
        seconds = time.perf_counter() - found.started
        row |= {
            "step_time": seconds,
            "generation_time": found.seconds,
            "tokens_per_second": found.drawn.tokens / seconds,
        }
        if settings.evaluate_every and (update + 1) % settings.evaluate_every == 0:
            row["held_out/reward"] = evaluate(self.task, self.policy).mean
        self.history.append(row)
        return row

    def save(self, folder: Path | None) -> None:
        """Write a checkpoint."""
        if folder is not None:
            position = {"updates": len(self.history)}
            optimizers = {"policy": self.optimizer}
            checkpoint.save(folder / CHECKPOINT, self._modules(), optimizers, position)

    def restore(self, folder: Path, resume: bool) -> None:
        """Go back to the last checkpoint, if there is one; metrics after it are made again."""
        if resume and checkpoint.exists(folder / CHECKPOINT):
            optimizers = {"policy": self.optimizer}
            position, _ = checkpoint.load(folder / CHECKPOINT, self._modules(), optimizers)
            self.history[:] = read_metrics(folder)[: position["updates"]]
        write_metrics(folder, self.history)

    def _draw(self, start: int, groups: int, again: int) -> Rollout:
        seed = self.settings.seed
        generator = torch.Generator().manual_seed(_seed(seed, len(self.history), 0, again))
        return rollout(
            self.task,
            self.policy,
            self.task.stream(start, groups, seed),
            generator,
            engine=self.engine,
            environment=self.environment,
            turns=self.settings.turns,
            mask_truncated_completions=self.settings.mask_truncated_completions,
        )

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"policy": _Trained(self.policy)}
        return modules | ({} if self.value is None else {"value": self.value})


class _Trained(nn.Module):
    """A policy's trained parameters, once each, as something that can be saved and loaded."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.own = {name: p for name, p in policy.named_parameters() if p.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return {name: p.detach() for name, p in self.own.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        refuse_unless(
            state.keys() == self.own.keys(),
            "The checkpoint holds the parameters of another model than the policy given.",
        )
        for name, tensor in state.items():
            self.own[name].copy_(tensor)


def _seed(*words: int) -> int:
    # SeedSequence pads with zeros: the count tells [a, b] from [a, b, 0]
    return int(np.random.SeedSequence([*words, len(words)]).generate_state(1)[0])


def _group_rewards(drawn: Rollout) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the rewards that count in every group, [groups]."""
    kept = drawn.batch.mask.any(1).double()
    groups = int(drawn.batch.group.max()) + 1
    zeros = torch.zeros(groups, dtype=torch.float64)
    reward = drawn.reward.double()
    count = zeros.index_add(0, drawn.batch.group, kept).clamp(min=1)
    mean = zeros.index_add(0, drawn.batch.group, kept * reward) / count
    apart = kept * (reward - mean[drawn.batch.group]).square()
    spread = zeros.index_add(0, drawn.batch.group, apart) / (count - 1).clamp(min=1)
    return mean, spread.sqrt()


def _alive(drawn: Rollout) -> Tensor:
    """Which groups have completions of different rewards."""
    return _group_rewards(drawn)[1] > 0


def _filled(drawn: Rollout, alive: Tensor, more: Rollout, mask_truncated: bool) -> Rollout:
    """The rollout with its dead groups exchanged for those of another, in their order."""
    from vantage.language.sampling.merging import exchanged

    return exchanged(drawn, ~alive, more, mask_truncated)


def _reward_metrics(drawn: Rollout) -> dict[str, Any]:
    kept, scored = drawn.batch.mask.any(1), drawn.scorable
    length = drawn.batch.mask.sum(1)[kept].double()
    mean, spread = _group_rewards(drawn)
    grouped = len(mean) < len(drawn.reward)
    every = drawn.reward[scored].double()
    none = math.nan
    return {
        "reward": float(every.mean()) if len(every) else none,
        "reward_std": float(spread.mean()) if grouped else float(every.std()),
        "reward_std/between_prompts": float(mean.std()) if len(mean) > 1 else none,
        "frac_reward_zero_std": float((spread == 0).double().mean()) if grouped else 0.0,
        **{f"rewards/{name}": float(part.nanmean()) for name, part in drawn.parts.items()},
        "scorable": float(scored.double().mean()),
        "completions": int(kept.sum()),
        "completions/mean_length": float(length.mean()) if len(length) else 0.0,
        "completions/max_length": float(length.max()) if len(length) else 0.0,
        "completions/clipped_ratio": float(drawn.sequences.truncated.double().mean()),
    }


def _signal_metrics(signal: dict[str, float]) -> dict[str, Any]:
    if not signal:
        return {}
    n, v = signal["gradient_squared_norm"], signal["gradient_variance"]
    # a ratio that the data do not determine is null, in memory as on disk
    return {
        **signal,
        "snr": signal["units"] * n / v if v else None,
        "noise_scale": signal["unit"] * v / n if n else None,
    }
