"""Normalisers against recomputing everything from the raw data, lane by lane."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lanes import Scripted, scripted_lanes
from safetensors.torch import load_file, save_file

import vantage as vt
from vantage.environments.normalise import Normalized, RunningMoments

LANES, STEPS, GAMMA = 3, 40, 0.9
MODES = list(AutoresetMode)


def raw_history(seed: int, lane: int, steps: int) -> tuple[list[Any], list[float], list[float]]:
    """One lane by hand: all observations it shows; after every step the reward and the return."""
    env = Scripted()
    observation, _ = env.reset(seed=seed + lane)
    shown, rewards, returns, running = [observation], [], [], 0.0
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(0)
        shown.append(observation)
        running = GAMMA * running + reward
        rewards.append(reward)
        returns.append(running)
        if terminated or truncated:
            running = 0.0
            shown.append(env.reset()[0])
    return shown, rewards, returns


@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_those_of_all_that_was_shown(mode: AutoresetMode) -> None:
    env = Normalized(scripted_lanes(LANES, mode), epsilon=1e-8, clip=1e9)
    observation = env.reset(seed=5)
    raw: list[list[float]] = [[] for _ in range(LANES)]
    for _ in range(STEPS):
        step = env.step(torch.zeros(LANES, dtype=torch.long))
        assert step.raw_reward is not None
        for lane in step.real.nonzero().flatten().tolist():
            raw[lane].append(step.raw_reward[lane].item())
        observation = step.observation
    shown, returns = [], []
    for lane in range(LANES):
        # in NEXT_STEP mode a lane may not yet have shown the start that its last end leads to
        pending = mode is AutoresetMode.NEXT_STEP and bool((step.terminated | step.truncated)[lane])
        observations, rewards, lane_returns = raw_history(5, lane, len(raw[lane]))
        np.testing.assert_allclose(raw[lane], rewards, rtol=1e-6)
        shown += observations[:-1] if pending else observations
        returns += lane_returns
    table = env.statistics.table
    assert table[0].tolist() == [len(shown)] * 3 + [len(returns)]
    np.testing.assert_allclose(env.statistics.mean[:3], np.mean(shown, 0), rtol=1e-5)
    np.testing.assert_allclose(env.statistics.variance[:3], np.var(shown, 0), rtol=1e-5)
    np.testing.assert_allclose(env.statistics.mean[3], np.mean(returns), rtol=1e-5)
    np.testing.assert_allclose(env.statistics.variance[3], np.var(returns), rtol=1e-5)
    # and what the policy sees is normalised by them
    plain = scripted_lanes(LANES, mode)
    plain.reset(seed=5)
    for _ in range(STEPS):
        last = plain.step(torch.zeros(LANES, dtype=torch.long))
    expected = (last.observation.double() - env.statistics.mean[:3]) / (
        env.statistics.variance[:3] + 1e-8
    ).sqrt()
    torch.testing.assert_close(observation, expected.float(), rtol=1e-4, atol=1e-5)
    spread = (env.statistics.variance[3] + 1e-8).sqrt()
    torch.testing.assert_close(step.reward, (last.reward / spread).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step.raw_reward, last.reward)


def test_merging_is_one_pass_over_everything() -> None:
    """Far from zero, in float32, in batches of any size."""
    generator = torch.Generator().manual_seed(0)
    samples = 1e4 + torch.randn(1000, 2, generator=generator)
    moments = RunningMoments(2)
    for batch in samples.split([1, 2, 97, 400, 500]):
        moments.update(batch)
    everything = samples.double()
    torch.testing.assert_close(moments.mean, everything.mean(0), rtol=1e-12, atol=0)
    variance = everything.var(0, correction=0)
    torch.testing.assert_close(moments.variance, variance, rtol=1e-9, atol=0)


def test_statistics_survive_a_file(tmp_path: Path) -> None:
    env = Normalized(scripted_lanes(LANES, AutoresetMode.SAME_STEP))
    observation = env.reset(seed=0)
    for _ in range(20):
        observation = env.step(torch.zeros(LANES, dtype=torch.long)).observation
    save_file(env.statistics.state_dict(), tmp_path / "normaliser.safetensors")
    other = Normalized(scripted_lanes(LANES, AutoresetMode.SAME_STEP))
    other.statistics.load_state_dict(load_file(tmp_path / "normaliser.safetensors"))
    runs = []
    for one in (env, other):
        first = one.reset(seed=1)
        steps = [one.step(torch.ones(LANES, dtype=torch.long)) for _ in range(15)]
        runs.append([first, *(t for s in steps for t in (s.observation, s.reward))])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert observation.shape == (LANES, 3)


def test_frozen_statistics_do_not_move_and_rewards_are_raw() -> None:
    env = Normalized(scripted_lanes(LANES, AutoresetMode.NEXT_STEP))
    env.reset(seed=0)
    for _ in range(10):
        env.step(torch.zeros(LANES, dtype=torch.long))
    before = env.statistics.table.clone()
    lanes = scripted_lanes(5, AutoresetMode.SAME_STEP)
    frozen = env.frozen(lanes)
    assert frozen.lanes == 5
    assert frozen.reset(seed=2).shape == (5, 3)
    for _ in range(10):
        step = frozen.step(torch.zeros(5, dtype=torch.long))
        assert step.raw_reward is not None
        assert torch.equal(step.reward, step.raw_reward)
    assert torch.equal(env.statistics.table, before)
    scaled = env.frozen(raw_rewards=False)
    scaled.reset(seed=2)
    step = scaled.step(torch.zeros(LANES, dtype=torch.long))
    assert not torch.equal(step.reward, step.raw_reward)  # type: ignore[arg-type]
    assert torch.equal(env.statistics.table, before)
    # what trains goes on, and the frozen one sees by what was learned since
    env.reset(seed=3)
    assert not torch.equal(env.statistics.table, before)
    assert frozen.statistics is env.statistics


def test_evaluation_reports_raw_returns() -> None:
    env = Normalized(vt.Gymnasium("CartPole-v1", lanes=4))
    policy = env.policy(hidden=(4,))
    result = vt.evaluate(env.frozen(), policy, episodes=8)
    torch.testing.assert_close(result.returns, result.lengths.double())  # a reward of 1 a step


def test_one_of_the_two_alone_and_clipping() -> None:
    mode = AutoresetMode.NEXT_STEP
    plain = scripted_lanes(LANES, mode)
    rewards = Normalized(scripted_lanes(LANES, mode), observations=False)
    both = Normalized(scripted_lanes(LANES, mode), clip=0.5)
    seen = Normalized(scripted_lanes(LANES, mode), rewards=False)
    for env in (plain, rewards, both, seen):
        env.reset(seed=0)
    for _ in range(12):
        action = torch.zeros(LANES, dtype=torch.long)
        p, r, b, s = (env.step(action) for env in (plain, rewards, both, seen))
        assert torch.equal(p.observation, r.observation)
        assert torch.equal(p.reward, s.reward)
        assert b.observation.abs().max() <= 0.5
        assert b.reward.abs().max() <= 0.5
    assert not torch.equal(r.reward, p.reward)
    assert not torch.equal(s.observation, p.observation)


def test_shared_starts_share_statistics() -> None:
    env = Normalized(vt.Gymnasium("CartPole-v1", lanes=2))
    env.reset(seed=0)
    together = env.sharing(6)
    assert together.lanes == 6
    first = together.reset(seed=1, shared=3)
    assert (first.view(2, 3, 4) == first.view(2, 3, 4)[:, :1]).all()
    assert together.statistics is env.statistics


def test_it_is_an_environment_and_refuses_ids() -> None:
    env: Any = Normalized(vt.Gymnasium(SyncVectorEnv([Scripted] * 2)))
    assert isinstance(env, vt.Environment)
    assert env.policy(hidden=(4,)).hidden == (4,)
    with pytest.raises(vt.InputError, match="observations=False"):
        Normalized(vt.Tabular(vt.MDP.short_corridor(), lanes=2))
    tabular = Normalized(vt.Tabular(vt.MDP.short_corridor(), lanes=2), observations=False)
    tabular.reset(seed=0)
    assert tabular.step(torch.tensor([1, 1])).raw_reward is not None
    for name in ("clip", "epsilon"):
        with pytest.raises(vt.InputError, match="must be positive"):
            Normalized(tabular, **{name: 0.0})
