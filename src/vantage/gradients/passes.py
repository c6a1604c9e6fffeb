"""Optimisation passes over a policy and a value function: weights in, parameter gradients out.

An update rule looks at the same steps many times. Each look is a forward pass, which says how
likely the actions are now, and a backward pass of

    objective = Σ w log π(a|s) + Σ u H(π(·|s)) − Σ ½-loss of V,   whose gradient is left in `.grad`

negated, as torch's optimisers want it. The weights w and u come from an Estimator, without a graph;
so does the slope of the value's loss. `Passes` says what such a pair of passes must offer, and
`AutogradPasses` offers it for modules of any kind. `mlp_passes.MlpPasses` writes the same passes
out by hand for perceptrons, where a graph costs several times what the arithmetic does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vantage.gradients.recorded import Recorded
from vantage.policies import Policy


@runtime_checkable
class Passes(Protocol):
    """Forward and backward over one set of steps at a time.

    Attributes:
        policy: the policy whose parameters these are.
        value: the value function whose parameters these are, or None.
        parameters: what the optimiser steps: the policy's and the value function's parameters, or
            one flat parameter that holds them all.
        recorded: recordings of what is done with these passes, by name, made where they are asked
            for; None where these passes, or their device, cannot be recorded.
    """

    policy: Policy
    value: nn.Module | None
    parameters: list[nn.Parameter]
    recorded: dict[object, Recorded] | None

    def acting(self, steps: int, lanes: int, generator: torch.Generator) -> "Acting":
        """Draws the actions of `steps` steps of all lanes, all random numbers from `generator`."""
        ...

    def forward(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*grid"], Float[Tensor, "*grid"] | None]:
        """log π(a|s) and V(s) [...], detached; V is None without a value function."""
        ...

    def backward(
        self,
        weight: Float[Tensor, "*grid"],
        entropy_weight: Float[Tensor, "*grid"] | None = None,
        value_slope: Float[Tensor, "*grid"] | None = None,
    ) -> None:
        """Set `.grad` from the last forward pass.

        Args:
            weight: the weight of log π(a|s), uphill.
            entropy_weight: the weight of H(π(·|s)), uphill; None: no entropy bonus.
            value_slope: the slope of the loss in V(s), downhill.
        """
        ...

    def values(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"] | None:
        """V(s) alone; None without a value function."""
        ...

    def clip(self, longest: float) -> Tensor:
        """Shorten the whole gradient to `longest` if it is longer; returns its norm before."""
        ...

    def policy_gradient(self) -> Float[Tensor, " P"]:
        """The policy's part of the last backward pass, flat and uphill; a copy."""
        ...


@runtime_checkable
class Acting(Protocol):
    """The policy at work in a rollout, without a graph."""

    def __call__(self, step: int, observation: Shaped[Tensor, "lanes ..."]) -> Tensor:
        """The actions of step t = 0, 1, ... [lanes, ...]."""
        ...

    def scored(
        self, observation: Shaped[Tensor, "lanes T ..."], action: Shaped[Tensor, "lanes T ..."]
    ) -> tuple[Float[Tensor, "lanes T"], Float[Tensor, "lanes T"]]:
        """log π(a|s) and H(π(·|s)) of all steps drawn, from what was found when they were."""
        ...


class Sampling:
    """`Acting` by `Policy.sample`."""

    def __init__(self, policy: Policy, generator: torch.Generator):
        self.policy, self.generator = policy, generator
        self.log_prob: list[Tensor] = []

    def __call__(self, step: int, observation: Tensor) -> Tensor:
        """The actions of a step."""
        action, log_prob = self.policy.sample(observation, self.generator)
        self.log_prob.append(log_prob)
        return action

    def scored(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """log π(a|s) and H(π(·|s)) of all steps drawn."""
        return torch.stack(self.log_prob, 1), self.policy.entropy(observation)


@dataclass
class AutogradPasses:
    """`Passes` for any policy and value function, by automatic differentiation."""

    policy: Policy
    value: nn.Module | None = None
    recorded: dict[object, Recorded] | None = None

    def __post_init__(self) -> None:
        modules: Iterable[nn.Module] = [m for m in (self.policy, self.value) if m is not None]
        every = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
        self.parameters = list(every.values())

    def acting(self, steps: int, lanes: int, generator: torch.Generator) -> "Sampling":
        """Draw by `Policy.sample`, one step at a time."""
        return Sampling(self.policy, generator)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """log π(a|s) and V(s), detached."""
        self._observation = observation
        with torch.enable_grad():
            self._log_prob = self.policy.log_prob(observation, action)
            self._value = None if self.value is None else self.value(observation)
        return self._log_prob.detach(), None if self._value is None else self._value.detach()

    def backward(
        self,
        weight: Tensor,
        entropy_weight: Tensor | None = None,
        value_slope: Tensor | None = None,
    ) -> None:
        """Set `.grad` from the last forward pass."""
        for parameter in self.parameters:
            parameter.grad = None
        with torch.enable_grad():
            loss = -(weight * self._log_prob).sum()
            if entropy_weight is not None:
                loss = loss - (entropy_weight * self.policy.entropy(self._observation)).sum()
            if value_slope is not None and self._value is not None:
                loss = loss + (value_slope * self._value).sum()
        loss.backward()

    @torch.no_grad()
    def values(self, observation: Tensor) -> Tensor | None:
        """V(s) alone."""
        return None if self.value is None else self.value(observation)

    def clip(self, longest: float) -> Tensor:
        """Shorten the whole gradient to `longest` if it is longer."""
        return nn.utils.clip_grad_norm_(self.parameters, longest)

    def policy_gradient(self) -> Tensor:
        """The policy's part of the last backward pass, flat and uphill."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        return -torch.cat([g.flatten() for g in grads])
