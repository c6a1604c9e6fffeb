"""Gradients against autograd of the loss as one would write it, and against a loop over rows."""

from dataclasses import replace

import pytest
import torch
from small import chain, table
from test_baselines import lanes
from torch import Tensor, nn

import vantage as vt
from vantage import gradients
from vantage.policies import mlp


def networks() -> list[tuple[nn.Module, vt.Batch]]:
    """A table, a categorical network and a Gaussian one, each with a batch of lanes."""
    batch = lanes()
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(*batch.mask.shape, 4, generator=generator)
    # garbage in the padding must not reach the gradient
    vectors = torch.where(batch.mask[..., None], vectors, 1e3)
    discrete = vt.Categorical(mlp(4, (5,), 2, gain=1.0, generator=generator))
    continuous = vt.Gaussian(mlp(4, (5,), 3, gain=1.0, generator=generator), 3)
    actions = torch.randn(*batch.mask.shape, 3, generator=generator)
    single = batch.map(lambda x: x.float() if x.is_floating_point() else x)
    single = replace(single, observation=vectors)
    out = [(table(1), batch)]
    for policy, action in ((discrete, batch.action), (continuous, actions)):
        with torch.no_grad():
            log_prob = policy.log_prob(vectors, action)
        out.append((policy, replace(single, action=action, log_prob=log_prob)))
    return out


CASES = networks()
KINDS = ["table", "categorical", "gaussian"]


def parameters(policy: nn.Module) -> list[nn.Parameter]:
    return [p for p in policy.parameters() if p.requires_grad]


def steps_of(policy: nn.Module, batch: vt.Batch) -> dict[tuple[int, int], Tensor]:
    """∇ log π of every counted step, one at a time."""
    out = {}
    for n, t in batch.mask.nonzero().tolist():
        log_prob = policy.log_prob(batch.observation[n, t], batch.action[n, t])
        pieces = torch.autograd.grad(log_prob, parameters(policy))
        out[n, t] = torch.nn.utils.parameters_to_vector(pieces)
    return out


@pytest.mark.parametrize(("policy", "batch"), CASES, ids=KINDS)
def test_weighted_score_is_a_weighted_sum_of_scores(policy, batch) -> None:
    weights = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(1))
    weights = weights.to(batch.reward.dtype)
    steps = steps_of(policy, batch)
    want = sum(weights[place] * score for place, score in steps.items())
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(gradients.weighted_score(policy, batch, weights), want, **tolerance)
    each = gradients.step_scores(policy, batch)
    for place, score in steps.items():
        torch.testing.assert_close(each[place], score, **tolerance)
    assert (each[~batch.mask] == 0).all()


@pytest.mark.parametrize(("policy", "batch"), CASES, ids=KINDS)
def test_rows_by_vectors_and_by_loop(policy, batch) -> None:
    weights = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(1))
    weights = weights.to(batch.reward.dtype)
    fast = gradients.row_gradients(policy, batch, weights)
    slow = gradients.row_gradients_by_loop(policy, batch, weights)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    whole = gradients.weighted_score(policy, batch, weights)
    torch.testing.assert_close(fast.sum(0), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("policy", "batch"), CASES, ids=KINDS)
def test_gradient_is_that_of_the_surrogate_and_the_entropy(policy, batch) -> None:
    """∇ Σ share (A log π + c H) by autograd, and the entropy's part apart."""
    estimator = vt.estimators.a2c(entropy=0.3)
    got = vt.gradient(policy, batch, estimator)
    mask = batch.mask
    log_prob = policy.log_prob(batch.observation[mask], batch.action[mask])
    entropy = policy.entropy(batch.observation[mask])
    advantage = (vt.returns.to_go(batch) - batch.value)[mask]
    share = (batch.weight[:, None] * mask)[mask]
    share = share / share.sum()
    loss = -(share * (advantage * log_prob + 0.3 * entropy)).sum()
    pieces = torch.autograd.grad(loss, parameters(policy), allow_unused=True)
    want = -torch.nn.utils.parameters_to_vector(pieces)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    apart = gradients.weighted_score(
        policy, batch, estimator.weights(batch)
    ) + gradients.weighted_entropy(policy, batch, estimator.entropy_weights(batch))
    torch.testing.assert_close(got, apart, rtol=1e-4, atol=1e-5)


def test_scores_do_not_mix_episodes_of_a_row() -> None:
    """ĝ0 is that of the step's own episode: lanes give what one row an episode gives."""
    batch, policy = lanes(), table(1)
    estimator = vt.estimators.trajectory()
    in_lanes = gradients.scores(policy, batch, estimator)
    for episode in batch.episode[batch.mask].unique():
        own = batch.mask & (batch.episode == episode)
        alone = replace(batch, mask=own)
        scores = gradients.scores(policy, alone, estimator)
        torch.testing.assert_close(scores.norm[own], in_lanes.norm[own])
        torch.testing.assert_close(scores.product[own], in_lanes.product[own])


def test_frozen_parameters_are_left_out() -> None:
    policy = vt.Gaussian(mlp(4, (5,), 3, gain=1.0, generator=torch.Generator().manual_seed(0)), 3)
    policy.log_std.requires_grad_(False)
    batch = CASES[2][1]
    weights = torch.where(batch.mask, 1.0, 0.0)
    size = sum(p.numel() for p in parameters(policy))
    assert gradients.weighted_score(policy, batch, weights).shape == (size,)
    assert gradients.row_gradients(policy, batch, weights).shape == (batch.rows, size)


def test_gradient_points_uphill() -> None:
    """A small step along ĝ of all trajectories raises J."""
    problem, policy = chain(0), table(0)
    before = problem.value(policy)[0].detach()
    step = vt.gradient(policy, problem.batch(policy), vt.estimators.reinforce())
    policy.logits.data += 0.1 * step.reshape(3, 2)
    assert problem.value(policy)[0] > before
