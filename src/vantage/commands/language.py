"""The language-model commands: `vantage train lm | addition | copy | ...` and `transcripts`.

`vantage train` and `audit` look at their first word: `lm` and the names of tiny tasks lead here,
anything else is an environment.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from vantage.commands.audit_language import audit_lm
from vantage.commands.language_options import (
    carried_on,
    first_batch,
    named,
    print_end,
    print_plan,
    quieten,
    task_from,
    watch,
)
from vantage.commands.train_tiny import tiny_command
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.continuous_batching import ContinuousBatching
from vantage.language.scoring.arithmetic import Workload, shape_of
from vantage.language.tasks import tiny_tasks
from vantage.language.training.evaluation import evaluate
from vantage.language.training.train import train
from vantage.language.transcripts.records import chosen, read_transcripts, updates_of
from vantage.language.transcripts.view import show
from vantage.runs.progress import terminal
from vantage.training.schedules import Name

BYTES = {"float32": 4, "bfloat16": 2}


def dispatch(arguments: list[str]) -> bool:
    """Run `train lm`, `train TASK` or `audit lm`, if that is what the command line says."""
    command = commands().get(" ".join(arguments[:2]))
    if command is None:
        return False
    tyro.cli(command, args=arguments[2:], prog=f"vantage {' '.join(arguments[:2])}")
    return True


def commands() -> dict[str, Callable[..., None]]:
    """What `vantage train` and `audit` can go on with, besides the id of an environment."""
    made: dict[str, Callable[..., None]] = {"train lm": train_lm, "audit lm": audit_lm}
    return made | {f"train {name}": tiny_command(name) for name in tiny_tasks.TASKS}


def train_lm(
    model: Path,
    data: Path,
    reward: tuple[str, ...],
    weights: tuple[float, ...] = (),
    estimator: str = "rloo",
    beta: float | None = None,
    num_generations: int = 8,
    batch: int | Literal["auto"] = 64,
    target_snr: float = 1.0,
    baseline: Literal["auto"] | None = None,
    updates: int = 200,
    lr: float = 1e-5,
    schedule: Name = "constant",
    warmup: int = 0,
    epochs: Annotated[int, arg(aliases=["--num-iterations"])] = 1,
    minibatches: int = 1,
    max_grad_norm: float | None = 1.0,
    max_completion_length: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask_truncated_completions: bool = False,
    resample_dead_groups: int = 0,
    lora: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    gradient_checkpointing: bool = False,
    token_budget: int = 16384,
    continuous_batching: bool = False,
    prompt: str = "prompt",
    answer: str = "answer",
    system: str | None = None,
    held_out: float = 0.1,
    evaluate_every: int = 0,
    keep_best: bool = False,
    keep_last: int = 0,
    stop_at: float | None = None,
    transcripts_every: int = 1,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int = 1,
    dry_run: bool = False,
) -> None:
    """Train a causal language model on rewards.

    Args:
        model: folder of a model and tokenizer that transformers loads.
        data: rows, as JSONL, CSV or Parquet.
        reward: FILE.py:FUNCTION, or exact_match, number, format; several with spaces between them.
        weights: of the rewards; 1 each by default.
        estimator: a row of the table that `vantage estimators` prints.
        beta: of the KL to the model as it was, for estimators that have one.
        num_generations: completions per prompt.
        batch: completions per update; "auto" follows the gradient's noise scale.
        target_snr: of a batch's gradient, held by --batch auto.
        baseline: "auto" takes the unbiased baseline of least measured variance at every update.
        updates: batches to learn from.
        lr: learning rate (AdamW).
        schedule: of the learning rate, after the warm-up.
        warmup: updates over which the learning rate rises.
        epochs: passes over each batch.
        minibatches: optimiser steps of an epoch.
        max_grad_norm: longest gradient let through to the optimiser.
        max_completion_length: tokens after which a completion is cut.
        temperature: of the sampling law.
        top_k: of the sampling law: only the k likeliest tokens.
        top_p: of the sampling law: only the likeliest tokens that make up p.
        min_p: of the sampling law: only tokens p times as likely as the likeliest.
        mask_truncated_completions: leave cut completions out of the loss.
        resample_dead_groups: rounds of drawing other prompts for groups of equal rewards.
        lora: rank of an adapter to train in place of the model.
        dtype: of the weights.
        gradient_checkpointing: less memory, more time.
        token_budget: tokens of one forward and backward pass; no result depends on it.
        continuous_batching: generate with the paged engine of transformers.
        prompt: column with the prompts.
        answer: column with the gold answers.
        system: system message to put in front of every prompt.
        held_out: share of the prompts that is never trained on.
        evaluate_every: updates between evaluations on those; 0 for none.
        keep_best: keep the checkpoint of the largest reward, of evaluations where there are any.
        keep_last: checkpoints to keep of evaluated updates, or else of those at which one was
            due, each with its model.
        stop_at: end the run once that reward is reached, by evaluations where there are any.
        transcripts_every: updates between transcripts; 0 for none.
        seed: of everything random.
        out: run folder; runs/MODEL-ESTIMATOR-SEED by default.
        resume: carry on the run in that folder.
        device: cpu, cuda, cuda:1, ...
        threads: torch threads.
        dry_run: print the batch arithmetic, token counts and memory, and stop.
    """
    import torch

    quieten()
    rule = named(estimator, beta)
    task = task_from(
        data,
        reward,
        weights,
        answer,
        num_generations=num_generations,
        prompt=prompt,
        held_out=held_out,
        seed=seed,
        system=system,
    )
    folder = out or Path("runs") / f"{model.resolve().name}-{rule.name}-{seed}"
    if dry_run:
        refuse_unless(
            batch == "auto" or batch % num_generations == 0,
            f"--batch {batch}: a batch holds whole groups of --num-generations {num_generations}.",
        )
        empty, tokens = _without_weights(model)
        shape = shape_of(empty, BYTES[dtype], _lora_parameters(empty, lora))
        plan = Workload(
            shape=shape,
            lengths=[len(ids) for ids in task.encode(tokens)],
            rows=len(task.train),
            held_out=len(task.held_out),
            batch=first_batch(batch, num_generations),
            num_generations=num_generations,
            num_iterations=epochs,
            minibatches=minibatches,
            updates=updates,
            max_completion_length=max_completion_length,
            token_budget=token_budget,
            checkpointing=gradient_checkpointing,
            reference="reference_log_prob" in rule.needs and lora is None,
        )
        plan.refuse_what_does_not_fit()
        print_plan(rule, plan, folder)
        return
    policy = Policy(
        model,
        max_completion_length=max_completion_length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        dtype=getattr(torch, dtype),
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        device=device,
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
            warmup=warmup,
            epochs=epochs,
            minibatches=minibatches,
            max_grad_norm=max_grad_norm,
            value=ValueHead(policy) if "value" in rule.needs else None,
            mask_truncated_completions=mask_truncated_completions,
            resample_dead_groups=resample_dead_groups,
            engine=ContinuousBatching() if continuous_batching else None,
            token_budget=token_budget,
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
    if len(task.held_out) >= 2:
        terminal.print(f"Held out, greedy: {evaluate(task, policy)}")
    print_end(run, folder)


def transcripts(
    run: Positional[Path],
    update: int | None = None,
    worst: int = 0,
    best: int = 0,
    first: Annotated[int | None, arg(metavar="N")] = None,
) -> None:
    """Read what a language model said in training, its tokens coloured by advantage.

    Args:
        run: the run folder.
        update: which, from 1; the last by default.
        worst: completions of least reward to print.
        best: completions of largest reward to print.
        first: completions to print in the order they were drawn; 3 where nothing is asked for.
    """
    for name, count in {"worst": worst, "best": best, "first": first or 0}.items():
        refuse_unless(count >= 0, f"--{name} {count}: 0 or more.")
    written = updates_of(run)
    number = update if update is not None or not written else written[-1]
    records = read_transcripts(run, number)
    opening = first if first is not None else (0 if worst or best else 3)
    picked = chosen(records, worst, best, opening)
    terminal.print(f"{run}, update {number}: {len(picked)} of {len(records)} completions.\n")
    show(picked, terminal)


def _without_weights(model: Path) -> tuple[Any, Any]:
    """The model on the meta device, where it takes no memory, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(str(model), local_files_only=True)
        tokens = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    except (OSError, ValueError) as error:
        refuse_unless(False, f"--model {model}: transformers cannot load it: {error}.")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config), tokens


def _lora_parameters(model: Any, rank: int | None) -> int | None:
    """Numbers of an adapter on all linear layers but the head; None without one."""
    if rank is None:
        return None
    import torch

    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return sum(rank * (m.in_features + m.out_features) for m in linear)
