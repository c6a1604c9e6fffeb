"""A trained language model back from its run folder."""

from pathlib import Path
from typing import Any

from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.training.learner import MODEL
from vantage.runs.checkpoint import CHECKSUMS, change, load_module
from vantage.runs.run import CHECKPOINT


def load_language(
    folder: Path, checkpoint: Path, config: dict[str, Any]
) -> tuple[None, Policy, ValueHead | None]:
    """The policy under the run's sampling law, and its value head; see `vantage.load`.

    Args:
        folder: the folder of the run.
        checkpoint: the latest of the run, whose model is that at its end, or a kept one.
        config: the configuration of the run.

    Raises:
        InputError: no model was written there.
    """
    model = (folder if checkpoint == folder / CHECKPOINT else checkpoint) / MODEL
    refuse_unless(
        model.exists(),
        f"There is no {model}: the run has not ended; resume it, or load a kept checkpoint with "
        "best=True or update=.",
    )
    changed = change(model) if (model / CHECKSUMS).exists() else None
    refuse_unless(
        changed is None,
        f"{changed}; restore it from a copy, or delete {model / CHECKSUMS} if you changed the "
        "model yourself.",
    )
    settings = config["policy"]
    policy = Policy(
        model, max_completion_length=settings["max_completion_length"], **settings["law"]
    )
    value = None
    if config["value"] is not None:
        damage = change(checkpoint)  # the head before it belongs to another model
        refuse_unless(
            damage is None,
            f"{damage}; restore it from a copy, or load a kept checkpoint with best=True or "
            "update=.",
        )
        value = ValueHead(policy)
        load_module(checkpoint / "value.safetensors", value)
    return None, policy, value
