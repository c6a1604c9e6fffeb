"""A module's trained parameters as one flat vector, out and in."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def flat_parameters(module: nn.Module) -> Float[Tensor, " P"]:
    """A copy of the parameters that require a gradient, in order."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


@torch.no_grad()
def write_parameters(module: nn.Module, flat: Float[Tensor, " P"]) -> None:
    """Write them back in place: they may be views of one flat tensor."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter, piece in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        parameter.copy_(piece.view_as(parameter))
