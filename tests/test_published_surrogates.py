"""Rows for language models and for stale samples: each weight is the slope of what was published.

The surrogates are written out here, completion by completion, and differentiated by autograd in
float64; advantages are made by hand.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from small import table
from test_baselines import lanes
from test_estimators import autograd, off_policy
from torch import Tensor

import vantage as vt
from vantage.estimators import importance, penalties, ratios, returns

E = vt.estimators


class Completion(NamedTuple):
    """What a surrogate may look at: log-probabilities [L] under three policies, and A."""

    log_prob: Tensor  # of the policy, with its graph
    sampler: Tensor
    proximal: Tensor
    advantage: Tensor  # a number, or [L]

    @property
    def to_sampler(self) -> Tensor:
        return (self.log_prob - self.sampler).exp()

    @property
    def to_proximal(self) -> Tensor:
        return (self.log_prob - self.proximal).exp()

    @property
    def weight(self) -> Tensor:
        """π₀/μ."""
        return (self.proximal - self.sampler).exp()


def clipped(ratio: Tensor, advantage: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def mean_of(log_ratio: Tensor) -> Tensor:
    return log_ratio.mean().exp()


# surrogates: of one completion, its terms step by step, or one term spread over its steps


def dual(c: Completion, bound: float) -> Tensor:
    inner = clipped(c.to_sampler, c.advantage)
    return torch.where(c.advantage < 0, torch.maximum(inner, bound * c.advantage), inner)


def two_sided(c: Completion, delta: float) -> Tensor:
    held = c.to_sampler.clamp(max=delta) * c.advantage
    return torch.minimum(held, c.to_sampler.clamp(0.8, 1.2) * c.advantage)


def sapo(c: Completion) -> Tensor:
    temperature = torch.where(c.advantage > 0, 1.0, 1.05)
    gate = torch.sigmoid(temperature * (c.to_sampler - 1)) * 4 / temperature
    return gate * c.advantage


def luspo(c: Completion) -> Tensor:
    s = mean_of(c.log_prob - c.sampler)
    return clipped(s, c.advantage, 0.05, 0.06).expand(len(c.log_prob))  # |τ| times one term


def gmpo(c: Completion) -> Tensor:
    sign, log_ratio = torch.sign(c.advantage), c.log_prob - c.sampler
    held = torch.min(sign * log_ratio, sign * log_ratio.clamp(-0.3, 0.3)) * sign
    return (held.mean().exp() * c.advantage).expand(len(log_ratio))


def vespo(c: Completion) -> Tensor:
    w = (c.log_prob - c.sampler).sum().exp().detach()
    k, rate = (2.0, 3.0) if c.advantage >= 0 else (3.0, 2.0)
    return w**k * torch.exp(rate - rate * w) * c.advantage * c.log_prob


def masked_sequence(c: Completion) -> Tensor:
    keep = (c.advantage >= 0) | ((c.sampler - c.log_prob.detach()).mean() <= 0.1)
    return clipped(c.to_sampler, c.advantage) * keep


def dppo(c: Completion) -> Tensor:
    moved = c.log_prob.detach().exp() - c.sampler.exp()
    valid = torch.where(c.advantage > 0, moved <= 0.02, moved >= -0.02)
    return c.to_sampler.clamp(max=1.5).detach() * valid * c.advantage * c.log_prob


def tis(c: Completion) -> Tensor:
    return c.weight.clamp(max=1.1) * clipped(c.to_proximal, c.advantage)


def mis(c: Completion) -> Tensor:
    w = c.weight.prod()
    return w * (w <= 1.1) * clipped(c.to_proximal, c.advantage)


def icepop(c: Completion) -> Tensor:
    inside = (c.weight >= 0.9) & (c.weight <= 1.2)
    return c.weight * inside * clipped(c.to_proximal, c.advantage)


def rejection(c: Completion) -> Tensor:
    s = mean_of(c.proximal - c.sampler)
    return ((s >= 0.9) & (s <= 1.05)) * clipped(c.to_proximal, c.advantage)


def decoupled(c: Completion) -> Tensor:
    return c.weight * clipped(c.to_proximal, c.advantage)


def ppo(c: Completion) -> Tensor:
    return clipped(c.to_sampler, c.advantage)


CASES: dict[str, tuple[vt.Estimator, Callable[[Completion], Tensor], str]] = {
    "bnpo": (E.bnpo(), ppo, "token"),
    "two_sided_grpo": (E.two_sided_grpo(delta=1.5), partial(two_sided, delta=1.5), "token"),
    "dual_clip": (E.dual_clip(maximum=1.3), partial(dual, bound=1.3), "token"),
    "sapo": (E.sapo(), sapo, "sequence"),
    "luspo": (E.luspo(epsilon=0.05, epsilon_high=0.06), luspo, "trajectory"),
    "gmpo": (E.gmpo(epsilon=0.3), gmpo, "sequence"),
    "vespo": (E.vespo(), vespo, "token"),
    "sequence_masked_grpo": (E.sequence_masked_grpo(threshold=0.1), masked_sequence, "sequence"),
    "dppo": (E.dppo(threshold=0.02, maximum=1.5), dppo, "token"),
    "tis": (E.tis(maximum=1.1), tis, "sequence"),
    "mis": (E.mis(maximum=1.1), mis, "sequence"),
    "icepop": (E.icepop(minimum=0.9, maximum=1.2), icepop, "sequence"),
    "geometric_rejection": (
        E.geometric_rejection(minimum=0.9, maximum=1.05),
        rejection,
        "sequence",
    ),
    "decoupled_ppo": (E.decoupled_ppo(), decoupled, "token"),
}


def by_hand(batch: vt.Batch, estimator: vt.Estimator) -> Tensor:
    """[N, T] advantages: of groups, (R − mean)/(std + 10⁻⁴); of PPO, as the row has them."""
    if "value" in estimator.needs:
        return estimator.advantage(batch)
    y, out = returns.total(batch), torch.zeros_like(batch.reward)
    for group in batch.group.unique():
        rows = batch.mask & (batch.group == group)[:, None]
        each = torch.stack(
            [y[rows & (batch.episode == e)][0] for e in batch.episode[rows].unique()]
        )
        out[rows] = (y[rows] - each.mean()) / (each.std(correction=0) + 1e-4)
    return out


def surrogate(
    batch: vt.Batch,
    advantage: Tensor,
    proximal: Tensor,
    term: Callable[[Completion], Tensor],
    average: str,
) -> Callable[[Tensor], Tensor]:
    steps = batch.weight @ batch.mask.double().sum(1)

    def objective(log_prob: Tensor) -> Tensor:
        total = torch.zeros(()).double()
        for episode in batch.episode[batch.mask].unique():
            own = batch.mask & (batch.episode == episode)
            a = advantage[own]
            one = Completion(
                log_prob[own],
                batch.log_prob[own],
                proximal[own],
                a[0] if bool((a == a[0]).all()) else a,
            )
            each = term(one).sum()
            if average == "sequence":
                each = each / int(own.sum())
            total = total + batch.weight[own.any(1)][0] * each
        return total / steps if average == "token" else total

    return objective


def proximal_of(batch: vt.Batch, seed: int) -> Tensor:
    """log π₀ of a policy between the one that sampled and the one that has moved."""
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(100 + seed)).double()
    between = table(1)
    between.logits.data += 0.3 * noise
    return between.log_prob(batch.observation, batch.action).detach()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_the_weight_is_the_slope_of_the_published_surrogate(name: str, seed: int) -> None:
    estimator, term, average = CASES[name]
    policy, batch = off_policy(seed)
    proximal = proximal_of(batch, seed) if estimator.reweighs else batch.log_prob
    inputs = {"proximal_log_prob": proximal} if estimator.reweighs else {}
    advantage = by_hand(batch, estimator)
    want = autograd(policy, batch, surrogate(batch, advantage, proximal, term, average))
    assert (want != 0).any()
    got = vt.gradient(policy, batch, estimator, **inputs)
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    plain = estimator.replace(clip=ratios.unclipped, importance=importance.none)
    assert not torch.allclose(vt.gradient(policy, batch, plain), want)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0].reweighs])
def test_on_the_first_step_the_policy_is_the_proximal_one(name: str) -> None:
    """Without `proximal_log_prob` it is the policy as it is now, and no ratio is clipped."""
    estimator = CASES[name][0]
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    got = estimator.weights(batch, log_prob)
    want = estimator.weights(batch, log_prob, proximal_log_prob=log_prob)
    assert torch.equal(got, want)
    unclipped = estimator.replace(clip=ratios.unclipped)
    torch.testing.assert_close(got, unclipped.weights(batch, log_prob))
    on_policy = estimator.replace(importance=importance.none).weights(batch)
    torch.testing.assert_close(estimator.weights(batch), on_policy)


def test_tapered_reinforce() -> None:
    """TOPR: good completions as they are, bad ones by their truncated ratio."""
    policy, batch = off_policy()
    batch = vt.Batch(**batch.tensors() | {"reward": batch.reward - batch.reward[batch.mask].mean()})
    y = returns.total(batch)
    want = torch.zeros(6).double()
    for episode in batch.episode[batch.mask].unique():
        own = batch.mask & (batch.episode == episode)
        log_prob = policy.log_prob(batch.observation[own], batch.action[own])
        ratio = (log_prob - batch.log_prob[own]).sum().exp().item()
        factor = 1.0 if y[own][0] >= 0 else min(ratio, 1.0)
        score = torch.autograd.grad(log_prob.sum(), policy.logits)[0].flatten()
        want += batch.weight[own.any(1)][0] * factor * y[own][0] * score
    assert (y[batch.mask] < 0).any()
    assert (y[batch.mask] > 0).any()
    torch.testing.assert_close(vt.gradient(policy, batch, E.topr()), want)


@pytest.mark.parametrize("column", [penalties.weighted_k3_in_loss, penalties.trajectory_k2_in_loss])
def test_penalties_in_the_loss_are_slopes(column: Callable) -> None:
    policy, batch = off_policy()
    reference = table(7).log_prob(batch.observation, batch.action).detach()
    estimator = vt.Estimator(kl_in_loss=partial(column, beta=0.3))

    def objective(log_prob: Tensor) -> Tensor:
        l = torch.where(batch.mask, log_prob - reference, 0)  # noqa: E741
        total = torch.zeros(()).double()
        for episode in batch.episode[batch.mask].unique():
            own = batch.mask & (batch.episode == episode)
            if column is penalties.trajectory_k2_in_loss:
                each = l[own].sum().square() / 2
            else:
                ratio = (log_prob - batch.log_prob)[own].exp()
                each = (ratio * ((-l[own]).exp() - 1 + l[own])).sum()
            total = total - 0.3 * batch.weight[own.any(1)][0] * each
        return total

    got = vt.gradient(policy, batch, estimator, reference_log_prob=reference)
    plain = vt.gradient(policy, batch, vt.Estimator())
    torch.testing.assert_close(got - plain, autograd(policy, batch, objective))


def test_the_weighted_k3_is_the_ratio_times_k2() -> None:
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    log_ratio = torch.where(batch.mask, log_prob - table(7).log_prob(
        batch.observation, batch.action
    ).detach(), 0)  # fmt: skip
    weighted = penalties.weighted_k3_in_loss(log_ratio, beta=0.3, batch=batch, log_prob=log_prob)
    ratio = torch.where(batch.mask, log_prob - batch.log_prob, 0).exp()
    torch.testing.assert_close(weighted, ratio * penalties.k2_in_loss(log_ratio, beta=0.3))


def test_ratios_without_bound_leave_nothing() -> None:
    """An infinite ratio is gated away, masked or truncated; never a number that is not finite."""
    ratio = torch.tensor([[0.0, 1.0, float("inf")]]).double()
    for sign in (1.0, -1.0):
        advantage = torch.full_like(ratio, sign)
        assert ratios.soft(ratio, advantage).tolist() == [[0.0, 1.0, 0.0]]
        assert ratios.gamma(ratio, advantage).tolist() == [[0.0, 1.0, 0.0]]
    batch = lanes()
    far = batch.log_prob + 1000
    assert importance.masked(batch, far, maximum=5.0)[batch.mask].eq(0).all()
    assert importance.truncated(batch, far, maximum=5.0)[batch.mask].eq(5).all()
    assert importance.rejected(batch, far, maximum=5.0)[batch.mask].eq(0).all()


def test_a_two_sided_clip_needs_room() -> None:
    with pytest.raises(vt.InputError, match=r"delta must be above 1 \+ epsilon"):
        E.two_sided_grpo(delta=1.1)
