"""Batch and baseline that follow the measured signal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from lanes import OneStep

import vantage as vt
from vantage.training.auto import LARGEST, SMALLEST, best_baseline, candidates, next_batch


def row(batch: int, norm: float, variance: float, unit: int = 1) -> dict[str, Any]:
    return {
        "batch": batch,
        "gradient_squared_norm": norm,
        "gradient_variance": variance,
        "unit": unit,
    }


def test_the_next_batch_has_the_target_snr() -> None:
    """SNR = B N / tr Σ: with N = 2 and tr Σ = 100 in sums of ratios, SNR 1.5 takes 75."""
    history = [row(64, 1.0, 60.0), row(64, 3.0, 140.0)]
    assert next_batch(history, 64, 1.5)[0] == 75
    assert next_batch([row(64, 2.0, 25.0, unit=4)], 64, 1.5)[0] == 75
    assert next_batch([], 48, 1.5)[0] == 48


def test_the_batch_changes_by_a_factor_of_two_and_within_bounds() -> None:
    assert next_batch([row(64, 1.0, 1e6)], 64, 1.0)[0] == 128
    assert next_batch([row(64, 1e6, 1.0)], 64, 1.0)[0] == 32
    assert next_batch([row(SMALLEST, 1e6, 1.0)], 64, 1.0)[0] == SMALLEST
    assert next_batch([row(LARGEST, -1.0, 1.0)], 64, 1.0)[0] == LARGEST
    size, why = next_batch([row(64, -1.0, 1.0)], 64, 1.0)
    assert size == 128
    assert "no signal" in why


def test_the_held_snr_is_near_the_target() -> None:
    """A bandit with a steady signal: the batch settles where the exact SNR is the target.

    At the exact noise scale B, with W windows of B units each, the ratio's relative error is about
    √(2/(W B)) + 2/√(W SNR); 50 % covers it with room for a fixed seed.
    """
    mdp = vt.MDP.bandit([1.0, 0.0, 0.0, 0.0])
    policy = vt.SoftmaxTable(mdp.observations, 4)
    run = vt.train(
        vt.Tabular(mdp, lanes=64), policy, vt.estimators.reinforce(), updates=40, lr=1e-5,
        batch="auto", target_snr=8.0, progress=False,
    )  # fmt: skip
    exact = vt.exact.moments(mdp, policy, returns="total")
    noise_scale = float(exact.trace / exact.mean.square().sum())
    settled = [entry["batch"] for entry in run.history[-20:]]
    assert sum(settled) / 20 == pytest.approx(8 * noise_scale, rel=0.5)


def test_the_chosen_baseline_is_the_one_of_least_variance() -> None:
    history = [
        {"baseline_variance": {"none": 9.0, "value": 4.0}},
        {"baseline_variance": {"none": 9.0, "value": 16.0}},
    ]
    assert best_baseline(history, ["none", "value"])[0] == "none"
    assert best_baseline(history[:1], ["none", "value"])[0] == "value"
    assert best_baseline([], ["value", "none"])[0] == "value"


def test_candidates_are_unbiased_only() -> None:
    means = ["batch_leave_one_out", "batch_leave_one_out(fraction=0.5)"]
    found = candidates(vt.estimators.reward_to_go(), with_value=True, grouped=False)
    assert list(found) == ["value", *means, "none"]
    found = candidates(vt.estimators.reward_to_go(), with_value=False, grouped=True)
    assert list(found) == ["leave_one_out", "leave_one_out(fraction=0.5)", *means, "none"]
    assert candidates(vt.estimators.grpo(), with_value=False, grouped=True) == {}


def test_a_baseline_is_taken_where_rewards_are_far_from_zero() -> None:
    """Rewards N(3, 2²) whatever the action: no baseline has variance E R² = 13, the mean 4."""
    env = vt.Gymnasium(SyncVectorEnv([OneStep] * 8))
    run = vt.train(
        env, env.policy(hidden=()), vt.estimators.reinforce(), updates=8, batch=64,
        baseline="auto", progress=False,
    )  # fmt: skip
    assert run.history[-1]["baseline"] == "batch_leave_one_out"
    assert "batch_leave_one_out" in run.history[-1]["baseline_reason"]
    measured = run.history[-1]["baseline_variance"]
    assert measured["none"] > 2 * measured["batch_leave_one_out"]


def test_automatic_choices_under_several_epochs() -> None:
    """Epochs over whole episodes follow the signal too, and learn with the baseline chosen."""
    env = vt.Gymnasium("CartPole-v1", lanes=4)

    def run(estimator: vt.Estimator, updates: int, **auto: Any) -> tuple[vt.Run, torch.Tensor]:
        policy = env.policy(hidden=(8,))
        made = vt.train(
            env, policy, estimator, updates=updates, update=vt.updates.Epochs(), batch="auto",
            progress=False, **auto,
        )  # fmt: skip
        return made, torch.nn.utils.parameters_to_vector(policy.parameters())

    plain = vt.estimators.reward_to_go()
    first, learned = run(plain, 1, baseline="auto")
    assert first.history[0]["baseline"] == "batch_leave_one_out"
    _, with_it = run(plain.replace(baseline=vt.baselines.batch_leave_one_out), 1)
    _, without = run(plain, 1)
    assert torch.equal(learned, with_it)
    assert not torch.equal(learned, without)
    assert "noise scale" in run(plain, 2)[0].history[1]["batch_reason"]


def test_automatic_choices_resume_to_the_same_bits(tmp_path: Path) -> None:
    def run(updates: int, out: Path, resume: bool = False) -> vt.Run:
        env = vt.Gymnasium("CartPole-v1", lanes=4)
        return vt.train(
            env, env.policy(hidden=(8,)), vt.estimators.reward_to_go(),
            value=env.value(hidden=(8,)), updates=updates, batch="auto", baseline="auto",
            out=out, resume=resume, progress=False,
            update=vt.updates.Ascent(fit=vt.updates.Fit(epochs=1)),
        )  # fmt: skip

    run(3, tmp_path / "a")
    resumed, straight = run(6, tmp_path / "a", resume=True), run(6, tmp_path / "b")
    timing = {"step_time", "steps_per_second"}
    for one, two in zip(resumed.history, straight.history, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {
            k: v for k, v in two.items() if k not in timing
        }


def test_group_estimators_train_on_whole_groups() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = env.policy(hidden=(8,))
    before = torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    run = vt.train(
        env, policy, vt.estimators.rloo(), updates=2, batch=16, group_size=4, progress=False
    )
    assert run.history[0]["unit"] == 4
    after = torch.nn.utils.parameters_to_vector(policy.parameters())
    assert not torch.equal(before, after)
    with pytest.raises(vt.InputError, match="whole groups"):
        vt.train(env, policy, vt.estimators.rloo(), updates=1, batch=10, group_size=4)
    with pytest.raises(vt.InputError, match="no baseline leaves 'grpo' unbiased"):
        vt.train(env, policy, vt.estimators.grpo(), updates=1, batch=16, baseline="auto")
