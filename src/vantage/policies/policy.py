"""What training, auditing and evaluation ask of a policy."""

from typing import Any

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """A distribution over actions given an observation. Subclass it for one of your own.

    A policy with a memory sees more than the environment shows: `begin`, `see` and `remember` let a
    rollout put all of it into the recorded observation, so that a Batch needs no further field and
    `log_prob(observation, action)` stays a function of the record. A policy without one leaves
    the three as they are, at no cost:

        memory = policy.begin(lanes)
        seen = policy.see(observation, started, memory)      # what is recorded
        action, log_prob = policy.sample(seen, generator)
        memory = policy.remember(seen)
        env.step(policy.applied(action))

    Attributes:
        hidden: widths of the hidden layers where an environment made the policy; None where it is
            the user's own.
        made: the keyword arguments of `env.policy` that build a network of this shape again; None
            where only its owner can.
        memoryless: True if log π(a_t|s_t) depends on the observation of step t alone. Rows of a
            batch must be kept whole for a policy that is not.
    """

    hidden: tuple[int, ...] | None = None
    made: dict[str, Any] | None = None
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

    def applied(self, action: Tensor) -> Tensor:
        """What the environment is given where `action` was drawn and recorded: the same."""
        return action

    def begin(self, lanes: int) -> Tensor | None:
        """The memory of every lane before its first step, [lanes, H]; None without one."""
        return None

    def see(self, observation: Tensor, started: Tensor, memory: Tensor | None) -> Tensor:
        """All that the policy sees at this step, [lanes, ...]: what the rollout records.

        Args:
            observation: of the environment, [lanes, ...].
            started: [lanes] True where it is the first of an episode.
            memory: as `begin` or `remember` gave it.
        """
        return observation

    def remember(self, seen: Tensor) -> Tensor | None:
        """The memory after the step at which the policy saw `seen`, [lanes, H]; None without."""
        return None
