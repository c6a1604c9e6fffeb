"""The model of a trainer of TRL, as a `Policy` takes it."""

from typing import Any

from vantage.conformance.losses.trl import is_trl_trainer
from vantage.errors import refuse_unless


def of_trainer(trainer: Any) -> dict[str, Any]:
    """The arguments of a `Policy` of the trainer's model that samples as the trainer does.

    Raises:
        InputError: what no such policy can do.
    """
    kind = type(trainer).__name__
    refuse_unless(
        is_trl_trainer(trainer),
        f"Policy.from_trl({kind}): give a GRPOTrainer or RLOOTrainer of TRL.",
    )
    arguments = trainer.args
    penalty = getattr(arguments, "repetition_penalty", 1.0)
    refuse_unless(
        penalty in (None, 1.0),
        f"Policy.from_trl: repetition_penalty={penalty} makes a law that depends on the tokens so "
        "far in a way that is not scored; set it to 1.",
    )
    other = getattr(arguments, "generation_kwargs", None)
    refuse_unless(
        not other,
        f"Policy.from_trl: generation_kwargs={other} may change the law that completions are "
        "sampled by; leave them out.",
    )
    top_k, top_p = getattr(arguments, "top_k", None), getattr(arguments, "top_p", None)
    return {
        "model_or_path": trainer.model,
        "tokenizer": trainer.processing_class,
        "max_completion_length": arguments.max_completion_length,
        "temperature": arguments.temperature,
        "top_k": top_k or None,
        "top_p": None if top_p == 1.0 else top_p,
        "min_p": getattr(arguments, "min_p", None),
        "device": trainer.accelerator.device,
    }
