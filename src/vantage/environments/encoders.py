"""Networks that read what a space shows: pictures, ids, vectors, and these within one another."""

import math
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from vantage.environments.spaces import Part, as_shown, is_picture, parts, width
from vantage.errors import InputError
from vantage.policies.networks import Pixels, cnn, mlp, unfilled

PICTURE_FEATURES = 256  # of every picture within a Dict or Tuple


class Columns(nn.Module):
    """Hands on some columns: [..., D] to [..., last − first]."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, observation: Tensor) -> Tensor:
        """Columns first to last."""
        return observation[..., self.first : self.last]


class WithoutMask(nn.Module):
    """Takes the mask of actions out: what a policy would see of the space without it.

    Args:
        space: with the mask.
        mask: where it lies.
    """

    def __init__(self, space: gymnasium.Space, mask: Part):
        super().__init__()
        self.rest, self.mask = without_mask(space, mask), mask

    def forward(self, observation: Tensor) -> Tensor:
        """[..., D] to [..., D − A], an id [...] or a picture [..., *shape]."""
        before, after = observation[..., : self.mask.first], observation[..., self.mask.last :]
        columns = torch.cat([before, after], -1)
        if isinstance(self.rest, spaces.Dict | spaces.Tuple):
            return columns
        return as_shown(self.rest, columns)  # type: ignore[arg-type]


class BesideMemory(nn.Module):
    """Encodes the features of a recorded observation and leaves flag and memory as they are.

    Args:
        encoder: maps features [..., D] to [..., E].
        inputs: D.
    """

    def __init__(self, encoder: nn.Module, inputs: int):
        super().__init__()
        self.encoder, self.inputs = encoder, inputs

    def forward(self, observation: Tensor) -> Tensor:
        """[..., D + 1 + H] to [..., E + 1 + H]."""
        features, rest = observation[..., : self.inputs], observation[..., self.inputs :]
        return torch.cat([self.encoder(features), rest], -1)


class PicturesAndVectors(nn.Module):
    """Encodes the pictures within a flat observation, and leaves the rest beside them.

    Args:
        space: nested, with pictures in it.
        generator: the source of the random weights.

    Attributes:
        width: the width of what it gives, 256 a picture and the other columns as they are.
    """

    def __init__(self, space: gymnasium.Space, generator: torch.Generator):
        super().__init__()
        self.layout = parts(space, "environment")
        self.pictures = nn.ModuleList()
        self.width = 0
        for part in self.layout:
            if is_picture(part.space):
                shape = part.space.shape
                assert shape is not None
                pixels = cnn(
                    shape, PICTURE_FEATURES, gain=math.sqrt(2), generator=generator,
                    scale=pixel_scale(part.space),
                )  # fmt: skip
                self.pictures.append(nn.Sequential(pixels, nn.ReLU()))
                self.width += PICTURE_FEATURES
            else:
                self.width += part.last - part.first

    def forward(self, observation: Tensor) -> Tensor:
        """[..., D] to [..., width]."""
        networks = iter(self.pictures)
        pieces = []
        for part in self.layout:
            piece = observation[..., part.first : part.last]
            if is_picture(part.space):
                piece = next(networks)(as_shown(part.space, piece))
            pieces.append(piece)
        return torch.cat(pieces, -1)


def network(
    space: gymnasium.Space,
    mask: Part | None,
    hidden: tuple[int, ...],
    outputs: int,
    gain: float,
    generator: torch.Generator,
    activation: str,
) -> nn.Module:
    """A network from observations of a space to `outputs` numbers.

    A table for ids; `cnn` for pictures; a perceptron for vectors, behind `PicturesAndVectors` where
    there are pictures among them. A mask of actions is left out.
    """
    if mask is not None:
        rest = without_mask(space, mask)
        inner = network(rest, None, hidden, outputs, gain, generator, activation)
        return nn.Sequential(WithoutMask(space, mask), inner)
    if isinstance(space, spaces.Discrete):
        table = unfilled(nn.Embedding, int(space.n), outputs)
        nn.init.zeros_(table.weight)
        return table
    if is_picture(space):
        assert space.shape is not None
        scale = pixel_scale(space)
        return cnn(space.shape, outputs, gain=gain, generator=generator, scale=scale)
    if not _holds_pictures(space):
        return mlp(
            width(space), hidden, outputs, gain=gain, generator=generator, activation=activation
        )
    first = PicturesAndVectors(space, generator)
    then = mlp(first.width, hidden, outputs, gain=gain, generator=generator, activation=activation)
    return nn.Sequential(first, then)


def encoder(
    space: gymnasium.Space, hidden: tuple[int, ...], generator: torch.Generator, activation: str
) -> tuple[nn.Module, int]:
    """What turns flat features into the inputs of a GRU, and how many those are."""
    gain = math.sqrt(2)
    if is_picture(space) or _holds_pictures(space):
        size = hidden[-1] if hidden else 256
        net = network(space, None, hidden[:-1], size, gain, generator, activation)
        if is_picture(space):
            assert space.shape is not None
            net = nn.Sequential(nn.Unflatten(-1, space.shape), net)
        return nn.Sequential(net, nn.ReLU()), size
    if not hidden:
        return nn.Identity(), width(space)
    net = mlp(
        width(space), hidden[:-1], hidden[-1], gain=gain, generator=generator, activation=activation
    )
    return net.append(getattr(nn, activation)()), hidden[-1]


def with_memory(
    space: gymnasium.Space,
    hidden: tuple[int, ...],
    memory: int,
    gain: float,
    generator: torch.Generator,
    activation: str,
) -> nn.Module:
    """A network that reads recorded observations [..., D + 1 + H]."""
    if not (is_picture(space) or _holds_pictures(space)):
        inputs = width(space) + 1 + memory
        return mlp(inputs, hidden, 1, gain=gain, generator=generator, activation=activation)
    inside, encoded = encoder(space, (), generator, activation)
    last = mlp(
        encoded + 1 + memory, hidden, 1, gain=gain, generator=generator, activation=activation
    )
    return nn.Sequential(BesideMemory(inside, width(space)), last)


def trunk_of(net: nn.Module) -> tuple[nn.Module, int]:
    """A network without its last linear layer, weights shared, and how many numbers it then gives.

    Raises:
        InputError: its last layer is not linear.
    """
    if isinstance(net, Pixels):
        inner, size = trunk_of(net.net)
        return Pixels(inner, net.shape, net.channels_last, net.scale), size
    layers: list[Any] = list(net) if isinstance(net, nn.Sequential) else []
    if not layers or isinstance(layers[-1], nn.Embedding):
        raise InputError(
            f"value(trunk=policy): the policy's network {type(net).__name__} has no hidden layers "
            "to share; leave trunk out."
        )
    if isinstance(layers[-1], nn.Linear):
        return nn.Sequential(*layers[:-1]), layers[-1].in_features
    inner, size = trunk_of(layers[-1])
    return nn.Sequential(*layers[:-1], inner), size


def without_mask(space: gymnasium.Space, mask: Part) -> gymnasium.Space:
    """The space without its mask; what is left alone under "observation" stands by itself."""
    assert isinstance(space, spaces.Dict)
    rest = {key: inner for key, inner in space.spaces.items() if key != mask.path[0]}
    return rest["observation"] if rest.keys() == {"observation"} else spaces.Dict(rest)


def pixel_scale(space: gymnasium.Space) -> float:
    """What pixels are multiplied by: 1 over the highest value of bytes, 1 for floats."""
    if isinstance(space, spaces.Box) and space.dtype.kind == "u":
        return 1 / max(1.0, float(space.high.max()))
    return 1.0


def _holds_pictures(space: gymnasium.Space) -> bool:
    nested = isinstance(space, spaces.Dict | spaces.Tuple)
    return nested and any(is_picture(part.space) for part in parts(space, "environment"))
