"""Devices by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vantage.errors import InputError


def device_named(device: torch.device | str) -> torch.device:
    """The device of that name, which must be there.

    Raises:
        InputError: no such device in this machine, or in this build of torch.

    >>> device_named("cpu")
    device(type='cpu')
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
        known += ["mps"] if torch.backends.mps.is_available() else []
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(
            f"device={str(device)!r} cannot be used: {reason}; here there is {' and '.join(known)}."
        ) from error


def at_once(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors on another device, by one copy: of many small ones each would cost as much.

    A tensor under two names comes out as one under both.
    """
    every = {id(tensor): tensor for tensor in tensors.values()}
    # widest numbers first, so that each tensor begins where its numbers may
    ordered = sorted(every.items(), key=lambda item: -item[1].element_size())
    bytes_of = [tensor.contiguous().view(-1).view(torch.uint8) for _, tensor in ordered]
    there = torch.cat(bytes_of).to(device).split([len(each) for each in bytes_of])
    moved = {
        name: each.view(tensor.dtype).view(tensor.shape)
        for (name, tensor), each in zip(ordered, there, strict=True)
    }
    return {name: moved[id(tensor)] for name, tensor in tensors.items()}
