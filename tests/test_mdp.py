"""MDPs: what is accepted, what is refused and how, and the worlds that come with the package."""

import gymnasium
import numpy as np
import pytest
import torch
from scipy import sparse

from vantage import exact
from vantage.errors import InputError
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable


def two_states(**changes):
    transition = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.3, 0.7]]])
    arguments = {
        "transition": transition.double(),
        "reward": torch.ones(2, 2, 2),
        "initial": [1, 0],
    }
    return MDP(**(arguments | changes))


def test_lists_arrays_and_tensors_are_accepted():
    mdp = two_states(transition=[[[0.5, 0.5]], [[1, 0]]], reward=np.ones((2, 1)), discount=1)
    assert mdp.transition.dtype == mdp.reward.dtype == torch.float64
    assert (mdp.states, mdp.actions, mdp.observations) == (2, 1, 2)


def test_a_row_that_does_not_sum_to_one_is_named_with_its_sum():
    transition = two_states().transition.clone()
    transition[1, 0, 0] = 0.75
    with pytest.raises(InputError, match=r"state 1, action 0.*0\.75"):
        two_states(transition=transition)


def test_rows_of_terminal_states_are_ignored():
    transition = two_states().transition.clone()
    transition[1] = 0
    mdp = two_states(transition=transition, terminal=[False, True])
    assert mdp.edges.state.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": [0.5, 0.4]}, "initial"),
        ({"initial": [1.5, -0.5]}, "initial"),
        ({"initial": [1.0, 0, 0]}, "transition"),
        ({"discount": 1.5}, "discount"),
        ({"horizon": 0}, "horizon"),
        ({"terminal": [True, False]}, "terminal"),
        ({"terminal": [0, 1]}, "bool"),
        ({"observation": [0, 1, 2]}, "observation"),
        ({"reward": torch.ones(2, 3)}, "reward"),
        ({"reward": torch.full((2, 2, 2), torch.nan)}, "finite"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        two_states(**changes)


def test_sparse_and_dense_are_the_same_world():
    dense = MDP.garnet(6, 2, 3, discount=0.9, termination=0.1, seed=3)
    listed = MDP.garnet(6, 2, 3, discount=0.9, termination=0.1, seed=3, sparse=True)
    for a, b in zip(dense.edges, listed.edges, strict=True):
        assert torch.equal(a, b)
    policy = SoftmaxTable(7, 2)
    with torch.no_grad():
        policy.logits.normal_(generator=torch.Generator().manual_seed(0))
    for name in ("objective", "gradient", "occupancy"):
        one, other = (getattr(exact, name)(mdp, policy) for mdp in (dense, listed))
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    for returns in ("to_go", "total"):
        one, other = (
            exact.moments(mdp, policy, "trajectory", returns).trace for mdp in (dense, listed)
        )
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    J = exact.objective(listed, policy)
    (by_autograd,) = torch.autograd.grad(J, [policy.logits])
    torch.testing.assert_close(by_autograd.flatten(), exact.gradient(dense, policy))


def test_sparse_rewards_need_not_share_the_pattern_of_the_transitions():
    transition = sparse.csr_array(two_states().transition.reshape(4, 2).numpy())
    reward = sparse.csr_array(np.array([[0, 2.0], [3.0, 0], [0, 0], [0, 5.0]]))
    mdp = two_states(transition=transition, reward=reward)
    pairs = zip(mdp.edges.state, mdp.edges.action, mdp.edges.next, mdp.edges.reward, strict=True)
    for s, a, following, r in pairs:
        assert r == reward.toarray()[int(s) * 2 + int(a), int(following)]


def test_garnet_has_its_branching_and_is_reproducible():
    mdp = MDP.garnet(10, 3, 4, seed=5)
    assert ((mdp.transition > 0).sum(2) == 4).all()
    assert torch.equal(mdp.transition, MDP.garnet(10, 3, 4, seed=5).transition)
    assert not torch.equal(mdp.transition, MDP.garnet(10, 3, 4, seed=6).transition)
    # The path for many states, which never forms a table of all pairs, draws different states too.
    large = MDP.garnet(3000, 2, 3, sparse=True)
    assert (np.diff(large.transition.indptr) == 3).all()


def test_random_walk_values_are_those_of_the_book():
    """Sutton & Barto 2018, example 6.2: 1/6 .. 5/6."""
    mdp = MDP.random_walk(5)
    V = exact.value(mdp, SoftmaxTable(7, 2)).V
    torch.testing.assert_close(V[1:6], torch.arange(1, 6).double() / 6)


def test_grid_world_distance_is_the_value_of_the_greedy_policy():
    mdp = MDP.grid_world(3, 4, walls=[(1, 1)])
    policy = SoftmaxTable(12, 4)
    with torch.no_grad():
        policy.logits[:, 1] = 60.0  # right
        policy.logits[[3, 4, 7], 2] = 120.0  # down along the last column and beside the wall
    V = exact.value(mdp, policy).V.reshape(3, 4)
    torch.testing.assert_close(V[0], torch.tensor([-5.0, -4, -3, -2]).double())


@pytest.mark.parametrize(
    ("name", "settings", "states"),
    [
        ("FrozenLake-v1", {}, 16),
        ("FrozenLake-v1", {"map_name": "8x8"}, 64),
        ("CliffWalking-v1", {}, 48),
        ("Taxi-v4", {}, 504),
    ],
)
def test_gymnasium_table_is_reproduced(name, settings, states):
    """Expected reward and chance to go on, of every pair, straight from the table."""
    mdp = MDP.from_gymnasium(name, discount=0.99, **settings)
    assert mdp.states == states
    env = gymnasium.make(name, **settings).unwrapped
    for s in env.P:
        if mdp.terminal[s]:
            continue
        for a, rows in env.P[s].items():
            reward = (mdp.transition[s, a] * mdp.reward[s, a]).sum().item()
            going_on = mdp.transition[s, a][~mdp.terminal].sum().item()
            assert reward == pytest.approx(sum(p * r for p, _, r, _ in rows))
            assert going_on == pytest.approx(sum(p for p, _, _, done in rows if not done))


def test_an_environment_without_a_table_is_refused():
    with pytest.raises(InputError, match=r"CartPole.*no transition table"):
        MDP.from_gymnasium("CartPole-v1")


def test_bandit_with_chance_rewards_has_their_mean_and_variance():
    mdp = MDP.bandit([[0.0, 1.0], [0.0, 4.0]], [[0.7, 0.3], [0.5, 0.5]])
    values = exact.value(mdp, SoftmaxTable(1, 2))
    torch.testing.assert_close(values.Q[0], torch.tensor([0.3, 2.0]).double())


def test_two_step_shares_one_row_of_parameters():
    shared, apart = MDP.two_step(), MDP.two_step(shared=False)
    assert (shared.observations, apart.observations) == (1, 4)
    assert exact.gradient(shared, SoftmaxTable(1, 2)).shape == (2,)
