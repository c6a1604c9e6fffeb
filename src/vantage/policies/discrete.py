"""Policies over finitely many actions: one choice, several at once, or a set of switches."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.policies.policy import Policy


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
        log_probs = self.distribution(observation)
        action = _race(log_probs, generator)
        return action, at_action(log_probs, action)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Int[Tensor, "*grid"]
    ) -> Float[Tensor, "*grid"]:
        """log π(a|s), [...]."""
        return at_action(self.distribution(observation), action)

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = −Σ_a π(a|s) log π(a|s) in nats, [...]."""
        return _entropy(self.distribution(observation))

    def distribution(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid A"]:
        """log π(·|s), [..., A]."""
        return torch.log_softmax(self(observation), -1)

    def divergence(
        self, first: Float[Tensor, "*grid A"], second: Float[Tensor, "*grid A"]
    ) -> Float[Tensor, "*grid"]:
        """Σ_a π_1(a) (log π_1(a) − log π_2(a)) in nats, [...]."""
        return _divergence(first, second)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Int[Tensor, "*grid"]:
        """The likeliest action, [...]."""
        return self(observation).argmax(-1)


@checked
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


@checked
class MaskedCategorical(Categorical):
    """π(a|s) ∝ exp(net(s)_a) over the actions that the observation's mask allows, 0 elsewhere.

    The mask is a part of the recorded observation, so that every score, entropy and ratio is that
    of the law that was sampled.

    Args:
        net: maps observations [..., D], mask and all, to logits [..., A].
        first: where the mask begins: observation[..., first:first + A] is above 0 where an action
            is allowed. Where it allows nothing (a padded step), it is taken to allow everything.

    Source: Huang & Ontañón 2022, "A Closer Look at Invalid Action Masking".

    >>> policy = MaskedCategorical(nn.Linear(2, 2), first=0)
    >>> policy.log_prob(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).exp().item()
    1.0
    """

    def __init__(self, net: nn.Module, first: int):
        refuse_unless(first >= 0, f"MaskedCategorical(first={first}): a column, from 0.")
        super().__init__(net)
        self.first = first

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid A"]:
        """Logits, [..., A]; −∞ where the mask forbids an action."""
        logits = self.net(observation)
        allowed = observation[..., self.first : self.first + logits.shape[-1]] > 0
        allowed = allowed | ~allowed.any(-1, keepdim=True)
        return logits.masked_fill(~allowed, -torch.inf)


class MultiCategorical(Policy):
    """Several independent choices at once: π(a|s) = Π_k softmax(net(s)_k)_{a_k}.

    Args:
        net: maps observations [..., *shape] to the logits of all components, one after the other,
            [..., Σ_k A_k].
        sizes: A_k, the number of choices of every component.

    Actions are ids, [..., K].
    """

    memoryless = True
    _place: Tensor
    _outside: Tensor

    def __init__(self, net: nn.Module, sizes: Sequence[int]):
        refuse_unless(
            len(sizes) > 0 and min(sizes) > 0,
            f"MultiCategorical(sizes={list(sizes)}): give one component at least, with one choice "
            "at least each.",
        )
        super().__init__()
        self.net = net
        self.sizes = tuple(int(size) for size in sizes)
        # Components of unequal size are laid out in one table [K, largest]; `outside` is padding.
        count = torch.tensor(self.sizes)
        column = torch.arange(int(count.max()))
        place = torch.cumsum(count, 0)[:, None] - count[:, None] + column
        outside = column >= count[:, None]
        self.register_buffer("_place", place.masked_fill(outside, 0).flatten(), persistent=False)
        self.register_buffer("_outside", outside, persistent=False)

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid K A"]:
        """Logits, [..., K, max A_k], −∞ where a component has fewer choices."""
        table = self.net(observation)[..., self._place].unflatten(-1, self._outside.shape)
        return table.masked_fill(self._outside, -torch.inf)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, "*grid K"], Float[Tensor, "*grid"]]:
        """Draw actions; returns action [..., K] and log π(a|s) [...]."""
        log_probs = self.distribution(observation)
        action = _race(log_probs, generator)
        return action, at_action(log_probs, action).sum(-1)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Int[Tensor, "*grid K"]
    ) -> Float[Tensor, "*grid"]:
        """log π(a|s) = Σ_k log π_k(a_k|s), [...]."""
        return at_action(self.distribution(observation), action).sum(-1)

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = Σ_k H(π_k(·|s)) in nats, [...]."""
        return _entropy(self.distribution(observation)).sum(-1)

    def distribution(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid K A"]:
        """log π_k(·|s) of every component, [..., K, max A_k]."""
        return torch.log_softmax(self(observation), -1)

    def divergence(
        self, first: Float[Tensor, "*grid K A"], second: Float[Tensor, "*grid K A"]
    ) -> Float[Tensor, "*grid"]:
        """The sum of the components' divergences in nats, [...]."""
        return _divergence(first, second).sum(-1)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Int[Tensor, "*grid K"]:
        """The likeliest action, [..., K]."""
        return self(observation).argmax(-1)


class Bernoulli(Policy):
    """K independent switches: π(a|s) = Π_k p_k^{a_k} (1 − p_k)^{1 − a_k}, p = sigmoid(net(s)).

    Args:
        net: maps observations [..., *shape] to logits [..., K].

    Actions are 0 or 1, [..., K] int64.
    """

    memoryless = True

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid K"]:
        """Logits of 1 against 0, [..., K]."""
        return self.net(observation)

    @torch.no_grad()
    def sample(
        self, observation: Shaped[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, "*grid K"], Float[Tensor, "*grid"]]:
        """Draw actions; returns action [..., K] and log π(a|s) [...]."""
        logits = self(observation)
        uniform = torch.empty_like(logits).uniform_(generator=generator)
        action = (uniform < logits.sigmoid()).long()
        return action, _switched(logits, action)

    def log_prob(
        self, observation: Shaped[Tensor, "..."], action: Int[Tensor, "*grid K"]
    ) -> Float[Tensor, "*grid"]:
        """log π(a|s), [...]."""
        return _switched(self(observation), action)

    def entropy(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """H = Σ_k softplus(l_k) − p_k l_k in nats, [...]."""
        logits = self(observation)
        return (nn.functional.softplus(logits) - logits.sigmoid() * logits).sum(-1)

    def distribution(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid K"]:
        """Logits of 1 against 0, [..., K]."""
        return self(observation)

    def divergence(
        self, first: Float[Tensor, "*grid K"], second: Float[Tensor, "*grid K"]
    ) -> Float[Tensor, "*grid"]:
        """Σ_k p_k (l_k − m_k) + softplus(m_k) − softplus(l_k) in nats, [...].

        l and m are the logits of first and second, p = sigmoid(l).
        """
        surplus = nn.functional.softplus(second) - nn.functional.softplus(first)
        return (first.sigmoid() * (first - second) + surplus).sum(-1)

    @torch.no_grad()
    def mode(self, observation: Shaped[Tensor, "..."]) -> Int[Tensor, "*grid K"]:
        """The likeliest action, [..., K]."""
        return (self(observation) > 0).long()


def _race(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw from every row of [..., A] log-probabilities, [...].

    Exponential race: argmin of E_a / π_a is a draw from π; one kernel, and batches of any shape.
    """
    race = torch.empty_like(log_probs).exponential_(generator=generator)
    # a draw of exactly 0 would give 0/0 for an impossible action
    return (log_probs.exp() / race.clamp_min_(torch.finfo(race.dtype).tiny)).argmax(-1)


def at_action(every: Tensor, action: Tensor) -> Tensor:
    """The entry of the action that was taken, of numbers for every action [..., A]."""
    return every.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def _entropy(log_probs: Tensor) -> Tensor:
    """−Σ_a π_a log π_a; where π_a = 0 both the term and its gradient are 0."""
    finite = log_probs.clamp_min(torch.finfo(log_probs.dtype).min)
    return -(log_probs.exp() * finite).sum(-1)


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Σ_a π_1 (log π_1 − log π_2); where both are 0 the term and its derivatives are 0."""
    lowest = torch.finfo(first.dtype).min
    return (first.exp() * (first.clamp_min(lowest) - second.clamp_min(lowest))).sum(-1)


def _switched(logits: Tensor, action: Tensor) -> Tensor:
    # log σ(l) = −softplus(−l), log(1 − σ(l)) = −softplus(l)
    return -nn.functional.softplus(torch.where(action > 0, -logits, logits)).sum(-1)
