"""Minibatches of a batch: single steps, or whole rows, shuffled."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vantage.batch import Batch
from vantage.errors import refuse_unless

_STEPWISE = ("observation", "action", "log_prob", "value")


class Weighed(NamedTuple):
    """A batch, or a minibatch of it, with what is counted across the whole batch."""

    batch: Batch
    advantage: Tensor
    share: Tensor
    target: Tensor | None  # of V
    proximal: Tensor | None  # log π of the policy that the update began with, where it is asked for
    steps: int  # that count
    restrained: Tensor | None = None  # coefficients of a restraint, where there is one


_OF_STEPS = ("advantage", "share", "target", "proximal", "restrained")


def tensors_of(weighed: Weighed) -> tuple[tuple[str, ...], list[Tensor]]:
    """The tensors of a minibatch, and their names."""
    every = {item.name: getattr(weighed.batch, item.name) for item in fields(Batch)}
    every |= {name: getattr(weighed, name) for name in _OF_STEPS}
    tensors = {name: each for name, each in every.items() if isinstance(each, Tensor)}
    return tuple(tensors), list(tensors.values())


def with_tensors(weighed: Weighed, names: Sequence[str], tensors: Sequence[Tensor]) -> Weighed:
    """The minibatch with other tensors in the places of its own."""
    named = dict(zip(names, tensors, strict=True))
    of_steps: dict[str, Any] = {name: named.pop(name) for name in _OF_STEPS if name in named}
    return weighed._replace(batch=replace(weighed.batch, **named), **of_steps)


def steps_shuffled(
    whole: Weighed, count: int, standardise: bool, generator: torch.Generator
) -> Iterator[Weighed]:
    """Minibatches of single steps, as batches of one step a row.

    All are of one size: a remainder of less than `count` steps, random ones, is left out.
    """
    batch = whole.batch
    counted = batch.mask.flatten().nonzero().squeeze(1)
    size = len(counted) // count
    refuse_unless(
        size >= 2,
        f"Epochs(minibatches={count}): the batch has {len(counted)} steps; a minibatch needs two.",
    )
    order = counted[permutation(len(counted), counted.device, generator)]
    order = order[: size * count]

    def taken(tensor: Tensor) -> Tensor:
        shuffled = tensor.flatten(0, 1).index_select(0, order)
        return shuffled.view(count, size, 1, *shuffled.shape[1:])

    def split(tensor: Tensor | None) -> Sequence[Any]:
        return [None] * count if tensor is None else taken(tensor).unbind()

    advantages = taken(whole.advantage)
    if standardise:
        advantages = _standardised(advantages, torch.ones_like(advantages), (1, 2))
    stepwise = zip(*(split(getattr(batch, name)) for name in _STEPWISE), strict=True)
    share = split(whole.share * (len(counted) / size))
    # a stepwise ratio reads log_prob and mask alone: the other fields are blank
    blank = batch.log_prob.new_zeros(size, 1)
    true, number = torch.ones_like(blank, dtype=torch.bool), order.new_zeros(size)
    blanks: dict[str, Tensor] = dict.fromkeys(("reward", "discount", "bootstrap"), blank)
    blanks |= {"boundary": true, "mask": true, "episode": number[:, None], "group": number}
    grids = (whole.target, whole.proximal, whole.restrained)
    rest = (advantages.unbind(), share, *map(split, grids))
    for stepped, advantage, of_average, target, proximal, held in zip(stepwise, *rest, strict=True):
        named = dict(zip(_STEPWISE, stepped, strict=True))
        minibatch = Batch(**named, **blanks, weight=blank[:, 0])
        yield Weighed(minibatch, advantage, of_average, target, proximal, size, held)


def permutation(size: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """0 to size − 1 in random order, drawn where it is used: millions take long elsewhere."""
    if device.type != generator.device.type:
        seed = int(torch.randint(1 << 62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
    return torch.randperm(size, generator=generator, device=device)


def rows_shuffled(
    whole: Weighed, count: int, standardise: bool, generator: torch.Generator
) -> Iterator[Weighed]:
    """Minibatches of whole rows."""
    rows = whole.batch.rows
    refuse_unless(
        rows >= count,
        f"Epochs(minibatches={count}): this policy or ratio needs whole rows, and the batch has "
        f"{rows}; use fewer minibatches, or more lanes.",
    )
    order = permutation(rows, whole.share.device, generator)
    for index in order.tensor_split(count):
        minibatch = whole.batch.select(index)
        grids = (whole.target, whole.proximal, whole.restrained)
        target, proximal, held = (None if grid is None else grid[index] for grid in grids)
        advantage = whole.advantage[index]
        if standardise:
            advantage = _standardised(advantage, minibatch.mask, (0, 1))
        share = whole.share[index] * count
        yield Weighed(minibatch, advantage, share, target, proximal, minibatch.steps, held)


def _standardised(advantage: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """(A − Ā)/(σ̂ + 10⁻⁸), moments over the counted steps along `dims`; 0 where all are equal."""
    count = mask.sum(dims, keepdim=True)
    mean = (advantage * mask).sum(dims, keepdim=True) / count
    centred = (advantage - mean) * mask
    deviation = (centred.square().sum(dims, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    noise = 32 * torch.finfo(advantage.dtype).eps * mean.abs()
    return centred * torch.where(deviation > noise, 1 / (deviation + 1e-8), 0)
