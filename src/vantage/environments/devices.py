"""Devices by name."""

import torch

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
