"""One contract for every way of stepping lanes, against one environment stepped by hand."""

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TransformReward
from lanes import Scripted

import vantage as vt
from vantage.environments.interface import Step
from vantage.environments.lanes import Lanes

SMALL = 3  # lanes


class OwnVector(VectorEnv):
    """A vector environment that a person might write: a list, and arrays that are used again."""

    def __init__(self, mode: AutoresetMode):
        self.metadata = {"autoreset_mode": mode}
        self.mode, self.num_envs = mode, SMALL
        self.envs = [Scripted() for _ in range(SMALL)]
        self.single_observation_space = Scripted.observation_space
        self.single_action_space = Scripted.action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (SMALL, 3), np.float32)
        self.action_space = spaces.MultiDiscrete([3] * SMALL)
        self.shown = np.zeros((SMALL, 3), np.float32)
        self.reward = np.zeros(SMALL)
        self.ends = np.zeros((2, SMALL), bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(SMALL, bool))
        for i in np.flatnonzero(mask):
            self.shown[i], _ = self.envs[i].reset(seed=None if seed is None else seed + int(i))
        self.ends[:] = False
        return self.shown, {}

    def step(self, actions: Any) -> Any:
        info: dict[str, Any] = {"final_obs": np.full(SMALL, None, object)}
        for i, env in enumerate(self.envs):
            if self.mode == AutoresetMode.NEXT_STEP and self.ends[:, i].any():
                self.shown[i], _ = env.reset()
                self.reward[i], self.ends[:, i] = 0, False
                continue
            self.shown[i], self.reward[i], *self.ends[:, i], _ = env.step(actions[i])
            if self.mode == AutoresetMode.SAME_STEP and self.ends[:, i].any():
                info["final_obs"][i] = self.shown[i].copy()
                self.shown[i], _ = env.reset()
        return self.shown, self.reward, *self.ends, info


def doubled(env: gymnasium.Env) -> gymnasium.Env:
    return TransformReward(env, lambda reward: 2 * reward)


def scripted(vector: VectorEnv) -> vt.Gymnasium:
    return vt.Gymnasium(vector, discount=0.9)


SCRIPTED: dict[str, Callable[[], Any]] = {
    "lane by lane": lambda: scripted(Lanes([Scripted] * SMALL)),
    **{
        f"sync, {mode.name}": lambda mode=mode: scripted(
            SyncVectorEnv([Scripted] * SMALL, autoreset_mode=mode, copy=False)
        )
        for mode in AutoresetMode
    },
    **{
        f"own vector environment, {mode.name}": lambda mode=mode: scripted(OwnVector(mode))
        for mode in AutoresetMode
    },
    "async": lambda: scripted(AsyncVectorEnv([Scripted] * SMALL)),
}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("backend", SCRIPTED)
def test_scripted_episodes_in_every_backend(backend: str, normalised: bool) -> None:
    """Ends of every kind, lengths 1 to 6, different in every lane."""
    env = SCRIPTED[backend]()
    if normalised:
        report = vt.contract(vt.Normalized(env), Scripted, tolerance=1e-4, steps=60)
    else:
        report = vt.contract(env, Scripted, tolerance=1e-6)
    env.close()
    assert report.ok, str(report)
    assert "reference" in report.passed


@pytest.mark.parametrize("what", ["observations", "rewards"])
def test_half_normalised(what: str) -> None:
    halves = {"observations": False, "rewards": False, what: True}
    env = vt.Normalized(SCRIPTED["lane by lane"](), clip=2.0, **halves)
    before = env.statistics.table.clone()
    report = vt.contract(env, Scripted, tolerance=1e-4, steps=60)
    assert report.ok, str(report)
    assert torch.equal(env.statistics.table, before)  # those of the environment stay


def at_state(env: Any, shown: np.ndarray) -> None:
    env.unwrapped.state = shown.astype(np.float64)


def at_angle(env: Any, shown: np.ndarray) -> None:
    """Pendulum shows (cos θ, sin θ, θ')."""
    env.unwrapped.state = np.array([np.arctan2(shown[1], shown[0]), shown[2]])


def at_id(env: Any, shown: np.ndarray) -> None:
    env.unwrapped.s = int(shown)


def tolerance(name: str) -> float:
    """A swinging pendulum doubles a difference of float32 many times over in 200 steps."""
    return 1e-2 if name == "Pendulum-v1" else 1e-4


PLACED: dict[str, tuple[Callable[[], Any], str, dict[str, Any], Any]] = {
    "native": (lambda: vt.Gymnasium("CartPole-v1", 9), "CartPole-v1", {}, at_state),
    "tensor/CartPole": (lambda: vt.CartPole(SMALL), "CartPole-v1", {}, at_state),
    "tensor/Pendulum": (lambda: vt.Pendulum(SMALL), "Pendulum-v1", {}, at_angle),
    "tensor/MountainCar": (lambda: vt.MountainCar(SMALL), "MountainCar-v0", {}, at_state),
    "tensor/MountainCarContinuous": (
        lambda: vt.MountainCarContinuous(SMALL),
        "MountainCarContinuous-v0",
        {},
        at_state,
    ),
    "tensor, normalised": (
        lambda: vt.Normalized(vt.CartPole(SMALL)),
        "CartPole-v1",
        {},
        at_state,
    ),
    "tabular": (
        lambda: vt.Tabular(vt.MDP.from_gymnasium("FrozenLake-v1", 0.9, is_slippery=False), SMALL),
        "FrozenLake-v1",
        {"is_slippery": False},
        at_id,
    ),
}


@pytest.mark.parametrize("backend", PLACED)
def test_starts_of_their_own(backend: str) -> None:
    """Where a backend draws its starts in its own way, the reference is put where it starts."""
    make, name, settings, place = PLACED[backend]
    report = vt.contract(
        make(),
        lambda: gymnasium.make(name, **settings),
        place=place,
        steps=210,
        tolerance=tolerance(name),
    )
    assert report.ok, str(report)


@pytest.mark.parametrize(("name", "place"), [("CartPole-v1", at_state), ("Pendulum-v1", at_angle)])
def test_envpool(name: str, place: Any) -> None:
    pytest.importorskip("envpool")
    env = vt.EnvPool(name, SMALL)
    report = vt.contract(
        env, lambda: gymnasium.make(name), place=place, steps=210, tolerance=tolerance(name)
    )
    assert report.ok, str(report)


IDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ids": ("Taxi-v3" if "Taxi-v3" in gymnasium.registry else "Taxi-v4", SMALL, {}),
    "tuple of ids": ("Blackjack-v1", SMALL, {}),
    "vectors": ("Pendulum-v1", SMALL, {"max_episode_steps": 30}),
    "several, sync": ("Acrobot-v1", SMALL, {"vectorization_mode": "sync", "max_episode_steps": 9}),
    "slippery": ("FrozenLake-v1", SMALL, {}),
}


@pytest.mark.parametrize("case", IDS)
def test_registered_environments(case: str) -> None:
    name, lanes, settings = IDS[case]
    own = {key: value for key, value in settings.items() if key != "vectorization_mode"}
    report = vt.contract(
        vt.Gymnasium(name, lanes, **settings), lambda: gymnasium.make(name, **own), tolerance=1e-6
    )
    assert report.ok, str(report)


def test_mujoco() -> None:
    pytest.importorskip("mujoco")
    name, limit = "Hopper-v5", 40
    report = vt.contract(
        vt.Gymnasium(name, SMALL, max_episode_steps=limit),
        lambda: gymnasium.make(name, max_episode_steps=limit),
    )
    assert report.ok, str(report)


def test_wrappers() -> None:
    env = vt.Gymnasium("Acrobot-v1", SMALL, wrappers=[doubled], max_episode_steps=15)
    wrapped = lambda: doubled(gymnasium.make("Acrobot-v1", max_episode_steps=15))  # noqa: E731
    assert vt.contract(env, wrapped).ok
    plain = vt.contract(env, lambda: gymnasium.make("Acrobot-v1", max_episode_steps=15))
    assert [finding.check for finding in plain.errors] == ["reference"]
    assert "reward" in plain.errors[0].evidence


class Wrong:
    """An environment that is right but for what `spoil` makes of its steps."""

    def __init__(self, spoil: Callable[["Wrong", Step], Step]):
        self.env = scripted(SyncVectorEnv([Scripted] * SMALL, autoreset_mode=self.mode))
        self.lanes, self.discount, self.name = SMALL, 0.9, "wrong"
        self.actions, self.spoil, self.number = self.env.actions, spoil, 0
        self.buffer = torch.zeros(SMALL)

    mode: ClassVar[AutoresetMode] = AutoresetMode.NEXT_STEP

    def reset(self, seed: int, shared: int = 1) -> torch.Tensor:
        self.last = self.env.reset(seed, shared)
        return self.last

    def sharing(self, lanes: int) -> Any:
        raise vt.InputError("not here")

    def step(self, action: torch.Tensor) -> Step:
        self.number += 1
        self.given = action
        step = self.spoil(self, self.env.step(action))
        self.last = step.observation
        return step


class WrongSameStep(Wrong):
    mode = AutoresetMode.SAME_STEP


def in_place(env: Wrong, step: Step) -> Step:
    env.buffer[:] = step.reward
    return step._replace(reward=env.buffer)


def spoilt_action(env: Wrong, step: Step) -> Step:
    env.given.zero_()
    return step


def of_the_lane_before(env: Wrong, step: Step) -> Step:
    return step._replace(reward=step.reward.roll(1))


def drifting(env: Wrong, step: Step) -> Step:
    return step._replace(reward=torch.where(step.real, step.reward + env.number, step.reward))


def false_dummy(env: Wrong, step: Step) -> Step:
    """A dummy that reports nothing, as dummies should, in the middle of an episode."""
    going = ~(step.terminated | step.truncated)
    lane = going & (going.cumsum(0) == 1) if env.number % 5 == 4 else ~step.real
    return step._replace(real=~lane, reward=torch.where(lane, 0.0, step.reward))


SPOILT: dict[str, tuple[type[Wrong], Callable[[Wrong, Step], Step], set[str]]] = {
    "reward of another lane": (WrongSameStep, of_the_lane_before, {"reference"}),
    "cut off instead of ended": (
        Wrong,
        lambda env, s: s._replace(terminated=s.truncated, truncated=s.terminated),
        {"reference"},
    ),
    "both at once": (
        Wrong,
        lambda env, s: s._replace(truncated=s.terminated | s.truncated),
        {"ends", "reference"},
    ),
    "final observation is the next start": (
        WrongSameStep,
        lambda env, s: s._replace(final_observation=s.observation),
        {"reference"},
    ),
    "last observation instead of the next start": (
        WrongSameStep,
        lambda env, s: s._replace(observation=s.final_observation),
        {"reference"},
    ),
    "dummies called real": (
        Wrong,
        lambda env, s: s._replace(real=torch.ones_like(s.real)),
        {"reference"},
    ),
    "dummies with a reward": (
        Wrong,
        lambda env, s: s._replace(reward=torch.where(s.real, s.reward, 1.0)),
        {"dummies", "reference"},
    ),
    "a real step called a dummy": (WrongSameStep, false_dummy, {"dummies", "reference"}),
    "one buffer for all rewards": (Wrong, in_place, {"kept"}),
    "actions written to": (Wrong, spoilt_action, {"kept"}),
    "no reset of its own counter": (Wrong, drifting, {"repeatable", "reference"}),
    "a column too many": (
        Wrong,
        lambda env, s: s._replace(reward=s.reward[:, None]),
        {"forms"},
    ),
    "flags as numbers": (
        Wrong,
        lambda env, s: s._replace(terminated=s.terminated.float()),
        {"forms"},
    ),
    "another observation where nothing ended": (
        Wrong,
        lambda env, s: s._replace(final_observation=s.final_observation + 1),
        {"ends", "reference"},
    ),
    "raises": (Wrong, lambda env, s: 1 / 0, {"runs"}),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_is_wrong_is_noticed_by_name(fault: str) -> None:
    kind, spoil, checks = SPOILT[fault]
    report = vt.contract(kind(spoil), Scripted, tolerance=1e-6)
    assert not report.ok
    noticed = {finding.check for finding in report.errors}
    assert checks <= noticed or ("forms" in checks and "runs" in noticed), str(report)


@pytest.mark.parametrize("kind", [Wrong, WrongSameStep])
def test_what_is_right_passes(kind: type[Wrong]) -> None:
    assert vt.contract(kind(lambda env, step: step), Scripted, tolerance=1e-6).ok


def test_a_wrong_normaliser_is_noticed() -> None:
    class Forgetful(vt.Normalized):
        """Counts the last observation of an episode, and forgets the first of the next."""

        def _count(self, table: Any, step: Step) -> None:
            super()._count(table, step._replace(observation=step.final_observation))

    env = Forgetful(SCRIPTED["lane by lane"]())
    report = vt.contract(env, Scripted, tolerance=1e-4, steps=60)
    assert [finding.check for finding in report.errors] == ["reference"]


def test_shared_starts_that_are_not_shared_are_noticed() -> None:
    class Apart(vt.CartPole):
        def reset(self, seed: int, shared: int = 1) -> torch.Tensor:
            return super().reset(seed)

    report = vt.contract(Apart(SMALL))
    assert [finding.check for finding in report.errors] == ["shared starts"]


def test_an_environment_without_a_space_needs_actions() -> None:
    env = Wrong(lambda env, step: step)
    env.actions = None
    with pytest.raises(vt.InputError, match="give actions="):
        vt.contract(env)
    ids = lambda generator: torch.randint(3, (SMALL,), generator=generator)  # noqa: E731
    assert vt.contract(env, Scripted, actions=ids).ok
