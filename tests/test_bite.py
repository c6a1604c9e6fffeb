"""Lines that were broken on purpose and that no other test missed."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import scipy
import torch
from gymnasium import spaces

import vantage as vt
from vantage.environments.rollout import episodes
from vantage.gradients.passes import AutogradPasses
from vantage.language.model.law import SamplingLaw
from vantage.statistics import bootstrap
from vantage.statistics.estimate import mean_interval
from vantage.statistics.gram import pair_moments
from vantage.training.updates import Epochs


def test_a_mean_has_the_interval_of_student() -> None:
    """By another implementation, of four numbers, where degrees of freedom matter."""
    values = [1.0, 2.5, 2.0, 7.0]
    found = mean_interval(values)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_pair_moments_are_unbiased_by_enumeration() -> None:
    """Of h(x, y) = x y with x = m + e: the variance of m e, and the mean square of e e'."""
    law = {-1.0: 0.25, 0.5: 0.5, 3.0: 0.25}
    mean = sum(x * p for x, p in law.items())
    variance = sum((x - mean) ** 2 * p for x, p in law.items())
    first = second = 0.0
    for sample in itertools.product(law, repeat=5):
        chance = float(np.prod([law[x] for x in sample]))
        one, two, _ = pair_moments(np.outer(sample, sample))
        first, second = first + chance * one, second + chance * two
    assert first == pytest.approx(mean**2 * variance)
    assert second == pytest.approx(variance**2)


def test_resampled_variances_of_a_spread_are_centred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resample has (U − 1)/U of the variance: with U/(U − 1) their mean is the sample's.

    Of twelve units the factor is 1.09; the mean of 499 draws is off by 0.02.
    """
    held: list[np.ndarray] = []
    interval = bootstrap.log_interval

    def listening(value: float, error: float, shift: Any, errors: Any, note: str) -> Any:
        held.append(shift)
        return interval(value, error, shift, errors, note)

    monkeypatch.setattr(bootstrap, "log_interval", listening)
    numbers = np.array([-1.0, 1.5, -0.6, 1.0, -1.2, 0.95, 1.3, -0.8, 0.7, -1.1, 1.2, -1.4])
    bootstrap.spread([np.outer(numbers, numbers)])
    assert np.exp(held[0]).mean() == pytest.approx(1, abs=0.045)


def test_the_bandwidth_of_resampling_falls_with_the_fifth_root_of_the_units() -> None:
    """Thirty-two times the units, half the width; read off units that are drawn once."""

    def width(units: int) -> float:
        size = np.tile([1.0, 4.0], units // 2)
        place, _ = bootstrap.copies(units)
        once = np.bincount(place, minlength=bootstrap.DRAWS * units) == 1
        return float(np.log(bootstrap.resamples(size)[1].reshape(-1)[once]).std())

    assert width(16) / width(512) == pytest.approx(2, rel=0.05)


class Blind(gymnasium.Env):
    """Shows nothing, and is cut off after three steps."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.ones(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.ones(2, np.float32), 1.0, False, self.time == 3, {}


def test_a_memory_begins_anew_after_a_truncation() -> None:
    """Episodes in which nothing is shown are the same, the second of a lane as the first."""
    env = vt.Gymnasium(Blind, lanes=1)
    policy = env.policy(seed=3, recurrent=4)
    batch = episodes(env, policy, count=3, seed=0, greedy=True)
    assert batch.log_prob.shape == (3, 3)
    assert torch.allclose(batch.log_prob[1], batch.log_prob[0], atol=1e-6)
    assert torch.allclose(batch.log_prob[2], batch.log_prob[0], atol=1e-6)
    assert not torch.allclose(batch.log_prob[0, 0], batch.log_prob[0, 2], atol=1e-6)


def test_a_stale_batch_has_its_ratio_on_the_first_minibatch_too() -> None:
    """All that was sampled is twice as likely now: the gradient is twice as long."""
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    norms = []
    for stale in (False, True):
        policy = env.policy(seed=1)
        batch = episodes(env, policy, 4, seed=0)
        older = replace(batch, log_prob=batch.log_prob - np.log(2))
        estimator = vt.estimators.reward_to_go().replace(ratio=vt.ratios.token)
        rule = Epochs(epochs=1, minibatches=1, max_grad_norm=None)
        passes = AutogradPasses(policy, None)
        optimizers = rule.optimizers(passes, None, None)
        generator = torch.Generator().manual_seed(0)
        metrics = rule.update(passes, optimizers, estimator, older, generator, stale=stale)
        norms.append(metrics["grad_norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("mask", torch.long), ("boundary", torch.float32), ("episode", torch.float32),
        ("group", torch.bool), ("reward", torch.complex64), ("weight", torch.long),
        ("observation", torch.complex64),
    ],
)  # fmt: skip
def test_a_batch_holds_numbers_of_the_kinds_that_it_says(name: str, dtype: torch.dtype) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    batch = episodes(env, env.policy(seed=1), 2, seed=0)
    batch.check()
    spoiled = copy.copy(batch)  # past the checks of types that tests alone have
    object.__setattr__(spoiled, name, getattr(batch, name).to(dtype))
    with pytest.raises(vt.InputError, match=rf"Batch.{name} has dtype {dtype}; it must hold"):
        spoiled.check()


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.5, 2), (0.6, 3), (0.75, 3)])
def test_a_token_on_the_edge_of_top_p_is_not_needed(top_p: float, kept: int) -> None:
    """Four tokens of a quarter each: the fewest that make up p, no more where they just do."""
    support = SamplingLaw(top_p=top_p).support(torch.zeros(4))
    assert int(support.sum()) == kept
