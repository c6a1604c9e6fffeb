"""The natural gradient and TRPO: steps measured by how far the policy moves, not its parameters.

With F = Σ_t c_t E_a[s_t s_tᵀ] the Fisher information of the policy in the states of a batch, s_t =
∇ log π(a|s_t), c_t the step's share of the average, the natural gradient is x = F⁻¹ ĝ. F is the
Hessian at π = π_old of the mean KL(π_old ‖ π), which a step x changes by ½ xᵀFx to second order.
Conjugate gradients solve F x = ĝ from products F v alone, each a backward pass through the KL's
gradient, and no matrix.

The KL is taken over all actions, from the policy's distribution, as it was published. Where only
log π of the sampled actions is known, k3 = ρ − 1 − log ρ, ρ = π/π_old, estimates it without bias,
and its Hessian is the Fisher information of these actions,

    F̂ = Σ_t c_t s_t s_tᵀ,

of expectation F and of a rank of no more than the number of steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.aggregates import per_token
from vantage.estimators.estimator import Estimator
from vantage.estimators.penalties import k3
from vantage.gradients.parameters import flat_parameters, write_parameters
from vantage.gradients.passes import Passes
from vantage.gradients.weighted import gradient_pieces, policy_inputs
from vantage.policies import Policy
from vantage.training.ascent import Fit
from vantage.training.interface import OptimizerFactory, refuse_restraint


@checked
@dataclass(frozen=True)
class Natural:
    """An update rule: a step along F⁻¹ ĝ, then the fit of V.

    With `line_search` it is TRPO: the step is as long as KL = `max_kl` allows to second order, and
    is halved until the surrogate has improved and the measured KL is within `max_kl`. Without it,
    the step has the length that KL = `max_kl` asks for to second order (Kakade 2002, with the
    normalised step size of Rajeswaran et al. 2017).

    Attributes:
        max_kl: δ, nats per step of a trajectory.
        every_action: whether F and the KL are expectations over all actions in the states visited,
            as in the sources; otherwise they are estimates from the actions that were sampled.
        line_search: whether steps are checked and halved.
        iterations: the iterations of conjugate gradients.
        damping: added to the diagonal of F.
        halvings: most halvings of the line search; then the policy stays as it is.
        fit: the fit of the value function.

    Source: Kakade 2002; Schulman et al. 2015, TRPO, appendix C.
    """

    wants_gradient: ClassVar[bool] = True
    fragment: ClassVar[int | None] = None
    optimizer_steps: ClassVar[int] = 1

    max_kl: float = 0.01
    every_action: bool = True
    line_search: bool = False
    iterations: int = 10
    damping: float = 0.1
    halvings: int = 10
    fit: Fit = field(default_factory=Fit)

    def __post_init__(self) -> None:
        for name in ("max_kl", "damping", "iterations", "halvings"):
            amount = getattr(self, name)
            refuse_unless(amount > 0, f"Natural({name}={amount}): must be positive.")

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator with a restraint: the step has a length of its own.

        Raises:
            InputError: it has one.
        """
        refuse_restraint("Natural", estimator)

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """None for the policy, whose step has the length that `max_kl` gives it; one for V.

        Raises:
            InputError: an optimiser or a learning rate is given, which would change nothing; a
                policy whose distribution is not known, where F is to be over all actions.
        """
        refuse_unless(
            not self.every_action or passes.policy.tells_distribution(),
            f"Natural(every_action=True): {type(passes.policy).__name__} has a log_prob and no "
            "distribution of its own, so that only the actions that were sampled are known: take "
            "those, every_action=False (--set every_action=false), or give the class the methods "
            "distribution and divergence of vantage.Policy.",
        )
        for name, given in (("optimizer", factory), ("lr", lr)):
            refuse_unless(
                given is None,
                f"train({name}={given}): the update rule Natural has no optimiser and no learning "
                "rate; the length of its step is Natural(max_kl=...).",
            )
        return self.fit.optimizers(passes.value)

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
        """Move the policy along F⁻¹ `gradient`, then fit V; see `interface.Update`."""
        assert gradient is not None
        metrics = self.step(passes.policy, gradient, batch, estimator, factor)
        return metrics | self.fit(passes.value, optimizers, batch, generator)

    def step(
        self,
        policy: Policy,
        gradient: Float[Tensor, " P"],
        batch: Batch,
        estimator: Estimator,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Move the policy; returns the step's metrics.

        Args:
            gradient: ĝ, uphill.
            batch: what it came from, sampled by `policy`.
            estimator: whose surrogate the line search looks at.
            scale: factor of `max_kl`, from a schedule.
        """
        kl = mean_kl(policy, batch, self.every_action)
        product = hessian_product(kl(), policy)
        direction = conjugate_gradients(
            lambda v: product(v) + self.damping * v, gradient, self.iterations
        )
        bound = self.max_kl * scale
        curvature = float(direction @ (product(direction) + self.damping * direction))
        if not curvature > 0 or not math.isfinite(curvature):
            return {"grad_norm": float(gradient.norm()), "step_length": 0.0, "halvings": 0}
        full = math.sqrt(2 * bound / curvature) * direction
        before = flat_parameters(policy)
        worth = _surrogate(policy, batch, estimator)
        with torch.no_grad():
            start, halvings = float(worth()), 0
            while True:
                write_parameters(policy, before + full * 0.5**halvings)
                if not self.line_search or (float(worth()) > start and float(kl()) <= bound):
                    break
                halvings += 1
                if halvings > self.halvings:
                    write_parameters(policy, before)
                    break
            moved = float((flat_parameters(policy) - before).norm())
            return {
                "grad_norm": float(gradient.norm()),
                "step_length": moved,
                "halvings": halvings,
                "kl": float(kl()),
            }


def mean_kl(policy: Policy, batch: Batch, every_action: bool) -> Callable[[], Float[Tensor, ""]]:
    """() -> Σ_t c_t KL(π_old ‖ π) of the policy as it is now, π_old the policy as it was then.

    Args:
        policy: whose parameters may change between calls.
        batch: the states, with the share c_t of each in the mean over steps.
        every_action: over all actions, exactly; or k3 of the sampled ones, π_old having drawn them.
    """
    share, mask = per_token(batch), batch.mask
    with torch.no_grad():
        if every_action:
            old = policy.distribution(batch.observation)
        else:
            old = policy.log_prob(batch.observation, batch.action)

    def kl() -> Tensor:
        if every_action:
            each = policy.divergence(old, policy.distribution(batch.observation))
        else:
            log_ratio = policy.log_prob(batch.observation, batch.action) - old
            each = k3(torch.where(mask, -log_ratio, 0), beta=1.0)
        return torch.where(mask, share * each, 0).sum()

    return kl


def hessian_product(
    scalar: Float[Tensor, ""], policy: Policy
) -> Callable[[Tensor], Float[Tensor, " P"]]:
    """v -> ∇²scalar · v over the policy's parameters that require a gradient.

    Shapes: [P] to [P], flat as `torch.nn.utils.parameters_to_vector`.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    slope = torch.autograd.grad(scalar, parameters, create_graph=True, allow_unused=True)

    def product(v: Tensor) -> Tensor:
        pieces = v.to(scalar.dtype).split([p.numel() for p in parameters])
        along = [
            (each * piece.view_as(each)).sum()
            for each, piece in zip(slope, pieces, strict=True)
            if each is not None
        ]
        return torch.cat(gradient_pieces(torch.stack(along).sum(), policy, retain_graph=True))

    return product


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Float[Tensor, " P"], iterations: int
) -> Float[Tensor, " P"]:
    """x with product(x) ≈ target, for a symmetric positive definite product, from x = 0.

    Source: Hestenes & Stiefel 1952. Stops early once the residual is 10⁻¹⁰ of the target's square.
    """
    x = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    size = start = float(residual @ residual)
    for _ in range(iterations):
        if size <= 1e-10 * start:
            break
        along = product(direction)
        step = size / float(direction @ along)
        x = x + step * direction
        residual = residual - step * along
        smaller = float(residual @ residual)
        direction = residual + (smaller / size) * direction
        size = smaller
    return x


def _surrogate(policy: Policy, batch: Batch, estimator: Estimator) -> Callable[[], Tensor]:
    """() -> Σ share ρ A of the policy as it is now."""
    advantage = estimator.advantage(batch, **policy_inputs(policy, batch, estimator))
    weighted = estimator.share(batch) * advantage

    def surrogate() -> Tensor:
        log_ratio = policy.log_prob(batch.observation, batch.action) - batch.log_prob
        log_ratio = torch.where(batch.mask, log_ratio, 0)
        return torch.where(batch.mask, weighted * log_ratio.exp(), 0).sum()

    return surrogate
