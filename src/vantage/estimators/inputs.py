"""How columns get what they declare that they need, beyond the fields of a Batch."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.estimators import columns
from vantage.estimators.averages import trajectories_in_group

FROM_BATCH = ("value", "group")


def bound(column: Callable[..., Tensor], inputs: Mapping[str, object]) -> Callable[..., Tensor]:
    """The column with the inputs it declares bound by name."""
    extra = {name: inputs[name] for name in columns.needs(column) if name not in FROM_BATCH}
    return partial(column, **extra) if extra else column


def given(batch: Batch, needs: frozenset[str], inputs: Mapping[str, object]) -> set[str]:
    """Which inputs are there, in the batch or by name; groups are counted only if asked for."""
    names = {name for name, value in inputs.items() if value is not None}
    if batch.value is not None:
        names.add("value")
    if "group" in needs and bool((trajectories_in_group(batch) > 1).any()):
        names.add("group")
    return names


def apart(batch: Batch, log_prob: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """log π/μ at the counted steps, 0 where it is no more than rounding, or does not count."""
    noise = 32 * torch.finfo(log_prob.dtype).eps * (1 + batch.log_prob.abs())
    distance = torch.where(batch.mask, log_prob - batch.log_prob, 0)
    return torch.where(distance.abs() > noise, distance, 0)


def penalty(
    column: Callable[..., Tensor],
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
    reference: Float[Tensor, "N T"],
) -> Float[Tensor, "N T"]:
    """What a KL column makes of log π − log π_ref, which is 0 where the mask is False."""
    at_hand = {"batch": batch, "log_prob": log_prob}
    asked = {name: at_hand[name] for name in columns.needs(column) if name in at_hand}
    return column(torch.where(batch.mask, log_prob - reference, 0), **asked)
