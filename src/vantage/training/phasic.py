"""Phasic policy gradient: PPO's epochs, and now and then a phase that trains V twice.

A network that gives both π and V learns features for both, but each loss pulls at them while the
other is small; two networks share nothing. Here policy and value function are two networks, and
after every N_π updates, the policy phase, comes an auxiliary phase over all their batches: V is
fitted to them once more, and a second value head, which reads the policy's hidden layers, is fitted
through these, while KL(π_old ‖ π) to the policy from before the phase holds what it does.

    L_joint = ½ mean (V_π(s) − V̂)² + β mean KL(π_old(·|s) ‖ π(·|s))     V_π the head on π's layers
    L_value = ½ mean (V(s) − V̂)²                                        V̂ as when collected
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.environments.encoders import trunk_of
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes
from vantage.policies import Policy, Value, mlp
from vantage.training.adam import Adam
from vantage.training.epochs import Epochs
from vantage.training.interface import Memory, OptimizerFactory, refuse_unless_finite
from vantage.training.minibatches import permutation

HEAD = "auxiliary"  # the head in the memory, and the optimiser of its phase


@checked
@dataclass(frozen=True)
class Phasic(Epochs):
    """An update rule: `Epochs`, and after every `phase` updates an auxiliary phase over them all.

    What is kept meanwhile, the observation and the value target of every step of up to `phase`
    batches, is a part of every checkpoint.

    Attributes:
        phase: N_π, the updates of a policy phase.
        auxiliary_epochs: E_aux, passes over all batches of the phase.
        auxiliary_minibatches: optimiser steps of such a pass for each batch of the phase; single
            steps are shuffled across batches.
        beta_clone: β, the weight of KL(π_old ‖ π).
        auxiliary_lr: the learning rate of the auxiliary phase, an Adam of its own with the same ε;
            the schedule scales it, too.
        epochs, minibatches, value_coefficient, value_clip, standardise, target_kl, refresh, lr,
            eps: those of `Epochs`, for every batch as it comes; epochs are E_π and E_V in one, of
            policy and V alike.
        max_grad_norm: longest gradient of the policy phase that is let through to the optimiser.

    Source: Cobbe et al. 2021, algorithm 1; the defaults are those published with it.
    """

    phase: int = 32
    auxiliary_epochs: int = 6
    auxiliary_minibatches: int = 16
    beta_clone: float = 1.0
    auxiliary_lr: float = 5e-4
    epochs: int = 1
    minibatches: int = 8
    lr: float = 5e-4
    eps: float = 1e-8
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("phase", "auxiliary_epochs", "auxiliary_minibatches"):
            count = getattr(self, name)
            refuse_unless(count >= 1, f"Phasic({name}={count}): must be at least 1.")
        refuse_unless(
            self.beta_clone >= 0, f"Phasic(beta_clone={self.beta_clone}): must be at least 0."
        )
        refuse_unless(
            self.auxiliary_lr > 0, f"Phasic(auxiliary_lr={self.auxiliary_lr}): must be positive."
        )

    def memory(self, passes: Passes, generator: torch.Generator) -> Memory:
        """The auxiliary value head, its first weights drawn from `generator`, and no batch yet.

        Raises:
            InputError: there is no value function; a policy that has a memory, shares no hidden
                layers, or knows no KL.
        """
        policy, name = passes.policy, type(passes.policy).__name__
        refuse_unless(
            passes.value is not None,
            "Phasic fits V once more after every phase, and there is none; give value=env.value().",
        )
        refuse_unless(
            policy.memoryless and policy.tells_distribution(),
            f"Phasic holds a policy by its KL, step by step, and a {name} tells none: it has a "
            "memory, or no distribution(observation) and divergence(first, second); train by "
            "vt.algorithms.ppo().",
        )
        body, size = _trunk(policy)
        head = Value(mlp(size, (), 1, gain=0.01, generator=generator))
        return Memory({HEAD: head.to(next(body.parameters()))})

    def optimizers(
        self,
        passes: Passes,
        factory: OptimizerFactory | None,
        lr: float | None,
        *,
        memory: Memory | None = None,
    ) -> dict[str, Optimizer]:
        """That of `Epochs`, and one of the auxiliary phase for both networks and the head."""
        assert memory is not None
        modules = [passes.policy, passes.value, memory.modules[HEAD]]
        every = {id(p): p for m in modules if m is not None for p in m.parameters()}
        trained = [p for p in every.values() if p.requires_grad]
        auxiliary = partial(Adam, lr=self.auxiliary_lr, eps=self.eps)
        return super().optimizers(passes, factory, lr) | {HEAD: auxiliary(trained)}

    @torch.no_grad()
    def update(
        self,
        passes: Passes,
        optimizers: dict[str, Optimizer],
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        *,
        gradient: Tensor | None = None,
        stale: bool = False,
        factor: float = 1.0,
        memory: Memory | None = None,
    ) -> dict[str, Any]:
        """Step through the batch and keep it; end a phase where it was the last of it.

        Returns:
            The metrics of `Epochs`; `phase`, which update of its phase this was, from 1; at its end
            also means over the last epoch of the auxiliary phase: `auxiliary/kl`, KL(π_old ‖ π),
            and the mean squared errors `auxiliary/value_loss` of V, `auxiliary/head_loss` of V_π.

        Raises:
            NonFiniteError: of a gradient, or of a loss of the auxiliary phase.
            InputError: a batch too small for its minibatches.
        """
        assert memory is not None
        refuse_unless(
            batch.steps >= self.auxiliary_minibatches,
            f"Phasic(auxiliary_minibatches={self.auxiliary_minibatches}): the batch has "
            f"{batch.steps} steps; use fewer minibatches, or a larger batch.",
        )
        metrics, weighed = self.stepped(
            passes, optimizers["policy"], estimator, batch, generator, stale
        )
        assert weighed.target is not None
        number = len(memory.tensors) // 2 + 1
        memory.tensors = memory.tensors | {
            f"observation.{number}": batch.observation[batch.mask],
            f"target.{number}": weighed.target[batch.mask],
        }
        metrics |= {"phase": number}
        if number == self.phase:
            pieces = self._auxiliary_phase(passes, optimizers[HEAD], memory, generator)
            refuse_unless_finite(
                torch.stack(list(pieces.values())),
                batch,
                "A loss of the auxiliary phase",
                "The last checkpoint holds the policy from before.",
            )
            metrics |= {f"auxiliary/{name}": each.item() for name, each in pieces.items()}
            memory.tensors = {}
        return metrics

    def _auxiliary_phase(
        self,
        passes: Passes,
        optimizer: Optimizer,
        memory: Memory,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """All epochs over all batches in memory; means over the last epoch, by name."""
        policy, head, value = passes.policy, memory.modules[HEAD], passes.value
        assert value is not None
        before = copy.deepcopy(policy, {id(policy.terms): policy.terms}).requires_grad_(False)
        batches = range(1, self.phase + 1)
        observation, target = (
            torch.cat([memory.tensors[f"{name}.{number}"] for number in batches])
            for name in ("observation", "target")
        )
        count = self.auxiliary_minibatches * self.phase
        for _ in range(self.auxiliary_epochs):
            order = permutation(len(target), target.device, generator)
            every = []
            for index in order.tensor_split(count):
                # in place: passes by hand write into these gradients, too
                optimizer.zero_grad(set_to_none=False)
                with torch.enable_grad():
                    pieces = auxiliary_losses(
                        policy, before, head, value, observation[index], target[index]
                    )
                    errors = pieces["head_loss"] + pieces["value_loss"]
                    (errors / 2 + self.beta_clone * pieces["kl"]).backward()
                optimizer.step()
                every.append({name: each.detach() * len(index) for name, each in pieces.items()})
        return {name: torch.stack([e[name] for e in every]).sum() / len(target) for name in pieces}


def auxiliary_losses(
    policy: Policy,
    before: Policy,
    head: nn.Module,
    value: nn.Module,
    observation: Tensor,
    target: Tensor,
) -> dict[str, Tensor]:
    """What the auxiliary phase makes small, by name, each a mean over M steps.

    Args:
        policy: π.
        before: π_old.
        head: from the last hidden layer of π to V_π.
        value: V.
        observation: [M, ...].
        target: [M] V̂.

    Returns:
        head_loss: mean (V_π(s) − V̂)².
        value_loss: mean (V(s) − V̂)².
        kl: mean KL(π_old(·|s) ‖ π(·|s)), nats.
    """
    body, _ = _trunk(policy)
    return {
        "head_loss": (head(body(observation)) - target).square().mean(),
        "value_loss": (value(observation) - target).square().mean(),
        "kl": before.kl(observation, policy).mean(),
    }


def _trunk(policy: Any) -> tuple[nn.Module, int]:
    """The hidden layers of a policy, weights shared, and how many numbers the last one gives.

    Raises:
        InputError: it has none.
    """
    try:
        body, size = trunk_of(policy.net)
    except (InputError, AttributeError):
        body, size = nn.Identity(), 0
    refuse_unless(
        next(body.parameters(), None) is not None,
        f"Phasic trains V through the policy's hidden layers, and this {type(policy).__name__} has "
        "none: it is a table, or its network is one layer or does not end in a linear one; train "
        "by vt.algorithms.ppo().",
    )
    return body, size
