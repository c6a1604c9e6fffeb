"""Sums over all actions of visited states, where Q is known: exact, and without actions' noise."""

import pytest
import torch
from test_baselines import lanes
from torch import Tensor

import vantage as vt
from vantage import exact
from vantage.conformance import claims

E = vt.estimators


def listed(problem: claims.Problem) -> tuple[vt.Batch, Tensor, Tensor]:
    """All trajectories, Q of each step's state, and Q."""
    values = exact.value(problem.mdp, problem.policy)
    every = exact.enumerate(problem.mdp, problem.policy, value=values.V.detach())
    return every, values.Q.detach()[every.observation], values.Q.detach()


@pytest.mark.parametrize("problem", claims.PROBLEMS, ids=lambda p: p.name)
def test_it_is_the_gradient_and_no_baseline_changes_it(problem: claims.Problem) -> None:
    every, q, _ = listed(problem)
    batch = exact.every_action(problem.policy, every, q).check()
    want = exact.gradient(problem.mdp, problem.policy).detach()
    for row in (E.reinforce(), E.reinforce_baseline(), E.dr_grpo(), E.ppo(normalise=False)):
        row = row.replace(aggregate=E.per_trajectory)
        torch.testing.assert_close(vt.gradient(problem.policy, batch, row), want)
    if problem.mdp.discount < 1:
        plain = exact.every_action(problem.policy, every, q, discounted=False)
        assert (vt.gradient(problem.policy, plain, E.reinforce()) - want).norm() > 1e-3


@pytest.mark.parametrize("problem", claims.PROBLEMS, ids=lambda p: p.name)
def test_of_each_trajectory_it_is_what_actions_average_to(problem: claims.Problem) -> None:
    """E ĝ = ∇J; its variance is below that of sampled actions with V; none with one state."""
    every, q, _ = listed(problem)
    true = exact.gradient(problem.mdp, problem.policy).detach()
    second, by_hand = torch.zeros(()).double(), torch.zeros_like(true)
    for n in range(every.rows):
        alone = every.select(slice(n, n + 1))
        chance, alone = alone.weight[0], vt.Batch(**alone.tensors() | {"weight": torch.ones(1)})
        one = vt.gradient(
            problem.policy, exact.every_action(problem.policy, alone, q[n : n + 1]), E.reinforce()
        )
        gamma = torch.cumprod(torch.cat([torch.ones(1), alone.discount[0, :-1]]), 0)
        pi = problem.policy.logits.softmax(-1)[alone.observation[0]]
        total = torch.where(alone.mask[0], gamma * (pi * q[n]).sum(-1), 0).sum()
        (want,) = torch.autograd.grad(total, problem.policy.logits)
        torch.testing.assert_close(one, want.flatten())
        second, by_hand = second + chance * one.square().sum(), by_hand + chance * one
    torch.testing.assert_close(by_hand, true)
    trace = float(second - true @ true)
    sampled = float(exact.moments(problem.mdp, problem.policy, "value").trace)
    assert -1e-12 < trace < 0.8 * sampled


def test_a_wrong_q_is_biased_by_its_error() -> None:
    problem = claims.PROBLEMS[2]
    every, _, table = listed(problem)
    wrong = table + torch.linspace(-0.5, 0.5, table.numel()).double().view_as(table)
    got = vt.gradient(
        problem.policy,
        exact.every_action(problem.policy, every, wrong[every.observation]),
        E.reinforce(),
    )
    pi = problem.policy.logits.softmax(-1)[every.observation]
    error = ((wrong - table)[every.observation] * pi).sum(-1)
    bias = torch.where(every.mask, every.weight[:, None] * error, 0).sum()
    (want,) = torch.autograd.grad(bias, problem.policy.logits)
    true = exact.gradient(problem.mdp, problem.policy).detach()
    torch.testing.assert_close(got - true, want.flatten())
    assert want.norm() > 0.05


def test_padding_and_impossible_actions_are_left_out() -> None:
    batch, policy = lanes(), vt.SoftmaxTable(3, 2)
    policy.logits.data[1, 0] = -torch.inf
    q = torch.rand(*batch.reward.shape, 2).double()
    q[~batch.mask] = torch.nan
    every = exact.every_action(policy, batch, q).check()
    ones = int((batch.observation[batch.mask] == 1).sum())
    assert ones > 0
    assert every.rows == 2 * batch.steps - ones
    assert every.log_prob.isfinite().all()
    assert every.reward.isfinite().all()


def test_what_cannot_be_listed_is_refused() -> None:
    batch = lanes()
    with pytest.raises(vt.InputError, match="has action 1, and action_value has values of 1"):
        exact.every_action(vt.SoftmaxTable(3, 2), batch, batch.reward[..., None])
    floating = vt.Batch(**batch.tensors() | {"action": batch.reward})
    with pytest.raises(vt.InputError, match=r"actions must be single whole numbers"):
        exact.every_action(vt.SoftmaxTable(3, 2), floating, batch.reward[..., None])
