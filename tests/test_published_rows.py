"""Settings and rows as published, against formulas written out by hand in float64."""

from functools import partial

import pytest
import torch
from test_baselines import lanes
from test_estimators import off_policy

import vantage as vt
from vantage.estimators import listing, returns, scales
from vantage.training.value import value_target

E = vt.estimators
DEVIATIONS = ["ppo", "grpo", "dapo", "gspo", "cispo", "reinforce_pp"]


def test_every_row_with_a_standard_deviation_has_its_correction() -> None:
    """The divisor is a setting of each, and the table shows which one stands."""
    for name in E.TABLE:
        chosen = E.named(name).columns()["scale"]
        assert ("correction=" in chosen) == (name in DEVIATIONS), name
        assert chosen.split("(")[0] in {"none", "group_mean_return"} or name in DEVIATIONS
    cells = {cells[0]: cells for cells in listing.rows()}
    for name in DEVIATIONS:
        assert "correction=0" in cells[name][3]
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
