"""`vantage audit lm`: how good is a language model's gradient on a task?"""

from pathlib import Path
from typing import Any, Literal

from vantage.commands.audit import check_endings, rows_named, size_in_bytes, write
from vantage.commands.language_options import quieten, task_from
from vantage.errors import refuse_unless
from vantage.language.auditing.audit import audit
from vantage.language.auditing.group_size import group_sizes as try_sizes
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.runs.progress import terminal


def audit_lm(
    model: Path,
    data: Path,
    reward: tuple[str, ...],
    weights: tuple[float, ...] = (),
    estimators: tuple[str, ...] = ("reinforce_leave_one_out", "rloo", "grpo"),
    num_generations: int = 8,
    group_sizes: tuple[int, ...] = (),
    trajectories: int = 512,
    batch: int = 64,
    target_snr: float = 4.0,
    max_completion_length: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    lora: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    memory: str = "4GB",
    prompt: str = "prompt",
    answer: str = "answer",
    system: str | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
    json: Path | None = None,
    html: Path | None = None,
) -> None:
    """Measure estimators on a causal language model: bias, variance, SNR, with 95 % intervals.

    Nothing is trained. Estimators with a value baseline are audited with V = 0.

    Args:
        model: folder of a model and tokenizer that transformers loads.
        data: rows, as JSONL, CSV or Parquet.
        reward: FILE.py:FUNCTION, or exact_match, number, format; several with spaces between them.
        weights: of the rewards; 1 each by default.
        estimators: rows of the table that `vantage estimators` prints.
        num_generations: completions per prompt.
        group_sizes: audit each of these numbers of completions per prompt instead, and name the
            one that reaches the target in the least time.
        trajectories: completions to sample (for each group size).
        batch: completions of one gradient step, whose quality is reported.
        target_snr: what the plan is made for.
        max_completion_length: tokens after which a completion is cut.
        temperature: of the sampling law.
        top_k: of the sampling law: only the k likeliest tokens.
        top_p: of the sampling law: only the likeliest tokens that make up p.
        min_p: of the sampling law: only tokens p times as likely as the likeliest.
        lora: rank of an adapter whose gradient is audited in place of the model's.
        dtype: of the weights.
        memory: for unit gradients, such as 500MB or 4GB; larger models are sketched to fit.
        prompt: column with the prompts.
        answer: column with the gold answers.
        system: system message to put in front of every prompt.
        held_out: share of the prompts that training would not see.
        seed: of everything random.
        device: cpu, cuda, cuda:1, ...
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
    """
    import torch

    quieten()
    rows = rows_named(estimators)
    check_endings(json, html)
    refuse_unless(
        not group_sizes or html is None,
        f"--html {html}: group sizes are written as --json only.",
    )
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
    policy = Policy(
        model,
        max_completion_length=max_completion_length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        dtype=getattr(torch, dtype),
        lora=lora,
        device=device,
    )
    settings: dict[str, Any] = {
        "trajectories": trajectories,
        "batch": batch,
        "target_snr": target_snr,
        "seed": seed,
        "value": ValueHead(policy) if any("value" in row.needs for row in rows) else None,
        "memory": size_in_bytes(memory),
        "threads": threads,
    }
    if group_sizes:
        found = try_sizes(task, policy, rows, sizes=group_sizes, **settings)
        terminal.print(str(found), end="")
        write(found.save, json, None)
    else:
        report = audit(task, policy, rows, **settings)
        terminal.print(str(report), end="")
        write(report.save, json, html)
