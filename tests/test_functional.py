"""Environments of pure functions, in tensors and in arrays, against one written by hand."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import vantage as vt
from vantage.environments.functional import Shown, select

LIMIT = 30
SPACES: dict[str, Any] = {
    "observations": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "actions": spaces.Box(-1, 1, (1,), np.float32),
}


class Cart(gymnasium.Env):
    """A mass on a line, one step at a time: it falls off at |x| > 1 and is paid for its middle."""

    observation_space = SPACES["observations"]
    action_space = SPACES["actions"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x, self.v, self.time = 0.0, 0.0, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.v = 0.9 * self.v + 0.4 * float(action[0])
        self.x, self.time = self.x + 0.3 * self.v, self.time + 1
        shown = np.array([self.x, self.v], np.float32)
        return shown, 1 - abs(self.x), abs(self.x) > 1, self.time >= LIMIT, {}


def place(env: Any, shown: np.ndarray) -> None:
    env.x, env.v = float(shown[0]), float(shown[1])


class Tensors(NamedTuple):
    """A state in the shape that Brax gives its own."""

    obs: torch.Tensor
    reward: torch.Tensor
    done: torch.Tensor
    info: dict[str, torch.Tensor]


def tensors_reset(keys: torch.Tensor) -> Tensors:
    x = keys.double().mul(0.618034).frac().mul(1.6).sub(0.8).float()  # a hash of the key
    nothing = torch.zeros(len(keys))
    info = {"truncation": nothing, "steps": nothing, "key": keys}
    return Tensors(torch.stack([x, 0 * x], -1), nothing, nothing, info)


def tensors_step(state: Tensors, action: torch.Tensor) -> Tensors:
    v = 0.9 * state.obs[:, 1] + 0.4 * action[:, 0]
    x = state.obs[:, 0] + 0.3 * v
    steps = state.info["steps"] + 1
    cut = ((steps >= LIMIT) & (x.abs() <= 1)).float()
    done = torch.maximum((x.abs() > 1).float(), cut)
    info = {**state.info, "truncation": cut, "steps": steps}
    return Tensors(torch.stack([x, v], -1), 1 - x.abs(), done, info)


@dataclass(frozen=True)
class Arrays:
    """The same in NumPy: what it shows has names of its own."""

    place: np.ndarray
    speed: np.ndarray
    gravity: float = 9.81


def arrays_reset(seeds: np.ndarray) -> Arrays:
    return Arrays(seeds * 0.618034 % 1 * 1.6 - 0.8, np.zeros(len(seeds)))


def arrays_step(state: Arrays, action: np.ndarray) -> Arrays:
    speed = 0.9 * state.speed + 0.4 * action[:, 0]
    return Arrays(state.place + 0.3 * speed, speed)


def show(state: Arrays) -> Shown:
    seen = np.stack([state.place, state.speed], -1)
    return Shown(seen, 1 - abs(state.place), abs(state.place) > 1)


def tensors(**settings: Any) -> vt.Functional:
    return vt.Functional(tensors_reset, tensors_step, lanes=3, **SPACES, **settings)


def arrays(**settings: Any) -> vt.Functional:
    return vt.Functional(
        arrays_reset,
        arrays_step,
        show=show,
        keys=lambda seeds: seeds,
        arrays=lambda tensor: tensor.numpy(),
        horizon=LIMIT,
        lanes=3,
        **SPACES,
        **settings,
    )


@pytest.mark.parametrize("kind", [tensors, arrays])
@pytest.mark.parametrize("normalised", [False, True])
def test_functions_keep_the_contract(kind: Any, normalised: bool) -> None:
    env = kind()
    env = vt.Normalized(env) if normalised else env
    report = vt.contract(env, Cart, place=place, steps=150, tolerance=1e-4)
    assert report.ok, str(report)
    assert "reference" in report.passed
    steps = vt.contract(kind(), steps=150).facts["played"]
    assert not steps.endswith(" 0 ends")


def test_ends_of_both_kinds_are_told_apart() -> None:
    env = tensors()
    env.reset(seed=0)
    ends = [env.step(torch.full((3, 1), push)) for push in [0.0] * LIMIT + [1.0] * 12]
    truncated = torch.stack([step.truncated for step in ends])
    terminated = torch.stack([step.terminated for step in ends])
    assert truncated.sum(1).nonzero().flatten().tolist() == [LIMIT - 1]
    assert not terminated[:LIMIT].any()
    assert terminated.any(0).all()


def test_starts_are_shared_where_states_can_be_given_new_keys() -> None:
    with pytest.raises(vt.InputError, match="rekey="):
        tensors().sharing(4)

    def rekey(state: Tensors, keys: torch.Tensor) -> Tensors:
        return state._replace(info={**state.info, "key": keys})

    env = tensors(rekey=rekey).sharing(4)
    first = env.reset(seed=0, shared=2)
    assert torch.equal(first[::2], first[1::2])
    assert not torch.equal(first[0], first[2])
    assert len(env.state.info["key"].unique()) == 4
    assert vt.contract(tensors(rekey=rekey)).ok


def test_a_policy_learns_to_stay_in_the_middle() -> None:
    env = arrays(discount=0.95)
    env.lanes = 32
    policy = env.policy(hidden=(16,))
    before = vt.evaluate(env, policy, 64).mean
    with pytest.raises(vt.InputError, match=r"'rloo' compares episodes of one start.*rekey"):
        vt.train(env, policy, vt.estimators.rloo(), batch=64, updates=1, progress=False)
    vt.train(
        env,
        policy,
        vt.estimators.reinforce_leave_one_out(),
        batch=64,
        updates=25,
        lr=0.02,
        progress=False,
    )
    assert vt.evaluate(env, policy, 64).mean > before + 3


class Odd:
    """Something with lanes that nobody can take apart."""

    shape = (2,)


def test_states_of_every_make_are_chosen_lane_by_lane() -> None:
    mask = torch.tensor([True, False])
    one = {"a": [np.zeros((2, 3))], "b": (torch.zeros(2), 1.0), "c": None}
    other = {"a": [np.ones((2, 3))], "b": (torch.ones(2), 2.0), "c": None}
    mixed = select(mask, one, other)
    assert mixed["a"][0].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert mixed["b"][0].tolist() == [0, 1]
    assert mixed["b"][1] == 2.0
    assert mixed["c"] is None
    with pytest.raises(vt.InputError, match="array API"):
        select(mask, Odd(), Odd())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": 0}, "at least one lane"),
        ({"discount": 0.0}, "γ lies in"),
        ({"horizon": 0}, "at least one step"),
        ({"actions": spaces.Discrete(3, start=1)}, "counts from 0"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(vt.InputError, match=message):
        vt.Functional(tensors_reset, tensors_step, **SPACES | settings)


def test_functions_of_one_lane_are_told_to_be_mapped() -> None:
    env = vt.Functional(lambda keys: tensors_reset(keys[:1]), tensors_step, lanes=3, **SPACES)
    with pytest.raises(vt.InputError, match="vmap"):
        env.reset(seed=0)
