"""The natural gradient and TRPO: steps measured by how far the policy moves, not its parameters.

With F = E[s sᵀ] the Fisher information of the policy, s = ∇ log π(a|s), the natural gradient is
x = F⁻¹ ĝ. Conjugate gradients solve F x = ĝ from products F v alone, and the product with the
Fisher information of a batch,

    F̂ v = Σ_t c_t s_t (s_t · v),   c_t the step's share of the average,

takes backward passes and no matrix. The actions were drawn from the policy, so that E F̂ = F; over
an enumerated batch F̂ is F. KL(π_old ‖ π) is ½ xᵀFx to second order.
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
from vantage.gradients.weighted import policy_inputs
from vantage.policies import Policy
from vantage.training.ascent import Fit
from vantage.training.interface import OptimizerFactory


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
        refuse_unless(
            estimator.restraint is None,
            f"Natural: {estimator.name!r} has a restraint, and max_kl is one already; take it off "
            "with estimator.replace(restraint=None).",
        )

    def optimizers(
        self, passes: Passes, factory: OptimizerFactory | None, lr: float | None
    ) -> dict[str, Optimizer]:
        """None for the policy, whose step has the length that `max_kl` gives it; one for V.

        Raises:
            InputError: an optimiser or a learning rate is given, which would change nothing.
        """
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
        product = fisher_product(policy, batch)
        direction = conjugate_gradients(
            lambda v: product(v) + self.damping * v, gradient, self.iterations
        )
        bound = self.max_kl * scale
        curvature = float(direction @ (product(direction) + self.damping * direction))
        if not curvature > 0 or not math.isfinite(curvature):
            return {"grad_norm": float(gradient.norm()), "step_length": 0.0, "halvings": 0}
        full = math.sqrt(2 * bound / curvature) * direction
        before = flat_parameters(policy)
        surrogate = _surrogate(policy, batch, estimator)
        start, halvings = float(surrogate()[0]), 0
        while True:
            write_parameters(policy, before + full * 0.5**halvings)
            worth, kl = (float(x) for x in surrogate())
            if not self.line_search or (worth > start and kl <= bound):
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
            "kl": float(surrogate()[1]),
        }


def fisher_product(policy: Policy, batch: Batch) -> Callable[[Tensor], Float[Tensor, " P"]]:
    """v -> F̂ v of the batch's steps, each with its share of the mean over steps.

    Shapes: [P] to [P], flat as `torch.nn.utils.parameters_to_vector`.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    share = torch.where(batch.mask, per_token(batch), 0)
    log_prob = policy.log_prob(batch.observation, batch.action)
    log_prob = torch.where(batch.mask, log_prob, 0)
    # Σ c_t v_t s_t is linear in v; its slope along a direction is s_t · direction
    dummy = torch.zeros_like(log_prob, requires_grad=True)
    along = torch.autograd.grad(
        log_prob, parameters, dummy, create_graph=True, retain_graph=True, allow_unused=True
    )

    def product(v: Tensor) -> Tensor:
        pieces = v.to(log_prob.dtype).split([p.numel() for p in parameters])
        dots = [
            (score * piece.view_as(score)).sum()
            for score, piece in zip(along, pieces, strict=True)
            if score is not None
        ]
        change = torch.autograd.grad(torch.stack(dots).sum(), dummy, retain_graph=True)[0]
        products = torch.autograd.grad(
            log_prob, parameters, share * change, retain_graph=True, allow_unused=True
        )
        return torch.cat(
            [
                (torch.zeros_like(p) if of_p is None else of_p).flatten()
                for p, of_p in zip(parameters, products, strict=True)
            ]
        )

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


def _surrogate(
    policy: Policy, batch: Batch, estimator: Estimator
) -> Callable[[], tuple[Tensor, Tensor]]:
    """() -> (Σ share ρ A, an estimate of KL(π_old ‖ π)) of the policy as it is now."""
    share, mask = estimator.share(batch), batch.mask
    advantage = estimator.advantage(batch, **policy_inputs(policy, batch, estimator))
    weighted, mean = share * advantage, per_token(batch)

    @torch.no_grad()
    def surrogate_and_kl() -> tuple[Tensor, Tensor]:
        log_prob = policy.log_prob(batch.observation, batch.action)
        log_ratio = torch.where(mask, log_prob - batch.log_prob, 0)
        kl = torch.where(mask, mean * k3(-log_ratio, beta=1.0), 0).sum()
        return torch.where(mask, weighted * log_ratio.exp(), 0).sum(), kl

    return surrogate_and_kl
