"""Enumeration: complete, weighted by [3], refused where endless; group estimators exactly."""

from functools import partial
from math import comb

import pytest
import torch
from hypothesis import Phase, given, settings
from worlds import random_policy, trajectories, worlds

import vantage as vt
from vantage import exact
from vantage.errors import InputError
from vantage.estimators.columns import parts
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable

FEW = settings(
    derandomize=True, deadline=None, max_examples=10, phases=[Phase.explicit, Phase.generate]
)
TIGHT = {"atol": 1e-10, "rtol": 1e-10}


@FEW
@given(worlds())
def test_every_trajectory_is_there_once_with_its_probability(world):
    mdp, policy = world
    batch = exact.enumerate(mdp, policy).check()
    listed = sorted(
        (len(steps), probability, sum(r for _, _, r in steps))
        for probability, steps in trajectories(mdp, policy)
    )
    found = sorted(
        zip(
            batch.mask.sum(1).tolist(),
            batch.weight.tolist(),
            batch.reward.sum(1).tolist(),
            strict=True,
        )
    )
    assert torch.allclose(torch.tensor(listed), torch.tensor(found), atol=1e-10)
    assert batch.weight.sum().item() == pytest.approx(1)
    assert exact.unfinished(batch) == 0
    ends = batch.boundary & batch.mask
    assert (ends.sum(1) == 1).all()
    assert (batch.discount[ends] == 0).all()
    assert (batch.discount[batch.mask & ~ends] == mdp.discount).all()


@FEW
@given(worlds())
def test_the_estimators_own_code_is_exact_on_it(world):
    mdp, policy = world
    batch = exact.enumerate(mdp, policy)
    for name in ("reinforce", "reward_to_go"):
        estimator = vt.estimators.named(name)
        found = vt.gradients.gradient(policy, batch, estimator)
        torch.testing.assert_close(found, exact.gradient(mdp, policy), **TIGHT)


@FEW
@given(worlds())
def test_expectation_of_one_trajectory_is_what_the_moments_say(world):
    mdp, policy = world
    for name, returns in (("reinforce", "total"), ("reward_to_go", "to_go")):
        one = exact.expectation(mdp, policy, vt.estimators.named(name))
        other = exact.moments(mdp, policy, returns=returns)
        torch.testing.assert_close(one.mean, other.mean, **TIGHT)
        torch.testing.assert_close(one.trace, other.trace, **TIGHT)


def test_cycles_are_refused_with_a_remedy_and_cut_off_by_a_horizon(caplog):
    mdp, policy = MDP.short_corridor(), SoftmaxTable(1, 2)
    with pytest.raises(InputError, match=r"infinitely many.*horizon="):
        exact.enumerate(mdp, policy)
    batch = exact.enumerate(mdp, policy, horizon=6).check()
    assert batch.weight.sum().item() == pytest.approx(1)
    # After n steps from the first state the chance to be under way, by powers of P_π.
    P = torch.tensor([[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]).double()
    under_way = torch.linalg.matrix_power(P, 6)[0].sum().item()
    assert exact.unfinished(batch) == pytest.approx(under_way)
    assert "still under way" in caplog.text


def test_too_many_trajectories_are_refused():
    mdp = MDP.garnet(20, 4, 20, horizon=8)
    with pytest.raises(InputError, match=r"limit.*exact\.moments"):
        exact.enumerate(mdp, SoftmaxTable(20, 4))


def test_values_are_laid_along_the_trajectories():
    mdp = MDP.garnet(3, 2, 2, horizon=2, seed=1)
    V = torch.tensor([1.0, 2.0, 3.0]).double()
    batch = exact.enumerate(mdp, SoftmaxTable(3, 2), value=V)
    assert torch.equal(batch.value, V[batch.observation])


# Groups, one prompt: the formulas of theory section 7.

REWARD = torch.tensor([0.3, 1.1, -0.4], dtype=torch.float64)


def prompt(reward=REWARD):
    mdp = MDP.bandit(reward)
    policy = random_policy(mdp, 5)
    pi = exact.action_log_probability(mdp, policy).detach().exp()[0]
    psi = torch.eye(len(reward), dtype=torch.float64) - pi
    norm, mean = psi.square().sum(1), pi @ reward
    spread = pi @ (reward - mean).square()
    A = pi @ (norm * (reward - mean).square())
    G = exact.gradient(mdp, policy)
    return mdp, policy, {"A": A, "F": pi @ norm, "s2": spread, "G": G, "N": G @ G, "p": mean}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_rloo_is_unbiased_with_the_variance_of_the_formula(size):
    mdp, policy, v = prompt()
    found = exact.expectation(mdp, policy, vt.estimators.rloo(), size)
    trace = (v["A"] - v["N"]) / size + (v["N"] + v["F"] * v["s2"]) / (size * (size - 1))
    torch.testing.assert_close(found.mean, v["G"], **TIGHT)
    torch.testing.assert_close(found.trace, trace, **TIGHT)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_dr_grpo_shrinks_by_one_over_the_group(size):
    mdp, policy, v = prompt()
    found = exact.expectation(mdp, policy, vt.estimators.dr_grpo(), size)
    torch.testing.assert_close(found.mean, (size - 1) / size * v["G"], **TIGHT)


@pytest.mark.parametrize("size", [2, 5])
def test_grpo_and_maxrl_with_success_rewards_scale_the_gradient(size):
    mdp, policy, v = prompt(torch.tensor([1.0, 0.0]).double())
    p = v["p"].item()
    shares = [k / size for k in range(size + 1)]
    chance = [comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size + 1)]
    c = sum(w * (q * (1 - q)) ** 0.5 for w, q in zip(chance, shares, strict=True)) / (p * (1 - p))
    found = exact.expectation(mdp, policy, vt.estimators.grpo(), size)
    torch.testing.assert_close(found.mean, c * v["G"], atol=1e-3, rtol=1e-3)  # its 10⁻⁴ on the std
    found = exact.expectation(mdp, policy, vt.estimators.maxrl(), size)
    torch.testing.assert_close(found.mean, (1 - (1 - p) ** (size - 1)) / p * v["G"], **TIGHT)


def test_all_groups_in_one_batch_or_each_by_itself_is_the_same():
    mdp = MDP.garnet(2, 2, 2, horizon=2, seed=3)
    policy = random_policy(mdp, 2)
    together = vt.estimators.rloo()

    def slow(batch):
        return together.aggregate(batch)

    alone = together.replace(aggregate=vt.columns.declares(couples="batch")(slow))
    one, other = (exact.expectation(mdp, policy, e, 2) for e in (together, alone))
    torch.testing.assert_close(one.mean, other.mean, **TIGHT)
    torch.testing.assert_close(one.trace, other.trace, **TIGHT)
    assert one.batches == other.batches
    one, other = (exact.expectation(mdp, policy, e, 1, 2) for e in (vt.estimators.reinforce(),) * 2)
    torch.testing.assert_close(
        one.trace, exact.moments(mdp, policy, returns="total").trace / 2, **TIGHT
    )


def test_batches_of_independent_trajectories_couple_across_starts():
    """The mean baseline over m one-step trajectories shrinks the gradient by (m − 1)/m."""
    mdp, policy = MDP.article(), SoftmaxTable(2, 2)
    found = exact.expectation(mdp, policy, vt.estimators.reinforce_mean(), 1, groups=3)
    torch.testing.assert_close(found.mean, exact.gradient(mdp, policy) * 2 / 3, **TIGHT)


def test_an_entropy_bonus_adds_its_gradient():
    mdp = MDP.bandit(REWARD)
    policy = random_policy(mdp, 7)
    estimator = vt.estimators.reinforce().replace(entropy=0.3)
    found = exact.expectation(mdp, policy, estimator).mean
    policy.entropy(torch.tensor(0)).backward()
    bonus = 0.3 * policy.logits.grad.flatten()
    torch.testing.assert_close(found, exact.gradient(mdp, policy) + bonus, **TIGHT)


def test_off_policy_ratio_corrects_the_sampling_policy():
    mdp = MDP.bandit(REWARD)
    policy, behaviour = random_policy(mdp, 1), random_policy(mdp, 2)
    estimator = vt.Estimator(ratio=vt.ratios.token)
    found = exact.expectation(mdp, policy, estimator, behaviour=behaviour)
    torch.testing.assert_close(found.mean, exact.gradient(mdp, policy), **TIGHT)
    plain = exact.expectation(mdp, policy, vt.estimators.reinforce(), behaviour=behaviour)
    assert (plain.mean - exact.gradient(mdp, policy)).norm() > 0.01


def test_a_truncated_ratio_is_biased_off_policy_where_it_cuts():
    """Its mean is that of min(ρ, ρ̄); the gradient's only where ρ̄ is beyond every ratio."""
    mdp = MDP.bandit(REWARD)
    policy, behaviour = random_policy(mdp, 1), random_policy(mdp, 2)
    rule = vt.Estimator(ratio=vt.ratios.token)
    probs, sampled = (p.logits.softmax(-1).detach().flatten() for p in (policy, behaviour))
    ratio = probs / sampled
    score = torch.eye(len(probs)) - probs  # of each action, by the logits
    for maximum in (2 * float(ratio.max()), 1.0):
        clip = vt.ratios.truncated(maximum)
        found = exact.expectation(mdp, policy, rule.replace(clip=clip), behaviour=behaviour).mean
        weight = sampled * ratio.clamp(max=maximum) * REWARD.to(probs)
        torch.testing.assert_close(found, weight @ score.to(found), **TIGHT)
        biased = float((found - exact.gradient(mdp, policy)).norm())
        assert (biased > 0.01) == (maximum < float(ratio.max()))
    assert "Off policy it is biased" in parts(vt.ratios.truncated)["Unbiased when"]


@pytest.mark.parametrize("maximum", [1.0, 2.0])
def test_a_ratio_truncated_in_one_call_says_that_off_policy_it_is_biased(maximum):
    """∇J on policy; off policy ∇J − E_μ[max(ρ − ρ̄, 0) R Σ_t s_t], with the trajectory's ratio."""
    mdp = MDP.garnet(3, 3, 1, horizon=3, discount=1.0, seed=0)
    policy, behaviour = random_policy(mdp, 1), random_policy(mdp, 2)
    rule = vt.Estimator(ratio=vt.ratios.trajectory, clip=vt.ratios.truncated(maximum))
    assert rule.unbiased == f"always; off policy never (truncated(maximum={maximum}))"
    assert rule.columns()["clip"] == f"truncated(maximum={maximum})"
    assert rule.replace(clip=vt.ratios.truncated(float("inf"))).unbiased == "always"
    exactly = exact.gradient(mdp, policy).detach()
    on_policy = vt.gradient(policy, exact.enumerate(mdp, policy), rule)
    torch.testing.assert_close(on_policy, exactly, **TIGHT)
    every = exact.enumerate(mdp, behaviour)
    log_prob = policy.log_prob(every.observation, every.action)
    score_of = [
        torch.autograd.grad(row[counts].sum(), policy.logits, retain_graph=True)[0].flatten()
        for row, counts in zip(log_prob, every.mask, strict=True)
    ]
    ratio = torch.where(every.mask, log_prob - every.log_prob, 0).sum(1).exp().detach()
    worth = torch.where(every.mask, every.reward, 0).sum(1)
    lost = every.weight * (ratio - maximum).clamp(min=0) * worth
    got = vt.gradient(policy, every, rule)
    torch.testing.assert_close(got, exactly - lost @ torch.stack(score_of), **TIGHT)
    assert (got - exactly).norm() > 0.05 * exactly.norm()


@pytest.mark.parametrize("maximum", [0.0, -1.0, float("nan")])
def test_a_ratio_is_truncated_at_a_number_above_0(maximum):
    with pytest.raises(vt.InputError, match=r"truncated\(maximum=.*must be above 0"):
        vt.ratios.truncated(maximum)
    with pytest.raises(vt.InputError, match=r"rho_max=.*must be above 0"):
        vt.estimators.vtrace(rho_max=maximum)


@pytest.mark.parametrize("column", ["clip", "importance"])
def test_a_bound_that_cuts_the_ratio_on_policy_says_what_is_left(column):
    """On policy a ratio is 1: half of it is half of the gradient, by enumeration."""
    cut = {
        "clip": vt.ratios.truncated(0.5),
        "importance": partial(vt.importance.truncated, maximum=0.5),
    }
    mdp = MDP.bandit(REWARD)
    policy = random_policy(mdp, 1)
    rule = vt.Estimator(ratio=vt.ratios.token).replace(**{column: cut[column]})
    assert rule.bias == "scale"
    assert rule.unbiased.startswith("up to a constant factor (truncated(maximum=0.5))")
    assert rule.factor(1, 1.0) == 0.5
    found = exact.expectation(mdp, policy, rule).mean
    torch.testing.assert_close(found, 0.5 * exact.gradient(mdp, policy).detach(), **TIGHT)


@pytest.mark.parametrize(
    ("column", "cut"),
    [
        ("clip", partial(vt.ratios.tapered, maximum=0.5)),
        ("importance", partial(vt.importance.rejected, minimum=1.5)),
        ("importance", partial(vt.importance.masked, maximum=0.5)),
    ],
)
def test_a_bound_that_leaves_out_the_ratio_on_policy_claims_nothing(column, cut):
    rule = vt.Estimator(ratio=vt.ratios.trajectory).replace(**{column: cut})
    assert rule.unbiased.startswith("never (")
    wide = dict.fromkeys(cut.keywords, 1.0)
    whole = rule.replace(**{column: partial(cut.func, **wide)})
    assert whole.unbiased.startswith("always; off policy never")


def test_estimators_that_need_scores_are_given_them():
    mdp, policy = MDP.article(), SoftmaxTable(2, 2)
    estimator = vt.estimators.named("trajectory_leave_one_out")
    found = exact.expectation(mdp, policy, estimator, 1, groups=3)
    torch.testing.assert_close(found.mean, exact.gradient(mdp, policy), **TIGHT)
