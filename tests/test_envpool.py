"""EnvPool against Gymnasium's own dynamics, stepped one environment at a time."""

import builtins
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import vantage as vt
from vantage.environments.envpool import EnvPool
from vantage.environments.rollout import episodes

pytest.importorskip("envpool")


def cartpole(**settings: Any) -> EnvPool:
    return EnvPool("CartPole-v1", lanes=6, num_threads=1, **settings)


def test_steps_are_gymnasiums() -> None:
    """Every real step is one of CartPole's from the state before; dummies are starts.

    Limits of 14 steps make truncations, pushing one way terminations at 9 or 10.
    """
    env = cartpole(max_episode_steps=14)
    single = CartPoleEnv()
    single.reset(seed=0)
    state = env.reset(seed=0)
    age = np.zeros(6, int)
    counts = {"terminated": 0, "truncated": 0, "dummy": 0}
    for t in range(80):
        push = torch.tensor([1, 0, t % 2, t % 2, (t // 2) % 2, 1])
        step = env.step(push)
        assert torch.equal(step.final_observation, step.observation)
        for lane in range(6):
            if not step.real[lane]:
                assert step.observation[lane].abs().max() <= 0.05
                assert step.reward[lane] == 0
                assert not step.terminated[lane]
                assert not step.truncated[lane]
                age[lane] = 0
                counts["dummy"] += 1
                continue
            age[lane] += 1
            single.state = state[lane].double().numpy()
            single.steps_beyond_terminated = None
            following, reward, terminated, _, _ = single.step(int(push[lane]))
            np.testing.assert_allclose(step.final_observation[lane], following, atol=1e-5)
            assert step.reward[lane] == reward
            assert bool(step.truncated[lane]) == (age[lane] == 14)
            assert bool(step.terminated[lane]) == (terminated and age[lane] < 14)
            counts["terminated"] += int(step.terminated[lane])
            counts["truncated"] += int(step.truncated[lane])
        state = step.observation
    assert min(counts.values()) >= 8


def test_a_dummy_follows_every_end() -> None:
    env = cartpole(max_episode_steps=14)
    env.reset(seed=0)
    ended = torch.zeros(6, dtype=torch.bool)
    for _ in range(40):
        step = env.step(torch.ones(6, dtype=torch.long))
        assert torch.equal(~step.real, ended)
        ended = step.terminated | step.truncated


def test_a_seed_starts_afresh_with_the_same_bits() -> None:
    env = cartpole()

    def play(seed: int) -> list[torch.Tensor]:
        first = env.reset(seed=seed)
        ones = torch.ones(6, dtype=torch.long)
        return [first, *(env.step(ones).observation for _ in range(25))]

    one, again, other = play(1), play(1), play(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    # neighbouring seeds share no lane
    assert not (one[0][:, None] == other[0][None]).all(-1).any()


def test_batches_are_collected_and_gradients_taken() -> None:
    env = cartpole(max_episode_steps=14)
    policy = env.policy(hidden=(8,))
    batch = episodes(env, policy, 12, seed=0, value=env.value(hidden=(8,))).check()
    assert batch.reward.sum(1).tolist() == batch.mask.sum(1).tolist()
    full = batch.mask.sum(1) == 14
    assert full.any()
    assert (batch.discount[full, 13] == 0.99).all()  # truncated: still worth something
    assert vt.gradient(policy, batch, vt.estimators.reward_to_go()).isfinite().all()


def test_the_limit_hides_a_termination_at_the_same_step() -> None:
    """What EnvPool reports, and the documentation says: a change of it should be noticed."""

    def first_end(limit: int) -> tuple[int, bool]:
        env = EnvPool("CartPole-v1", lanes=1, num_threads=1, max_episode_steps=limit)
        env.reset(seed=4)
        for t in range(1, 30):
            step = env.step(torch.ones(1, dtype=torch.long))
            if step.terminated or step.truncated:
                return t, bool(step.terminated)
        raise AssertionError("pushing one way must end the episode")

    natural, terminated = first_end(100)
    assert terminated
    assert first_end(natural + 1) == (natural, True)
    assert first_end(natural) == (natural, False)


@pytest.mark.parametrize("name", ["Pendulum-v1", "FrozenLake-v1"])
def test_spaces_are_gymnasiums(name: str) -> None:
    env, other = EnvPool(name, lanes=2, num_threads=1), vt.Gymnasium(name, lanes=2)
    assert env.actions == other.actions
    first = env.reset(seed=0)
    assert first.shape == other.reset(seed=0).shape
    assert first.dtype == other.reset(seed=0).dtype
    policy = env.policy()
    env.step(policy.sample(first, torch.Generator().manual_seed(0))[0])


def test_halfcheetah_moves_as_in_gymnasium() -> None:
    """The same torques from the same state lead to the same place: two builds of MuJoCo."""
    pytest.importorskip("mujoco")
    env = EnvPool("HalfCheetah-v5", lanes=1, num_threads=1)
    state = env.reset(seed=0)[0].double().numpy()
    single: Any = gymnasium.make("HalfCheetah-v5").unwrapped
    single.reset(seed=0)
    single.set_state(np.concatenate([[0.0], state[:8]]), state[8:])
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        action = torch.rand(1, 6, generator=generator) * 2 - 1
        step = env.step(action)
        observation, reward, _, _, _ = single.step(action[0].numpy())
        np.testing.assert_allclose(step.final_observation[0], observation, atol=2e-3)
        assert step.reward[0].item() == pytest.approx(reward, abs=2e-3)


def test_bad_input_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        vt.InputError, match=r"no environment 'CartPol-v1'; did you mean .*CartPole"
    ):
        EnvPool("CartPol-v1")
    with pytest.raises(vt.InputError, match="say lanes="):
        EnvPool("CartPole-v1", num_envs=3)
    with pytest.raises(vt.InputError, match="given to reset"):
        EnvPool("CartPole-v1", seed=3)
    env = cartpole()
    for shared in (lambda: env.sharing(4), lambda: env.reset(seed=0, shared=2)):
        with pytest.raises(vt.InputError, match=r"vantage\.Gymnasium"):
            shared()
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "envpool":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(vt.InputError, match=r"pip install 'vantage-rl\[envpool\]'"):
        EnvPool("CartPole-v1")
