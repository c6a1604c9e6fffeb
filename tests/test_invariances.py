"""Gradients that must not depend on how trajectories are laid out: every row of the table."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import table
from test_baselines import lanes

import vantage as vt
from vantage import conformance, gradients

E = vt.estimators
ROWS = list(E.TABLE)
# with the KL and entropy terms that rows have off by default
REGULARISED = [
    E.rloo(beta=0.1),
    E.grpo(beta=0.1),
    E.dr_grpo(beta=0.1, length=3.0),
    E.remax(beta=0.1),
    E.reinforce_pp(beta=0.1),
    E.a2c(entropy=0.1),
    E.ppo(entropy=0.1),
]
ALL = [E.named(name) for name in ROWS] + [e.replace(name=f"{e.name}+") for e in REGULARISED]
RULES = [rule for rule in conformance.RULES if rule is not conformance.claim_holds]


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
@pytest.mark.parametrize("rule", [*RULES, conformance.weights_are_sound], ids=lambda r: r.__name__)
def test_rules(rule, estimator: vt.Estimator) -> None:
    for seed in range(2):
        assert list(rule(estimator, seed)) == []


def inputs_of(estimator: vt.Estimator, batch: vt.Batch) -> dict[str, Any]:
    """What the estimator needs, a function of what each trajectory saw and did."""
    parts = torch.stack([batch.reward, 0.3 * batch.observation * batch.action], -1)
    some = {
        "reward_parts": parts,
        "reward_weights": torch.tensor([1.0, 0.5]).double().expand_as(parts),
        "greedy_return": (0.2 * batch.group[:, None]).expand_as(batch.reward).double(),
        "entropy": 0.1 * batch.observation.double(),
        "reference_log_prob": -0.5 - 0.3 * batch.observation.double() - 0.1 * batch.action,
    }
    return {name: value for name, value in some.items() if name in estimator.needs}


def one_row_an_episode(batch: vt.Batch) -> vt.Batch:
    """The same trajectories, each in a row of its own, padded on the right."""
    steps = batch.reward.shape[1]
    rows = []
    for episode in batch.episode[batch.mask].unique():
        n = int((batch.mask & (batch.episode == episode)).any(1).nonzero()[0])
        own = (batch.mask[n] & (batch.episode[n] == episode)).nonzero().flatten()
        place = torch.cat([own, torch.zeros(steps - len(own), dtype=torch.int64)])
        rows.append((n, place, len(own)))
    index = torch.tensor([n for n, _, _ in rows])
    place = torch.stack([p for _, p, _ in rows])
    count = torch.tensor([c for _, _, c in rows])

    def gathered(name: str, x: torch.Tensor) -> torch.Tensor:
        return x[index] if name in ("group", "weight") else x[index[:, None], place]

    moved = {name: gathered(name, x) for name, x in batch.tensors().items()}
    moved["mask"] = torch.arange(steps) < count[:, None]
    moved["episode"] = torch.arange(len(rows))[:, None].expand_as(place).clone()
    return vt.Batch(**moved).check()


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
def test_lanes_and_rows_give_the_same_gradient(estimator: vt.Estimator) -> None:
    """Two episodes in one lane, or in a row each: trajectories count, not rows."""
    batch = lanes()
    policy = table(1)
    policy.logits.data += 0.1 * torch.arange(6).reshape(3, 2)  # a later pass: ratios differ from 1
    apart = one_row_an_episode(batch)
    assert apart.rows > batch.rows
    got = vt.gradient(policy, apart, estimator, **inputs_of(estimator, apart))
    want = vt.gradient(policy, batch, estimator, **inputs_of(estimator, batch))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
def test_passes_add_up_to_the_gradient(estimator: vt.Estimator) -> None:
    """The gradient of the whole is the sum over any parts, entropy included."""
    batch, policy = lanes(), table(1)
    policy.logits.data += 0.3 * torch.arange(6).reshape(3, 2).fmod(4)
    inputs = inputs_of(estimator, batch)
    if "scores" in estimator.needs:
        inputs["scores"] = gradients.scores(policy, batch, estimator)
    whole = vt.gradient(policy, batch, estimator, **inputs)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    advantage = estimator.advantage(batch, log_prob, **inputs)
    share = estimator.share(batch)
    inputs["restrained"] = estimator.restrained(batch, advantage, log_prob, **inputs)
    for size in (1, 2, 5):
        total = torch.zeros_like(whole)
        for rows in torch.arange(batch.rows).split(size):
            part = batch.select(rows)
            own = {
                name: type(x)(*(y[rows] for y in x)) if name == "scores" else x[rows]
                for name, x in inputs.items()
            }
            weights = estimator.weights(part, log_prob[rows], advantage[rows], share[rows], **own)
            total += gradients.weighted_score(policy, part, weights)
            if estimator.entropy:
                bonus = estimator.entropy_weights(part, share[rows])
                total += gradients.weighted_entropy(policy, part, bonus)
        torch.testing.assert_close(total, whole)


@pytest.mark.parametrize("name", ROWS)
def test_scaling_all_weights_scales_the_gradient_or_nothing(name: str) -> None:
    """Within means weights are relative: doubling all doubles ĝ, but not a per-token mean."""
    estimator, batch, policy = E.named(name), lanes(), table(1)
    inputs = inputs_of(estimator, batch)
    once = vt.gradient(policy, batch, estimator, **inputs)
    doubled = replace(batch, weight=2 * batch.weight)
    twice = vt.gradient(policy, doubled, estimator, **inputs)
    factor = 1 if estimator.aggregate is E.per_token else 2
    torch.testing.assert_close(twice, factor * once)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(ROWS))
def test_rules_on_random_batches(seed: int, name: str) -> None:
    for rule in RULES:
        assert list(rule(E.named(name), seed)) == []
