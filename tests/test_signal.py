"""The signal's statistics are unbiased: shown by listing every possible draw."""

import itertools

import pytest
import torch

import vantage as vt
from vantage.batch import Batch
from vantage.statistics.signal import gradient_and_signal, unit_signal

OUTCOMES = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.2]], dtype=torch.float64)
PROBABILITY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("units", [2, 3, 4])
def test_squared_norm_and_variance_are_unbiased(units: int) -> None:
    mean = PROBABILITY @ OUTCOMES
    trace = (PROBABILITY[:, None] * (OUTCOMES - mean) ** 2).sum().item()
    expected_norm = expected_variance = 0.0
    negative = False
    for draw in itertools.product(range(3), repeat=units):
        picked = OUTCOMES[list(draw)]
        statistics = unit_signal(picked.sum(0), picked.square().sum().item(), units)
        probability = PROBABILITY[list(draw)].prod().item()
        expected_norm += probability * statistics.squared_norm
        expected_variance += probability * statistics.variance
        negative |= statistics.squared_norm < 0
    assert expected_norm == pytest.approx(mean.square().sum().item(), abs=1e-12)
    assert expected_variance == pytest.approx(trace, abs=1e-12)
    assert negative  # and so it was not clamped on the way to being unbiased


def test_one_unit_is_refused() -> None:
    with pytest.raises(vt.InputError, match=r"units=1.*draw a larger batch"):
        unit_signal(torch.ones(2), 2.0, 1)


def bandit(rewards: list[float], actions: list[int]) -> Batch:
    """One-step trajectories in one state."""
    n = len(rewards)
    grid = {"reward": torch.tensor(rewards, dtype=torch.float64)[:, None]}
    return Batch(
        observation=torch.zeros(n, 1, dtype=torch.long),
        action=torch.tensor(actions)[:, None],
        **grid,
        discount=torch.zeros(n, 1, dtype=torch.float64),
        boundary=torch.ones(n, 1, dtype=torch.bool),
        bootstrap=torch.zeros(n, 1, dtype=torch.float64),
        log_prob=torch.full((n, 1), 0.5, dtype=torch.float64).log(),
        mask=torch.ones(n, 1, dtype=torch.bool),
        episode=torch.arange(n)[:, None],
        group=torch.arange(n),
        weight=torch.full((n,), 1 / n, dtype=torch.float64),
    ).check()


@pytest.mark.parametrize("chunk", [2, 3, 64])
def test_gradient_and_signal_of_independent_trajectories(chunk: int) -> None:
    policy = vt.SoftmaxTable(1, 2)
    batch = bandit([1.0, 2.0, 4.0, 0.5, 3.0], [0, 1, 1, 0, 1])
    gradient, signal = gradient_and_signal(policy, batch, vt.estimators.reinforce(), chunk)
    # by hand: the score of action 0 is (½, −½), of action 1 (−½, ½)
    by_hand = torch.tensor(
        [[0.5, -0.5], [-1.0, 1.0], [-2.0, 2.0], [0.25, -0.25], [-1.5, 1.5]], dtype=torch.float64
    )
    torch.testing.assert_close(gradient, by_hand.mean(0))
    torch.testing.assert_close(gradient, vt.gradient(policy, batch, vt.estimators.reinforce()))
    pairs = by_hand @ by_hand.T
    off_diagonal = (pairs.sum() - pairs.diagonal().sum()).item() / 20
    assert signal.squared_norm == pytest.approx(off_diagonal)
    assert signal.variance == pytest.approx(by_hand.var(0).sum().item())
    assert signal.snr == pytest.approx(5 * off_diagonal / signal.variance)
    assert signal.noise_scale == pytest.approx(signal.variance / off_diagonal)


def test_a_batch_wide_baseline_takes_parts_as_units() -> None:
    """Trajectories that share a baseline are not independent: the units are parts of the batch."""
    policy = vt.SoftmaxTable(1, 2)
    batch = bandit([1.0, 2.0, 4.0, 0.5, 3.0, 7.0, 1.0, 1.5] * 2, [0, 1, 1, 0, 1, 0, 0, 1] * 2)
    row = vt.estimators.reinforce_mean()
    gradient, signal = gradient_and_signal(policy, batch, row)
    torch.testing.assert_close(gradient, vt.gradient(policy, batch, row))
    assert (signal.units, signal.trajectories) == (8, 2)
    units = torch.stack(
        [
            vt.gradient(policy, batch.select(slice(i, i + 2)).reweighted(), row)
            for i in range(0, 16, 2)
        ]
    )
    assert signal.variance == pytest.approx(units.var(0).sum().item())
