"""Intervals over Gram matrices: identities, refusals, and a small calibration against exact values.

The calibration asks that coverage is not below 0.93: the least number of hits accepted is the 1e-3
point of Binomial(audits, 0.93), so a statistic that covers 93 % fails once in a thousand seeds; the
seed is fixed. The large calibration is `benchmarks/calibration.py`.
"""

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2

from vantage.statistics import intervals
from vantage.statistics.gram import pair_moments
from vantage.statistics.roots import crossing

AUDITS = 60
SCORE = 0.5 * np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]])
TARGET = np.array([5, -5, -3, 3]) / 8


def article(rng, audits, units, baseline):
    """Two states, two actions: unit gradients [audits, units, 4], trace of their covariance."""
    outcomes = SCORE * (np.array([12.0, 7.0, 2.0, 5.0]) - baseline)[:, None]
    trace = ((outcomes - TARGET) ** 2).sum(1).mean()
    return outcomes[rng.integers(0, 4, size=(audits, units))], trace


def cover(hits):
    return sum(hits) >= binom.ppf(1e-3, len(hits), 0.93)


def holds(estimate, truth):
    return estimate.low <= truth <= estimate.high


@pytest.fixture(scope="module")
def drawn():
    return article(np.random.default_rng(0), AUDITS, 64, 6.5)


def test_norm_and_variance_are_unbiased(drawn):
    """Means over audits within 4 standard errors of ||G||^2 = 17/16 and tr Sigma = 89/16."""
    gradients, trace = drawn
    assert trace == pytest.approx(89 / 16)
    values = np.array(
        [(intervals.off_diagonal(g @ g.T), intervals.variance(g @ g.T).value) for g in gradients]
    )
    error = values.std(0) / np.sqrt(AUDITS)
    assert (abs(values.mean(0) - [17 / 16, 89 / 16]) < 4 * error).all()


def test_values_are_those_of_the_definitions():
    units = np.random.default_rng(1).normal(size=(20, 6)) + 1
    other = units + np.random.default_rng(2).normal(size=(20, 6))
    gram, mean = units @ units.T, units.mean(0)
    trace = ((units - mean) ** 2).sum() / 19
    norm = mean @ mean - trace / 20
    assert intervals.squared_norm(gram).value == pytest.approx(norm)
    assert intervals.variance(gram).value == pytest.approx(trace)
    assert intervals.snr(gram, 8).value == pytest.approx(8 * norm / trace)
    assert intervals.noise_scale(gram).value == pytest.approx(trace / norm)
    assert intervals.batch_cosine(gram, 8).value == pytest.approx((1 + trace / norm / 8) ** -0.5)
    ratio = intervals.variance_ratio(gram, other @ other.T).value
    assert ratio == pytest.approx(trace / other.var(0, ddof=1).sum())
    assert intervals.scale(units @ np.ones(6), 6.0).value == pytest.approx(mean.sum() / 6)


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [
        (intervals.squared_norm, 17 / 16),
        (intervals.variance, 89 / 16),
        (intervals.snr, 17 / 89),
    ],
)
def test_coverage_of_one_estimator(drawn, statistic, truth):
    assert cover([holds(statistic(g @ g.T), truth) for g in drawn[0]])


@pytest.mark.parametrize(
    ("statistic", "truth"), [("scale", 1.0), ("relative_bias", 0.0), ("cosine", 1.0)]
)
def test_coverage_against_the_exact_gradient(drawn, statistic, truth):
    function, square = getattr(intervals, statistic), float(TARGET @ TARGET)
    first = [] if statistic == "scale" else [None]
    hits = []
    for g in drawn[0]:
        arguments = [g @ g.T for _ in first] + [g @ TARGET, square]
        hits.append(holds(function(*arguments), truth))
    assert cover(hits)


def test_coverage_where_the_mean_is_zero():
    """N = 0 is degenerate; the interval is not cut there, so it covers 95 %, not 97.5 %."""
    units = np.random.default_rng(3).normal(size=(AUDITS, 64, 5))
    found = [intervals.squared_norm(g @ g.T) for g in units]
    assert cover([holds(e, 0.0) for e in found])
    assert np.mean([e.low < 0 for e in found]) > 0.9
    assert np.mean([e.high - e.low for e in found]) < 8 * np.sqrt(2 * 5) / 64


def test_coverage_of_the_decomposition():
    """40 prompts of 4 completions, between 2, within 3."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(40), 4)
    effect = rng.normal(size=(AUDITS, 40, 2)).repeat(4, 1)
    gradients = 1 + effect + rng.normal(size=(AUDITS, 160, 2)) * np.sqrt(1.5)
    found = [intervals.decomposition(g @ g.T, group) for g in gradients]
    assert cover([holds(between, 2.0) for between, _ in found])
    assert cover([holds(within, 3.0) for _, within in found])


def test_same_input_same_bits():
    units = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    gram = units @ units.T
    assert intervals.snr(gram, 16) == intervals.snr(gram.clone(), 16)


def test_scaling_the_gradients_scales_the_interval():
    units = np.random.default_rng(5).normal(size=(32, 4)) + 0.5
    one, hundred = (intervals.squared_norm(s * units @ units.T) for s in (1.0, 100.0))
    assert [hundred.value, hundred.low, hundred.high] == pytest.approx(
        [100 * x for x in (one.value, one.low, one.high)], rel=1e-6
    )


def test_undetermined_denominators_say_so():
    units = np.random.default_rng(6).normal(size=(64, 3))
    units -= units.mean(0)
    gram = units @ units.T
    noise = intervals.noise_scale(gram)
    assert np.isnan(noise.value)
    assert noise.high == np.inf
    assert "the interval of the SNR holds 0" in noise.note
    for estimate in (
        intervals.scale(gram, gram),
        intervals.relative_bias(gram, gram, gram),
        intervals.cosine(gram, gram, gram),
        intervals.scale(units[:, 0], 0.0),
    ):
        assert np.isnan(estimate.value)
        assert "undetermined" in estimate.note
    assert "is 0" in intervals.scale(units[:, 0], 0.0).note


def test_one_norm_is_not_called_a_number_and_nothing_in_one_table():
    """To be above 0 and to be divided by are two rules: the note of the second names both.

    And a noise scale is undetermined where, and only where, the interval of the SNR holds 0.
    """
    seen = 0
    for seed in range(40):
        units = np.random.default_rng(seed).normal(size=(64, 20)) + 0.12
        gram = units @ units.T
        norm, ratio = intervals.squared_norm(gram), intervals.snr(gram)
        assert np.isnan(intervals.noise_scale(gram).value) == (ratio.low <= 0)
        refused = intervals.scale(gram, gram)
        if np.isnan(refused.value):
            assert "told from" not in refused.note
            assert f"is {norm.value:.3g}; to be above 0 takes less" in refused.note
            seen += norm.low > 0
    assert seen > 0  # the case that was called two things


def test_times_have_an_interval_that_makes_sense():
    few = intervals.time_interval([0.5, 0.7], [100, 300])
    assert few.value == pytest.approx(0.65)  # 260 seconds for 400 trajectories
    assert (few.low, few.high) == (0.5, 0.7)
    assert "range of 2" in few.note
    many = intervals.time_interval([1.0, 1.1, 0.9, 1.2, 0.8, 6.0])
    assert 0 < many.low < many.value < many.high < 10 * many.value
    assert many.value == pytest.approx(11 / 6)
    # gamma-distributed times: 1,000 intervals of 95 %, 905 hold at 93 % less three sigma
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        found = intervals.time_interval(generator.gamma(20.0, 0.05, size=10).tolist())
        held += found.low <= 1 <= found.high
    assert held >= 905


def test_an_estimator_is_its_own_reference():
    units = np.random.default_rng(7).normal(size=(64, 3)) + 2
    gram = units @ units.T
    assert intervals.scale(gram, gram).low == pytest.approx(1.0)
    assert intervals.relative_bias(gram, gram, gram).high == pytest.approx(0.0, abs=1e-6)
    assert intervals.cosine(gram, gram, gram).low == pytest.approx(1.0)
    assert intervals.variance_ratio(gram, gram).high == pytest.approx(1.0)


def test_zero_gradients_are_undetermined():
    gram = np.zeros((64, 64))
    for estimate in (intervals.squared_norm(gram), intervals.variance(gram), intervals.snr(gram)):
        assert "undetermined" in estimate.note
        assert estimate.high == np.inf


def test_heavy_tails_are_flagged():
    rng = np.random.default_rng(8)
    units = rng.normal(size=(256, 3)) * rng.standard_t(2.5, size=(256, 1))
    assert "optimistic" in intervals.variance(units @ units.T).note
    even = rng.normal(size=(256, 3))
    assert intervals.variance(even @ even.T).note == ""


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (np.ones((1, 1)), "1 unit"),
        (np.ones((3, 4)), "shape"),
        (np.full((9, 9), np.nan), "not finite"),
    ],
)
def test_bad_input_is_refused(gram, message):
    for statistic in (intervals.squared_norm, intervals.variance, intervals.snr):
        with pytest.raises(ValueError, match=message):
            statistic(gram)


def test_few_units_give_a_value_without_an_interval():
    units = np.random.default_rng(9).normal(size=(4, 3))
    found = intervals.squared_norm(units @ units.T)
    assert np.isfinite(found.value)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert "4 units" in found.note


@pytest.mark.parametrize("sign", [1, -1])
def test_a_cosine_that_is_refused_does_not_deny_the_sign_of_the_scale(sign):
    """Where the scale is told from 0 and the direction is not given, the note names its rule."""
    vectors = np.random.default_rng(0).normal(size=(64, 4))
    along = np.array([sign, 0.0, 0.0, 0.0])
    for mean, word in ((0.3, "its sign takes less"), (-0.05, "nor its sign")):
        moved = vectors + mean * np.eye(4)[0]
        scale = intervals.scale(moved @ along, 1.0)
        refused = intervals.cosine(moved @ moved.T, moved @ along, 1.0)
        assert np.isnan(refused.value)
        assert word in refused.note
        assert (scale.low * scale.high > 0) == (mean == 0.3)
        if mean == 0.3:
            nearest = min(scale.low, scale.high, key=abs)
            assert f"of {scale.value:.3g}, and reaches {nearest:.3g};" in refused.note


def test_what_noise_alone_reaches_is_its_97_5_percent_point_twice() -> None:
    """Of (χ²₁ − 1)/√2 standard deviations of the U-statistic, √(2 tr Σ²/(n(n − 1)))."""
    point = (chi2(1).ppf(0.975) - 1) / np.sqrt(2)
    for seed in range(4):
        below = np.multiply.outer(*2 * [np.random.default_rng(seed).normal(size=12)])
        deviation = np.sqrt(2 * pair_moments(below)[1] / (12 * 11))
        told = intervals.determined(below)
        assert told is not None
        needed = float(told.note.split("exceed ")[1].split(",")[0])
        assert needed == pytest.approx(2 * point * deviation, rel=0.01)
    assert intervals.determined(below + 1e3) is None


def test_a_crossing_is_the_first_step_at_which_a_margin_turns_positive() -> None:
    assert crossing(lambda steps: steps - 0.37) == pytest.approx(0.37)
    assert crossing(lambda steps: steps**2 - 9) == pytest.approx(3, rel=1e-3)
    assert crossing(lambda steps: np.sin(steps) - 0.5) == pytest.approx(np.pi / 6, rel=1e-3)
    assert crossing(lambda steps: -1 - steps) == np.inf
    assert crossing(lambda steps: 1 + steps) == 0  # positive from the start
