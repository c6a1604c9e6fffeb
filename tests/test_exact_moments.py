"""Moments without sampling: against enumeration and sampling; the baselines' optimality."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from worlds import brute_moments, random_policy, worlds

from vantage import exact
from vantage.errors import InputError
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable

FEW = settings(
    derandomize=True, deadline=None, max_examples=10, phases=[Phase.explicit, Phase.generate]
)
RETURNS = st.sampled_from(["to_go", "total"])
NAMED = ["none", "value", "norm_weighted", "trajectory", "constant"]


def close(one, other, tolerance=1e-10):
    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
    scale = max(1.0, float(other.abs().max()))
    assert float((one - other).abs().max()) <= tolerance * scale


@FEW
@given(worlds(), RETURNS, st.booleans(), st.booleans(), st.integers(0, 99))
def test_moments_agree_with_enumeration_for_any_baseline(world, returns, discounted, timed, seed):
    mdp, policy = world
    shape = (mdp.horizon, mdp.states) if timed and mdp.horizon else (mdp.states,)
    generator = torch.Generator().manual_seed(seed)
    baseline = torch.randn(*shape, generator=generator, dtype=torch.float64)
    found = exact.moments(mdp, policy, baseline, returns, discounted=discounted, by_parameter=True)
    mean, variance = brute_moments(mdp, policy, baseline, returns, discounted)
    close(found.mean, mean)
    close(found.variance, variance)
    close(found.trace, variance.sum())
    close(found.baseline, baseline)


@FEW
@given(worlds(), RETURNS, st.sampled_from(NAMED))
def test_named_baselines_agree_with_enumeration(world, returns, name):
    mdp, policy = world
    found = exact.moments(mdp, policy, name, returns)
    mean, variance = brute_moments(mdp, policy, found.baseline, returns)
    close(found.mean, exact.gradient(mdp, policy))
    close(found.mean, mean)
    close(found.trace, variance.sum())


@FEW
@given(worlds(), RETURNS, st.integers(0, 99))
def test_excess_variance_identity(world, returns, seed):
    """V(b) − V(b*) = Σ_s E[Σ_t 1{s_t=s} κ^{2t} ‖s_t‖²] (b(s) − b*(s))², V(b) by enumeration."""
    mdp, policy = world
    best = exact.moments(mdp, policy, "trajectory", returns).baseline
    kappa = mdp.discount if returns == "to_go" else 1.0
    batch = exact.enumerate(mdp, policy)
    psi = exact.score_table(mdp, policy).reshape(mdp.states, mdp.actions, -1)
    # States of the steps: an MDP whose observations are its states lists the same trajectories.
    plain = MDP(
        mdp.transition, mdp.reward, mdp.initial, mdp.discount, mdp.terminal, None, mdp.horizon
    )
    pi = exact.action_log_probability(mdp, policy).detach()
    table = SoftmaxTable(mdp.states, mdp.actions)
    table.logits.data = pi.nan_to_num(neginf=0.0)
    listed = exact.enumerate(plain, table)
    close(listed.weight, batch.weight, 1e-12)
    power = kappa ** (2 * torch.arange(batch.reward.shape[1], dtype=torch.float64))
    share = listed.weight[:, None] * power * listed.mask
    norm = psi.square().sum(2)[listed.observation, listed.action]
    curvature = torch.zeros(mdp.states, dtype=torch.float64).index_add(
        0, listed.observation.flatten(), (share * norm).flatten()
    )
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(mdp.states, generator=generator, dtype=torch.float64)
    excess = (curvature * (b - best).square()).sum()
    above = brute_moments(mdp, policy, b, returns)[1].sum()
    least = brute_moments(mdp, policy, best, returns)[1].sum()
    close(above - least, excess)
    found = exact.moments(mdp, policy, b, returns)
    close(found.action, excess)
    close(found.state + found.action + found.rest, found.trace)


@FEW
@given(worlds(), RETURNS)
def test_best_constant_is_where_the_parabola_is_lowest(world, returns):
    mdp, policy = world
    level = exact.moments(mdp, policy, "constant", returns).baseline[0]
    low, middle, high = (
        brute_moments(mdp, policy, (level + d).expand(mdp.states), returns)[1].sum()
        for d in (-1.0, 0.0, 1.0)
    )
    close(low, high)
    assert middle <= low


@FEW
@given(worlds())
def test_state_part_is_the_spread_of_the_mean_between_starts(world):
    mdp, policy = world
    found = exact.moments(mdp, policy, "value")
    total = torch.zeros((), dtype=torch.float64)
    for s in mdp.initial.nonzero().flatten():
        start = torch.zeros(mdp.states).index_fill(0, s, 1.0)
        alone = MDP(
            mdp.transition,
            mdp.reward,
            start,
            mdp.discount,
            mdp.terminal,
            mdp.observation,
            mdp.horizon,
        )
        total = total + mdp.initial[s] * exact.gradient(alone, policy).square().sum()
    close(found.state, total - exact.gradient(mdp, policy).square().sum())


def test_a_table_and_the_same_policy_as_a_module_have_the_same_moments():
    """The fast path of softmax tables against scores formed by autograd."""
    mdp = MDP.garnet(7, 3, 4, discount=0.9, termination=0.1, observations=4, seed=2)
    table = random_policy(mdp, 1)

    class Other(SoftmaxTable):
        pass

    other = Other(table.logits.shape[0], 3)
    other.load_state_dict(table.state_dict())
    for returns in ("to_go", "total"):
        one, two = (
            exact.moments(mdp, p, "trajectory", returns, by_parameter=True) for p in (table, other)
        )
        close(one.mean, two.mean)
        close(one.variance, two.variance)
        close(one.baseline, two.baseline)


@pytest.mark.parametrize("returns", ["to_go", "total"])
def test_moments_agree_with_sampling_where_enumeration_is_impossible(returns):
    """20,000 episodes of an endless, aliased world; 4.5 standard errors: one seed in 10⁵ fails."""
    mdp = MDP.garnet(5, 2, 3, discount=0.9, termination=0.15, observations=3, seed=4)
    policy = random_policy(mdp, 3)
    found = exact.moments(mdp, policy, "trajectory", returns)
    generator = torch.Generator().manual_seed(0)
    n, gamma = 20_000, mdp.discount
    psi = exact.score_table(mdp, policy).reshape(mdp.states, mdp.actions, -1)
    pi = exact.action_log_probability(mdp, policy).detach().exp()
    s = torch.multinomial(mdp.initial, n, replacement=True, generator=generator)
    states, actions, rewards = [], [], []
    while bool((~mdp.terminal[s]).any()):
        live = ~mdp.terminal[s]
        a = torch.multinomial(torch.where(live[:, None], pi[s], 0.5), 1, generator=generator)[:, 0]
        row = torch.where(live[:, None], mdp.transition[s, a], mdp.terminal.double())
        following = torch.multinomial(row, 1, generator=generator)[:, 0]
        states.append(s)
        actions.append(a)
        rewards.append(torch.where(live, mdp.reward[s, a, following], 0.0))
        s = following
    to_go, g = torch.zeros(n, dtype=torch.float64), 0.0
    total = sum(gamma**t * r for t, r in enumerate(rewards))
    for t in reversed(range(len(states))):
        to_go = rewards[t] + gamma * to_go
        R, factor = (to_go, gamma**t) if returns == "to_go" else (total, 1.0)
        above = factor * (R - found.baseline[states[t]])
        g = g + above[:, None] * psi[states[t], actions[t]]
    error = g.var(0).div(n).sqrt()
    assert ((g.mean(0) - found.mean).abs() < 4.5 * error).all()
    squares = (g - found.mean).square().sum(1)
    assert abs(squares.mean() - found.trace) < 4.5 * squares.std() / n**0.5


def test_article_variances():
    mdp, policy = MDP.article(), SoftmaxTable(2, 2)
    expected = {"none": 427 / 16, "constant": 89 / 16, "value": 17 / 16, "trajectory": 17 / 16}
    for name, trace in expected.items():
        close(exact.moments(mdp, policy, name).trace, trace)
    close(exact.moments(mdp, policy, "constant").baseline, torch.tensor([6.5, 6.5]))
    found = exact.moments(mdp, policy, "value")
    close(found.state, 17 / 16)
    close(found.action, 0.0)
    close(found.rest, 0.0)


def test_corridor_optimum():
    """Sutton & Barto 2018, example 13.1: p(right) = 2 − √2, J = −(3 + 2√2)·2 ≈ −11.66."""
    mdp, policy = MDP.short_corridor(), SoftmaxTable(1, 2)
    p = 2 - 2**0.5
    policy.logits.data = torch.tensor([[1 - p, p]], dtype=torch.float64).log()
    close(exact.gradient(mdp, policy), torch.zeros(2), 1e-9)
    close(exact.objective(mdp, policy).detach(), -2 * (3 + 2 * 2**0.5))


def test_refusals_name_the_thing():
    mdp, policy = MDP.article(), SoftmaxTable(2, 2)
    with pytest.raises(InputError, match="baseline='best'"):
        exact.moments(mdp, policy, "best")
    with pytest.raises(InputError, match="shape"):
        exact.moments(mdp, policy, torch.zeros(3))
    with pytest.raises(InputError, match="returns"):
        exact.moments(mdp, policy, returns="gae")
    endless = MDP.garnet(3, 2, 2, discount=0.9)
    with pytest.raises(InputError, match="never terminates"):
        exact.moments(endless, SoftmaxTable(3, 2), returns="total")
