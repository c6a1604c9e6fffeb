"""What is true on average, proved by listing every trajectory, pair or tuple of small problems.

The enumeration here (`small.py`) is not the package's: it is the second route to the same numbers.
"""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from small import arms, chain, mean_of_batches, table, tuples

import vantage as vt
from vantage.estimators import (
    baselines,
    discounted,
    penalties,
    per_sequence,
    per_token,
    ratios,
    scales,
)

E = vt.estimators
SEEDS = range(3)


def close(got, want, tolerance=1e-10):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


# The worked example.


def article() -> tuple[vt.SoftmaxTable, vt.Batch]:
    """Two states, rewards 12, 7 and 2, 5, uniform start and policy: the four outcomes."""
    policy = vt.SoftmaxTable(2, 2)
    rows = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    reward = torch.tensor([12.0, 7.0, 2.0, 5.0])
    one = arms(reward, vt.SoftmaxTable(1, 4))
    log_prob = policy.log_prob(rows[0][:, None], rows[1][:, None]).detach()
    batch = replace(
        one,
        observation=rows[0][:, None],
        action=rows[1][:, None],
        log_prob=log_prob,
        group=rows[0],
        weight=torch.full((4,), 0.25).double(),
    )
    return policy, batch.check()


def test_worked_example_gradient() -> None:
    policy, batch = article()
    want = torch.tensor([5, -5, -3, 3]).double() / 8
    for estimator in (E.reinforce(), E.reward_to_go(), E.state_mean(), E.reinforce_mean()):
        close(vt.gradient(policy, batch, estimator), want)


def test_worked_example_two_samples() -> None:
    """(s1, a2), (s2, a2): raw returns point away from ∇J, state averages give it exactly."""
    policy, batch = article()
    two = replace(batch.select(torch.tensor([1, 3])), weight=torch.full((2,), 0.5).double())
    raw = vt.gradient(policy, two, E.reinforce())
    close(raw, torch.tensor([-1.75, 1.75, -1.25, 1.25]).double())
    exact = vt.gradient(policy, batch, E.reinforce())
    close(torch.cosine_similarity(raw, exact, dim=0), torch.tensor(-0.399).double(), 1e-3)
    state_average = torch.tensor([[9.5], [3.5]]).double()
    known = replace(two, value=state_average)
    close(vt.gradient(policy, known, E.reinforce_baseline()), exact)


@pytest.mark.parametrize(
    ("baseline", "trace"),
    [
        (baselines.none, 427 / 16),
        (partial(baselines.constant, level=6.5), 89 / 16),
        (baselines.state_mean, 17 / 16),  # in-sample on the enumeration is V itself
    ],
)
def test_worked_example_variance(baseline, trace) -> None:
    policy, batch = article()
    estimator = vt.Estimator(returns=vt.returns.to_go, baseline=baseline)
    each = 4 * vt.row_gradients(policy, batch, estimator.weights(batch))
    close((each - each.mean(0)).square().sum(1).mean(), torch.tensor(trace).double())


# Unbiased rows, on a chain of three decisions.

UNCOUPLED = ("reinforce", "reward_to_go", "reinforce_baseline")
GROUPED = ("rloo", "opo_leave_one_out", "trajectory_by_position")
BATCHED = (
    "reinforce_leave_one_out",
    "state_leave_one_out",
    "norm_weighted_leave_one_out",
    "trajectory_leave_one_out",
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("name", UNCOUPLED)
def test_unbiased(name: str, discount: float, seed: int) -> None:
    problem, policy = chain(seed, discount), table(seed)
    batch = problem.batch(policy, value=torch.tensor([0.3, -0.2, 0.8]).double())
    close(vt.gradient(policy, batch, E.named(name)), problem.gradient(policy))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("name", GROUPED)
def test_unbiased_in_groups(name: str, discount: float, seed: int) -> None:
    problem, policy = chain(seed, discount), table(seed)
    every = problem.batch(policy)
    for size in (2, 3):
        _, batch = tuples(every, size)
        close(vt.gradient(policy, batch, E.named(name)), problem.gradient(policy), 1e-9)


@pytest.mark.parametrize("name", BATCHED)
def test_unbiased_in_batches(name: str) -> None:
    problem, policy = chain(1, 0.7), table(1)
    every = problem.batch(policy)
    sizes = (2,) if "scores" in E.named(name).needs else (2, 3)
    for size in sizes:
        mean = mean_of_batches(every, size, policy, E.named(name))
        close(mean, problem.gradient(policy), 1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "returns",
    [
        partial(vt.returns.n_step, n=1),
        partial(vt.returns.n_step, n=2),
        partial(vt.returns.gae, lambda_=0.0),
        partial(vt.returns.gae, lambda_=0.6),
    ],
)
def test_bootstrapped_returns_need_the_true_value(returns, seed: int) -> None:
    problem, policy = chain(seed, 0.8), table(seed)
    estimator = vt.Estimator(returns=returns, baseline=baselines.value, discounting=discounted)
    exact = problem.gradient(policy)
    true = problem.value(policy).detach()
    close(vt.gradient(policy, problem.batch(policy, true), estimator), exact)
    wrong = vt.gradient(
        policy, problem.batch(policy, true + torch.tensor([0.0, 0.5, -0.5])), estimator
    )
    assert (wrong - exact).norm() > 1e-3


@pytest.mark.parametrize("name", ["reinforce", "reward_to_go", "reinforce_baseline"])
def test_truncated_trajectories_are_unbiased_with_the_true_bootstrap(name: str) -> None:
    """Cut after two decisions, the first of three: the bootstrap stands for the third.

    The objective's gradient then lacks the third decision's own score, which the cut trajectories
    never reach: compare with the gradient that holds the third decision's logits fixed.
    """
    whole, cut, policy = chain(0, 0.8), chain(0, 0.8, cut=2), table(0)
    true = whole.value(policy).detach()
    exact = whole.gradient(policy).reshape(3, 2)
    got = vt.gradient(policy, cut.batch(policy, true), E.named(name)).reshape(3, 2)
    close(got[:2], exact[:2])
    assert (got[2] == 0).all()
    dropped = vt.gradient(policy, cut.batch(policy), E.reward_to_go()).reshape(3, 2)
    assert (dropped[:2] - exact[:2]).norm() > 1e-3  # truncation taken for termination


def test_dropping_the_discount_turns_the_gradient() -> None:
    """The rows without γ^t overweigh state s of the chain, visited at time s, by γ^{−s}."""
    problem, policy = chain(0, 0.6), table(0)
    true = problem.value(policy).detach()
    batch, exact = problem.batch(policy, true), problem.gradient(policy)
    estimator = E.actor_critic()
    with_it = vt.gradient(policy, batch, estimator.replace(discounting=discounted))
    without = vt.gradient(policy, batch, estimator)
    close(with_it, exact)
    overweight = 0.6 ** -torch.arange(3).double()
    close(without.reshape(3, 2), overweight[:, None] * exact.reshape(3, 2))
    undiscounted = chain(0, 1.0)
    true = undiscounted.value(policy).detach()
    close(
        vt.gradient(policy, undiscounted.batch(policy, true), estimator),
        undiscounted.gradient(policy),
    )


# Biased rows, with their closed forms.


@pytest.mark.parametrize("size", [2, 3, 4])
def test_group_mean_shrinks(size: int) -> None:
    """Dr. GRPO: (G−1)/G · ∇J."""
    policy = table(0, 1, 3)
    every = arms(torch.tensor([0.1, 0.9, 0.4]), policy)
    exact = vt.gradient(policy, every, E.reinforce())
    _, batch = tuples(every, size)
    close(vt.gradient(policy, batch, E.dr_grpo()), (size - 1) / size * exact)


def test_group_mean_shrinks_several_decisions_alike() -> None:
    problem, policy = chain(2), table(2)
    _, batch = tuples(problem.batch(policy), 3)
    close(vt.gradient(policy, batch, E.dr_grpo()), 2 / 3 * problem.gradient(policy))
    length = 2.5
    close(
        vt.gradient(policy, batch, E.dr_grpo(length=length)),
        2 / 3 / length * problem.gradient(policy),
    )


@pytest.mark.parametrize("size", [2, 3])
def test_batch_mean_shrinks(size: int) -> None:
    """(m−1)/m · ∇J where trajectories have one length."""
    policy = table(0, 1, 3)
    every = arms(torch.tensor([0.1, 0.9, 0.4]), policy)
    exact = vt.gradient(policy, every, E.reinforce())
    mean = mean_of_batches(every, size, policy, E.reinforce_mean())
    close(mean, (size - 1) / size * exact)


def success(p_logits: int, size: int) -> tuple[vt.SoftmaxTable, vt.Batch, torch.Tensor, float]:
    """0/1 rewards over three arms, two of which succeed; ∇p and p."""
    policy = table(p_logits, 1, 3)
    every = arms(torch.tensor([1.0, 0.0, 1.0]), policy)
    p = float(every.weight @ every.reward[:, 0])
    return policy, tuples(every, size)[1], vt.gradient(policy, every, E.reinforce()), p


def binomial(size: int, p: float) -> list[tuple[int, float]]:
    return [(k, math.comb(size, k) * p**k * (1 - p) ** (size - k)) for k in range(size + 1)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.1])
def test_grpo_factor(size: int, seed: int, epsilon: float) -> None:
    """GRPO with 0/1 rewards: c = E[p̂(1−p̂)/(√(p̂(1−p̂)) + ε)]/(p(1−p)); Bessel: √((G−1)/G) c."""
    policy, batch, exact, p = success(seed, size)
    c = 0.0
    for k, chance in binomial(size, p):
        variance = k / size * (1 - k / size)
        c += chance * variance / (math.sqrt(variance) + epsilon) if variance else 0.0
    c /= p * (1 - p)
    scale = partial(scales.group_std, epsilon=epsilon)
    close(vt.gradient(policy, batch, E.grpo().replace(scale=scale)), c * exact)
    if epsilon == 0:
        bessel = partial(scales.group_std, epsilon=0.0, correction=1)
        factor = math.sqrt((size - 1) / size) * c
        close(vt.gradient(policy, batch, E.grpo().replace(scale=bessel)), factor * exact)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_maxrl_factor(size: int, seed: int) -> None:
    """(1 − (1−p)^{G−1})/p."""
    policy, batch, exact, p = success(seed, size)
    factor = (1 - (1 - p) ** (size - 1)) / p
    close(vt.gradient(policy, batch, E.maxrl()), factor * exact)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_rloo_variance(size: int) -> None:
    """tr Var = (A − N)/G + (N + Fσ²)/(G(G−1))."""
    policy = table(1, 1, 3)
    every = arms(torch.tensor([0.1, 0.9, 0.4]), policy)
    probability, batch = tuples(every, size)
    own = replace(batch, weight=torch.full_like(batch.weight, 1 / size))
    rows = vt.row_gradients(policy, own, E.rloo().weights(own))
    groups = rows.reshape(len(probability), size, -1).sum(1)
    mean = probability @ groups
    trace = probability @ groups.square().sum(1) - mean.square().sum()
    scores = vt.row_gradients(policy, every, torch.ones_like(every.reward))
    reward, w = every.reward[:, 0], every.weight
    mu = w @ reward
    squared = scores.square().sum(1)
    A, F = w @ (squared * (reward - mu) ** 2), w @ squared
    sigma, N = w @ (reward - mu) ** 2, mean.square().sum()
    close(trace, (A - N) / size + (N + F * sigma) / (size * (size - 1)))


def test_weighted_means_that_contain_the_sample_tilt() -> None:
    """A plain mean shrinks; one weighted by length or by score norms also turns the gradient."""
    problem, policy = chain(3), table(3)
    every, exact = problem.batch(policy), problem.gradient(policy)
    _, batch = tuples(every, 2)
    plain = vt.gradient(policy, batch, E.dr_grpo())
    weighted = vt.gradient(policy, batch, E.opo())
    close(torch.cosine_similarity(plain, exact, dim=0), torch.tensor(1.0).double())
    assert torch.cosine_similarity(weighted, exact, dim=0) < 1 - 1e-6
    for name in ("norm_weighted", "trajectory", "state_mean"):
        mean = mean_of_batches(every, 2, policy, E.named(name))
        assert torch.cosine_similarity(mean, exact, dim=0) < 1 - 1e-6


@pytest.mark.parametrize("aggregate", [per_sequence, per_token])
def test_averages_over_random_lengths_turn_the_gradient(aggregate) -> None:
    problem, policy = chain(1), table(1)
    every, exact = problem.batch(policy), problem.gradient(policy)
    mean = mean_of_batches(every, 2, policy, vt.Estimator(aggregate=aggregate))
    assert torch.cosine_similarity(mean, exact, dim=0) < 1 - 1e-4


def test_per_token_tends_to_the_gradient_over_the_mean_length() -> None:
    """On all trajectories at once, the limit of large batches, it is ∇J/E|τ|."""
    problem, policy = chain(1), table(1)
    batch = problem.batch(policy)
    length = batch.weight @ batch.mask.double().sum(1)
    got = vt.gradient(policy, batch, vt.Estimator(aggregate=per_token))
    close(got, problem.gradient(policy) / length)


# Off policy.


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trajectory_ratio_is_unbiased_off_policy(seed: int) -> None:
    """Σ_τ P_old(τ) ρ(τ) R Σ∇log π = ∇J of the current policy; the token ratio is not that."""
    problem, old, now = chain(seed, 0.9), table(seed), table(seed + 10)
    batch = problem.batch(old)
    exact = problem.gradient(now)
    close(vt.gradient(now, batch, vt.Estimator(ratio=ratios.trajectory)), exact)
    for ratio in (ratios.token, ratios.sequence, ratios.none):
        biased = vt.gradient(now, batch, vt.Estimator(ratio=ratio))
        assert (biased - exact).norm() > 1e-3


def test_the_token_ratio_is_unbiased_for_one_decision() -> None:
    old, now = table(0, 1, 3), table(1, 1, 3)
    rewards = torch.tensor([0.3, 0.8, 0.1])
    exact = vt.gradient(now, arms(rewards, now), E.reinforce())
    close(vt.gradient(now, arms(rewards, old), vt.Estimator(ratio=ratios.token)), exact)


# The KL terms: l = log π − log π_ref.


def kl(policy: vt.SoftmaxTable, reference: vt.SoftmaxTable) -> torch.Tensor:
    """KL(π‖π_ref) of each state, differentiable in both."""
    log_p = torch.log_softmax(policy.logits, -1)
    return (log_p.exp() * (log_p - torch.log_softmax(reference.logits, -1))).sum(-1)


def gradient_of(value: torch.Tensor, policy: vt.SoftmaxTable) -> torch.Tensor:
    return torch.autograd.grad(value, policy.logits)[0].flatten()


def penalty_alone(batch, policy, reference, **column) -> torch.Tensor:
    """What the KL column adds to ĝ in expectation, the reward being 0."""
    batch = replace(batch, reward=torch.zeros_like(batch.reward))
    log_prob = reference.log_prob(batch.observation, batch.action).detach()
    estimator = vt.Estimator(**column)
    return vt.gradient(policy, batch, estimator, reference_log_prob=log_prob)


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_in_the_loss(seed: int) -> None:
    """On policy, one decision: k1 does nothing, k2 is exact, k3 is the reverse KL's."""
    policy, reference = table(seed, 1, 3), table(seed + 5, 1, 3)
    batch = arms(torch.zeros(3), policy)
    forward = gradient_of(kl(policy, reference).sum(), policy)
    reverse = gradient_of(kl(reference, policy).sum(), policy)
    beta = 0.3
    terms = {
        name: penalty_alone(
            batch, policy, reference, kl_in_loss=partial(getattr(penalties, name), beta=beta)
        )
        for name in ("k1_in_loss", "k2_in_loss", "k3_in_loss")
    }
    close(terms["k1_in_loss"], torch.zeros(3).double())
    close(terms["k2_in_loss"], -beta * forward)
    close(terms["k3_in_loss"], -beta * reverse)
    assert (reverse - forward).norm() > 1e-2 * forward.norm()


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_in_the_loss_is_the_kl_of_visited_states(seed: int) -> None:
    """Several decisions: k2 is Σ_s d(s) ∇KL_s, with the visits d held fixed."""
    problem, policy, reference = chain(seed), table(seed), table(seed + 5)
    batch = problem.batch(policy)
    got = penalty_alone(
        batch, policy, reference, kl_in_loss=partial(penalties.k2_in_loss, beta=1.0)
    )
    visits = (
        torch.zeros(3)
        .double()
        .index_add(
            0, batch.observation[batch.mask], (batch.weight[:, None] * batch.mask)[batch.mask]
        )
    )
    close(got, -gradient_of((visits * kl(policy, reference)).sum(), policy))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("returns", [vt.returns.total, vt.returns.to_go])
def test_k1_in_the_reward_is_exact(returns, seed: int) -> None:
    """The gradient of J − β KL of the trajectories, over several decisions."""
    problem, policy, reference, beta = chain(seed), table(seed), table(seed + 5), 0.3
    batch = problem.batch(policy)
    log_p = torch.where(batch.mask, policy.log_prob(batch.observation, batch.action), 0).sum(1)
    log_q = reference.log_prob(batch.observation, batch.action).detach()
    divergence = (log_p.exp() * (log_p - torch.where(batch.mask, log_q, 0).sum(1))).sum()
    want = problem.gradient(policy) - beta * gradient_of(divergence, policy)
    estimator = vt.Estimator(returns=returns, kl_in_reward=partial(penalties.k1, beta=beta))
    close(vt.gradient(policy, batch, estimator, reference_log_prob=log_q), want)


@pytest.mark.parametrize("seed", SEEDS)
def test_k2_and_k3_in_the_reward_are_not(seed: int) -> None:
    """One decision: k3 gives ∇KL(π‖π_ref) − ∇KL(π_ref‖π), k2 gives E[l²/2 ∇log π]."""
    policy, reference = table(seed, 1, 3), table(seed + 5, 1, 3)
    batch = arms(torch.zeros(3), policy)
    forward = gradient_of(kl(policy, reference).sum(), policy)
    reverse = gradient_of(kl(reference, policy).sum(), policy)
    k3 = penalty_alone(batch, policy, reference, kl_in_reward=partial(penalties.k3, beta=1.0))
    close(k3, -(forward - reverse))
    k2 = penalty_alone(batch, policy, reference, kl_in_reward=partial(penalties.k2, beta=1.0))
    log_p = torch.log_softmax(policy.logits, -1)[0]
    half_square = 0.5 * (log_p - torch.log_softmax(reference.logits, -1)[0]).square().detach()
    close(k2, -gradient_of((log_p.exp() * half_square).sum(), policy))
    for got in (k2, k3):
        assert (got + forward).norm() > 1e-2 * forward.norm()


def test_k_estimates_have_the_values_they_claim() -> None:
    """E k1 = E k3 = KL; k2 does not."""
    policy, reference = table(0, 1, 3), table(5, 1, 3)
    log_p = torch.log_softmax(policy.logits, -1).detach()
    ratio = log_p - torch.log_softmax(reference.logits, -1).detach()
    want = kl(policy, reference).detach()
    for column, exact in ((penalties.k1, True), (penalties.k3, True), (penalties.k2, False)):
        value = (log_p.exp() * column(ratio, beta=1.0)).sum(-1)
        assert bool(torch.isclose(value, want, rtol=1e-10)[0]) == exact


def test_entropy_bonus_is_that_of_the_visited_states() -> None:
    """Σ_s d(s) ∇H(π(·|s)), the visits held fixed."""
    problem, policy = chain(0), table(0)
    batch = problem.batch(policy)
    bonus = vt.gradient(policy, batch, vt.Estimator(entropy=0.5)) - vt.gradient(
        policy, batch, vt.Estimator()
    )
    visits = (
        torch.zeros(3)
        .double()
        .index_add(
            0, batch.observation[batch.mask], (batch.weight[:, None] * batch.mask)[batch.mask]
        )
    )
    entropy = (visits * policy.entropy(torch.arange(3))).sum()
    close(bonus, 0.5 * gradient_of(entropy, policy))
