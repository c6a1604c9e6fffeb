"""`vantage train addition | copy | reverse | sort_letters`: a tiny model, from nothing."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from vantage.commands.language_options import (
    carried_on,
    first_batch,
    named,
    percent,
    print_end,
    print_plan,
    quieten,
    watch,
)
from vantage.language.model import tiny
from vantage.language.model.value_head import ValueHead
from vantage.language.scoring.arithmetic import Workload, shape_of
from vantage.language.tasks import tiny_tasks
from vantage.language.training.supervised import warm_up
from vantage.language.training.train import train
from vantage.runs.checkpoint import exists
from vantage.runs.progress import terminal
from vantage.runs.run import CHECKPOINT
from vantage.training.schedules import Name


def tiny_command(name: str) -> Callable[..., None]:
    """The command that trains a tiny model on the task of that name."""

    def train_tiny(
        estimator: str = "rloo",
        beta: float | None = None,
        num_generations: int = 4,
        batch: int | Literal["auto"] = 256,
        target_snr: float = 1.0,
        baseline: Literal["auto"] | None = None,
        updates: int = 1200,
        lr: float = 2e-4,
        schedule: Name = "linear",
        epochs: Annotated[int, arg(aliases=["--num-iterations"])] = 1,
        minibatches: int = 1,
        resample_dead_groups: int = 0,
        start: float = 0.45,
        warm_up_steps: int = 600,
        evaluate_every: int = 50,
        keep_best: bool = False,
        keep_last: int = 0,
        stop_at: float | None = None,
        transcripts_every: int = 50,
        seed: int = 0,
        out: Path | None = None,
        resume: bool = False,
        threads: int = 1,
        dry_run: bool = False,
    ) -> None:
        """Train a tiny model: warm-up on gold answers, then policy gradient on exact match.

        A Llama of a million parameters with random weights reads characters. The warm-up, by
        cross-entropy, stops once gold answers have the probability --start; policy gradient does
        the rest. Prompts that are held out are in neither.

        Args:
            estimator: a row of the table that `vantage estimators` prints.
            beta: of the KL to the model after the warm-up, for estimators that have one.
            num_generations: completions per prompt.
            batch: completions per update; "auto" follows the gradient's noise scale.
            target_snr: of a batch's gradient, held by --batch auto.
            baseline: "auto" takes the unbiased baseline of least measured variance at every update.
            updates: batches to learn from.
            lr: learning rate (AdamW).
            schedule: of the learning rate.
            epochs: passes over each batch.
            minibatches: optimiser steps of an epoch.
            resample_dead_groups: rounds of drawing other prompts for groups of equal rewards.
            start: probability of gold answers at which the warm-up ends.
            warm_up_steps: the warm-up's limit.
            evaluate_every: updates between evaluations on held-out prompts; 0 for none.
            keep_best: keep the checkpoint of the largest reward, of evaluations where there are
                any.
            keep_last: checkpoints to keep of evaluated updates, or else of those at which one was
                due, each with its model.
            stop_at: end the run once that reward is reached, by evaluations where there are any.
            transcripts_every: updates between transcripts; 0 for none.
            seed: of the weights, the split and everything random.
            out: run folder; runs/TASK-ESTIMATOR-SEED by default.
            resume: carry on the run in that folder.
            threads: torch threads; small networks want one.
            dry_run: print the batch arithmetic and memory, and stop.
        """
        import torch

        torch.set_num_threads(threads)
        quieten()
        rule = named(estimator, beta)
        task = tiny_tasks.TASKS[name](num_generations=num_generations, seed=seed)
        policy = tiny.policy(seed, max_completion_length=tiny_tasks.longest_answer(task) + 1)
        folder = out or Path("runs") / f"{name}-{rule.name}-{seed}"
        if dry_run:
            plan = Workload(
                shape=shape_of(policy.base, 4),
                lengths=[len(ids) for ids in task.encode(policy.tokenizer)],
                rows=len(task.train),
                held_out=len(task.held_out),
                batch=first_batch(batch, num_generations),
                num_generations=num_generations,
                num_iterations=epochs,
                minibatches=minibatches,
                updates=updates,
                max_completion_length=policy.max_completion_length,
                reference="reference_log_prob" in rule.needs,
            )
            print_plan(rule, plan, folder)
            return
        if not (resume and exists(folder / CHECKPOINT)):
            found = warm_up(policy, task, warm_up_steps, seed=seed, until=start)
            terminal.print(
                f"Warm-up: {found['steps']:.0f} steps in {found['seconds']:.0f} s. Held out: "
                f"sampled {percent(task, policy, False)}, greedy {percent(task, policy, True)}."
            )
        run = carried_on(
            folder,
            partial(
                train,
                task,
                policy,
                rule,
                updates=updates,
                batch=batch,
                target_snr=target_snr,
                baseline=baseline,
                lr=lr,
                schedule=schedule,
                warmup=min(20, updates // 10),
                epochs=epochs,
                minibatches=minibatches,
                value=ValueHead(policy) if "value" in rule.needs else None,
                resample_dead_groups=resample_dead_groups,
                evaluate_every=evaluate_every,
                keep_best=keep_best,
                keep_last=keep_last,
                stop_at=stop_at,
                watch=watch(folder, task, policy, transcripts_every),
                seed=seed,
                out=folder,
                resume=resume,
                threads=threads,
            ),
        )
        seconds = sum(row["step_time"] for row in run.history)
        terminal.print(
            f"Policy gradient: {len(run.history)} updates in {seconds:.0f} s. Held out: "
            f"sampled {percent(task, policy, False)}, greedy {percent(task, policy, True)}."
        )
        print_end(run, folder)

    train_tiny.__name__ = f"train_{name}"
    return train_tiny
