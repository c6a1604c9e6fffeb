"""Policies and value functions that fit a pair of spaces."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from vantage.arguments import checked
from vantage.environments.encoders import (
    Columns,
    WithoutMask,
    encoder,
    network,
    trunk_of,
    with_memory,
)
from vantage.environments.spaces import Part, width
from vantage.errors import InputError, refuse_unless
from vantage.policies import (
    ActionValue,
    Bernoulli,
    Categorical,
    Gaussian,
    MaskedCategorical,
    MultiCategorical,
    Policy,
    Recurrent,
    SoftmaxTable,
    SquashedGaussian,
    Value,
    mlp,
    orthogonal_,
)
from vantage.policies.networks import activation_named


@checked
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
    activation: str | type[nn.Module] = "Tanh",
    mask: Part | None = None,
) -> Policy:
    """A policy that fits two spaces.

    Categorical for Discrete actions (a softmax table where observations are ids), MultiCategorical
    for MultiDiscrete, Bernoulli for MultiBinary, Gaussian for Box; MaskedCategorical where the
    observation tells which actions are allowed. Inside: a perceptron; a convolutional network where
    observations are pictures, and both where a Dict or Tuple holds pictures; orthogonal weights.
    The last layer starts small, so that the first policy is close to uniform.

    Args:
        observation, action: spaces of one lane.
        hidden: widths of the hidden layers (pictures have their own).
        seed: the seed of the initial weights.
        net: a network of your own, from observations [..., *shape] to what the distribution needs:
            logits of every choice, or means. It does not see a mask.
        squash: for Box actions with finite bounds: squash into them by tanh instead of clipping.
        log_std: initial log σ of a Gaussian.
        orthogonal: start `net` by `orthogonal_`, with gain 0.01 in its last layer; networks made
            here start so already.
        recurrent: size of the memory of a GRU; `hidden` is then what encodes an observation for it.
        activation: between hidden layers: a name of `torch.nn`, such as "relu".
        mask: where the mask of actions lies in the observation.

    Raises:
        InputError: a space or a combination that is not supported, with the remedy.
    """
    _check_sizes(hidden, recurrent)
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
    policy_: Policy
    between, outputs = activation_named(activation), _outputs(action)
    table = isinstance(observation, spaces.Discrete) and isinstance(action, spaces.Discrete)
    if recurrent is not None:
        inside, encoded = encoder(observation, tuple(hidden), generator, between)
        last: nn.Module = mlp(recurrent, (), outputs, gain=0.01, generator=generator)
        beside = None if mask is None else (mask.first, mask.last)
        if beside is not None:
            last = nn.Sequential(Columns(0, recurrent), last)
        head = _distribution(action, last, squash, log_std, recurrent if beside else None)
        inputs = width(observation)
        policy_ = Recurrent(inputs, head, recurrent, inside, encoded, generator, beside)
    elif net is None and table:
        policy_ = SoftmaxTable(width(observation), outputs)
    else:
        if net is None:
            reads = network(observation, mask, tuple(hidden), outputs, 0.01, generator, between)
        else:
            reads = _behind_mask(observation, mask, net)
        policy_ = _distribution(
            action, reads, squash, log_std, None if mask is None else mask.first
        )
    if net is not None:
        return policy_ if not orthogonal else _restarted(policy_, net, 0.01, generator)
    policy_.hidden = tuple(hidden)
    policy_.arguments = {
        "hidden": list(hidden),
        "squash": squash,
        "log_std": log_std,
        "recurrent": recurrent,
        "activation": between,
    }
    return policy_


@checked
def value(
    observation: gymnasium.Space,
    hidden: Sequence[int] = (64, 64),
    seed: int = 1,
    *,
    net: nn.Module | None = None,
    orthogonal: bool = False,
    recurrent: int | None = None,
    activation: str | type[nn.Module] = "Tanh",
    trunk: Policy | None = None,
    under: Policy | None = None,
    mask: Part | None = None,
) -> Value:
    """A value function over a space of observations, initially close to 0.

    Args:
        observation: space of one lane.
        hidden: widths of the hidden layers.
        seed: the seed of the initial weights.
        net: a network of your own, from observations [..., *shape] to [..., 1]; to [..., A] with
            `under`.
        orthogonal: gain 1 in the last layer, as PPO's reference code has it, instead of 0.01.
        recurrent: as given to `policy`. V then reads what that policy recorded: features, start
            flag and memory, each step by itself. So it is fitted in any order of steps and
            evaluated at any single observation, without running through time; gradients of its loss
            do not shape the memory.
        activation: as in `policy`.
        trunk: a policy made for this space, whose hidden layers V reads and trains too; V itself is
            one linear layer more.
        under: a policy over Discrete actions: the network is then one of Q(s, ·), a number for each
            action, and V(s) = Σ_a π(a|s) Q(s, a) their mean under that policy.
        mask: where the mask of actions lies in the observation.

    Raises:
        InputError: a trunk without hidden layers, or beside another network; a policy that the
            value is to be taken under, over other actions or beside another network.
    """
    _check_sizes(hidden, recurrent)
    generator = torch.Generator().manual_seed(seed)
    gain = 1.0 if orthogonal else 0.01
    refuse_unless(
        under is None
        or (type(under) in (Categorical, SoftmaxTable) and recurrent is None and trunk is None),
        f"value(under={type(under).__name__}): Q(s, ·) has a number for every action, of a "
        "Categorical or SoftmaxTable without a memory and without a mask of actions; leave "
        "under out, or train by another algorithm than acer.",
    )
    assert under is None or isinstance(under, Categorical)
    value_: Value
    if net is not None:
        reads = _behind_mask(observation, mask, net)
        value_ = Value(reads) if under is None else ActionValue(reads, under)
        return value_ if not orthogonal else _restarted(value_, net, gain, generator)
    between = activation_named(activation)
    if under is not None:
        every = network(observation, mask, tuple(hidden), choices(under), gain, generator, between)
        value_ = ActionValue(every, under)
    elif trunk is not None:
        refuse_unless(
            recurrent is None and not isinstance(trunk, Recurrent) and hasattr(trunk, "net"),
            f"value(trunk={type(trunk).__name__}): hidden layers can be shared with a memoryless "
            "policy that env.policy() made; leave trunk out.",
        )
        shared: Any = trunk
        body, size = trunk_of(shared.net)
        value_ = Value(nn.Sequential(body, mlp(size, (), 1, gain=gain, generator=generator)))
    elif recurrent is None:
        value_ = Value(network(observation, mask, tuple(hidden), 1, gain, generator, between))
    else:
        value_ = Value(with_memory(observation, tuple(hidden), recurrent, gain, generator, between))
    value_.hidden = tuple(hidden)
    value_.arguments = {
        "hidden": list(hidden),
        "orthogonal": orthogonal,
        "recurrent": recurrent,
        "activation": between,
    } | {name: True for name, given in (("trunk", trunk), ("under", under)) if given is not None}
    return value_


def choices(policy: Categorical) -> int:
    """How many actions a policy chooses from: A, the width of its last layer."""
    if isinstance(policy, SoftmaxTable):
        return policy.logits.shape[-1]
    return [layer for layer in policy.modules() if isinstance(layer, nn.Linear)][-1].out_features


def _behind_mask(space: gymnasium.Space, mask: Part | None, net: nn.Module) -> nn.Module:
    """A network of the user's own, which does not see the mask."""
    if mask is None:
        return net
    return nn.Sequential(WithoutMask(space, mask), net)


def _check_sizes(hidden: Sequence[int], recurrent: int | None) -> None:
    whole = isinstance(hidden, Iterable) and all(
        isinstance(width, Integral) and width >= 1 for width in hidden
    )
    refuse_unless(
        whole, f"hidden={hidden!r}: give the width of every hidden layer, such as (64, 64)."
    )
    refuse_unless(
        recurrent is None or recurrent >= 1,
        f"recurrent={recurrent}: a memory holds at least one number; None is a policy without.",
    )


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
    action: gymnasium.Space, net: nn.Module, squash: bool, log_std: float, mask: int | None
) -> Categorical | MultiCategorical | Bernoulli | Gaussian:
    """The distribution over a space; `mask` is the first column of a mask of actions."""
    if isinstance(action, spaces.Discrete):
        return Categorical(net) if mask is None else MaskedCategorical(net, mask)
    if isinstance(action, spaces.MultiDiscrete):
        return MultiCategorical(net, action.nvec.flatten().tolist())
    if isinstance(action, spaces.MultiBinary):
        return Bernoulli(net)
    assert isinstance(action, spaces.Box)
    if squash:
        low, high = (torch.from_numpy(bound.flatten()) for bound in (action.low, action.high))
        if not low.is_floating_point():
            # actions are rounded to the nearest integer: the two at the ends have their share too
            low, high = low.double() - 0.5, high.double() + 0.5
        return SquashedGaussian(net, low, high, log_std)
    return Gaussian(net, _outputs(action), log_std)


def _restarted(module: Any, net: nn.Module, gain: float, generator: torch.Generator) -> Any:
    orthogonal_(net, gain, generator)
    return module
