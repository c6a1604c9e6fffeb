"""Actor-critic with experience replay, ACER: a step on each batch, and several on earlier ones.

The policy's slope at a state is found in the probabilities p_a = π(a|s), of every action, with
Q(s, ·) from the value function's network, y from Retrace and ρ(a) = π(a|s)/μ(a|s):

    g_a = 1[a = a_t] min(c, ρ_t) (y_t − V(s_t))/p_a + [1 − c/ρ(a)]₊ (Q(s_t, a) − V(s_t))

The first term has weights of c at the most; the second gives back, in expectation, what that cuts
off. A step is kept near an average of earlier policies, π_avg: with k = ∇_p KL(π_avg ‖ π),

    z = g − max(0, (k·g − δ)/‖k‖²) k,      θ ← θ + α mean Σ_a z_a ∇p_a.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators import a2c, returns
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes
from vantage.policies import ActionValue, Policy
from vantage.policies.discrete import at_action
from vantage.training.interface import Memory, OptimizerFactory, optimizer_of, refuse_unless_finite
from vantage.training.value import value_metrics

AVERAGE = "average"  # the policy network in the memory
LAW = "law"  # log μ(·|s) in the memory, beside the fields of the batch
SMALLEST = 1e-8  # probability that is divided by
FIELDS = (
    "observation", "action", "reward", "discount", "boundary", "bootstrap", "log_prob", "mask",
    "episode", "weight",
)  # fmt: skip


@checked
@dataclass(frozen=True)
class Replay:
    """An update rule: an ACER step on the batch, and a random number of them on earlier ones.

    A replayed batch has as many rows as the batch, drawn one by one from all rows in memory, which
    is a part of every checkpoint. The last step of a replayed row gives the value that the row ends
    with; episodes that a time limit cut end with V of the time they were collected.

    Attributes:
        ratio: how many replayed batches follow a batch, in the mean; their number is Poisson's.
        capacity: steps that the memory holds, the latest ones.
        begin: steps that it holds before any are replayed.
        maximum: c, the bound of the importance weights.
        trust_region: δ, how far a step may go in the direction of KL(π_avg ‖ π); None: any.
        decay: α, of the average policy: θ_avg ← α θ_avg + (1 − α) θ at every step.
        lambda_: λ of Retrace.
        value_coefficient: the weight of the error (Q − y)² beside the policy's objective.
        lr, eps: learning rate and ε of RMSprop, where `vantage.train` is given no other.
        max_grad_norm: longest gradient of both networks together that is let through to the
            optimiser; None leaves it as it is.

    Source: Wang et al. 2017, equations 4 to 12 and algorithm 2, for discrete actions; the paper
        leaves lr, ε, the coefficient and the norm open: those of OpenAI Baselines.
    """

    wants_gradient: ClassVar[bool] = False
    fragment: ClassVar[int | None] = 20

    ratio: float = 4.0
    capacity: int = 50_000
    begin: int = 10_000
    maximum: float = 10.0
    trust_region: float | None = 1.0
    decay: float = 0.99
    lambda_: float = 1.0
    value_coefficient: float = 0.5
    lr: float = 7e-4
    eps: float = 1e-5
    max_grad_norm: float | None = 10.0

    def __post_init__(self) -> None:
        for name in ("maximum", "trust_region", "max_grad_norm"):
            amount = getattr(self, name)
            refuse_unless(
                amount is None or amount > 0, f"Replay({name}={amount}): must be positive."
            )
        for name in ("ratio", "begin", "value_coefficient"):
            amount = getattr(self, name)
            refuse_unless(amount >= 0, f"Replay({name}={amount}): must be at least 0.")
        for name in ("decay", "lambda_"):
            amount = getattr(self, name)
            refuse_unless(0 <= amount <= 1, f"Replay({name}={amount}): must lie in [0, 1].")
        refuse_unless(
            self.capacity >= max(1, self.begin),
            f"Replay(capacity={self.capacity}, begin={self.begin}): the memory must hold what "
            "replay begins with, and one step at least.",
        )

    def check(self, estimator: Estimator) -> None:
        """Refuse an estimator other than `a2c`, whose weights would be left unused.

        Raises:
            InputError: it is another.
        """
        refuse_unless(
            estimator.columns() | {"entropy": 0} == a2c().columns() | {"entropy": 0},
            f"Replay weighs batches by Retrace and Q(s, ·), whatever the estimator: "
            f"{estimator.name!r} would change nothing; give vt.estimators.a2c(entropy=...).",
        )

    def check_fragments(self, fragment: int | None, delay: int) -> None:
        """Refuse batches that cannot be remembered.

        Args:
            fragment: steps per lane of a batch; None: whole episodes.
            delay: updates by which the policy that acts is behind.

        Raises:
            InputError: whole episodes, fragments of one step, or an older policy that acts.
        """
        refuse_unless(
            fragment is not None and fragment > 1,
            f"Replay remembers fragments of one length, two steps or more, and here batches are "
            f"{'whole episodes' if fragment is None else 'fragments of one step'}: give fragment= "
            "(steps per lane), and no batch=.",
        )
        refuse_unless(
            delay == 0,
            "Replay asks for the probabilities of all actions under the policy that sampled, which "
            "an older policy's batch does not hold: train with delay=0.",
        )

    @property
    def optimizer_steps(self) -> int:
        """One, and those of replay in the mean."""
        return 1 + round(self.ratio)

    def memory(self, passes: Passes, generator: torch.Generator) -> Memory:
        """The average policy, which begins as the policy, and no batch.

        Raises:
            InputError: a value function without Q(s, ·).
        """
        refuse_unless(
            isinstance(passes.value, ActionValue) and passes.value.policy is passes.policy,
            "Replay needs Q(s, ·), for a policy that chooses one of some actions; give "
            "value=env.value(under=policy).",
        )
        terms = passes.policy.terms
        average = copy.deepcopy(passes.policy, {id(terms): terms}).requires_grad_(False)
        return Memory({AVERAGE: average})

    def optimizers(
        self,
        passes: Passes,
        factory: OptimizerFactory | None,
        lr: float | None,
        *,
        memory: Memory | None = None,
    ) -> dict[str, Optimizer]:
        """One, for policy and Q together."""
        default = partial(RMSprop, lr=self.lr, alpha=0.99, eps=self.eps)
        return {"policy": optimizer_of(passes.parameters, factory or default, lr)}

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
        """Step on the batch, remember it, and step on what is remembered.

        Returns:
            Means over the steps: `grad_norm`; `kl`, KL(π_avg ‖ π); `truncated`, the share of steps
            whose weight was cut to c; `held`, the share whose slope the trust region changed. And
            `replayed`, `remembered` (steps in memory), and the metrics of V for Q on the batch.

        Raises:
            NonFiniteError: of a gradient.
            InputError: a batch that cannot be remembered; see `check_fragments`.
        """
        assert memory is not None
        length = batch.mask.shape[1]
        held_alike = length == memory.tensors.get("mask", batch.mask).shape[1]
        self.check_fragments(length if held_alike else None, delay=int(stale))
        law = passes.policy.distribution(batch.observation)
        step = partial(self._step, passes, optimizers["policy"], estimator, memory.modules[AVERAGE])
        metrics, fit = step(batch, law)
        every = [metrics]
        memory.tensors = remembered(memory.tensors, batch, law, self.capacity)
        held = int(memory.tensors["mask"].sum())
        if held >= self.begin:
            count = int(torch.poisson(torch.tensor(float(self.ratio)), generator))
            for _ in range(count):
                rows = torch.randint(
                    len(memory.tensors["mask"]), (batch.rows,), generator=generator
                )
                every.append(step(*replayed(memory.tensors, rows, passes))[0])
        means = torch.stack([torch.stack(list(each.values())) for each in every])
        refuse_unless_finite(
            means[:, 0],
            batch,
            "A gradient of this update",
            "The last checkpoint holds the policy from before.",
        )
        counts = {"replayed": len(every) - 1, "remembered": held, "optimizer_steps": len(every)}
        return dict(zip(metrics, means.mean(0).tolist(), strict=True)) | counts | fit

    def _step(
        self,
        passes: Passes,
        optimizer: Optimizer,
        estimator: Estimator,
        average: nn.Module,
        batch: Batch,
        law: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """One step of the optimiser and of the average; its metrics, and those of Q before it."""
        policy, value, mask = passes.policy, passes.value, batch.mask
        assert isinstance(value, ActionValue)
        assert isinstance(average, Policy)
        for parameter in passes.parameters:
            parameter.grad = None
        with torch.enable_grad():
            log_probs = policy.distribution(batch.observation)
            every = value.action_values(batch.observation)
            taken = at_action(every, batch.action)
            now, q = log_probs.detach(), every.detach().to(log_probs.dtype)
            batch = replace(batch, value=(now.exp() * q).sum(-1))
            target = returns.retrace_target(
                batch,
                action_value=at_action(q, batch.action),
                log_prob=at_action(now, batch.action),
                lambda_=self.lambda_,
            )
            slope = slopes(now, law, batch.action, target, q, self.maximum)
            held = within(slope, now, average.distribution(batch.observation), self.trust_region)
            objective = (held * log_probs.exp()).sum(-1)[mask].mean()
            objective = (
                objective + estimator.entropy * policy.entropy(batch.observation)[mask].mean()
            )
            error = (taken - target.to(taken.dtype))[mask].square().mean()
            (self.value_coefficient * error - objective).backward()
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = nn.utils.clip_grad_norm_(passes.parameters, limit)
        optimizer.step()
        kl = average.kl(batch.observation, policy)[mask].mean()
        follow(average.parameters(), policy.parameters(), self.decay)
        cut = at_action(now - law, batch.action).exp() > self.maximum
        changed = (held != slope).any(-1)
        metrics = {
            "grad_norm": norm,
            "kl": kl,
            "truncated": cut[mask].float().mean(),
            "held": changed[mask].float().mean(),
        }
        return metrics, value_metrics(taken.detach()[mask], target[mask].to(taken.dtype))


def slopes(
    log_prob: Float[Tensor, "*grid A"],
    law: Float[Tensor, "*grid A"],
    action: Int[Tensor, "*grid"],
    target: Float[Tensor, "*grid"],
    action_value: Float[Tensor, "*grid A"],
    maximum: float,
) -> Float[Tensor, "*grid A"]:
    """g, the objective's slope in the probability of every action, [..., A].

    Args:
        log_prob: log π(·|s).
        law: log μ(·|s).
        action: a_t.
        target: y_t, an estimate of Q(s_t, a_t).
        action_value: Q(s, ·).
        maximum: c.

    Source: Wang et al. 2017, equation 9, in the statistics of section 3.3, here probabilities.
    """
    probability, ratio = log_prob.exp(), (log_prob - law).exp()
    value = (probability * action_value).sum(-1, keepdim=True)
    chosen = nn.functional.one_hot(action, log_prob.shape[-1]).to(log_prob.dtype)
    truncated = ratio.clamp(max=maximum) * (target.unsqueeze(-1) - value)
    correction = (1 - maximum / ratio).clamp_min(0) * (action_value - value)
    return chosen * truncated / probability.clamp_min(SMALLEST) + correction


def within(
    slope: Float[Tensor, "*grid A"],
    log_prob: Float[Tensor, "*grid A"],
    average: Float[Tensor, "*grid A"],
    distance: float | None,
) -> Float[Tensor, "*grid A"]:
    """The z nearest to a slope with k·z ≤ δ, k = ∇_p KL(π_avg ‖ π) = −π_avg/π.

    Source: Wang et al. 2017, equations 11 and 12.
    """
    if distance is None:
        return slope
    k = -average.exp() / log_prob.exp().clamp_min(SMALLEST)
    beyond = ((k * slope).sum(-1, keepdim=True) - distance) / k.square().sum(-1, keepdim=True)
    return slope - beyond.clamp_min(0) * k


def follow(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """θ_avg ← α θ_avg + (1 − α) θ, in place."""
    for behind, ahead in zip(average, current, strict=True):
        behind.lerp_(ahead.detach(), 1 - decay)


def remembered(
    tensors: dict[str, Tensor], batch: Batch, law: Tensor, capacity: int
) -> dict[str, Tensor]:
    """The memory with the rows of a batch added, and its oldest rows dropped beyond `capacity`."""
    fresh = {name: getattr(batch, name) for name in FIELDS} | {LAW: law}
    rows = max(batch.rows, capacity // batch.mask.shape[1])
    return {
        name: torch.cat([tensors[name], each])[-rows:] if tensors else each
        for name, each in fresh.items()
    }


def replayed(
    tensors: dict[str, Tensor], rows: Int[Tensor, " N"], passes: Passes
) -> tuple[Batch, Tensor]:
    """Rows of the memory as a batch without their last step, whose V as it is now ends them.

    Returns:
        The batch [N, T − 1], and log μ(·|s) of its steps.
    """
    drawn = {name: each[rows.to(each.device)] for name, each in tensors.items()}
    last = passes.values(drawn["observation"][:, -1])
    assert last is not None
    law = drawn.pop(LAW)[:, :-1]
    weight = drawn.pop("weight")
    goes_on = ~drawn["boundary"][:, -2] & drawn["mask"][:, -1]
    grid = {name: each[:, :-1].clone() for name, each in drawn.items()}
    grid["bootstrap"][goes_on, -1] = last[goes_on].to(grid["bootstrap"].dtype)
    grid["boundary"][:, -1] = True
    return Batch(**grid, group=torch.arange(len(rows), device=law.device), weight=weight), law
