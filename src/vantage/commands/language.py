"""The language-model commands: `vantage train lm | addition | copy | ...` and `transcripts`.

`vantage train` and `audit` look at their first word: `lm` and the names of tiny tasks lead here,
anything else is an environment.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from vantage.commands.arguments import LANGUAGE_HINTS, refuse_foreign_names
from vantage.commands.audit_language import audit_lm
from vantage.commands.audit_trl import audit_trl
from vantage.commands.language_options import (
    LearningOptions,
    ModelOptions,
    TaskOptions,
    carried_on,
    print_end,
    print_plan,
    quieten,
    watch,
)
from vantage.commands.model_shape import shape_of_options
from vantage.commands.train_tiny import tiny_command
from vantage.errors import refuse_unless
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.continuous_batching import ContinuousBatching
from vantage.language.sampling.rollout import without_long_prompts
from vantage.language.tasks import tiny_tasks
from vantage.language.training.evaluation import evaluate
from vantage.language.training.train import train
from vantage.language.transcripts.records import read_transcripts, selected
from vantage.language.transcripts.view import show
from vantage.runs.progress import terminal
from vantage.runs.transcripts import updates_of

LEARNING = LearningOptions()


def dispatch(arguments: list[str]) -> bool:
    """Run `train lm`, `train TASK`, `audit lm` or `audit trl`, if that is what is asked for."""
    command = commands().get(" ".join(arguments[:2]))
    if command is None:
        return False
    refuse_foreign_names(" ".join(arguments[:2]), arguments[2:], LANGUAGE_HINTS)
    tyro.cli(command, args=arguments[2:], prog=f"vantage {' '.join(arguments[:2])}")
    return True


def commands() -> dict[str, Callable[..., None]]:
    """What `vantage train` and `audit` can go on with, besides the id of an environment."""
    functions: dict[str, Callable[..., None]] = {
        "train lm": train_lm,
        "audit lm": audit_lm,
        "audit trl": audit_trl,
    }
    return functions | {f"train {name}": tiny_command(name) for name in tiny_tasks.TASKS}


def train_lm(
    model: OmitArgPrefixes[ModelOptions],
    rows: OmitArgPrefixes[TaskOptions],
    learning: OmitArgPrefixes[LearningOptions] = LEARNING,
    warmup: int = 0,
    max_grad_norm: float | None = 1.0,
    mask_truncated_completions: bool = False,
    drop_long_prompts: bool = False,
    gradient_checkpointing: bool = False,
    token_budget: int = 16384,
    continuous_batching: bool = False,
) -> None:
    """Train a causal language model on rewards.

    Args:
        warmup: updates over which the learning rate rises.
        max_grad_norm: longest gradient let through to the optimiser.
        mask_truncated_completions: leave cut completions out of the loss.
        drop_long_prompts: leave rows out whose prompts have no room for a completion.
        gradient_checkpointing: less memory, more time.
        token_budget: tokens of one forward and backward pass; no result depends on it.
        continuous_batching: generate with the paged engine of transformers.
    """
    quieten()
    rule, task = learning.rule(), rows.task(learning.seed, model.device)
    folder = learning.folder(model.model.resolve().name)
    if learning.dry_run:
        plan = _plan(model, learning, rule, task, token_budget, gradient_checkpointing)
        plan.refuse_what_does_not_fit()
        print_plan(rule, plan, folder)
        return
    policy = model.policy(gradient_checkpointing=gradient_checkpointing, seed=learning.seed)
    if drop_long_prompts:
        task = without_long_prompts(task, policy)
    run = carried_on(
        folder,
        partial(
            train,
            task,
            policy,
            rule,
            warmup=warmup,
            max_grad_norm=max_grad_norm,
            value=ValueHead(policy) if "value" in rule.needs else None,
            mask_truncated_completions=mask_truncated_completions,
            engine=ContinuousBatching() if continuous_batching else None,
            token_budget=token_budget,
            watch=watch(folder, task, policy, learning.transcripts_every),
            reference=model.reference_policy(),
            **learning.settings(folder),
        ),
    )
    if len(task.held_out) >= 2:
        terminal.print(f"Held out, greedy: {evaluate(task, policy)}")
    print_end(run, folder)


def _plan(
    model: ModelOptions,
    learning: LearningOptions,
    rule: Any,
    task: Any,
    token_budget: int,
    checkpointing: bool,
) -> Any:
    """What the run would take, by a model without weights."""
    shape, tokens = shape_of_options(model)
    return learning.workload(
        task,
        [len(ids) for ids in task.encode(tokens)],
        shape=shape,
        max_completion_length=model.max_completion_length,
        token_budget=token_budget,
        checkpointing=checkpointing,
        reference="reference_log_prob" in rule.needs and model.lora is None,
    )


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
    picked = selected(records, worst, best, opening)
    terminal.print(f"{run}, update {number}: {len(picked)} of {len(records)} completions.\n")
    show(picked, terminal)
