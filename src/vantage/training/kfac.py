"""ACKTR: actor and critic by Kronecker-factored curvature, each step within a trust region.

The policy's Fisher information is that of actions drawn afresh in the states of the batch. V stands
for a Gaussian of variance 1 about it, whose Fisher information is the Gauss-Newton matrix of the
squared error; that its output is one number makes b = ∂V/∂s, and nothing is drawn. See `kronecker`
for the factors and the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.linear_layers import linear_layers
from vantage.gradients.passes import Passes
from vantage.gradients.weighted import policy_inputs
from vantage.policies import Gaussian, Policy
from vantage.training.ascent import ascend
from vantage.training.interface import OptimizerFactory, refuse_restraint
from vantage.training.kronecker import Block, Factors, KroneckerFactored, factors_of
from vantage.training.natural import mean_kl
from vantage.training.value import value_metrics, value_target


@checked
@dataclass(frozen=True)
class KFAC:
    """An update rule: a step of the policy and steps of V along F̂⁻¹ ∇, F̂ Kronecker-factored.

    For perceptrons of Linear layers; σ of a Gaussian policy is a block of its own, whose Fisher
    information is known, 2 I in log σ.

    Attributes:
        lr: η_max of the policy, where `vantage.train` is given no other.
        max_kl: δ of the policy's step, nats per step of a trajectory.
        value_lr: η_max of V.
        value_max_kl: δ of each step of V: ½ mean (ΔV)², in squared units of the return.
        value_steps: steps of V in an update, each over the whole batch.
        damping: ε, added to F̂ in factors.
        decay: how much of the running averages of the factors stays at an update.
        momentum: how much of the last move a step keeps.

    Source: Wu et al. 2017 [wu2017].
    """

    wants_gradient: ClassVar[bool] = True
    fragment: ClassVar[int | None] = None
    optimizer_steps: ClassVar[int] = 1

    lr: float = 0.25
    max_kl: float = 1e-3
    value_lr: float = 0.25
    value_max_kl: float = 0.3
    value_steps: int = 1
    damping: float = 0.01
    decay: float = 0.99
    momentum: float = 0.9

    def __post_init__(self) -> None:
        for name in ("lr", "max_kl", "value_lr", "value_max_kl", "value_steps", "damping"):
            amount = getattr(self, name)
            refuse_unless(amount > 0, f"KFAC({name}={amount}): must be positive.")
        for name in ("decay", "momentum"):
            share = getattr(self, name)
            refuse_unless(0 <= share < 1, f"KFAC({name}={share}): from 0 to below 1.")

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator with a restraint: the step has a bound of its own.

        Raises:
            InputError: it has one.
        """
        refuse_restraint("KFAC", estimator)

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """One for the policy and one for V, with the factors in their states.

        Raises:
            InputError: another optimiser is given; or networks whose factors are not known, naming
                the parameter, its layer and the remedy.
        """
        refuse_unless(
            factory is None,
            f"train(optimizer={factory}): the update rule KFAC is an optimiser of its own; leave "
            "optimizer out, or take vt.updates.Ascent().",
        )
        policy, value = passes.policy, passes.value
        refuse_unless(
            policy.memoryless,
            f"KFAC: {type(policy).__name__} has a memory, and factors are known for steps by "
            "themselves; use vt.algorithms.trpo(), which needs none.",
        )
        known = [policy.log_std] if isinstance(policy, Gaussian) else []
        settings = {"damping": self.damping, "decay": self.decay, "momentum": self.momentum}
        made: dict[str, Optimizer] = {
            "policy": KroneckerFactored(
                blocks_of("policy", policy, known), lr or self.lr, self.max_kl, **settings
            )
        }
        if value is not None:
            trained = {id(p) for p in policy.parameters()}
            refuse_unless(
                not any(id(p) in trained for p in value.parameters()),
                "KFAC takes policy and value function for independent, and they share layers; "
                "make V with env.value(), without trunk.",
            )
            made["value"] = KroneckerFactored(
                blocks_of("value function", value), self.value_lr, self.value_max_kl, **settings
            )
        return made

    def update(
        self,
        passes: Passes,
        optimizers: dict[str, Optimizer],
        estimator: Estimator,
        batch: Batch,
        generator: torch.Generator,
        *,
        gradient: Float[Tensor, " P"] | None = None,
        stale: bool = False,
        factor: float = 1.0,
    ) -> dict[str, Any]:
        """Step the policy along `gradient`, then V to its targets; see `interface.Update`."""
        assert gradient is not None
        policy, optimizer = passes.policy, optimizers["policy"]
        assert isinstance(optimizer, KroneckerFactored)
        observation = batch.observation[batch.mask]
        optimizer.observe(policy_factors(policy, observation, generator))
        kl = mean_kl(policy, batch, policy.tells_distribution())
        norm = ascend(policy, gradient, optimizer)
        with torch.no_grad():
            metrics = {"grad_norm": norm, "step_size": optimizer.length, "kl": float(kl())}
        if passes.value is None or batch.value is None:
            return metrics
        _, worth = estimator.advantage_and_worth(batch, **policy_inputs(policy, batch, estimator))
        target = value_target(estimator, batch, worth)[batch.mask].to(batch.value.dtype)
        self._fit(passes.value, optimizers["value"], observation, target)
        return metrics | value_metrics(batch.value[batch.mask], target)

    def _fit(
        self,
        value: nn.Module,
        optimizer: Optimizer,
        observation: Tensor,
        target: Float[Tensor, " M"],
    ) -> None:
        """Steps of V along the Gauss-Newton direction of ½ mean (V − target)²."""
        assert isinstance(optimizer, KroneckerFactored)
        for _ in range(self.value_steps):
            predicted, factors = factors_of(linear_layers(value), partial(value, observation))
            optimizer.observe(factors)
            optimizer.zero_grad()
            predicted.backward((predicted.detach() - target) / len(target))
            optimizer.step()


def policy_factors(
    policy: Policy, observation: Tensor, generator: torch.Generator
) -> list[Factors]:
    """The factors of a policy's blocks, of one action drawn afresh in each of M states.

    Args:
        policy: a policy of Linear layers, without a memory.
        observation: [M, ...].
        generator: the seed of the actions is drawn from it.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    on_device = torch.Generator(observation.device).manual_seed(seed)
    action, _ = policy.sample(observation, on_device)
    log_prob = partial(policy.log_prob, observation, action)
    _, factors = factors_of(linear_layers(policy), log_prob)
    if isinstance(policy, Gaussian) and policy.log_std.requires_grad:
        identity = torch.eye(len(policy.log_std)).to(policy.log_std)
        factors.append(Factors(identity[:1, :1], 2 * identity))
    return factors


def blocks_of(where: str, module: nn.Module, known: Sequence[nn.Parameter] = ()) -> list[Block]:
    """The blocks of a network: weight and bias of every Linear layer, then those that are `known`.

    Args:
        where: what messages call the network.
        module: the network.
        known: parameters outside of layers whose Fisher information is known.

    Raises:
        InputError: another parameter is trained, naming it, its layer and the remedy.
    """
    names = dict(module.named_parameters())
    blocks: list[Block] = [
        tuple(names[name] for name in layer) for layer in linear_layers(module).values()
    ]
    blocks += [(p,) for p in known if p.requires_grad]
    held = {id(p) for block in blocks for p in block}
    for name, parameter in names.items():
        owner = module.get_submodule(name.rpartition(".")[0])
        refuse_unless(
            id(parameter) in held or not parameter.requires_grad,
            f"KFAC: the {where}'s {name} is a parameter of {type(owner).__name__}, and factors are "
            "known for Linear layers that share nothing: use perceptrons, env.policy(hidden=...) "
            "and env.value(hidden=...) on vectors, or vt.algorithms.trpo(), which needs none.",
        )
    return blocks
