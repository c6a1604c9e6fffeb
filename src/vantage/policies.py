"""Policies: a distribution over actions given an observation, with any `nn.Module` inside.

Its methods work over leading dimensions `...`: a rollout passes [lanes], a gradient [N, T].
`forward` gives the parameters of the distribution (logits, means).

The methods compute densities directly: `torch.distributions` builds an object a call, which at one
call per environment step costs more than the network of a small policy.
"""

import itertools
import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vantage.errors import refuse_unless


class Policy(nn.Module):
    """What training, auditing and evaluation ask of a policy. Subclass it for one of your own.

    Attributes:
        hidden: widths of the hidden layers where an environment made the policy, so that a run
            folder can build it again; None where it is the user's own.
        memoryless: True if log π(a_t|s_t) depends on the observation of step t alone.
    """

    hidden: tuple[int, ...] | None = None
    memoryless: bool = False

    def sample(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw actions without a graph; returns action [..., *shape] and log π(a|s) [...]."""
        raise NotImplementedError

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log π(a|s) [...], differentiable."""
        raise NotImplementedError

    def entropy(self, observation: Tensor) -> Tensor:
        """H(π(·|s)) [...] in nats, differentiable."""
        raise NotImplementedError

    def mode(self, observation: Tensor) -> Tensor:
        """The likeliest action, [..., *shape]."""
        raise NotImplementedError


class Categorical(Policy):
    """π(a|s) = softmax(net(s))_a over actions 0 .. A−1.

    Args:
        net: maps observations [..., *shape] to logits [..., A], each by itself.
    """

    memoryless = True

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid A"]:
        """Logits, [..., A]."""
        return self.net(observation)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, "*grid"], Float[Tensor, "*grid"]]:
        """Draw actions; returns action [...] and log π(a|s) [...]."""
        log_probs = torch.log_softmax(self(observation), -1)
        # Exponential race: argmin of E_a / π_a is a draw from π; one kernel, and batches of any
        # shape. A draw of exactly 0 would give 0/0 for an impossible action, hence the clamp.
        race = torch.empty_like(log_probs).exponential_(generator=generator)
        tiny = torch.finfo(race.dtype).tiny
        action = (log_probs.exp() / race.clamp_min_(tiny)).argmax(-1)
        return action, log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Int[Tensor, "*grid"]
    ) -> Float[Tensor, "*grid"]:
        """log π(a|s), [...]."""
        log_probs = torch.log_softmax(self(observation), -1)
        return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = −Σ_a π(a|s) log π(a|s) in nats, [...]."""
        log_probs = torch.log_softmax(self(observation), -1)
        return -torch.special.xlogy(log_probs.exp(), log_probs.exp()).sum(-1)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Int[Tensor, "*grid"]:
        """The likeliest action, [...]."""
        return self(observation).argmax(-1)


class SoftmaxTable(Categorical):
    """One logit per observation and action: π(a|o) = softmax(logits[o])_a.

    Its score is ∇_{logits[o', a']} log π(a|o) = 1[o = o'] (1[a = a'] − π(a'|o)).

    Args:
        observations: number of observations (states, where nothing is aliased).
        actions: number of actions.

    The logits start at zero, the uniform policy, in float64 so that exact identities hold to 1e-10.

    >>> policy = SoftmaxTable(2, 2)
    >>> policy.log_prob(torch.tensor([0]), torch.tensor([1])).exp()
    tensor([0.5000], dtype=torch.float64, grad_fn=<ExpBackward0>)
    """

    def __init__(self, observations: int, actions: int, dtype: torch.dtype = torch.float64):
        for name, count in (("observations", observations), ("actions", actions)):
            refuse_unless(count > 0, f"SoftmaxTable({name}={count}): give at least one.")
        super().__init__(nn.Identity())
        self.logits = nn.Parameter(torch.zeros(observations, actions, dtype=dtype))

    def forward(self, observation: Int[Tensor, "*grid"]) -> Float[Tensor, "*grid A"]:
        """Logits of the given observation ids, [..., A]."""
        return self.logits[observation]


class Gaussian(Policy):
    """π(a|s) = N(a; net(s), diag(σ²)) with a learned σ that does not depend on the state.

    The action is stored and scored raw. An environment with bounds clips what it receives; the
    log-probability stays that of the draw.

    Args:
        net: maps observations [..., *shape] to means [..., D].
        actions: D.
        log_std: initial log σ of every dimension.
    """

    memoryless = True

    def __init__(self, net: nn.Module, actions: int, log_std: float = 0.0):
        refuse_unless(actions > 0, f"Gaussian(actions={actions}): give at least one dimension.")
        super().__init__()
        self.net = net
        self.log_std = nn.Parameter(torch.full((actions,), float(log_std)))

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D"]:
        """Means, [..., D]."""
        return self.net(observation)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*grid D"], Float[Tensor, "*grid"]]:
        """Draw actions; returns action [..., D] and its log-density [...]."""
        mean = self(observation)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + noise * self.log_std.exp(), self._log_density(noise)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Float[Tensor, "*grid D"]
    ) -> Float[Tensor, "*grid"]:
        """Log-density of `action`, [...]."""
        return self._log_density((action - self(observation)) * (-self.log_std).exp())

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = Σ_d log σ_d + D/2 (1 + log 2π) in nats, [...]."""
        constant = 0.5 * self.log_std.numel() * (1 + math.log(2 * math.pi))
        grid = self(observation).shape[:-1]
        return (self.log_std.sum() + constant).expand(grid)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid D"]:
        """The mean, [..., D]."""
        return self(observation)

    def _log_density(self, noise: Float[Tensor, "*grid D"]) -> Float[Tensor, "*grid"]:
        constant = self.log_std.sum() + 0.5 * self.log_std.numel() * math.log(2 * math.pi)
        return -0.5 * noise.square().sum(-1) - constant


class Value(nn.Module):
    """V(s): a scalar for every observation.

    Args:
        net: maps observations [..., *shape] to [..., 1].

    Attributes:
        hidden: as in `Policy`.
    """

    hidden: tuple[int, ...] | None = None

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """V(s), [...]."""
        return self.net(observation).squeeze(-1)


def mlp(
    inputs: int, hidden: tuple[int, ...], outputs: int, *, gain: float, generator: torch.Generator
) -> nn.Sequential:
    """A perceptron with tanh between its layers, orthogonal weights and zero biases.

    Args:
        inputs, hidden, outputs: layer widths.
        gain: scale of the last layer's weights; hidden layers use √2.
        generator: the source of the random weights.
    """
    widths = (inputs, *hidden, outputs)
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
        last = i == len(widths) - 2
        nn.init.orthogonal_(layer.weight, gain if last else math.sqrt(2), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)
