"""What the language-model commands share: how they start, stop and report."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from tyro.conf import arg

from vantage import estimators as table
from vantage.commands.arguments import assignments
from vantage.commands.optimizers import optimizer_named
from vantage.commands.tracking import trackers
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.model import adapters
from vantage.language.model.policy import Policy
from vantage.language.scoring.arithmetic import Workload
from vantage.language.tasks.reward_models import reward_model
from vantage.language.tasks.rewards import REWARD_TIMEOUT, RewardFunction, load_reward
from vantage.language.tasks.task import Task
from vantage.language.tasks.verifiers import BUILT_IN
from vantage.language.training.evaluation import evaluate
from vantage.language.training.settings import FIRST_BATCH
from vantage.language.transcripts.records import recorder
from vantage.reporting.writing import report_line
from vantage.runs.progress import WINDOW, terminal, windowed_snr
from vantage.runs.run import Run
from vantage.training.interface import OptimizerFactory
from vantage.training.schedules import Name


def quieten() -> None:
    """No progress bars of transformers for loading and saving: they cut through ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and by which law it samples.

    Attributes:
        model: folder of a model and tokenizer that transformers loads.
        max_completion_length: tokens after which a completion is cut.
        temperature: the temperature of the sampling law.
        top_k: sample only the k likeliest tokens.
        top_p: sample only the likeliest tokens that make up p.
        min_p: sample only tokens at least p times as likely as the likeliest.
        lora: rank of an adapter that is trained or audited in place of the model.
        target_modules: layers that the adapter is put on, by the ends of their names, such as
            q_proj v_proj; all linear ones but the head by default.
        dtype: the type in which the weights are held.
        device: cpu, cuda, cuda:1, ...
        reference: folder of the model that a KL is measured to; in training the model as it was by
            default.
    """

    model: Path
    max_completion_length: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    lora: int | None = None
    target_modules: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    reference: Path | None = None

    def policy(self, **settings: object) -> Policy:
        """The model as a policy under that law.

        Raises:
            InputError: layers without a rank, or that the model does not have.
        """
        return self._loaded(self.model, lora=self._adapter(), **settings)

    def reference_policy(self) -> Policy | None:
        """The model that a KL is measured to, where one is named, under the same law."""
        return None if self.reference is None else self._loaded(self.reference)

    def adapted(self, linear: Sequence[str]) -> list[str]:
        """Those of a model's linear layers, by name, that the adapter is put on."""
        ends = self.target_modules
        return [n for n in linear if not ends or any(f".{n}".endswith(f".{e}") for e in ends)]

    def _loaded(self, folder: Path, **settings: Any) -> Policy:
        import torch

        names = ("max_completion_length", "temperature", "top_k", "top_p", "min_p", "device")
        law: dict[str, Any] = {name: getattr(self, name) for name in names}
        return Policy(folder, dtype=getattr(torch, self.dtype), **law, **settings)

    def _adapter(self) -> Any:
        """A rank, or a LoraConfig where layers are named."""
        if not self.target_modules:
            return self.lora
        if self.lora is None:
            named = " ".join(self.target_modules)
            raise InputError(f"--target-modules {named}: give the adapter's rank with --lora.")
        return adapters.of_rank(self.lora, list(self.target_modules))


@dataclass(frozen=True)
class TaskOptions:
    """Which prompts, and what their completions are worth.

    Attributes:
        data: rows, as JSONL, CSV or Parquet.
        reward: FILE.py:FUNCTION, or exact_match, number, format, or the folder of a reward model;
            several are weighted and summed.
        weights: one factor a reward; 1 each by default.
        num_generations: completions per prompt.
        prompt: column with the prompts.
        answer: column with the gold answers.
        system: system message to put in front of every prompt.
        held_out: share of the prompts that is never trained on.
        evaluation: sets to hold out in its place, NAME=FILE, evaluated each by itself; one may be
            NAME=SHARE.
        reward_timeout: seconds that the rewards of a batch may take.
    """

    data: Path
    reward: tuple[str, ...]
    weights: tuple[float, ...] = ()
    num_generations: int = 8
    prompt: str = "prompt"
    answer: str = "answer"
    system: str | None = None
    held_out: float = 0.1
    evaluation: tuple[str, ...] = ()
    reward_timeout: float | None = REWARD_TIMEOUT

    def task(self, seed: int, device: str) -> Task:
        """The rows with their rewards, split by the seed and called as the file is.

        Args:
            seed: the seed of the split.
            device: where reward models live.
        """
        return Task(
            self.data,
            [_reward_named(spec, self.answer, device) for spec in self.reward],
            weights=self.weights or None,
            answer=self.answer,
            name=self.data.stem,
            num_generations=self.num_generations,
            prompt=self.prompt,
            held_out=assignments("--evaluation", self.evaluation) or self.held_out,
            seed=seed,
            system=self.system,
            reward_timeout=self.reward_timeout,
        )


@dataclass(frozen=True)
class LearningOptions:
    """How a language model learns, for how long, and what is kept of it.

    Attributes:
        estimator: a row of the table that `vantage estimators` prints.
        beta: weight of the KL penalty, to --reference or to the model as it was; 0 by default, in
            the row's own form, which `vantage estimators NAME` shows.
        batch: completions per update; "auto" follows the gradient's noise scale.
        target_snr: the signal-to-noise ratio of a batch's gradient that --batch auto holds.
        baseline: "auto" takes the unbiased baseline of least measured variance at every update.
        updates: batches to learn from.
        lr: learning rate (AdamW).
        schedule: how the learning rate goes on after the warm-up.
        epochs: passes over each batch.
        minibatches: optimiser steps of an epoch.
        resample_dead_groups: rounds of drawing other prompts for groups of equal rewards.
        evaluate_every: updates between evaluations on held-out prompts; 0 for none.
        keep_best: keep the checkpoint of the largest reward, of evaluations where there are any.
        keep_last: checkpoints to keep of evaluated updates, or else of those at which one was due,
            each with its model.
        stop_at: end the run once that reward is reached, by evaluations where there are any.
        patience: end the run once so many evaluations in a row were no better than one before.
        optimizer: one of torch, such as SGD; AdamW without weight decay by default.
            FILE.py:FUNCTION for one of your own, made of parameters.
        optimizer_set: its settings, NAME=VALUE, such as momentum=0.9.
        delay: updates by which the policy that samples is behind.
        skip_non_finite: undo and count updates whose loss, gradient or parameters are NaN or
            infinite, and go on; by default the run stops.
        transcripts_every: updates between transcripts; 0 for none.
        seed: the seed of all random numbers.
        out: run folder; runs/MODEL-ESTIMATOR-SEED by default.
        resume: resume the run in that folder, bit for bit.
        tensorboard: also write TensorBoard events, into the run folder.
        wandb: also send metrics to this Weights & Biases project.
        trackio: also log metrics to this Trackio project.
        threads: torch threads; small networks want one.
        dry_run: print the batch arithmetic, token counts and memory, and stop.
    """

    estimator: str = "rloo"
    beta: float | None = None
    batch: int | Literal["auto"] = 64
    target_snr: float = 1.0
    baseline: Literal["auto"] | None = None
    updates: int = 200
    lr: float = 1e-5
    schedule: Name = "constant"
    optimizer: str = "AdamW"
    optimizer_set: tuple[str, ...] = ()
    delay: int = 0
    epochs: Annotated[int, arg(aliases=["--num-iterations"])] = 1
    minibatches: int = 1
    resample_dead_groups: int = 0
    evaluate_every: int = 0
    keep_best: bool = False
    keep_last: int = 0
    stop_at: float | None = None
    patience: int | None = None
    skip_non_finite: bool = False
    transcripts_every: int = 1
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    tensorboard: bool = False
    wandb: str | None = None
    trackio: str | None = None
    threads: int = 1
    dry_run: bool = False

    def rule(self) -> Estimator:
        """The row of that name, with the coefficient of its KL where one is given."""
        if self.beta is None:
            return table.named(self.estimator)
        return table.named(self.estimator, beta=self.beta)

    def folder(self, name: str) -> Path:
        """The run folder of a model or task of that name."""
        return self.out or Path("runs") / f"{name}-{self.rule().name}-{self.seed}"

    def factory(self) -> OptimizerFactory | None:
        """What makes the optimiser; None for that of `vantage.language.train`."""
        if (self.optimizer, self.optimizer_set) == ("AdamW", ()):
            return None
        return optimizer_named(self.optimizer, self.optimizer_set)

    def settings(self, folder: Path) -> dict[str, Any]:
        """The arguments of `vantage.language.train` that they say, of a run in that folder."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("estimator", "beta", "transcripts_every", "dry_run", "optimizer_set"):
            del named[name]
        tracked = [named.pop(name) for name in ("tensorboard", "wandb", "trackio")]
        return named | {
            "out": folder,
            "optimizer": self.factory(),
            "track": trackers(folder, *tracked),
        }

    def workload(self, task: Task, lengths: list[int], **facts: Any) -> Workload:
        """The arithmetic of the run, for `--dry-run`.

        Raises:
            InputError: a batch that does not hold whole groups, or an optimiser that there is not.
        """
        size = task.num_generations
        self.factory()  # refused now where it cannot be made
        refuse_unless(
            self.batch == "auto" or self.batch % size == 0,
            f"--batch {self.batch}: a batch holds whole groups of --num-generations {size}.",
        )
        return Workload(
            lengths=lengths,
            rows=len(task.train),
            held_out=len(task.held_out),
            batch=first_batch(self.batch, size),
            num_generations=size,
            num_iterations=self.epochs,
            minibatches=self.minibatches,
            updates=self.updates,
            **facts,
        )


def _reward_named(spec: str, answer: str, device: str) -> RewardFunction:
    """The built-in verifier of that name, FILE.py:FUNCTION, or the model of a folder."""
    if spec in BUILT_IN:
        make: Any = BUILT_IN[spec]
        return make() if spec == "format" else make(answer=answer)
    if Path(spec).is_dir():
        return reward_model(spec, device=device)
    refuse_unless(
        ":" in spec,
        f"--reward {spec}: give FILE.py:FUNCTION, or one of {', '.join(BUILT_IN)}, or the folder "
        "of a reward model.",
    )
    return load_reward(spec)


def watch(folder: Path, task: Task, policy: Policy, every: int) -> Any:
    """The recorder of transcripts, or None."""
    refuse_unless(every >= 0, f"--transcripts-every {every}: 0 or more.")
    return recorder(folder, task, policy.tokenizer, every) if every else None


def carried_on(folder: Path, begin: Callable[[], Run]) -> Run:
    """Train, and say how to carry on after an interrupt."""
    try:
        return begin()
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        terminal.print(
            f"Stopped; {folder} is saved. Carry on with:\n  vantage {shlex.join(again)} --resume"
        )
        raise


def percent(task: Task, policy: Policy, greedy: bool) -> str:
    """Held-out accuracy, to read."""
    return f"{evaluate(task, policy, greedy=greedy).mean:.1%}"


def first_batch(batch: int | Literal["auto"], num_generations: int) -> int:
    """Completions of the first update, which is what a plan can be made for."""
    if batch != "auto":
        return batch
    return max(2, round(FIRST_BATCH / num_generations)) * num_generations


def print_plan(rule: Estimator, plan: Workload, folder: Path) -> None:
    """What `--dry-run` prints."""
    terminal.print(f"estimator  {rule.name}")
    terminal.print_json(json.dumps(rule.columns()))
    terminal.print(f"{plan}\nWould be written to {folder}.")


def print_end(run: Run, folder: Path) -> None:
    """The last lines of a run."""
    last = run.history[-WINDOW:]
    if run.stopped is not None:
        terminal.print(f"Ended early: {run.stopped}.", markup=False)
    measured = [row for row in last if "gradient_variance" in row]
    signal = f"; gradient SNR {windowed_snr(measured):.2f}" if measured else ""
    if "baseline" in last[-1]:
        terminal.print(f"Baseline: {last[-1]['baseline']} ({last[-1]['baseline_reason']}).")
    terminal.print(
        f"Mean reward of the last batch {run.history[-1]['reward']:.3f}, "
        f"{run.history[-1]['num_tokens']:,} tokens{signal}.\n"
        f"Run folder: {folder}; model: {folder / 'model'}\n{report_line(folder)}"
        f"Next: vantage transcripts {quote(str(folder))} --worst 5"
    )
