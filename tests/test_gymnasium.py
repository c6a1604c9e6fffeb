"""Ways of stepping lanes: one process or many, Gymnasium's own vector environments or ours."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lanes import Scripted

import vantage as vt
from vantage.environments.lanes import Lanes
from vantage.environments.vectors import NATIVE_FROM


def played(env: vt.Gymnasium, steps: int, seed: int = 3) -> list[tuple[torch.Tensor, ...]]:
    """First observations and all that `steps` steps return, under fixed random actions."""
    generator = torch.Generator().manual_seed(0)
    rows: list[tuple[torch.Tensor, ...]] = [(env.reset(seed=seed),)]
    for _ in range(steps):
        if isinstance(env.actions, gymnasium.spaces.Discrete):
            action = torch.randint(0, int(env.actions.n), (env.lanes,), generator=generator)
        else:
            action = torch.randn(env.lanes, *env.actions.shape, generator=generator)
        rows.append(tuple(t.clone() for t in env.step(action)[:6]))
    env.close()
    return rows


def same(one: list[tuple[torch.Tensor, ...]], other: list[tuple[torch.Tensor, ...]]) -> bool:
    return all(
        torch.equal(a, b)
        for row, match in zip(one, other, strict=True)
        for a, b in zip(row, match, strict=True)
    )


@pytest.mark.parametrize("name", ["Acrobot-v1", "Pendulum-v1"])
def test_processes_give_the_bits_of_one_process(name: str) -> None:
    runs = [
        played(vt.Gymnasium(name, lanes=2, vectorization_mode=mode, max_episode_steps=7), 25)
        for mode in ("sync", "async")
    ]
    assert same(*runs)


def test_an_id_can_choose_its_own_vector_environment() -> None:
    runs = [
        played(vt.Gymnasium("CartPole-v1", lanes=NATIVE_FROM, **settings), 30)
        for settings in ({}, {"vectorization_mode": "vector_entry_point"})
    ]
    assert same(*runs)
    assert not isinstance(vt.Gymnasium("CartPole-v1", lanes=NATIVE_FROM).vector, SyncVectorEnv)
    few = NATIVE_FROM - 1
    assert type(vt.Gymnasium("CartPole-v1", lanes=few).vector) is Lanes
    chosen = vt.Gymnasium("CartPole-v1", lanes=few, vectorization_mode="vector_entry_point")
    assert not isinstance(chosen.vector, SyncVectorEnv)


@pytest.mark.parametrize("name", ["Acrobot-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_our_lanes_are_gymnasiums_with_a_reset_in_the_same_step(name: str) -> None:
    ours = vt.Gymnasium(name, lanes=3, max_episode_steps=9)
    assert type(ours.vector) is Lanes
    theirs = vt.Gymnasium(
        name,
        lanes=3,
        max_episode_steps=9,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    runs = [played(env, 40) for env in (ours, theirs)]
    assert same(*runs)
    assert sum(int(row[3].sum()) for row in runs[0][1:]) > 3  # truncations did occur


def test_wrappers_and_settings_reach_every_lane() -> None:
    env = vt.Gymnasium(
        "Pendulum-v1",
        lanes=2,
        g=0.0,
        wrappers=[lambda e: gymnasium.wrappers.TransformReward(e, lambda r: 100 * r)],
    )
    assert type(env.vector) is Lanes
    env.reset(seed=0)
    assert env.vector.envs[0].unwrapped.g == 0.0  # type: ignore[attr-defined]
    plain = vt.Gymnasium("Pendulum-v1", lanes=2, g=0.0)
    plain.reset(seed=0)
    action = torch.ones(2, 1)
    torch.testing.assert_close(env.step(action).reward, 100 * plain.step(action).reward)


class Reuses(Scripted):
    """Writes every observation into one array, resets included."""

    def __init__(self) -> None:
        super().__init__()
        self.array = np.zeros(3, np.float32)

    def _observation(self) -> np.ndarray:
        self.array[:] = super()._observation()
        return self.array


def test_environments_that_reuse_their_arrays() -> None:
    runs = [played(vt.Gymnasium(Lanes([kind] * 3)), 30) for kind in (Reuses, Scripted)]
    assert same(*runs)


def test_steps_stay_as_they_were() -> None:
    """What a step returned does not change with later steps, in any mode."""
    for mode in AutoresetMode:
        vector = SyncVectorEnv([Scripted] * 3, copy=False, autoreset_mode=mode)
        env = vt.Gymnasium(vector)
        env.reset(seed=0)
        kept, copies = [], []
        for _ in range(20):
            step = env.step(torch.zeros(3, dtype=torch.long))
            kept.append(step)
            copies.append([tensor.clone() for tensor in step[:6]])
        for step, copy in zip(kept, copies, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(step[:6], copy, strict=True))


def test_halfcheetah_is_the_documented_task() -> None:
    """Reward is forward velocity less 0.1 |a|²; 17 observations; nothing ends it but the limit."""
    pytest.importorskip("mujoco")
    single = gymnasium.make("HalfCheetah-v5").unwrapped
    env = vt.Gymnasium("HalfCheetah-v5", lanes=2, max_episode_steps=6)
    assert (width := env.reset(seed=0).shape) == (2, 17), width
    single.reset(seed=0)
    for t in range(6):
        action = torch.linspace(-1.5, 1.5, 12).reshape(2, 6)
        clipped = action[0].clamp(-1, 1).numpy()
        before = single.data.qpos[0]  # type: ignore[attr-defined]
        observation = single.step(clipped)[0]
        velocity = (single.data.qpos[0] - before) / 0.05  # type: ignore[attr-defined]
        step = env.step(action)
        np.testing.assert_allclose(step.final_observation[0], observation, rtol=1e-5, atol=1e-6)
        assert step.reward[0] == pytest.approx(velocity - 0.1 * np.square(clipped).sum(), rel=1e-5)
        assert not step.terminated.any()
        assert bool(step.truncated.all()) == (t == 5)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_what_terminates_is_not_truncated(mode: AutoresetMode) -> None:
    """Some of the scripted episodes end by both at once: the termination counts."""
    env = vt.Gymnasium(SyncVectorEnv([Scripted] * 8, autoreset_mode=mode))
    env.reset(seed=0)
    terminated = truncated = 0
    for _ in range(30):
        step = env.step(torch.zeros(8, dtype=torch.long))
        assert not (step.terminated & step.truncated).any()
        terminated += int(step.terminated.sum())
        truncated += int(step.truncated.sum())
    assert terminated > 1.3 * truncated > 0  # two kinds of end out of three terminate


class Noisy(gymnasium.vector.VectorEnv):
    """Episodes of one step, which is cut off; dummy steps report a reward and an end as well."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    num_envs = 2
    single_observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    single_action_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.time = 0
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.time += 1
        ended = np.full(2, self.time % 2 == 0)
        return np.full((2, 1), self.time, np.float32), np.full(2, 7.0), ended, ~ended, {}


def test_dummy_steps_report_nothing() -> None:
    env = vt.Gymnasium(Noisy())
    env.reset(seed=0)
    steps = [env.step(torch.zeros(2, dtype=torch.long)) for _ in range(2)]
    assert [s.reward.tolist() for s in steps] == [[7, 7], [0, 0]]
    assert [s.real.tolist() for s in steps] == [[True, True], [False, False]]
    assert steps[0].truncated.all()
    assert not (steps[1].terminated | steps[1].truncated).any()
