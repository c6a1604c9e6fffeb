"""Every return against the slow and obvious formula, over every pattern of ends."""

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import vantage as vt

GAMMA = 0.9
# What a step can be: it goes on, terminates, is truncated (or the fragment ends), is not counted.
ON, TERMINATED, TRUNCATED, MASKED = range(4)
Step = tuple[int, int]


def patterns(longest: int) -> list[tuple[int, ...]]:
    """Every sequence of kinds in which the last counted step ends its episode or fragment."""
    found = []
    for kinds in product(range(4), repeat=longest):
        counted = [kind for kind in kinds if kind != MASKED]
        if counted and counted[-1] != ON:
            found.append(kinds)
    return found


def batch_of(kinds: list[tuple[int, ...]], seed: int = 0) -> vt.Batch:
    """One row per pattern; everything random, and garbage wherever nothing counts."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.tensor(kinds)

    def random() -> Tensor:
        return torch.randn(kind.shape, generator=generator, dtype=torch.float64)

    mask = kind != MASKED
    ended = (kind == TERMINATED) | (kind == TRUNCATED)
    nothing = torch.full(kind.shape, torch.nan).double()
    # a dummy reset step follows the end of an episode and is a boundary too; a masked step inside
    # an episode is not
    inside = torch.zeros(len(kinds), dtype=torch.bool)
    boundary = ended.clone()
    for t in range(kind.shape[1]):
        boundary[:, t] |= ~mask[:, t] & ~inside
        inside = torch.where(mask[:, t], ~ended[:, t], inside)
    before = torch.cumsum(ended, 1) - ended.long()
    return vt.Batch(
        observation=torch.zeros_like(kind),
        action=torch.zeros_like(kind),
        reward=torch.where(mask, random(), nothing),
        discount=torch.where(mask, GAMMA * (kind != TERMINATED).double(), nothing),
        boundary=boundary,
        bootstrap=torch.where(mask, torch.where(kind == TRUNCATED, random(), 0), nothing),
        log_prob=torch.where(mask, 0.3 * random(), nothing),
        mask=mask,
        episode=before + 10 * torch.arange(len(kinds))[:, None],
        group=torch.arange(len(kinds)),
        weight=torch.ones(len(kinds)).double(),
        value=torch.where(mask, random(), nothing),
    ).check()


def episodes(batch: vt.Batch, row: int) -> list[list[int]]:
    """The counted steps of a row, cut after every boundary."""
    out: list[list[int]] = [[]]
    for t in range(batch.reward.shape[1]):
        if batch.mask[row, t]:
            out[-1].append(t)
            if batch.boundary[row, t]:
                out.append([])
    return [steps for steps in out if steps]


def brute(batch: vt.Batch, formula) -> Tensor:
    """`formula(rewards, values, following values, end value, log-ratios, t)` of every step.

    In an episode of T steps: r_0..r_{T−1}, V_0..V_{T−1}, and the value at the end: the bootstrap
    where it was truncated, 0 where it terminated.
    """
    out = torch.full_like(batch.reward, torch.nan)
    for row in range(batch.rows):
        for steps in episodes(batch, row):
            last = steps[-1]
            end = float(batch.bootstrap[row, last]) if batch.discount[row, last] > 0 else 0.0
            r = [float(batch.reward[row, t]) for t in steps]
            v = [float(batch.value[row, t]) for t in steps] + [end]
            for position, t in enumerate(steps):
                out[row, t] = formula(r, v, position, [(row, t) for t in steps])
    return out


def assert_equal(batch: vt.Batch, got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got[batch.mask], want[batch.mask], rtol=1e-12, atol=1e-12)


def discounted_sum(x: list[float]) -> float:
    return sum(GAMMA**k * value for k, value in enumerate(x))


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def batch(request: pytest.FixtureRequest) -> vt.Batch:
    return batch_of(patterns(request.param))


def test_patterns_hold_what_they_should() -> None:
    assert (TERMINATED, MASKED, ON, TRUNCATED) in patterns(4)  # a dummy reset step in between
    assert (MASKED, ON, MASKED, TERMINATED) in patterns(4)  # a prompt, and a step of a tool
    assert (ON, ON, ON, ON) not in patterns(4)
    assert len(patterns(4)) == 170


def test_total(batch: vt.Batch) -> None:
    def formula(r, v, t, where):
        return discounted_sum([*r, v[-1]])

    assert_equal(batch, vt.returns.total(batch), brute(batch, formula))


def test_to_go(batch: vt.Batch) -> None:
    def formula(r, v, t, where):
        return discounted_sum([*r[t:], v[-1]])

    assert_equal(batch, vt.returns.to_go(batch), brute(batch, formula))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_n_step(batch: vt.Batch, n: int) -> None:
    def formula(r, v, t, where):
        stop = min(t + n, len(r))
        return discounted_sum([*r[t:stop], v[stop]])

    assert_equal(batch, vt.returns.n_step(batch, n=n), brute(batch, formula))


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_gae(batch: vt.Batch, lambda_: float) -> None:
    def formula(r, v, t, where):
        delta = [r[k] + GAMMA * v[k + 1] - v[k] for k in range(len(r))]
        return v[t] + sum((GAMMA * lambda_) ** (k - t) * delta[k] for k in range(t, len(r)))

    assert_equal(batch, vt.returns.gae(batch, lambda_=lambda_), brute(batch, formula))


@pytest.mark.parametrize(("rho_max", "c_max", "lambda_"), [(1.0, 1.0, 1.0), (1.2, 0.9, 0.7)])
def test_vtrace(batch: vt.Batch, rho_max: float, c_max: float, lambda_: float) -> None:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(batch.reward.shape, generator=generator, dtype=torch.float64)
    log_prob = batch.log_prob + 0.4 * noise
    ratio = (log_prob - batch.log_prob).exp()

    def target(r, v, s, where):
        rho = [min(rho_max, float(ratio[place])) for place in where]
        c = [lambda_ * min(c_max, float(ratio[place])) for place in where]
        out = v[s]
        for t in range(s, len(r)):
            product_of_c = 1.0
            for i in range(s, t):
                product_of_c *= c[i]
            out += GAMMA ** (t - s) * product_of_c * rho[t] * (r[t] + GAMMA * v[t + 1] - v[t])
        return out

    def formula(r, v, t, where):
        following = target(r, v, t + 1, where) if t + 1 < len(r) else v[-1]
        return r[t] + GAMMA * following

    given = {"log_prob": log_prob, "rho_max": rho_max, "c_max": c_max, "lambda_": lambda_}
    assert_equal(batch, vt.returns.vtrace_target(batch, **given), brute(batch, target))
    assert_equal(batch, vt.returns.vtrace(batch, **given), brute(batch, formula))


def test_special_cases(batch: vt.Batch) -> None:
    """GAE with λ = 1, n-step beyond the end and on-policy V-trace are all the rewards-to-go."""
    to_go = vt.returns.to_go(batch)
    on_policy = {"log_prob": batch.log_prob}
    assert_equal(batch, vt.returns.gae(batch, lambda_=1.0), to_go)
    assert_equal(batch, vt.returns.n_step(batch, n=4), to_go)
    assert_equal(batch, vt.returns.vtrace(batch, **on_policy), to_go)
    assert_equal(batch, vt.returns.vtrace_target(batch, **on_policy), to_go)
    one = vt.returns.n_step(batch, n=1)
    assert_equal(batch, vt.returns.gae(batch, lambda_=0.0), one)


def test_gae_mixes_n_step_returns_geometrically() -> None:
    """The λ-return is Σ_n (1−λ) λ^{n−1} y^{(n)}, the rest of the weight on the last."""
    batch, lambda_ = batch_of(patterns(4)), 0.6
    mixture = torch.zeros_like(batch.reward)
    for n in range(1, 4):
        mixture += (1 - lambda_) * lambda_ ** (n - 1) * vt.returns.n_step(batch, n=n)
    mixture += lambda_**3 * vt.returns.n_step(batch, n=4)
    assert_equal(batch, vt.returns.gae(batch, lambda_=lambda_), mixture)


def test_truncation_is_not_termination() -> None:
    """The value after the last step counts when it was truncated and not when it terminated."""
    batch = batch_of([(ON, TRUNCATED), (ON, TERMINATED)])
    for returns in (
        vt.returns.total,
        vt.returns.to_go,
        partial(vt.returns.n_step, n=2),
        partial(vt.returns.gae, lambda_=1.0),
        partial(vt.returns.vtrace, log_prob=batch.log_prob),
    ):
        more = replace(batch, bootstrap=batch.bootstrap + (batch.bootstrap != 0) * 1.0)
        change = returns(more)[:, 0] - returns(batch)[:, 0]
        torch.testing.assert_close(change, torch.tensor([GAMMA**2, 0.0]).double())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(range(4)), min_size=1, max_size=12), st.integers(0, 10**6))
def test_long_rows_of_many_episodes(kinds: list[int], seed: int) -> None:
    batch = batch_of([(*kinds, TERMINATED)], seed)

    def to_go(r, v, t, where):
        return discounted_sum([*r[t:], v[-1]])

    def gae(r, v, t, where):
        delta = [r[k] + GAMMA * v[k + 1] - v[k] for k in range(len(r))]
        return v[t] + sum((GAMMA * 0.8) ** (k - t) * delta[k] for k in range(t, len(r)))

    assert_equal(batch, vt.returns.to_go(batch), brute(batch, to_go))
    assert_equal(batch, vt.returns.gae(batch, lambda_=0.8), brute(batch, gae))


def test_elapsed_discount_ignores_steps_that_do_not_count() -> None:
    """A prompt of masked steps, or a dummy reset step, is no time."""
    batch = batch_of([(MASKED, MASKED, ON, TERMINATED), (TERMINATED, MASKED, ON, TERMINATED)])
    elapsed = vt.batch.elapsed_discount(batch)
    torch.testing.assert_close(elapsed[0, 2:], torch.tensor([1.0, GAMMA]).double())
    torch.testing.assert_close(elapsed[1, [0, 2, 3]], torch.tensor([1.0, 1.0, GAMMA]).double())
