"""`vantage audit lm`: how good is a language model's gradient on a task?"""

from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from vantage.auditing.sizes import size_in_bytes
from vantage.commands.audit import check_endings, rows_named, write
from vantage.commands.language_options import ModelOptions, TaskOptions, quieten
from vantage.errors import refuse_unless
from vantage.language.auditing.audit import audit
from vantage.language.auditing.group_size import group_sizes as try_sizes
from vantage.language.model.value_head import ValueHead
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
        memory: for unit gradients, such as 500MB or 4GB; larger models are sketched to fit.
        seed: of everything random.
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
    """
    quieten()
    measured = rows_named(estimators, beta)
    check_endings(json, html)
    refuse_unless(
        not group_sizes or html is None,
        f"--html {html}: group sizes are written as --json only.",
    )
    task, policy = rows.task(seed, model.device), model.policy()
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
