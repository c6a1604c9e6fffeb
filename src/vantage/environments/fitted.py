"""Policies and value functions that fit a pair of spaces."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from vantage.environments.spaces import is_picture, width
from vantage.errors import InputError, refuse_unless
from vantage.policies import (
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    Policy,
    Recurrent,
    SoftmaxTable,
    SquashedGaussian,
    Value,
    cnn,
    mlp,
    orthogonal_,
)


def policy(
    observation: gymnasium.Space,
    action: gymnasium.Space,
    hidden: Sequence[int] = (64, 64),
    seed: int = 0,
    *,
    net: nn.Module | None = None,
    squash: bool = False,
    log_std: float = 0.0,
    orthogonal: bool = False,
    recurrent: int | None = None,
) -> Policy:
    """A policy that fits two spaces.

    Categorical for Discrete actions (a softmax table where observations are ids), MultiCategorical
    for MultiDiscrete, Bernoulli for MultiBinary, Gaussian for Box. Inside: a perceptron, or the
    convolutional network of Mnih et al. 2015 where observations are pictures, with orthogonal
    weights. The last layer starts small, so that the first policy is close to uniform.

    Args:
        observation, action: spaces of one lane.
        hidden: widths of the hidden layers (pictures have their own).
        seed: of the initial weights.
        net: a network of your own, from observations [..., *shape] to what the distribution needs:
            logits of every choice, or means.
        squash: for Box actions with finite bounds: squash into them by tanh instead of clipping.
        log_std: initial log σ of a Gaussian.
        orthogonal: start `net` by `orthogonal_`, with gain 0.01 in its last layer; networks made
            here start so already.
        recurrent: size of the memory of a GRU; `hidden` is then what encodes an observation for it.

    Raises:
        InputError: a space or a combination that is not supported, with the remedy.
    """
    generator = torch.Generator().manual_seed(seed)
    refuse_unless(
        not squash or isinstance(action, spaces.Box),
        f"policy(squash=True): only Box actions can be squashed; this action space is {action}.",
    )
    refuse_unless(
        net is None or recurrent is None,
        f"policy(net=..., recurrent={recurrent}): build it yourself: vantage.Recurrent(inputs, "
        "head, memory, encoder=net).",
    )
    made: Policy
    outputs = _outputs(action)
    ids = isinstance(observation, spaces.Discrete)
    if recurrent is not None:
        encoder, encoded = _encoder(observation, tuple(hidden), generator)
        last = mlp(recurrent, (), outputs, gain=0.01, generator=generator)
        head = _distribution(action, last, squash, log_std)
        made = Recurrent(width(observation), head, recurrent, encoder, encoded, generator)
    elif net is None and ids and isinstance(action, spaces.Discrete):
        assert isinstance(observation, spaces.Discrete)
        made = SoftmaxTable(int(observation.n), outputs)
    else:
        inside = net or _net(observation, tuple(hidden), outputs, 0.01, generator)
        made = _distribution(action, inside, squash, log_std)
    if net is not None:
        return made if not orthogonal else _restarted(made, net, 0.01, generator)
    made.hidden = tuple(hidden)
    made.made = {
        "hidden": list(hidden),
        "squash": squash,
        "log_std": log_std,
        "recurrent": recurrent,
    }
    return made


def value(
    observation: gymnasium.Space,
    hidden: Sequence[int] = (64, 64),
    seed: int = 1,
    *,
    net: nn.Module | None = None,
    orthogonal: bool = False,
    recurrent: int | None = None,
) -> Value:
    """A value function over a space of observations, initially close to 0.

    Args:
        observation: space of one lane.
        hidden: widths of the hidden layers.
        seed: of the initial weights.
        net: a network of your own, from observations [..., *shape] to [..., 1].
        orthogonal: gain 1 in the last layer, as PPO's reference code has it, instead of 0.01.
        recurrent: as given to `policy`. V then reads what that policy recorded: features, start
            flag and memory, each step by itself. So it is fitted in any order of steps and
            evaluated at any single observation, without running through time; gradients of its loss
            do not shape the memory.
    """
    generator = torch.Generator().manual_seed(seed)
    gain = 1.0 if orthogonal else 0.01
    if net is not None:
        made = Value(net)
        return made if not orthogonal else _restarted(made, net, gain, generator)
    if recurrent is None:
        made = Value(_net(observation, tuple(hidden), 1, gain, generator))
    else:
        made = Value(_with_memory(observation, tuple(hidden), recurrent, gain, generator))
    made.hidden = tuple(hidden)
    made.made = {"hidden": list(hidden), "orthogonal": orthogonal, "recurrent": recurrent}
    return made


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


def _outputs(action: gymnasium.Space) -> int:
    """How many numbers a network gives for a distribution over a space."""
    if isinstance(action, spaces.Discrete):
        return int(action.n)
    if isinstance(action, spaces.MultiDiscrete):
        return int(action.nvec.sum())
    if isinstance(action, spaces.MultiBinary | spaces.Box):
        return int(np.prod(action.shape))
    raise InputError(
        f"policy: action space {action} is not supported; Discrete, MultiDiscrete, MultiBinary and "
        "Box are."
    )


def _distribution(
    action: gymnasium.Space, net: nn.Module, squash: bool, log_std: float
) -> Categorical | MultiCategorical | Bernoulli | Gaussian:
    if isinstance(action, spaces.Discrete):
        return Categorical(net)
    if isinstance(action, spaces.MultiDiscrete):
        return MultiCategorical(net, action.nvec.flatten().tolist())
    if isinstance(action, spaces.MultiBinary):
        return Bernoulli(net)
    assert isinstance(action, spaces.Box)
    if squash:
        low, high = (torch.from_numpy(bound.flatten()) for bound in (action.low, action.high))
        return SquashedGaussian(net, low, high, log_std)
    return Gaussian(net, _outputs(action), log_std)


def _net(
    space: gymnasium.Space,
    hidden: tuple[int, ...],
    outputs: int,
    gain: float,
    generator: torch.Generator,
) -> nn.Module:
    if isinstance(space, spaces.Discrete):
        table = nn.utils.skip_init(nn.Embedding, int(space.n), outputs)
        nn.init.zeros_(table.weight)
        return table
    if is_picture(space):
        assert space.shape is not None
        return cnn(space.shape, outputs, gain=gain, generator=generator, scale=_scale(space))
    return mlp(width(space), hidden, outputs, gain=gain, generator=generator)


def _encoder(
    space: gymnasium.Space, hidden: tuple[int, ...], generator: torch.Generator
) -> tuple[nn.Module, int]:
    """What turns flat features into the inputs of a GRU, and how many those are."""
    if is_picture(space):
        assert space.shape is not None
        size, gain = hidden[-1] if hidden else 256, math.sqrt(2)
        pixels = cnn(space.shape, size, gain=gain, generator=generator, scale=_scale(space))
        return nn.Sequential(nn.Unflatten(-1, space.shape), pixels, nn.ReLU()), size
    if not hidden:
        return nn.Identity(), width(space)
    net = mlp(width(space), hidden[:-1], hidden[-1], gain=math.sqrt(2), generator=generator)
    return net.append(nn.Tanh()), hidden[-1]


def _with_memory(
    space: gymnasium.Space,
    hidden: tuple[int, ...],
    memory: int,
    gain: float,
    generator: torch.Generator,
) -> nn.Module:
    """A network that reads recorded observations [..., D + 1 + H]."""
    if not is_picture(space):
        return mlp(width(space) + 1 + memory, hidden, 1, gain=gain, generator=generator)
    encoder, encoded = _encoder(space, (), generator)
    last = mlp(encoded + 1 + memory, hidden, 1, gain=gain, generator=generator)
    return nn.Sequential(BesideMemory(encoder, width(space)), last)


def _scale(space: gymnasium.Space) -> float:
    return 1 / 255 if space.dtype == np.uint8 else 1.0


def _restarted(made: Any, net: nn.Module, gain: float, generator: torch.Generator) -> Any:
    orthogonal_(net, gain, generator)
    return made
