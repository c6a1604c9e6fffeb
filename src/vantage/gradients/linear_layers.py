"""Gradients of Linear layers from their inputs a_t and output gradients b_t: Σ_t w_t b_t a_tᵀ."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.gradients.weighted import log_prob_change
from vantage.policies import Policy

IN_CACHE = 1 << 18  # numbers that a processor's cache holds beside others


def linear_layers(module: nn.Module) -> dict[nn.Linear, list[str]]:
    """Linear layers whose parameters nothing else shares, with the names of what they train."""
    owners: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers: dict[nn.Linear, list[str]] = {}
    for prefix, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            parameters = dict(layer.named_parameters(recurse=False))
            if all(owners[id(p)] == 1 and p.requires_grad for p in parameters.values()):
                layers[layer] = [f"{prefix}.{name}" if prefix else name for name in parameters]
    return layers


def linear_calls(
    layers: Collection[nn.Linear], forward: Callable[[], Tensor]
) -> tuple[Tensor, list[tuple[nn.Linear, Tensor, Tensor]]]:
    """What `forward` gives, and (layer, inputs, outputs) of every call of a layer on the way."""
    calls: dict[nn.Linear, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}
    handles = [
        layer.register_forward_hook(lambda m, args, out: calls[m].append((args[0], out)))
        for layer in layers
    ]
    try:
        result = forward()
    finally:
        for handle in handles:
            handle.remove()
    return result, [(layer, a, out) for layer in layers for a, out in calls[layer]]


def scaled_products(
    basis: Float[Tensor, "N R T"], b: Float[Tensor, "N T out"], a: Float[Tensor, "N T inputs"]
) -> tuple[Float[Tensor, "N R weights"], Float[Tensor, "N R out"]]:
    """Σ_t w_nrt b_nt a_ntᵀ, flat, and Σ_t w_nrt b_nt.

    The narrower of a and b is scaled by w, a few rows at a time: the products then stay in cache.
    """
    rows, rank, steps = basis.shape
    wide, narrow = (b, a) if a.shape[-1] <= b.shape[-1] else (a, b)
    weight = basis.new_empty(rows, rank, b.shape[-1], a.shape[-1])
    each = rank * steps * narrow.shape[-1]
    for rows_ in torch.arange(rows).split(max(1, IN_CACHE // max(1, each))):
        chunk = slice(int(rows_[0]), int(rows_[-1]) + 1)
        scaled = basis[chunk, :, None] * narrow[chunk].transpose(1, 2)[:, None]
        product = (scaled.flatten(1, 2) @ wide[chunk]).unflatten(1, (rank, -1))
        weight[chunk] = product if narrow is b else product.transpose(2, 3)
    return weight.flatten(2), basis @ b


def largest_change(
    policy: Policy,
    batch: Batch,
    directions: Float[Tensor, "D P"],
    layers: bool,
    at_once: int | None = None,
) -> Float[Tensor, " D"]:
    """max |∇ log π(a_nt|s_nt) · d| over the steps of a batch, for each direction d.

    Args:
        layers: whether `by_layers` is known to be right for this policy. For a policy of Linear
            layers without memory, one pass then serves all directions: in a layer with inputs a_t
            and output gradients b_t, the change is b_tᵀ D a_t.
        at_once: rows that one pass takes otherwise; all of them where None.
    """
    linear = linear_layers(policy) if layers and getattr(policy, "memoryless", False) else {}
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    if {name for names in linear.values() for name in names} != trained.keys():
        largest = directions.new_zeros(len(directions))
        for rows in torch.arange(batch.rows).split(at_once or batch.rows):
            part = batch.select(rows)
            for d, direction in enumerate(directions):
                change = log_prob_change(policy, part, direction)
                largest[d] = largest[d].maximum(torch.where(part.mask, change, 0).abs().max())
        return largest
    pieces = directions.split([p.numel() for p in trained.values()], -1)
    along = {
        name: piece.reshape(-1, *p.shape)
        for (name, p), piece in zip(trained.items(), pieces, strict=True)
    }
    observation, action = batch.observation[batch.mask], batch.action[batch.mask]
    largest = directions.new_zeros(len(directions))
    for places in torch.arange(len(action)).split(256):
        seen, taken = observation[places][None], action[places][None]
        log_prob, used = linear_calls(linear, partial(policy.log_prob, seen, taken))
        outputs = torch.autograd.grad(log_prob.sum(), [out for _, _, out in used])
        change = directions.new_zeros(len(places), len(directions))
        for (layer, a, _), b in zip(used, outputs, strict=True):
            weight, *bias = (along[name] for name in linear[layer])
            moved = (b[0] @ weight.transpose(0, 1).flatten(1)).unflatten(1, (len(directions), -1))
            change += (moved @ a.detach()[0][:, :, None]).squeeze(-1)
            for piece in bias:
                change += b[0] @ piece.T
        largest = torch.maximum(largest, change.abs().amax(0))
    return largest
