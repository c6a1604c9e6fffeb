"""Weights that a run depends on and no checkpoint of it holds: frozen ones, and the reference's."""

import hashlib
from pathlib import Path

import torch

from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.runs.run import CONFIG, read_config

NAME = "fixed_weights"  # in config.json


def fixed_weights(policy: Policy, reference: Policy | None) -> str | None:
    """SHA-256 of the weights that are not trained, names included; None where there are none.

    Args:
        policy: what is trained; under LoRA all but its adapter is fixed.
        reference: a policy of its own that a KL is measured to.
    """
    named = [(name, p) for name, p in policy.named_parameters() if not p.requires_grad]
    named += [] if reference is None else list(reference.named_parameters())
    digest = hashlib.sha256()
    for name, p in named:
        digest.update(name.encode())
        digest.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest() if named else None


def refuse_other_weights(folder: Path, digest: str | None) -> None:
    """Refuse to resume a run with other fixed weights than it began with.

    Raises:
        InputError: the policy or the reference given is another.
    """
    if not (folder / CONFIG).exists():
        return
    refuse_unless(
        read_config(folder).get(NAME) == digest,
        f"train(resume=True): {folder} began with other weights than those given, of the policy's "
        "frozen part or of the reference, which its checkpoint does not hold. Give the policy that "
        f"the run began with, not the one in {folder / 'model'}; its trained weights come from the "
        "checkpoint.",
    )
