"""Sampling a tabular MDP: what it draws has the distribution that the tables say."""

import pytest
import torch
from worlds import random_policy

from vantage import exact
from vantage.environments.rollout import episodes
from vantage.environments.tabular import Tabular
from vantage.errors import InputError
from vantage.exact.mdp import MDP


def test_transitions_have_their_probabilities():
    """χ² of 200,000 draws per pair of state and action; each at the 10⁻⁶ level."""
    from scipy.stats import chi2

    mdp = MDP.garnet(4, 2, 3, seed=1, termination=0.2)
    lanes = 200_000
    env = Tabular(mdp, lanes)
    env.reset(0)
    for s in range(4):
        for a in range(2):
            env.state = torch.full((lanes,), s)
            step = env.step(torch.full((lanes,), a))
            found = torch.bincount(step.final_observation, minlength=5)
            expected = mdp.transition[s, a] * lanes
            possible = expected > 0
            assert (found[~possible] == 0).all()
            distance = ((found - expected).square() / expected)[possible].sum().item()
            assert distance < chi2.ppf(1 - 1e-6, int(possible.sum()) - 1)
            assert torch.equal(step.reward, mdp.reward[s, a][step.final_observation])
            assert torch.equal(step.terminated, mdp.terminal[step.final_observation])


@pytest.mark.parametrize("horizon", [None, 4])
def test_sampled_returns_agree_with_the_exact_objective(horizon):
    """4,000 episodes, 4.5 standard errors: fails once in 10⁵ seeds."""
    mdp = MDP.garnet(5, 2, 3, discount=0.9, seed=2, termination=0.2, horizon=horizon)
    policy = random_policy(mdp, 0)
    batch = episodes(Tabular(mdp, 500), policy, 4000, seed=1)
    power = 0.9 ** torch.arange(batch.reward.shape[1], dtype=torch.float64)
    R = (batch.reward * batch.mask * power).sum(1)
    J = exact.objective(mdp, policy).item()
    assert abs(R.mean().item() - J) < 4.5 * R.std().item() / 4000**0.5
    assert horizon is None or batch.reward.shape[1] <= horizon


def test_equal_seeds_draw_equal_episodes():
    env = Tabular(MDP.random_walk(5), 8)
    policy = env.policy()
    one, other = (episodes(env, policy, 16, seed=3) for _ in range(2))
    assert torch.equal(one.reward, other.reward)
    assert torch.equal(one.action, other.action)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="lanes=0"):
        Tabular(MDP.article(), 0)
    env = Tabular(MDP.article(), 2)
    env.reset(0)
    with pytest.raises(InputError, match="actions"):
        env.step(torch.tensor([0, 2]))
