"""Sampling an MDP: frequencies of starts and transitions, ends, and equality with the exact J."""

import pytest
import torch

import vantage as vt
from vantage.environments.rollout import episodes


def test_frequencies_are_the_tables() -> None:
    """60,000 draws: every frequency within 5 standard errors (error rate below 1e-4 in all)."""
    mdp = vt.MDP.garnet(states=6, actions=3, branching=3, seed=0, horizon=4)
    env = vt.Tabular(mdp, lanes=200)
    counts = torch.zeros(6, 3, 6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    starts = torch.bincount(env.reset(seed=0), minlength=6).double()
    for _ in range(300):
        state, action = env.state, torch.randint(3, (200,), generator=generator)
        step = env.step(action)
        following = step.final_observation
        counts.index_put_(
            (state, action, following), torch.ones(200, dtype=torch.float64), accumulate=True
        )
        starts += torch.bincount(step.observation[step.terminated], minlength=6)
    tries = counts.sum(2, keepdim=True).clamp_min(1)
    expected = mdp.transition
    error = (expected * (1 - expected) / tries).sqrt()
    assert ((counts / tries - expected).abs() <= 5 * error + 1e-12).all()
    share = starts / starts.sum()
    spread = (mdp.initial * (1 - mdp.initial) / starts.sum()).sqrt()
    assert ((share - mdp.initial).abs() <= 5 * spread + 1e-12).all()


def test_every_transition_is_possible_and_pays_its_reward() -> None:
    mdp = vt.MDP.garnet(states=5, actions=2, branching=2, seed=3, horizon=3)
    batch = episodes(vt.Tabular(mdp, lanes=7), vt.SoftmaxTable(5, 2), 70, seed=0).check()
    for row in range(batch.rows):
        assert batch.mask[row].sum() == 3
        assert batch.discount[row, 2] == 0
        for t in range(2):
            here, there = batch.observation[row, t], batch.observation[row, t + 1]
            action = batch.action[row, t]
            assert mdp.transition[here, action, there] > 0
            assert batch.reward[row, t] == mdp.reward[here, action, there]


def test_mean_return_is_the_exact_objective() -> None:
    """20,000 episodes of the corridor: within 4 standard errors of J."""
    mdp = vt.MDP.short_corridor()
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    batch = episodes(vt.Tabular(mdp, lanes=500), policy, 20_000, seed=0)
    returns = batch.reward.sum(1)
    error = returns.std() / 20_000**0.5
    objective = vt.exact.objective(mdp, policy).item()
    assert abs(returns.mean().item() - objective) < 4 * error.item()


def test_a_policy_trains_to_the_exact_optimum() -> None:
    """The corridor's best stochastic policy, J ≈ −11.66, is reached within 2 %."""
    mdp = vt.MDP.short_corridor()
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    vt.train(
        vt.Tabular(mdp, lanes=64), policy, vt.estimators.reinforce_mean(), updates=60, batch=128,
        lr=0.05, progress=False,
    )  # fmt: skip
    assert vt.exact.objective(mdp, policy).item() == pytest.approx(-11.66, rel=0.02)


def test_lanes_must_be_positive() -> None:
    with pytest.raises(vt.InputError, match="lanes=0"):
        vt.Tabular(vt.MDP.article(), lanes=0)
