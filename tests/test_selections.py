"""Selections by rank over the batch: against what was published, and their exact bias."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

import pytest
import torch
from small import table
from test_baselines import lanes
from test_estimators import autograd, off_policy
from torch import Tensor

import vantage as vt
from vantage import conformance, exact
from vantage.conformance import claims
from vantage.estimators import selections
from vantage.estimators.columns import declares
from vantage.training import minibatches

E = vt.estimators


def by_hand(batch: vt.Batch) -> Tensor:
    """[N, T] GRPO's advantage, group by group: (R − mean)/(std + 10⁻⁴)."""
    y, out = vt.returns.total(batch), torch.zeros_like(batch.reward)
    for group in batch.group.unique():
        rows = batch.mask & (batch.group == group)[:, None]
        each = torch.stack(
            [y[rows & (batch.episode == e)][0] for e in batch.episode[rows].unique()]
        )
        out[rows] = (y[rows] - each.mean()) / (each.std(correction=0) + 1e-4)
    return out


def token_mean(batch: vt.Batch, terms: Tensor) -> Tensor:
    """The mean over the batch's counted steps, all rows of one weight."""
    return torch.where(batch.mask, terms, 0).sum() / batch.mask.sum()


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


# ---- as published, at the first step of an update ----------------------------------------------


def covariance(batch: vt.Batch, advantage: Tensor, log_prob: Tensor) -> Tensor:
    a, l = advantage[batch.mask], log_prob.detach()[batch.mask]  # noqa: E741
    out = torch.full_like(advantage, -torch.inf)
    out[batch.mask] = (a - a.mean()) * (l - l.mean())
    return out


def clip_cov_of(places: list[list[int]], batch: vt.Batch, advantage: Tensor) -> Callable:
    """The surrogate with the tokens at `places` detached; ε is out of reach."""

    def objective(log_prob: Tensor) -> Tensor:
        left = torch.ones_like(advantage)
        for n, t in places:
            left[n, t] = 0
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        return token_mean(batch, clipped(ratio, advantage, 0.9, 9.0) * left)

    return objective


@pytest.mark.parametrize("seed", range(3))
def test_clip_cov_is_the_mean_over_its_random_choices(seed: int) -> None:
    """With fewer to leave out than lie within the bounds: all choices of them, each by autograd."""
    policy, batch = off_policy(seed)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    advantage = by_hand(batch)
    covariances = covariance(batch, advantage, log_prob)
    within = (covariances > 0.1) & (covariances < 1.5)
    count = int(0.08 * batch.steps)
    assert 1 < count < int(within.sum())
    every = [
        autograd(policy, batch, clip_cov_of(list(chosen), batch, advantage))
        for chosen in combinations(within.nonzero().tolist(), count)
    ]
    estimator = E.clip_cov(fraction=0.08, low=0.1, high=1.5, epsilon=0.9).replace(
        clip=partial(vt.ratios.ppo, epsilon=0.9, epsilon_high=9.0)
    )
    got = vt.gradient(policy, batch, estimator)
    torch.testing.assert_close(got, torch.stack(every).mean(0), rtol=1e-7, atol=1e-9)
    assert len(every) > 1
    assert not torch.allclose(got, every[0])


@pytest.mark.parametrize("seed", range(3))
def test_clip_cov_without_a_choice_is_verls(seed: int) -> None:
    """Where all within the bounds are left out, no choice is random; the ratio is 1 at first."""
    policy, batch = table(1), lanes(seed)
    advantage = by_hand(batch)
    covariances = covariance(batch, advantage, batch.log_prob)
    places = ((covariances > 0.2) & (covariances < 5.0)).nonzero().tolist()
    assert 0 < len(places) < batch.steps / 2
    want = autograd(policy, batch, clip_cov_of(places, batch, advantage))
    got = vt.gradient(policy, batch, E.clip_cov(fraction=0.5, low=0.2))
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(got, vt.gradient(policy, batch, E.bnpo()))


@pytest.mark.parametrize("seed", range(3))
def test_forking_tokens_are_those_above_the_quantile(seed: int) -> None:
    """DAPO's surrogate at the tokens whose entropy is at or above torch's own quantile."""
    policy, batch = off_policy(seed)
    entropy = policy.entropy(batch.observation).detach()
    entropy = entropy + 0.1 * torch.rand(entropy.shape, generator=_seeded(seed)).double()
    advantage = by_hand(batch)
    bound = torch.quantile(entropy[batch.mask], 1 - 0.35)
    kept = batch.mask & (entropy >= bound)
    assert 0 < int(kept.sum()) < batch.steps

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        return token_mean(batch, clipped(ratio, advantage, 0.2, 0.28) * kept)

    got = vt.gradient(policy, batch, E.forking_tokens(fraction=0.35), entropy=entropy)
    torch.testing.assert_close(got, autograd(policy, batch, objective), rtol=1e-7, atol=1e-9)
    found = vt.gradient(policy, batch, E.forking_tokens(fraction=0.35))  # the policy's own
    assert not torch.allclose(found, got)


@pytest.mark.parametrize("seed", range(3))
def test_m2po_leaves_the_largest_squares_out(seed: int) -> None:
    """One after another, until the mean of those that are left is below τ; no clip."""
    policy, batch = off_policy(seed)
    # no two squares alike, which are left out together
    noise = 0.3 * torch.randn(batch.log_prob.shape, generator=_seeded(seed)).double()
    batch = replace(batch, log_prob=batch.log_prob + noise)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    distance = log_prob - batch.log_prob
    square = {(n, t): float(distance[n, t] ** 2) for n, t in batch.mask.nonzero().tolist()}
    left = dict(square)
    while sum(left.values()) / len(left) >= 0.04:
        del left[max(left, key=lambda place: left[place])]
    assert 0 < len(left) < len(square)
    advantage, kept = by_hand(batch), torch.zeros_like(batch.mask)
    for n, t in left:
        kept[n, t] = True

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        return token_mean(batch, ratio * advantage * kept)

    got = vt.gradient(policy, batch, E.m2po())
    torch.testing.assert_close(got, autograd(policy, batch, objective), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_kl_cov_holds_back_the_highest_covariances(seed: int) -> None:
    """A penalty |log π/μ| at the largest of (A − Ā)(log π − mean), chosen with π as it is now."""
    policy, batch = off_policy(seed)
    noise = 0.01 * torch.randn(batch.log_prob.shape, generator=_seeded(seed)).double()
    batch = replace(batch, log_prob=batch.log_prob + noise)
    advantage = by_hand(batch)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    covariances = covariance(batch, advantage, log_prob)
    count = int(0.3 * batch.steps)
    chosen = covariances >= covariances.flatten().sort().values[-count]
    assert count <= int(chosen.sum()) < batch.steps

    def objective(log_prob: Tensor) -> Tensor:
        log_ratio = log_prob - torch.where(batch.mask, batch.log_prob, 0)
        held = 0.7 * torch.where(chosen, log_ratio.abs(), 0)
        return token_mean(batch, log_ratio.exp() * advantage - held)

    row = E.kl_cov(fraction=0.3, coefficient=0.7)
    got = vt.gradient(policy, batch, row)
    torch.testing.assert_close(got, autograd(policy, batch, objective), rtol=1e-7, atol=1e-9)
    free = row.replace(restraint=None)
    assert not torch.allclose(got, vt.gradient(policy, batch, free))
    # at the first step there is nothing to hold back, up to rounding
    near = batch.log_prob * (1 + 1e-15)
    assert torch.equal(row.weights(batch), free.weights(batch))
    torch.testing.assert_close(row.weights(batch, near), free.weights(batch, near))


def test_a_restraint_is_chosen_once_and_asked_for() -> None:
    policy, batch = off_policy()
    row = E.kl_cov(fraction=0.3)
    begun = policy.log_prob(batch.observation, batch.action).detach()
    advantage, share = row.advantage(batch, begun), row.share(batch)
    held = row.restrained(batch, advantage, begun)
    assert 0 < int(held.sum()) < batch.steps
    policy.logits.data += torch.randn(3, 2, generator=_seeded(1)).double()
    later = policy.log_prob(batch.observation, batch.action).detach()
    whole = row.weights(batch, later, advantage, share, restrained=held)
    parts = [
        row.weights(batch.select(r), later[r], advantage[r], share[r], restrained=held[r])
        for r in torch.arange(batch.rows).split(3)
    ]
    assert torch.equal(torch.cat(parts), whole)
    free = row.replace(restraint=None).weights(batch, later, advantage, share)
    slope = torch.where(batch.mask, (later - batch.log_prob).sign(), 0)
    torch.testing.assert_close(free - whole, share * held * slope)
    with pytest.raises(vt.InputError, match=r"needs restrained=.*\[rows\] too"):
        row.weights(batch, later, advantage, share)
    with pytest.raises(vt.InputError, match=r"Natural: 'kl_cov' has a restraint"):
        vt.updates.Natural().check(row)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(50 + seed)


# ---- once for the whole batch ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forking_tokens", "clip_cov", "m2po"])
def test_what_was_selected_at_the_start_stays_selected(name: str) -> None:
    """Later steps of an update, with another policy, leave out the same steps of the batch."""
    settings = {"fraction": 0.4, "low": 0.1} if name == "clip_cov" else {}
    row = E.named(name, **settings)
    policy, batch = off_policy()
    begun = policy.log_prob(batch.observation, batch.action).detach()
    inputs = (
        {"entropy": policy.entropy(batch.observation).detach()} if row.needs - {"group"} else {}
    )
    advantage, share = row.advantage(batch, begun, **inputs), row.share(batch)
    plain = row.replace(selection=selections.none).advantage(batch, begun)
    out = (advantage.abs() < plain.abs()) & batch.mask
    assert 0 < int(out.sum()) < batch.steps
    policy.logits.data += torch.randn(3, 2, generator=_seeded(1)).double()
    later = policy.log_prob(batch.observation, batch.action).detach()
    pieces = [
        row.weights(batch.select(rows), later[rows], advantage[rows], share[rows])
        for rows in torch.arange(batch.rows).split(2)
    ]
    whole = row.weights(batch, later, advantage, share)
    assert torch.equal(torch.cat(pieces), whole)
    if name != "clip_cov":
        assert whole[out].eq(0).all()
    anew = row.weights(batch, later, **inputs)
    assert not torch.allclose(anew, whole) or name == "forking_tokens"


def test_equal_ranks_are_treated_alike() -> None:
    """Whatever the order of rows, and with nothing to rank at all."""
    batch = lanes()
    ones, nothing = torch.ones_like(batch.reward), torch.zeros_like(batch.mask)
    kept = selections.highest_entropy(batch, ones, entropy=ones, fraction=0.2)
    assert kept[batch.mask].eq(1).all()
    far = batch.log_prob + 0.3  # every square is 0.09
    assert selections.second_moment(batch, ones, log_prob=far)[batch.mask].eq(0).all()
    near = batch.log_prob + 0.1
    assert selections.second_moment(batch, ones, log_prob=near)[batch.mask].eq(1).all()
    assert selections.without_covariance(batch, ones, log_prob=far)[batch.mask].eq(1).all()
    empty = replace(batch, mask=nothing)
    for selection in (
        partial(selections.highest_entropy, entropy=ones),
        partial(selections.second_moment, log_prob=far),
        partial(selections.without_covariance, log_prob=far),
    ):
        assert selection(empty, ones).isfinite().all()


def test_the_fraction_is_counted_among_ranks() -> None:
    batch = lanes()
    entropy = torch.rand(batch.reward.shape, generator=_seeded(0)).double()
    ones = torch.ones_like(batch.reward)
    assert batch.steps == 25
    for fraction, count in ((0.0, 1), (0.2, 5), (0.5, 13), (1.0, 25)):
        kept = selections.highest_entropy(batch, ones, entropy=entropy, fraction=fraction)
        assert int(kept[batch.mask].sum()) == count
        assert entropy[batch.mask & (kept == 1)].min() >= entropy[batch.mask].sort().values[-count]


def test_what_is_needed_is_asked_for_and_centring_is_refused() -> None:
    batch = lanes()
    with pytest.raises(vt.InputError, match=r"needs the entropy of the policy at each step"):
        E.forking_tokens().advantage(batch)
    with pytest.raises(vt.InputError, match=r"fraction=1.5 must be from 0 to 1"):
        E.forking_tokens(fraction=1.5)
    row = vt.Estimator(selection=selections.second_moment, ratio=vt.ratios.token, name="mine")
    with pytest.raises(vt.InputError, match=r"centring would bring back .* second_moment leaves"):
        vt.updates.Epochs(standardise=True).check(row)
    vt.updates.Epochs().check(row)


@pytest.mark.parametrize("shuffled", [minibatches.steps_shuffled, minibatches.rows_shuffled])
def test_minibatches_carry_what_is_restrained(shuffled: Callable) -> None:
    """The weights of all minibatches are those of the whole, in whatever order."""
    policy, batch = off_policy()
    row = E.ppo().replace(restraint=partial(selections.highest_covariance, fraction=0.4))
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    advantage, share = row.advantage(batch, log_prob), row.share(batch)
    held = row.restrained(batch, advantage, log_prob)
    whole = minibatches.Weighed(batch, advantage, share, None, None, batch.steps, held)
    want = row.weights(batch, log_prob, advantage, share, restrained=held)[batch.mask]
    found, counts = [], []
    for one in shuffled(whole, 5, False, _seeded(0)):
        current = policy.log_prob(one.batch.observation, one.batch.action).detach()
        each = row.weights(one.batch, current, one.advantage, one.share, restrained=one.restrained)
        found.append(each[one.batch.mask])
        counts.append(one.steps)
    assert sum(counts) == batch.steps  # five divide it
    torch.testing.assert_close(torch.cat(found).sort().values / 5, want.sort().values)
    free = row.replace(restraint=None).weights(batch, log_prob, advantage, share)[batch.mask]
    assert not torch.allclose(free, want)


def test_stale_samples_are_restrained_in_training() -> None:
    """Under delay=1 the penalty changes what is learned; at one step on policy, nothing."""
    returns = {}
    for delay in (0, 1):
        for coefficient in (0.0, 30.0):
            held = partial(selections.highest_covariance, fraction=0.5, coefficient=coefficient)
            env = vt.make("CartPole-v1", lanes=4)
            run = vt.train(
                env, env.policy(), E.ppo().replace(restraint=held), value=env.value(), seed=0,
                steps=4 * 16 * 3, fragment=16, delay=delay, progress=False,
                update=vt.updates.Epochs(epochs=1, minibatches=1),
            )  # fmt: skip
            flat = torch.nn.utils.parameters_to_vector(run.policy.parameters()).detach()
            returns[delay, coefficient] = flat
    assert torch.equal(returns[0, 0.0], returns[0, 30.0])
    assert not torch.allclose(returns[1, 0.0], returns[1, 30.0], atol=1e-6)


def test_control_hands_over_the_policy_that_the_update_begins_with() -> None:
    """Entropies and log-probabilities of π₀ in every update, its samples an update old."""
    seen: list[float] = []

    @declares(needs=("entropy", "log_prob"), couples="batch", bias="direction")
    def watched(batch: vt.Batch, advantage: Tensor, *, entropy: Tensor, log_prob: Tensor) -> Tensor:
        now = run_policy.entropy(batch.observation).detach()
        torch.testing.assert_close(entropy, now)
        current = run_policy.log_prob(batch.observation, batch.action).detach()
        torch.testing.assert_close(log_prob, current, atol=1e-5, rtol=1e-4)
        seen.append(float((log_prob - batch.log_prob).abs().max()))
        return torch.ones_like(advantage)

    env = vt.make("CartPole-v1", lanes=4)
    run_policy = env.policy()
    vt.train(
        env, run_policy, E.ppo().replace(selection=watched, restraint=watched), value=env.value(),
        seed=0, steps=4 * 16 * 3, fragment=16, delay=1, progress=False,
        update=vt.updates.Epochs(epochs=2, minibatches=2),
    )  # fmt: skip
    assert len(seen) >= 6  # for the selection and for the restraint of each update
    assert max(seen[2:]) > 1e-4


# ---- exact bias --------------------------------------------------------------------------------

ALONE = {
    "highest_entropy": partial(selections.highest_entropy, fraction=0.3),
    "without_covariance": partial(selections.without_covariance, low=0.0),
    "second_moment": selections.second_moment,
}


def test_a_restraint_is_none_on_policy_and_biased_off_it() -> None:
    """By enumeration: E ĝ = ∇J on policy; off it less the slope of |log π/μ| at what was chosen."""
    held = partial(selections.highest_covariance, fraction=0.5, coefficient=0.3)
    row = E.reinforce().replace(ratio=vt.ratios.trajectory, restraint=held, name="held")
    assert list(conformance.claim_holds(row)) == []
    assert row.unbiased.startswith("always; off policy never (highest_covariance")
    assert row.couples == "batch"
    problem = claims.PROBLEMS[2]
    behaviour = vt.SoftmaxTable(*problem.policy.logits.shape)
    noise = torch.randn(problem.policy.logits.shape, generator=_seeded(3)).double()
    behaviour.logits.data = problem.policy.logits.detach() + 0.7 * noise
    true = exact.gradient(problem.mdp, problem.policy).detach()
    off = {"groups": 2, "behaviour": behaviour}
    mean = exact.expectation(problem.mdp, problem.policy, row, **off).mean
    assert (mean - true).norm() > 0.05 * true.norm()
    free = exact.expectation(problem.mdp, problem.policy, row.replace(restraint=None), **off).mean
    torch.testing.assert_close(free, true)


@pytest.mark.parametrize("name", ALONE)
def test_the_claim_of_each_selection_by_itself(name: str) -> None:
    """On REINFORCE, unbiased without it: by enumeration of every batch of small problems."""
    row = E.reinforce().replace(selection=ALONE[name], name=name)
    for rule in conformance.RULES:
        assert rule is conformance.claim_holds or list(rule(row)) == []
    found = [
        (float((mean - true).norm() / true.norm()), float(torch.cosine_similarity(mean, true, 0)))
        for mean, true in (claims.expected_gradient(row, p) for p in claims.PROBLEMS)
    ]
    if name == "second_moment":
        assert row.unbiased == "always; off policy never (second_moment)"
        assert all(error < 1e-12 for error, _ in found)
    else:
        assert row.unbiased.startswith(f"never ({name}")
        assert any(error > 0.1 and cosine < 1 - 1e-3 for error, cosine in found)


def test_off_policy_a_second_moment_is_biased_where_it_leaves_steps_out() -> None:
    """With the trajectory's ratio, unbiased without it; a bound out of reach changes nothing."""
    problem = claims.PROBLEMS[2]
    behaviour = vt.SoftmaxTable(*problem.policy.logits.shape)
    noise = torch.randn(problem.policy.logits.shape, generator=_seeded(3)).double()
    behaviour.logits.data = problem.policy.logits.detach() + 0.7 * noise
    plain = E.reinforce().replace(ratio=vt.ratios.trajectory)
    true = exact.gradient(problem.mdp, problem.policy).detach()

    def bias(row: vt.Estimator) -> float:
        mean = exact.expectation(
            problem.mdp, problem.policy, row, groups=3, behaviour=behaviour
        ).mean
        return float((mean - true).norm() / true.norm())

    near = partial(selections.second_moment, threshold=0.1)
    far = partial(selections.second_moment, threshold=50.0)
    assert bias(plain) < 1e-12
    assert bias(plain.replace(selection=far)) < 1e-12
    assert bias(plain.replace(selection=near)) > 0.05
