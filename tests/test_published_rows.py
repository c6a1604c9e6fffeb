"""Settings and rows as published, against formulas written out by hand in float64."""

import inspect
from functools import partial
from itertools import combinations
from math import comb

import pytest
import torch
from small import table
from test_baselines import lanes
from test_estimators import off_policy
from torch import Tensor

import vantage as vt
from vantage import exact
from vantage.conformance import claims
from vantage.estimators import listing, returns, scales
from vantage.exact.mdp import MDP
from vantage.gradients.weighted import scores, step_scores
from vantage.training.value import value_target

E = vt.estimators
DIVISORS = {
    name: inspect.signature(E.TABLE[name]).parameters["correction"].default
    for name in E.TABLE
    if "correction" in inspect.signature(E.TABLE[name]).parameters
}
DEVIATIONS = sorted(DIVISORS)


def test_every_row_with_a_standard_deviation_has_its_correction() -> None:
    """The divisor is a setting of each, and the table shows which one stands."""
    for name in E.TABLE:
        chosen = E.named(name).columns()["scale"]
        assert ("correction=" in chosen) == (DIVISORS.get(name) is not None), name
        others = {"none", "group_mean_return", "live_groups", "by_sign", "best_of"}
        assert chosen.split("(")[0] in others or name in DEVIATIONS
    assert {"ppo", "grpo", "dapo", "gspo", "cispo", "reinforce_pp", "gigpo"} < set(DEVIATIONS)
    assert {name for name in DIVISORS if DIVISORS[name] is None} == {"gigpo"}
    cells = {cells[0]: cells for cells in listing.rows()}
    for name in DEVIATIONS:
        assert ("correction=0" in cells[name][3]) == (DIVISORS[name] == 0)
        assert "correction=1" in E.named(name, correction=1).columns()["scale"]
        with pytest.raises(vt.InputError, match="correction=2 must be 0 or 1"):
            E.named(name, correction=2)


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo"])
def test_the_correction_of_a_group(name: str, correction: int) -> None:
    """torch.std's own divisor, over the returns of each group of trajectories."""
    batch = lanes()
    got = E.named(name, correction=correction).advantage(batch)
    y = returns.total(batch)
    for group in batch.group.unique():
        rows = batch.mask & (batch.group == group)[:, None]
        each = torch.stack(
            [y[rows & (batch.episode == e)][0] for e in batch.episode[rows].unique()]
        )
        want = (y - each.mean()) / (each.std(correction=correction) + 1e-4)
        torch.testing.assert_close(got[rows], want[rows])


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("name", ["ppo", "reinforce_pp"])
def test_the_correction_of_a_batch(name: str, correction: int) -> None:
    """torch.std's own divisor, over the counted steps of a batch of equal weights."""
    batch = lanes()
    batch = vt.Batch(**batch.tensors() | {"weight": torch.full_like(batch.weight, 0.25)})
    estimator = E.named(name, correction=correction)
    plain = estimator.replace(scale=scales.none).advantage(batch)
    counted = plain[batch.mask]
    want = (counted - counted.mean()) / (counted.std(correction=correction) + 1e-8)
    torch.testing.assert_close(estimator.advantage(batch)[batch.mask], want)


def test_cispo_bounds_the_ratio_by_either_name() -> None:
    """ε_high as published is an excess over 1; `maximum` is the bound, as TRL's ε_high is."""
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    published, bound = E.cispo(epsilon_high=0.1), E.cispo(maximum=1.1)
    torch.testing.assert_close(published.weights(batch, log_prob), bound.weights(batch, log_prob))
    assert "truncated(maximum=1.1)" in bound.columns()["clip"]
    assert not torch.equal(E.cispo().weights(batch, log_prob), bound.weights(batch, log_prob))


@pytest.mark.parametrize("lambda_", [0.0, 0.4, 0.95, 1.0])
def test_vtrace_with_its_remainder_is_gae_on_policy(lambda_: float) -> None:
    batch = lanes()
    got = E.vtrace(lambda_=lambda_, remainder=True).advantage(batch)
    torch.testing.assert_close(got, E.actor_critic(lambda_=lambda_).advantage(batch))
    without = E.vtrace(lambda_=lambda_).advantage(batch)
    assert torch.allclose(got, without) == (lambda_ == 1)


def test_vtrace_with_its_remainder_off_policy() -> None:
    """rlax: r_t + γ [λ v_{t+1} + (1 − λ) V(s_{t+1})], v the corrected target."""
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    estimator = E.vtrace(lambda_=0.7, remainder=True)
    got = estimator.worth(batch, log_prob)
    target = returns.vtrace_target(batch, log_prob=log_prob, lambda_=0.7)
    assert batch.value is not None
    for n, t in batch.mask.nonzero().tolist():
        following = 0.0
        if not batch.boundary[n, t]:
            later = t + 1 + int(batch.mask[n, t + 1 :].nonzero()[0])
            following = 0.7 * float(target[n, later]) + 0.3 * float(batch.value[n, later])
        want = batch.reward[n, t] + batch.discount[n, t] * (batch.bootstrap[n, t] + following)
        assert float(got[n, t]) == pytest.approx(float(want), abs=1e-9)
    fitted = value_target(estimator, batch, got, log_prob)
    torch.testing.assert_close(fitted, partial(returns.vtrace_target, lambda_=0.7)(
        batch, log_prob=log_prob
    ))  # fmt: skip


# Advantages of rows, completion by completion.


def trajectories(batch: vt.Batch) -> dict[int, Tensor]:
    """[N, T] where each trajectory's steps are, by its number."""
    return {int(e): batch.mask & (batch.episode == e) for e in batch.episode[batch.mask].unique()}


def groups_of(batch: vt.Batch) -> dict[int, list[int]]:
    """The trajectories of each group."""
    found: dict[int, list[int]] = {}
    for number, own in trajectories(batch).items():
        found.setdefault(int(batch.group[own.any(1)][0]), []).append(number)
    return found


def binary(batch: vt.Batch, probability: float = 0.5) -> vt.Batch:
    """The batch with a reward of 0 or 1 at the end of every trajectory, and γ = 1."""
    generator = torch.Generator().manual_seed(3)
    reward, discount = torch.zeros_like(batch.reward), torch.where(batch.discount > 0, 1.0, 0.0)
    for own in trajectories(batch).values():
        n, t = own.nonzero()[-1].tolist()
        reward[n, t] = float(torch.rand((), generator=generator) < probability)
    new = {"reward": reward, "discount": discount.to(reward)}
    return vt.Batch(**batch.tensors() | new | {"bootstrap": torch.zeros_like(reward)})


def test_gpg_makes_up_for_groups_without_a_signal() -> None:
    """α (R_i − mean) with α = B/(B − M), M the trajectories of groups of equal returns."""
    batch = binary(lanes())
    batch = vt.Batch(**batch.tensors() | {"weight": torch.full_like(batch.weight, 0.1)})
    batch = vt.Batch(**batch.tensors() | {"reward": torch.where(
        (batch.group == batch.group[0])[:, None], 0, batch.reward
    )})  # fmt: skip
    y, members = returns.total(batch), groups_of(batch)
    of = {e: y[own][0] for e, own in trajectories(batch).items()}
    dead = [g for g, es in members.items() if len({float(of[e]) for e in es}) == 1]
    assert 0 < len(dead) < len(members)
    count = len(of)
    alpha = count / (count - sum(len(members[g]) for g in dead))
    advantage = E.gpg().advantage(batch)
    for es in members.values():
        mean = torch.stack([of[e] for e in es]).mean()
        for e in es:
            want = alpha * (of[e] - mean)
            torch.testing.assert_close(
                advantage[trajectories(batch)[e]], want.expand(int(trajectories(batch)[e].sum()))
            )


def test_reinforce_pp_with_a_group_baseline() -> None:
    batch = lanes()
    batch = vt.Batch(**batch.tensors() | {"weight": torch.full_like(batch.weight, 0.1)})
    y, above = returns.total(batch), torch.zeros_like(batch.reward)
    for es in groups_of(batch).values():
        mean = torch.stack([y[trajectories(batch)[e]][0] for e in es]).mean()
        for e in es:
            above[trajectories(batch)[e]] = y[trajectories(batch)[e]] - mean
    counted = above[batch.mask]
    for correction in (0, 1):
        want = (counted - counted.mean()) / (counted.std(correction=correction) + 1e-8)
        got = E.reinforce_pp_baseline(correction=correction).advantage(batch)[batch.mask]
        torch.testing.assert_close(got, want)
    assert "k2_in_loss" in E.reinforce_pp_baseline(beta=0.1).columns()["kl_in_loss"]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("rewards", ["binary", "any"])
def test_pass_at_k_over_all_sets(rewards: str, k: int) -> None:
    """S_i, S̄ and σ by listing every set of k completions."""
    batch = binary(lanes()) if rewards == "binary" else lanes()
    sizes = [len(es) for es in groups_of(batch).values()]
    if min(sizes) < k:
        with pytest.raises(vt.InputError, match=rf"best_of\(k={k}\): a group has {min(sizes)}"):
            E.pass_at_k(k=k).advantage(batch)
        return
    y = returns.total(batch)
    for normalise in (True, False):
        got = E.pass_at_k(k=k, normalise=normalise).advantage(batch)
        for es in groups_of(batch).values():
            of = {e: float(y[trajectories(batch)[e]][0]) for e in es}
            best = {s: max(of[e] for e in s) for s in combinations(es, k)}
            every = torch.tensor(list(best.values()), dtype=torch.float64)
            spread = float(every.std(correction=0))
            for e in es:
                own = torch.tensor([v for s, v in best.items() if e in s], dtype=torch.float64)
                gain = float(own.mean() - every.mean())
                want = 0.0 if spread < 1e-9 else gain / (spread if normalise else 1)
                assert float(got[trajectories(batch)[e]][0]) == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize(("positive", "total", "k"), [(3, 8, 4), (1, 6, 2), (4, 8, 3)])
def test_pass_at_k_of_right_and_wrong_answers(positive: int, total: int, k: int) -> None:
    """Chen et al., equations 12 to 15, in closed form."""
    batch = one_step(total)
    reward = torch.zeros(total, 1).double()
    reward[:positive] = 1
    batch = vt.Batch(**batch.tensors() | {"reward": reward})
    wrong = total - positive
    mean = 1 - comb(wrong, k) / comb(total, k)
    spread = (mean * (1 - mean)) ** 0.5
    right = (1 - mean) / spread
    other = (1 - mean - comb(wrong - 1, k - 1) / comb(total - 1, k - 1)) / spread
    got = E.pass_at_k(k=k).advantage(batch).flatten()
    torch.testing.assert_close(got[:positive], torch.full((positive,), right).double())
    torch.testing.assert_close(got[positive:], torch.full((wrong,), other).double())


def one_step(total: int) -> vt.Batch:
    """`total` trajectories of one step, one group."""
    ones = torch.ones(total, 1).double()
    return vt.Batch(
        observation=torch.zeros(total, 1).long(),
        action=torch.zeros(total, 1).long(),
        reward=ones,
        discount=0 * ones,
        boundary=ones.bool(),
        bootstrap=0 * ones,
        log_prob=-ones,
        mask=ones.bool(),
        episode=torch.arange(total)[:, None],
        group=torch.zeros(total).long(),
        weight=torch.full((total,), 1 / total).double(),
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_climbs_the_best_of_k(k: int) -> None:
    """By enumeration: without σ, E ĝ = ((1 − k/G)/k) ∇ E max of k, ∇ by autograd over all sets."""
    mdp = MDP.bandit([1.0, 0.0, 0.4])
    policy = vt.SoftmaxTable(1, 3)
    policy.logits.data = torch.tensor([[0.1, 0.8, -0.3]]).double()
    size = 4
    problem = claims.Problem("arms", mdp, policy)
    mean, _ = claims.expected_gradient(E.pass_at_k(k=k, normalise=False), problem, size, 1)
    pi, worth = policy.logits.softmax(-1)[0], torch.tensor([1.0, 0.0, 0.4]).double()
    best = torch.zeros(()).double()
    for arms in torch.cartesian_prod(*[torch.arange(3)] * k).reshape(-1, k):
        best = best + pi[arms].prod() * worth[arms].max()
    want = torch.autograd.grad(best, policy.logits)[0].flatten()
    torch.testing.assert_close(mean, (1 - k / size) / k * want)
    assert exact.gradient(mdp, policy).norm() > 0.01


def test_signs_and_shifts() -> None:
    batch = lanes()
    batch = vt.Batch(**batch.tensors() | {"reward": batch.reward - 0.5})
    y = returns.total(batch)
    got = E.weighted_reinforce(positive=0.1).advantage(batch)[batch.mask]
    want = torch.where(y > 0, 0.1 * y, y)[batch.mask]
    torch.testing.assert_close(got, want)
    plain, shifted = E.asymre(shift=0.0).advantage(batch), E.asymre(shift=-0.3).advantage(batch)
    torch.testing.assert_close(shifted[batch.mask], plain[batch.mask] + 0.3)
    torch.testing.assert_close(plain, E.dr_grpo().advantage(batch))


def test_the_optimal_token_baseline_is_verls() -> None:
    """Σ G W / Σ W with W the cumulative 1 − 2π + Σπ², 0 beyond the second longest completion."""
    policy = table(4)
    generator = torch.Generator().manual_seed(0)
    length = torch.tensor([2, 5, 3, 5, 4, 1])
    mask = torch.arange(5) < length[:, None]
    observation = torch.randint(0, 3, (6, 5), generator=generator)
    action = torch.randint(0, 2, (6, 5), generator=generator)
    end = torch.arange(5) == length[:, None] - 1
    reward = torch.where(mask, torch.rand(6, 5, generator=generator).double(), 0)
    batch = vt.Batch(
        observation=observation, action=action, reward=reward,
        discount=torch.where(end, 0, 1).double(), boundary=end, bootstrap=0 * reward,
        log_prob=policy.log_prob(observation, action).detach(), mask=mask,
        episode=torch.arange(6)[:, None].expand(6, 5).clone(),
        group=torch.tensor([0, 0, 0, 1, 1, 1]), weight=torch.full((6,), 1 / 6).double(),
    )  # fmt: skip
    pi = policy.logits.detach()[observation].softmax(-1)
    chosen = pi.gather(2, action[..., None])[..., 0]
    energy = torch.where(mask, 1 - 2 * chosen + pi.square().sum(-1), 0)
    torch.testing.assert_close(energy, step_scores(policy, batch).square().sum(2).detach())
    gain = reward.flip(1).cumsum(1).flip(1)
    cumulative, want = energy.cumsum(1), gain.clone()
    for rows in (slice(0, 3), slice(3, 6)):
        w = cumulative[rows] * mask[rows]
        b = (gain[rows] * w).sum(0) / (w.sum(0) + 1e-8)
        alone = mask[rows].sum(0) == 1
        want[rows] -= torch.where(alone, 0, b)
    estimator = E.optimal_token_baseline()
    got = estimator.advantage(batch, scores=scores(policy, batch, estimator))
    # verl adds 1e-8 to the divisor
    torch.testing.assert_close(got, torch.where(mask, want, 0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_groups_in_groups_are_the_authors(omega: float) -> None:
    """Episode and step advantages without a standard deviation, one step at a time."""
    batch = lanes()
    batch = vt.Batch(**batch.tensors() | {"weight": torch.full_like(batch.weight, 0.1)})
    whole, ahead = returns.total(batch), returns.to_go(batch)
    got = E.gigpo(omega=omega).advantage(batch)
    numbers = trajectories(batch)
    alone = 0
    for es in groups_of(batch).values():
        steps = [place for e in es for place in map(tuple, numbers[e].nonzero().tolist())]
        mean = torch.stack([whole[numbers[e]][0] for e in es]).mean()
        for place in steps:
            same = [o for o in steps if batch.observation[o] == batch.observation[place]]
            alone += len(same) == 1
            anchor = torch.stack([ahead[other] for other in same]).mean()
            want = whole[place] - mean + omega * (ahead[place] - anchor)
            torch.testing.assert_close(got[place], want, rtol=0, atol=1e-12)
    assert alone > 0
    if omega == 0:
        assert torch.equal(got, E.dr_grpo().advantage(batch))


@pytest.mark.parametrize("correction", [0, 1])
def test_groups_in_groups_over_standard_deviations_are_the_authors(correction: int) -> None:
    """F_norm = σ: torch's deviation of the group's returns, and of each state's rewards ahead."""
    batch = lanes()
    batch = vt.Batch(**batch.tensors() | {"weight": torch.full_like(batch.weight, 0.1)})
    whole, ahead = returns.total(batch), returns.to_go(batch)
    row = E.gigpo(omega=0.5, correction=correction)
    got, numbers, alone = row.advantage(batch), trajectories(batch), 0
    assert row.unbiased.startswith("never (")

    def over_std(x: Tensor, values: list[Tensor]) -> Tensor:
        of = torch.stack(values)
        deviation = of.std(correction=correction) if len(of) > 1 else torch.zeros(())
        return (x - of.mean()) / (deviation + 1e-6) if deviation > 1e-9 else 0 * x

    for es in groups_of(batch).values():
        steps = [place for e in es for place in map(tuple, numbers[e].nonzero().tolist())]
        episodes = [whole[numbers[e]][0] for e in es]
        for place in steps:
            same = [o for o in steps if batch.observation[o] == batch.observation[place]]
            alone += len(same) == 1
            in_state = over_std(ahead[place], [ahead[other] for other in same])
            want = over_std(whole[place], episodes) + 0.5 * in_state
            torch.testing.assert_close(got[place], want, rtol=0, atol=1e-10)
    assert alone > 0
    plain = E.gigpo(omega=0.0, correction=correction).advantage(batch)
    grpo = E.grpo(correction=correction).advantage(batch)
    torch.testing.assert_close(plain, grpo, rtol=1e-3, atol=1e-3)  # ε there is 1e-4


def test_the_returns_of_groups_in_groups_are_a_multiple() -> None:
    """(1 + ω) ∇J by enumeration for γ = 1, where the baseline is left out."""
    row = vt.Estimator(returns=partial(returns.total_and_to_go, omega=0.5))
    for problem in claims.PROBLEMS[:3]:
        mean, exactly = claims.expected_gradient(row, problem)
        torch.testing.assert_close(mean, 1.5 * exactly)
        assert row.factor(2, 1.0) == pytest.approx(1.5)


def test_a_length_adaptive_lambda_is_biased_even_with_the_true_value() -> None:
    """λ = 1 − 1/(α l): 0 for short trajectories; where it is not, it knows how they went on."""
    batch = lanes()
    got = returns.gae_by_length(batch, alpha=0.9)
    for own in trajectories(batch).values():
        lambda_ = max(0.0, 1 - 1 / (0.9 * int(own.sum())))
        torch.testing.assert_close(got[own], returns.gae(batch, lambda_=lambda_)[own])
    row = E.length_adaptive_gae(alpha=1.0).replace(aggregate=E.per_trajectory)
    # action 0 goes on to the next of three states, action 1 ends: lengths of 1 to 3
    transition = torch.zeros(4, 2, 4).double()
    for state in range(3):
        transition[state, 0, state + 1] = transition[state, 1, 3] = 1
    reward = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(1)).double()
    initial, ends = torch.eye(4).double()[0], torch.arange(4) == 3
    mdp, policy = MDP(transition, reward, initial, 1.0, ends), vt.SoftmaxTable(4, 2)
    every = exact.enumerate(mdp, policy, value=exact.value(mdp, policy).V.detach())
    short, long = (
        vt.gradient(policy, every, estimator) for estimator in (E.actor_critic(lambda_=0.5), row)
    )
    want = exact.gradient(mdp, policy).detach()
    torch.testing.assert_close(short, want)
    assert (long - want).norm() > 1e-3 * want.norm()


def test_direct_reward_optimisation() -> None:
    """DRO: the slope of A Σ log π − (β/2)(Σ log π/π_ref)², A = R − V(s_0), off policy as it is."""
    policy, batch = off_policy()
    reference = table(7).log_prob(batch.observation, batch.action).detach()
    y, value = returns.total(batch), torch.zeros(()).double()
    log_prob = policy.log_prob(batch.observation, batch.action)
    assert batch.value is not None
    for own in trajectories(batch).values():
        first = own.nonzero()[0].tolist()
        above = y[own][0] - batch.value[first[0], first[1]]
        ratio = (log_prob - reference)[own].sum()
        each = above * log_prob[own].sum() - 0.7 / 2 * ratio.square()
        value = value + batch.weight[own.any(1)][0] * each
    want = torch.autograd.grad(value, policy.logits)[0].flatten()
    got = vt.gradient(policy, batch, E.dro(beta=0.7), reference_log_prob=reference)
    torch.testing.assert_close(got, want)
