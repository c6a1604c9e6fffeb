"""Policies with a memory: a GRU before any distribution over actions.

The recorded observation is everything the policy saw: the features o_t, a flag that says whether
the lane has just started, and the memory h before the step, side by side in the last dimension.
"""

import torch
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.policies.networks import orthogonal_, unfilled
from vantage.policies.policy import Policy


@checked
class Recurrent(Policy):
    """π(a_t | o_0 … o_t) = head(a_t | h_t), h_t = GRU(encoder(o_t), h_{t−1}), h = 0 at a start.

    `sample`, `mode` and `remember` take one step from the recorded memory: recorded observations
    are [lanes, D + 1 + H]. `log_prob` and `entropy` run along the steps of whole rows,
    [..., T, D + 1 + H], from the memory recorded at the first step of each, with the memory set to
    zero where an episode starts: gradients flow through time within the row, and a row may hold
    several episodes. Steps that were recorded with other weights are run again with these; only the
    first memory of a row is taken as recorded, without a gradient.

    Args:
        inputs: D, the size of an observation; or the number of observations where they are ids,
            which become one-hot vectors.
        head: the distribution of the action given the memory: any memoryless policy whose network
            reads [..., H].
        memory: H.
        encoder: maps features [..., D] to the GRU's inputs [..., encoded]; identity by default.
        encoded: size of what the encoder gives; D by default.
        generator: the source of the random weights of the GRU (orthogonal).
        beside: columns first to last of the features that the head reads after the memory, [..., H
            + last − first]: a mask of actions, say.

    A value function can read the recorded observation as it is: see `env.value(recurrent=...)`.

    Source: Cho et al. 2014 (GRU); Kapturowski et al. 2019 (recorded memories).
    """

    memoryless = False

    def __init__(
        self,
        inputs: int,
        head: Policy,
        memory: int = 64,
        encoder: nn.Module | None = None,
        encoded: int | None = None,
        generator: torch.Generator | None = None,
        beside: tuple[int, int] | None = None,
    ):
        for name, size in (("inputs", inputs), ("memory", memory)):
            refuse_unless(size > 0, f"Recurrent({name}={size}): must be at least 1.")
        refuse_unless(
            head.memoryless,
            f"Recurrent(head={type(head).__name__}): the head must be a memoryless policy; "
            "the memory is the GRU's.",
        )
        super().__init__()
        self.inputs, self.memory = inputs, memory
        self.encoder = nn.Identity() if encoder is None else encoder
        self.cell = unfilled(nn.GRUCell, encoded or inputs, memory)
        orthogonal_(self.cell, generator=generator or torch.Generator().manual_seed(0))
        self.head, self.beside = head, beside
        # what `sample` saw last and the memory it led to, so that `remember` need not run the GRU
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, observation: Tensor) -> Tensor:
        """The memory after every step of whole rows, [..., T, D + 1 + H] to [..., T, H]."""
        features, started, recorded = self._parts(observation)
        gates = self._input_gates(features)
        memory, memories = recorded[..., 0, :], []
        for gates_t, started_t in zip(gates.unbind(-2), started.unbind(-2), strict=True):
            memory = self._turn(gates_t, torch.where(started_t > 0, 0, memory))
            memories.append(memory)
        return torch.stack(memories, -2)

    def begin(self, lanes: int) -> Tensor:
        """Empty memories, [lanes, H]."""
        return self.cell.weight_hh.new_zeros(lanes, self.memory)

    def see(self, observation: Tensor, started: Tensor, memory: Tensor | None) -> Tensor:
        """Features, start flag and memory, [lanes, D + 1 + H]; the memory is empty at a start."""
        assert memory is not None
        if observation.dim() == 1:
            observation = nn.functional.one_hot(observation, self.inputs)
        flag = started.unsqueeze(-1)
        features = observation.flatten(1).to(memory.dtype)
        return torch.cat([features, flag.to(memory.dtype), memory.masked_fill(flag, 0)], -1)

    def remember(self, observation: Tensor) -> Tensor:
        """The memory after the step at which the policy saw `observation`, [lanes, H]."""
        if self._last is not None and self._last[0] is observation:
            return self._last[1]
        return self._step(observation)

    @torch.no_grad()
    def sample(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw actions at one step, [lanes, D + 1 + H]; returns action and log π(a|s) [lanes]."""
        memory = self._step(observation)
        self._last = (observation, memory)
        return self.head.sample(self._read(memory, observation), generator)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log π(a|s) of every step of whole rows, [..., T]."""
        return self.head.log_prob(self._read(self(observation), observation), action)

    def entropy(self, observation: Tensor) -> Tensor:
        """H(π(·|s)) at every step of whole rows in nats, [..., T]."""
        return self.head.entropy(self._read(self(observation), observation))

    def distribution(self, observation: Tensor) -> Tensor:
        """The head's, at every step of whole rows, [..., T, *law]."""
        return self.head.distribution(self._read(self(observation), observation))

    def divergence(self, first: Tensor, second: Tensor) -> Tensor:
        """As the head has it, [..., T]."""
        return self.head.divergence(first, second)

    def tells_distribution(self) -> bool:
        """As the head does."""
        return super().tells_distribution() and self.head.tells_distribution()

    @torch.no_grad()
    def mode(self, observation: Tensor) -> Tensor:
        """The likeliest action at one step, [lanes, *shape]."""
        return self.head.mode(self._read(self._step(observation), observation))

    def applied(self, action: Tensor) -> Tensor:
        """As the head has it."""
        return self.head.applied(action)

    def _read(self, memory: Tensor, observation: Tensor) -> Tensor:
        """What the head reads: the memory, and the features beside it."""
        if self.beside is None:
            return memory
        first, last = self.beside
        return torch.cat([memory, observation[..., first:last]], -1)

    def _parts(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = self.inputs + 1 + self.memory
        refuse_unless(
            observation.shape[-1] == width,
            f"Recurrent: an observation has {observation.shape[-1]} numbers where {self.inputs} "
            f"features, a start flag and {self.memory} of memory are {width}; record what "
            "`see(observation, started, memory)` returns.",
        )
        features, started, memory = observation.split([self.inputs, 1, self.memory], -1)
        return features, started, memory

    @torch.no_grad()
    def _step(self, observation: Tensor) -> Tensor:
        features, _, memory = self._parts(observation)
        return self._turn(self._input_gates(features), memory)

    def _input_gates(self, features: Tensor) -> Tensor:
        cell = self.cell
        return nn.functional.linear(self.encoder(features), cell.weight_ih, cell.bias_ih)

    def _turn(self, gates: Tensor, memory: Tensor) -> Tensor:
        """One step of the GRU, written out so that function transforms can go through it."""
        cell = self.cell
        reset, update, new = gates.chunk(3, -1)
        recurrent = nn.functional.linear(memory, cell.weight_hh, cell.bias_hh)
        own_reset, own_update, own_new = recurrent.chunk(3, -1)
        candidate = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
        return torch.lerp(candidate, memory, torch.sigmoid(update + own_update))
