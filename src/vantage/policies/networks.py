"""Networks: perceptrons, the convolutional network of pixels, V, and how their weights start."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.runs.threads import torch_threads

M = TypeVar("M", bound=nn.Module)

SMALLEST_PICTURE = 36  # pixels: what the kernels and strides of Mnih et al. need
MNIH = (((8, 4, 32), (4, 2, 64), (3, 1, 64)), 512)  # kernel, stride, filters; width after them
YOUNG = (((3, 1, 16),), 128)
ACTIVATIONS = ("Tanh", "ReLU", "ELU", "GELU", "LeakyReLU", "SELU", "SiLU", "Softplus", "Mish")


def activation_named(name: str | type[nn.Module]) -> str:
    """The name in `torch.nn` of an activation: "relu", "ReLU" or `torch.nn.ReLU`.

    Raises:
        InputError: none of those known.
    """
    text = name.__name__ if isinstance(name, type) else str(name)
    known = {each.lower(): each for each in ACTIVATIONS}
    refuse_unless(
        text.lower() in known,
        f"activation={name!r}: there are {', '.join(ACTIVATIONS)}; for another, give a network of "
        "your own, net=....",
    )
    return known[text.lower()]


class Value(nn.Module):
    """V(s): a scalar for every observation.

    Args:
        net: maps observations [..., *shape] to [..., 1].

    Attributes:
        hidden, arguments: as in `Policy`.
    """

    hidden: tuple[int, ...] | None = None
    arguments: dict[str, object] | None = None

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """V(s), [...]."""
        return self.net(observation).squeeze(-1)


def unfilled(kind: Callable[..., M], *sizes: Any, **settings: Any) -> M:
    """A module of `torch.nn` on the processor, whose parameters its maker fills from a generator.

    The global generator is left where it was. `nn.utils.skip_init` gives the same by way of the
    "meta" device, for which torch loads the algebra of its compiler: a second, once a process.

    Args:
        kind: its class.
        *sizes, **settings: what the class takes, but for `device`.
    """
    with torch.random.fork_rng(devices=[]):
        return kind(*sizes, device="cpu", **settings)


def mlp(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    *,
    gain: float,
    generator: torch.Generator,
    activation: str = "Tanh",
) -> nn.Sequential:
    """A perceptron with orthogonal weights and zero biases.

    Args:
        inputs, hidden, outputs: layer widths.
        gain: scale of the last layer's weights; hidden layers use √2.
        generator: the source of the random weights.
        activation: between its layers, by its name in `torch.nn`; see `activation_named`.
    """
    between = getattr(nn, activation_named(activation))
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise((inputs, *hidden, outputs)):
        layers += [unfilled(nn.Linear, fan_in, fan_out), between()]
    net = nn.Sequential(*layers[:-1])
    orthogonal_(net, gain, generator)
    return net


def cnn(
    shape: Sequence[int],
    outputs: int,
    *,
    gain: float,
    generator: torch.Generator,
    scale: float = 1 / 255,
) -> "Pixels":
    """A convolutional network for pictures [..., *shape], uint8 or float, of any size.

    That of Mnih et al. 2015 from 36 pixels each way; for smaller pictures that of Young & Tian 2019
    (MinAtar): 16 filters of 3 × 3, then 128 units.

    Args:
        shape: the shape of one picture: [height, width], [height, width, channels] or [channels,
            height, width]; channels come first where the first size is the smaller.
        outputs: width of the last layer.
        gain: scale of the last layer's weights; the others use √2.
        generator: the source of the random weights.
        scale: what pixels are multiplied by: 1/255 for bytes.

    Raises:
        InputError: a shape of other than two or three dimensions.
    """
    shape = tuple(int(size) for size in shape)
    refuse_unless(
        len(shape) in (2, 3) and min(shape) > 0,
        f"cnn(shape={shape}): a picture has height and width, and may have channels.",
    )
    last = len(shape) == 3 and shape[2] <= shape[0]
    channels, height, width = (1, *shape)[-3:]
    if last:
        height, width, channels = shape
    layers: list[nn.Module] = []
    filters, units = MNIH if min(height, width) >= SMALLEST_PICTURE else YOUNG
    for size, stride, depth in filters:
        kernel = (min(size, height), min(size, width))
        layers += [unfilled(nn.Conv2d, channels, depth, kernel, stride), nn.ReLU()]
        height, width = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
        channels = depth
    layers += [nn.Flatten(), unfilled(nn.Linear, channels * height * width, units)]
    layers += [nn.ReLU(), unfilled(nn.Linear, units, outputs)]
    net = nn.Sequential(*layers)
    orthogonal_(net, gain, generator)
    return Pixels(net, shape, channels_last=last, scale=scale)


class Pixels(nn.Module):
    """Feeds pictures with any leading dimensions to a network of [M, channels, height, width].

    Args:
        net: the network.
        shape: the shape of one picture.
        channels_last: whether its channels are its last dimension.
        scale: what pixels are multiplied by.
    """

    def __init__(self, net: nn.Module, shape: tuple[int, ...], channels_last: bool, scale: float):
        super().__init__()
        self.net, self.shape, self.channels_last, self.scale = net, shape, channels_last, scale

    def forward(self, observation: Tensor) -> Tensor:
        """[..., *shape] to [..., outputs]."""
        grid = observation.shape[: observation.dim() - len(self.shape)]
        pictures = observation.reshape(-1, *self.shape)
        if self.channels_last:
            pictures = pictures.movedim(-1, 1)
        elif len(self.shape) == 2:
            pictures = pictures.unsqueeze(1)
        weight = next(self.net.parameters())
        return self.net(pictures.to(weight.dtype) * self.scale).reshape(*grid, -1)


def orthogonal_(
    module: nn.Module,
    output_gain: float = math.sqrt(2),
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Start a network as PPO's reference code does; returns the module, changed in place.

    Orthogonal weights, with gain √2 in hidden layers and `output_gain` in the last (0.01 for a
    policy, 1 for a value function); zero biases. The weights of a GRU are orthogonal with gain 1,
    gate by gate. Other parameters are left alone.

    Args:
        module: any network; its linear, convolutional and GRU layers are started anew, in order.
        output_gain: gain of the last linear or convolutional layer.
        generator: the source of the random weights; the global one is never touched. None: seed 0.

    Source: Engstrom et al. 2020; Huang et al. 2022, detail 2.
    """
    generator = generator or torch.Generator().manual_seed(0)
    parts = [layer for layer in module.modules() if isinstance(layer, _WITH_WEIGHTS)]
    outputs = [layer for layer in parts if not isinstance(layer, nn.GRUCell)][-1:]
    with torch_threads(1):  # the factorisation rounds otherwise on each number of threads
        for layer in parts:
            gain = output_gain if layer in outputs else math.sqrt(2)
            for name, weights in layer.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(weights)
                elif isinstance(layer, nn.GRUCell):
                    for gate in weights.data.chunk(3):
                        nn.init.orthogonal_(gate, generator=generator)
                else:
                    nn.init.orthogonal_(weights, gain, generator=generator)
    return module


_WITH_WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.GRUCell)
