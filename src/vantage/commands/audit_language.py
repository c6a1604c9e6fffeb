"""`vantage audit lm`: how good is a language model's gradient on a task?"""

from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from vantage.auditing.sizes import size_in_bytes
from vantage.commands.audit import check_endings, rows_named, write
from vantage.commands.language_options import ModelOptions, TaskOptions, quieten
from vantage.commands.model_shape import shape_of_options
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.auditing.audit import audit, audit_footprint
from vantage.language.auditing.group_size import group_sizes as try_sizes
from vantage.language.model.value_head import ValueHead
from vantage.language.scoring.arithmetic import bytes_text
from vantage.language.tasks.task import Task
from vantage.runs.progress import terminal


def audit_lm(
    model: OmitArgPrefixes[ModelOptions],
    rows: OmitArgPrefixes[TaskOptions],
    estimators: tuple[str, ...] = ("reinforce_leave_one_out", "rloo", "grpo"),
    beta: float | None = None,
    group_sizes: tuple[int, ...] = (),
    trajectories: int = 512,
    batch: int = 64,
    target_snr: float = 4.0,
    memory: str = "4GB",
    seed: int = 0,
    threads: int = 1,
    json: Path | None = None,
    html: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Measure estimators on a causal language model: bias, variance, SNR, with 95 % intervals.

    Nothing is trained. Estimators with a value baseline are audited with V = 0.

    Args:
        estimators: rows of the table that `vantage estimators` prints.
        beta: weight of the KL penalty of each of them, to --reference or the model as it is.
        group_sizes: audit each of these numbers of completions per prompt instead, and name the
            one that reaches the target in the least time.
        trajectories: completions to sample (for each group size).
        batch: completions of one gradient step, whose quality is reported.
        target_snr: what the plan is made for.
        memory: that the audit may take beyond the model, such as 500MB or 4GB; gradients are
            sketched, formed, sampled and scored in parts to stay within it.
        seed: the seed of all random numbers.
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
        dry_run: print what would be sampled and an estimate of the memory, and stop.
    """
    quieten()
    measured = rows_named(estimators, beta)
    check_endings(json, html)
    refuse_unless(
        not group_sizes or html is None,
        f"--html {html}: group sizes are written as --json only.",
    )
    task = rows.task(seed, model.device)
    if dry_run:
        for size in group_sizes or (task.num_generations,):
            _print_plan(model, task, size, measured, trajectories, batch, size_in_bytes(memory))
        return
    policy = model.policy()
    settings: dict[str, Any] = {
        "trajectories": trajectories,
        "batch": batch,
        "target_snr": target_snr,
        "seed": seed,
        "value": ValueHead(policy) if any("value" in row.needs for row in measured) else None,
        "reference_policy": model.reference_policy(),
        "memory": size_in_bytes(memory),
        "threads": threads,
    }
    if group_sizes:
        sizes = try_sizes(task, policy, measured, sizes=group_sizes, **settings)
        terminal.print(str(sizes), end="")
        write(sizes.save, json, None)
    else:
        report = audit(task, policy, measured, **settings)
        terminal.print(str(report), end="")
        write(report.save, json, html)


def _print_plan(
    model: ModelOptions,
    task: Task,
    size: int,
    estimators: list[Estimator],
    trajectories: int,
    batch: int,
    memory: int,
) -> None:
    """What an audit with `size` completions of a prompt would sample and hold."""
    able = [e for e in estimators if size > 1 or "group" not in e.needs]
    shape, tokens = shape_of_options(model)
    lengths = [len(ids) for ids in task.encode(tokens)]
    design, plan = audit_footprint(
        shape, able, num_generations=size, prompt=max(lengths[row] for row in task.train),
        completion=model.max_completion_length, trajectories=trajectories, batch=batch,
        memory=memory,
    )  # fmt: skip
    weights = shape.parameters * shape.width
    batches, each = design.trajectories // design.batch, design.batch // size
    terminal.print(
        f"model      {shape.parameters:,} parameters, {shape.trained:,} trained: "
        f"{bytes_text(weights)}\n"
        f"samples    {design.trajectories:,} completions = {batches:,} batches of {each:,} prompts "
        f"× {size}, of up to {model.max_completion_length:,} tokens\n{plan}\n"
        f"  {'with the model':<34}{bytes_text(plan.peak + weights):>10}, and the libraries"
    )
