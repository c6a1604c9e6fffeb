"""Objective, values, occupancy and gradient: independent routes must agree."""

import pytest
import torch
from hypothesis import Phase, given, settings
from worlds import network_policy, random_policy, trajectories, worlds

from vantage import exact
from vantage.errors import InputError
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable

FEW = settings(
    derandomize=True, deadline=None, max_examples=12, phases=[Phase.explicit, Phase.generate]
)
TIGHT = {"atol": 1e-10, "rtol": 1e-10}


@FEW
@given(worlds())
def test_three_routes_to_the_gradient_agree(world):
    mdp, policy = world
    routes = [exact.gradient(mdp, policy, r) for r in ("occupancy", "autograd", "enumeration")]
    torch.testing.assert_close(routes[0], routes[1], **TIGHT)
    torch.testing.assert_close(routes[0], routes[2], **TIGHT)


@FEW
@given(worlds())
def test_objective_and_occupancy_agree_with_all_trajectories(world):
    mdp, policy = world
    J, visits = 0.0, torch.zeros(mdp.states, dtype=torch.float64)
    for probability, steps in trajectories(mdp, policy):
        for t, (s, _, r) in enumerate(steps):
            J += probability * mdp.discount**t * r
            visits[s] += probability * mdp.discount**t
    assert exact.objective(mdp, policy).item() == pytest.approx(J, abs=1e-10)
    torch.testing.assert_close(exact.occupancy(mdp, policy), visits, **TIGHT)


@FEW
@given(worlds())
def test_values_satisfy_the_bellman_equations(world):
    mdp, policy = world
    horizon = mdp.horizon or 1
    pi = exact.action_log_probability(mdp, policy).detach().exp()
    for steps in range(1, horizon + 1):
        values = exact.value(mdp, policy, steps if mdp.horizon else None)
        if mdp.horizon is None:
            later = values.V
        elif steps == 1:
            later = torch.zeros(mdp.states, dtype=torch.float64)
        else:
            later = exact.value(mdp, policy, steps - 1).V
        Q = (mdp.transition * (mdp.reward + mdp.discount * later)).sum(2) * ~mdp.terminal[:, None]
        torch.testing.assert_close(values.Q, Q, **TIGHT)
        torch.testing.assert_close(values.V, (pi * Q).sum(1), **TIGHT)
        torch.testing.assert_close((pi * values.A).sum(1), torch.zeros_like(values.V), **TIGHT)


def test_gradient_is_the_slope_of_the_objective():
    """Central differences, error O(h²)."""
    mdp = MDP.garnet(6, 3, 3, discount=0.95, observations=3, seed=1)
    policy = network_policy(mdp, 0)
    found = exact.gradient(mdp, policy)
    theta = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    for i in range(0, len(theta), 3):
        J = []
        for h in (1e-5, -1e-5):
            moved = theta.clone()
            moved[i] += h
            torch.nn.utils.vector_to_parameters(moved, policy.parameters())
            J.append(exact.objective(mdp, policy).item())
        assert (J[0] - J[1]) / 2e-5 == pytest.approx(found[i].item(), abs=1e-7)


def test_without_the_factor_of_the_discount_the_gradient_turns():
    """The sum without γ^t, term by term over trajectories, and the angle it makes with ∇J."""
    mdp = MDP.garnet(3, 2, 2, discount=0.7, horizon=4, seed=8)
    policy = random_policy(mdp, 0)
    batch = exact.enumerate(mdp, policy)
    power = 0.7 ** torch.arange(4, dtype=torch.float64)
    to_go = (batch.reward * power).flip(1).cumsum(1).flip(1) / power
    log_prob = policy.log_prob(batch.observation, batch.action)
    common = exact.solve.flat_gradient((batch.weight[:, None] * to_go * log_prob).sum(), policy)
    torch.testing.assert_close(exact.gradient(mdp, policy, discounted=False), common, **TIGHT)
    true = exact.gradient(mdp, policy)
    cosine = torch.nn.functional.cosine_similarity(true, common, dim=0)
    angle = exact.discounting_angle(mdp, policy)
    assert angle == pytest.approx(torch.rad2deg(torch.arccos(cosine)).item(), abs=1e-6)
    assert angle > 0.1


def test_a_policy_that_never_terminates_is_refused_not_looped_on():
    """A move that leads nowhere, undiscounted, and with π(a|s) = 0 where the way out would be."""
    stuck = MDP([[[0.0, 1.0], [1.0, 0.0]], [[0, 1], [0, 1]]], torch.ones(2, 2, 2), [1, 0])
    for function in (exact.objective, exact.gradient, exact.moments, exact.value):
        with pytest.raises(InputError, match="never terminates"):
            function(stuck, SoftmaxTable(2, 2))
    walk = MDP.random_walk(3)
    policy = SoftmaxTable(5, 2)
    policy.logits.data[1:3] = torch.tensor([[-torch.inf, 0.0], [0.0, -torch.inf]]).double()[[0, 1]]
    with pytest.raises(InputError, match=r"state [12]"):
        exact.objective(walk, policy)


def test_states_that_cannot_be_reached_do_not_matter():
    """State 2 loops for ever, undiscounted; nothing leads there."""
    transition = torch.zeros(3, 1, 3)
    transition[0, 0, 1] = transition[2, 0, 2] = 1
    mdp = MDP(transition, torch.ones(3, 1, 3), [1, 0, 0], terminal=[False, True, False])
    values = exact.value(mdp, SoftmaxTable(3, 1))
    assert values.V[:2].tolist() == [1.0, 0.0]
    assert values.V[2].isnan()
    assert exact.objective(mdp, SoftmaxTable(3, 1)).item() == 1.0


def test_sparse_world_that_mixes_slowly_is_solved():
    """A long undiscounted chain, where the iteration stalls and the decomposition takes over."""
    from scipy import sparse

    dense = MDP.random_walk(400)
    S = dense.states
    listed = MDP(
        sparse.csr_array(dense.transition.reshape(-1, S).numpy()),
        sparse.csr_array(dense.reward.reshape(-1, S).numpy()),
        dense.initial,
        terminal=dense.terminal,
    )
    policy = SoftmaxTable(S, 2)
    one, other = (exact.gradient(mdp, policy) for mdp in (dense, listed))
    torch.testing.assert_close(one, other, atol=1e-8, rtol=0)


def test_sparse_solve_survives_a_uniform_start():
    """A uniform source breaks the iteration down if it starts from zero."""
    mdp = MDP.garnet(3000, 2, 5, discount=0.99, sparse=True)
    d = exact.occupancy(mdp, SoftmaxTable(3000, 2))
    assert d.sum().item() == pytest.approx(100, abs=1e-8)  # Σ_t γ^t
    assert (d > 0).all()


def test_sparse_world_with_horizon():
    arguments = {"horizon": 5, "discount": 0.9, "seed": 2, "observations": 3}
    worlds = [MDP.garnet(6, 2, 3, sparse=s, **arguments) for s in (False, True)]
    policy = random_policy(worlds[0], 1)
    one, other = (exact.gradient(mdp, policy) for mdp in worlds)
    torch.testing.assert_close(one, other, **TIGHT)


def test_what_does_not_fit_is_refused():
    mdp = MDP.article()
    with pytest.raises(InputError, match=r"3 actions and the MDP 2"):
        exact.objective(mdp, SoftmaxTable(2, 3))
    with pytest.raises(InputError, match="no row"):
        exact.objective(mdp, SoftmaxTable(1, 2))
    with pytest.raises(InputError, match="Categorical"):
        exact.objective(mdp, torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="route"):
        exact.gradient(mdp, SoftmaxTable(2, 2), "fast")
    with pytest.raises(InputError, match="steps"):
        exact.value(MDP.short_corridor(), SoftmaxTable(1, 2), steps=3)
