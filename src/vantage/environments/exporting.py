"""A policy with its normaliser and bounds as one network: what it does, for other runtimes."""

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from vantage.environments.spaces import is_picture, width
from vantage.policies import Policy


class Standardised(nn.Module):
    """`Normalized.normalised_observation` with the statistics as they are now.

    Args:
        mean, scale: of every column, [D], float64.
        clip: bound of the result.
        kept: columns, first to last, that stay as they are.
    """

    mean: Tensor
    scale: Tensor
    touched: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, clip: float, untouched: list[tuple[int, int]]):
        super().__init__()
        touched = torch.ones_like(mean, dtype=torch.bool)
        for first, last in untouched:
            touched[first:last] = False
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer("touched", touched)
        self.clip = clip

    def forward(self, observation: Tensor) -> Tensor:
        """[n, ...] to the same."""
        flat = observation.flatten(1)
        standard = ((flat - self.mean) * self.scale).clamp(-self.clip, self.clip)
        mixed = torch.where(self.touched, standard.to(flat.dtype), flat)
        return mixed.reshape(observation.shape)


class Acting(nn.Module):
    """The likeliest action in the environment's own terms, as `act(deterministic=True)` gives it.

    Args:
        policy: whose actions they are.
        observations, actions: spaces of one lane.
        normaliser: applied to observations, or None.
    """

    low: Tensor
    high: Tensor
    start: Tensor

    def __init__(
        self,
        policy: Policy,
        observations: gymnasium.Space,
        actions: gymnasium.Space,
        normaliser: nn.Module | None,
    ):
        super().__init__()
        self.policy, self.normaliser = policy, normaliser
        self.observations, self.actions = observations, actions
        self.ids = isinstance(observations, spaces.Discrete)
        self.first = int(getattr(observations, "start", 0)) if self.ids else 0
        self.flat = isinstance(observations, spaces.Box) and not is_picture(observations)
        if isinstance(actions, spaces.Box):
            self.register_buffer("low", torch.from_numpy(actions.low.copy()))
            self.register_buffer("high", torch.from_numpy(actions.high.copy()))
        start = torch.as_tensor(getattr(actions, "start", 0))
        self.register_buffer("start", start)

    def forward(self, observation: Tensor, *memory: Tensor) -> object:
        """Actions [n, ...]; of a policy with a memory, also the memory [n, H] for the next call.

        Args:
            observation: [n, ...] as the environment shows it; Dict, Tuple and MultiDiscrete
                flattened as `gymnasium.spaces.flatten` does it.
            memory: [n, H], zeros where an episode begins; for a policy that has one.
        """
        inputs = observation - self.first if self.ids else observation
        inputs = inputs.reshape(inputs.shape[0], -1) if self.flat else inputs
        inputs = inputs if self.normaliser is None else self.normaliser(inputs)
        if not memory:
            return self._written(self.policy.mode(inputs))
        # the flag that says where an episode begins changes nothing where the memory is empty
        going_on = torch.zeros_like(memory[0][:, 0], dtype=torch.bool)
        what = self.policy.see(inputs, going_on, memory[0])
        return self._written(self.policy.mode(what)), self.policy.remember(what)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of two lanes, zeros where they can be."""
        space = self.observations
        if self.ids:
            observation = torch.full((2,), self.first, dtype=torch.int64)
        elif isinstance(space, spaces.Box):
            kind = torch.uint8 if is_picture(space) and space.dtype.kind == "u" else torch.float32
            observation = torch.zeros(2, *space.shape, dtype=kind)
        else:
            observation = torch.zeros(2, width(space))
        memory = self.policy.begin(2)
        return (observation,) if memory is None else (observation, memory)

    def _written(self, action: Tensor) -> Tensor:
        action = self.policy.applied(action)
        shape = self.actions.shape or ()
        if len(shape) > 1 or isinstance(self.actions, spaces.Box):
            action = action.reshape(-1, *shape)
        if isinstance(self.actions, spaces.Box):
            return torch.minimum(torch.maximum(action, self.low), self.high)
        return action + self.start
