"""What a TRL trainer climbs: its own gradients, beside the row of its configuration and ∇J."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from vantage.auditing.report import Report
from vantage.auditing.vectors import audit_draws
from vantage.errors import InputError
from vantage.estimators.table import reinforce
from vantage.language.auditing.draws import gradient_draws
from vantage.language.auditing.expectation import expectation
from vantage.language.model.policy import Policy
from vantage.language.tasks.task import Task
from vantage.peers.trl import draws as draws_of
from vantage.peers.trl_rows import estimator


def audit(trainer: Any, *, draws: int = 256, seed: int = 0, **settings: Any) -> Report:
    """Measure the gradient of an unmodified TRL trainer against ∇J of its own task.

    Three sources at the trainer's parameters: its own steps; the row of the table that its
    configuration is, where there is one; and ∇J of the mean reward, exact where all completions of
    the model can be listed, sampled by RLOO otherwise. Notes of the report say which, and what has
    no row.

    Args:
        trainer: a GRPOTrainer or RLOOTrainer, as `vantage.peers.trl.draws` takes it.
        draws: optimiser steps to draw.
        seed: the seed of everything random.
        settings: the settings of `vantage.audit_draws`: target_snr, memory, threads, progress.

    Raises:
        InputError: no such trainer, or a task or a law of sampling that cannot be taken over.
    """
    theirs = draws_of(trainer)
    task, policy = Task.from_trl(trainer), Policy.from_trl(trainer)
    sources: dict[str, Any] = {f"TRL's {theirs.name}": theirs}
    notes = []
    try:
        row = estimator(trainer)
        sources[f"row {row.name}"] = gradient_draws(
            task, policy, row, batch=theirs.completions, reference_policy=_reference(trainer)
        )
    except InputError as error:
        notes.append(f"No row of the table stands beside it: {error}")
    gradient, why = _exact(task, policy)
    reference: Tensor | str = "rloo" if gradient is None else gradient
    if gradient is None:
        sources["rloo"] = gradient_draws(task, policy, "rloo", batch=theirs.completions)
        notes.append(f"∇J is sampled by rloo: {why}")
    report = audit_draws(
        sources,
        draws=draws,
        reference=reference,
        batch=theirs.completions,
        seed=seed,
        counted=("completion", "completions"),
        **settings,
    )
    report.notes.extend(notes)
    return report


def _exact(task: Task, policy: Policy) -> tuple[Float[Tensor, " P"] | None, str]:
    """∇J of the mean reward over the task's rows; None and why, where it cannot be enumerated."""
    try:
        return expectation(task, policy, reinforce()).mean, ""
    except InputError as error:
        return None, str(error)


def _reference(trainer: Any) -> Policy | None:
    """The trainer's reference model; None where it has none, or is its model without an adapter."""
    model = getattr(trainer, "ref_model", None)
    if model is None:
        return None
    law = Policy.from_trl(trainer).law
    return Policy(
        trainer.accelerator.unwrap_model(model),
        trainer.processing_class,
        max_completion_length=trainer.args.max_completion_length,
        temperature=law.temperature,
        top_k=law.top_k,
        top_p=law.top_p,
        min_p=law.min_p,
        device=trainer.accelerator.device,
    )
