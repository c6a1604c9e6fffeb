"""Every space of fixed size, against Gymnasium's own flattening and one lane at a time."""

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import vantage as vt
from vantage.environments.spaces import (
    action_writer,
    is_picture,
    observation_reader,
    unflatten,
    width,
)
from vantage.gradients.passes import AutogradPasses
from vantage.policies import (
    Bernoulli,
    Gaussian,
    MultiCategorical,
    Recurrent,
    SquashedGaussian,
)
from vantage.policies.networks import Pixels

NESTED = spaces.Dict(
    {
        "zone": spaces.Discrete(3, start=2),
        "arm": spaces.Tuple(
            (
                spaces.Box(-1, 1, (2, 2), np.float64),
                spaces.MultiDiscrete([2, 3], start=[1, 0]),
                spaces.Dict({"lamps": spaces.MultiBinary([2, 2]), "heat": spaces.Box(0, 1, ())}),
            )
        ),
        "eye": spaces.Box(0, 255, (2, 2, 3), np.uint8),
    }
)
OBSERVATIONS = {
    "nested": NESTED,
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "matrix": spaces.Box(-1, 1, (3, 2), np.float64),
    "number": spaces.Box(-1, 1, (), np.float32),
    "several": spaces.MultiDiscrete([[3, 2], [4, 2]]),
    "lamps": spaces.MultiBinary(4),
}
ACTIONS = {
    "choice": (spaces.Discrete(3), vt.Categorical),
    "shifted": (spaces.Discrete(3, start=-5), vt.Categorical),
    "several": (spaces.MultiDiscrete([2, 4, 3], start=[0, 7, 1]), MultiCategorical),
    "table": (spaces.MultiDiscrete([[2, 4], [3, 2]]), MultiCategorical),
    "switches": (spaces.MultiBinary((2, 3)), Bernoulli),
    "box": (spaces.Box(-0.5, 2, (2, 2), np.float64), Gaussian),
    "half bounded": (spaces.Box(*np.array([[-1, -np.inf], [np.inf, 1]], np.float32)), Gaussian),
}


class Spaces(gymnasium.Env):
    """Random observations, episodes of three steps; actions must lie in the space."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.seen: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.time += 1
        return self._observe(), 1.0, self.time == 3, False, {}

    def _observe(self) -> Any:
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]


def lanes_of(
    observation: spaces.Space, action: spaces.Space, mode: AutoresetMode = AutoresetMode.NEXT_STEP
) -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda: Spaces(copy.deepcopy(observation), action) for _ in range(4)], autoreset_mode=mode
    )


@pytest.mark.parametrize("name", list(OBSERVATIONS))
def test_observations_are_laid_out_as_gymnasium_does(name: str) -> None:
    space = OBSERVATIONS[name]
    vector = lanes_of(space, spaces.Discrete(2))
    env = vt.Gymnasium(vector)
    observation = env.reset(seed=0)
    for lane, single in enumerate(vector.envs):
        expected = spaces.flatten(space, single.unwrapped.seen[-1])  # type: ignore[attr-defined]
        np.testing.assert_array_equal(observation[lane], expected.astype(np.float32))
    assert observation.shape == (4, spaces.flatdim(space)) == (4, width(space))
    assert env.policy(hidden=(4,))(observation).shape == (4, 2)
    assert env.value(hidden=(4,))(observation).shape == (4,)


def test_nested_observations_can_be_taken_apart() -> None:
    vector = lanes_of(NESTED, spaces.Discrete(2))
    env = vt.Gymnasium(vector)
    observation = env.reset(seed=0)
    apart = env.unflatten(torch.stack([observation, observation], 1))
    assert list(apart) == ["arm", "eye", "zone"]  # Gymnasium sorts the keys
    for lane, single in enumerate(vector.envs):
        seen = single.unwrapped.seen[-1]  # type: ignore[attr-defined]
        assert apart["zone"][lane, 1] == seen["zone"] - 2
        arm, choices, rest = apart["arm"]
        np.testing.assert_allclose(arm[lane, 0], seen["arm"][0], rtol=1e-6)
        assert (choices[lane, 0].numpy() == seen["arm"][1] - [1, 0]).all()
        assert (rest["lamps"][lane, 1].numpy() == seen["arm"][2]["lamps"]).all()
        np.testing.assert_allclose(rest["heat"][lane, 1], seen["arm"][2]["heat"], rtol=1e-6)
        assert (apart["eye"][lane, 0].numpy() == seen["eye"]).all()
    flat = torch.randn(5, 3)
    assert unflatten(OBSERVATIONS["box"], flat).equal(flat)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_final_observations_of_nested_spaces(mode: AutoresetMode) -> None:
    """What each lane showed, in order, is what the steps show; a new start is not a successor."""
    vector = lanes_of(NESTED, spaces.Discrete(2), mode)
    env = vt.Gymnasium(vector)
    shown = [[row] for row in env.reset(seed=0)]
    for _ in range(9):
        step = env.step(torch.zeros(4, dtype=torch.long))
        for lane in range(4):
            shown[lane].append(step.final_observation[lane])
            if mode is not AutoresetMode.NEXT_STEP and step.terminated[lane]:
                shown[lane].append(step.observation[lane])
    for lane, single in enumerate(vector.envs):
        seen = single.unwrapped.seen  # type: ignore[attr-defined]
        assert len(seen) == len(shown[lane])
        for one, other in zip(shown[lane], seen, strict=True):
            flat = spaces.flatten(NESTED, other).astype(np.float32)
            np.testing.assert_array_equal(one, flat)


@pytest.mark.parametrize("name", list(ACTIONS))
def test_actions_of_every_space(name: str) -> None:
    space, kind = ACTIONS[name]
    env = vt.Gymnasium(lanes_of(OBSERVATIONS["box"], space))
    policy = env.policy(hidden=(4,))
    assert type(policy) is kind
    generator = torch.Generator().manual_seed(0)
    observation = env.reset(seed=0)
    for _ in range(8):
        action, log_prob = policy.sample(observation, generator)
        torch.testing.assert_close(log_prob, policy.log_prob(observation, action).detach())
        assert policy.entropy(observation).shape == (4,)
        observation = env.step(action).observation  # which asserts that the space contains it


def test_infinite_bounds_clip_nothing() -> None:
    space = spaces.Box(*np.array([[-1, -np.inf], [np.inf, 1]], np.float32))
    received: list[np.ndarray] = []

    class Keeps(Spaces):
        def step(self, action: Any) -> Any:
            received.append(action)
            return super().step(action)

    env = vt.Gymnasium(SyncVectorEnv([lambda: Keeps(OBSERVATIONS["box"], space)]))
    env.reset(seed=0)
    env.step(torch.tensor([[-7.0, -7.0]]))
    env.step(torch.tensor([[7.0, 7.0]]))
    np.testing.assert_array_equal(received, [[-1, -7], [7, 1]])


def test_squashed_policies_stay_within_the_bounds() -> None:
    env = vt.Gymnasium("Pendulum-v1", lanes=3)
    policy = env.policy(hidden=(4,), squash=True, log_std=1.5)
    assert isinstance(policy, SquashedGaussian)
    raw, _ = policy.sample(env.reset(seed=0), torch.Generator().manual_seed(0))
    assert raw.abs().max() > 2 >= policy.applied(raw).abs().max()
    with pytest.raises(vt.InputError, match="only Box actions"):
        vt.Gymnasium("CartPole-v1", lanes=1).policy(squash=True)
    unbounded = vt.Gymnasium(lanes_of(OBSERVATIONS["box"], ACTIONS["half bounded"][0]))
    with pytest.raises(vt.InputError, match="must be finite"):
        unbounded.policy(squash=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pictures_keep_their_shape_and_bytes(dtype: Any) -> None:
    space = spaces.Box(0, 255, (40, 36, 3), dtype)
    env = vt.Gymnasium(lanes_of(space, spaces.Discrete(2)))
    observation = env.reset(seed=0)
    assert observation.shape == (4, 40, 36, 3)
    assert observation.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    policy, value = env.policy(), env.value()
    action, _ = policy.sample(observation, torch.Generator().manual_seed(0))
    assert action.shape == value(observation).shape == (4,)
    recurrent = env.policy(hidden=(8,), recurrent=6)
    seen = recurrent.see(observation, torch.ones(4, dtype=torch.bool), recurrent.begin(4))
    assert recurrent.sample(seen)[0].shape == (4,)
    assert env.value(hidden=(8,), recurrent=6)(seen).shape == (4,)
    assert env.unflatten(observation) is observation


def test_small_boxes_of_three_dimensions_are_vectors_but_bytes_are_pictures() -> None:
    assert not is_picture(spaces.Box(0, 1, (4, 4, 2)))
    assert is_picture(spaces.Box(0, 255, (10, 10, 4), np.uint8))
    assert is_picture(spaces.Box(0, 255, (84, 84), np.uint8))
    assert not is_picture(spaces.Box(0, 12, (8, 8), np.uint8))  # a board
    env = vt.Gymnasium(lanes_of(spaces.Box(0, 255, (10, 10, 4), np.uint8), spaces.Discrete(2)))
    assert env.value()(env.reset(seed=0)).shape == (4,)
    net = torch.nn.Sequential(torch.nn.Flatten(-3), torch.nn.Linear(400, 2).to(torch.float32))
    assert env.policy(net=net).arguments is None


def test_networks_of_ones_own_and_how_they_start() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    before = net[0].weight.clone()
    assert env.policy(net=net).net is net
    assert torch.equal(net[0].weight, before)
    env.policy(net=net, orthogonal=True)
    torch.testing.assert_close(net[0].weight.T @ net[0].weight, 2 * torch.eye(4))
    torch.testing.assert_close(net[2].weight @ net[2].weight.T, 1e-4 * torch.eye(2))
    last = [p for p in env.value(orthogonal=True).parameters() if p.dim() > 1][-1]
    assert last.norm().item() == pytest.approx(1, rel=1e-5)
    quiet = [p for p in env.value().parameters() if p.dim() > 1][-1]
    assert quiet.norm().item() == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("choices", [{}, {"squash": True, "log_std": -1.0}, {"recurrent": 5}])
def test_made_makes_the_same_policy_again(choices: dict[str, Any]) -> None:
    env = vt.Gymnasium("Pendulum-v1", lanes=2)
    policy = env.policy(hidden=(6,), seed=3, **choices)
    assert policy.arguments is not None
    again = env.policy(**json.loads(json.dumps(policy.arguments)))
    again.load_state_dict(policy.state_dict())
    assert type(again) is type(policy)
    for one, other in zip(policy.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    value = env.value(hidden=(6,), recurrent=choices.get("recurrent"))
    assert value.arguments is not None
    env.value(**value.arguments).load_state_dict(value.state_dict())


def test_recurrent_policies_fit_ids_and_vectors() -> None:
    for name in ("FrozenLake-v1", "CartPole-v1"):
        env = vt.Gymnasium(name, lanes=3)
        policy = env.policy(hidden=(8,), recurrent=6)
        assert isinstance(policy, Recurrent)
        observation = env.reset(seed=0)
        started = torch.ones(3, dtype=torch.bool)
        seen = policy.see(observation, started, policy.begin(3))
        action, log_prob = policy.sample(seen)
        scored = policy.log_prob(seen[:, None], action[:, None])[:, 0]
        torch.testing.assert_close(scored.detach(), log_prob)
        assert env.value(hidden=(8,), recurrent=6)(seen).shape == (3,)
    with pytest.raises(vt.InputError, match="encoder=net"):
        env.policy(net=torch.nn.Identity(), recurrent=3)


def test_spaces_without_a_fixed_size_are_refused_with_a_remedy() -> None:
    for space in (
        spaces.Text(4),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf((spaces.Discrete(2), spaces.Box(0, 1, (2,)))),
    ):
        with pytest.raises(vt.InputError, match=r"at \['x'\].*TransformObservation"):
            observation_reader(spaces.Dict({"x": space}), "mine")
        with pytest.raises(vt.InputError, match=r"action space .*TransformAction"):
            action_writer(space, None, "mine")


def test_pictures_inside_dictionaries_are_seen_by_convolutions() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (40, 36, 3), np.uint8),
            "radar": spaces.Box(0, 12, (30, 30), np.uint8),
            "speed": spaces.Box(-1, 1, (2,), np.float32),
            "gear": spaces.Discrete(3),
        }
    )
    env = vt.Gymnasium(lanes_of(space, spaces.Discrete(2)))
    policy, value = env.policy(hidden=(8,)), env.value(hidden=(8,))
    kinds = [type(module) for module in policy.modules()]
    assert kinds.count(torch.nn.Conv2d) == 4  # three layers for 36 pixels, one below
    observation = env.reset(seed=0)
    assert policy(observation).shape == (4, 2)
    assert value(observation[None]).shape == (1, 4)
    # each picture is scaled by its own highest value, where the network reads it
    radar = env.unflatten(observation)["radar"]
    first = [m for m in policy.modules() if isinstance(m, Pixels)]
    assert sorted(pixels.scale for pixels in first) == [1 / 255, 1 / 12]
    assert radar.max() <= 12
    normalised = vt.Normalized(env)
    seen = normalised.unflatten(normalised.reset(seed=0))
    assert torch.equal(seen["radar"], env.unflatten(env.reset(seed=0))["radar"])
    for recurrent in (None, 5):
        policy = env.policy(hidden=(8,), recurrent=recurrent)
        value = env.value(hidden=(8,), recurrent=recurrent)
        run = vt.train(
            env, policy, vt.estimators.a2c(), value=value, fragment=4, updates=1, progress=False
        )
        assert len(run.history) == 1


@pytest.mark.parametrize("activation", ["relu", "SiLU", torch.nn.ELU])
def test_activations_by_name_or_class(activation: Any) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    policy, value = env.policy(activation=activation), env.value(activation=activation)
    kind = (
        activation
        if isinstance(activation, type)
        else getattr(torch.nn, policy.arguments["activation"])
    )  # type: ignore[index]
    for module in (policy, value):
        assert sum(isinstance(each, kind) for each in module.modules()) == 2
        assert not any(isinstance(each, torch.nn.Tanh) for each in module.modules())
    again = env.policy(**json.loads(json.dumps(policy.arguments)))
    assert repr(again) == repr(policy)
    with pytest.raises(vt.InputError, match="there are Tanh, ReLU"):
        env.policy(activation="swoosh")


@pytest.mark.parametrize("picture", [False, True])
def test_a_trunk_in_common_is_trained_by_both(picture: bool, tmp_path: Path) -> None:
    seen = spaces.Box(0, 255, (9, 9, 2), np.uint8) if picture else spaces.Box(-1, 1, (3,))
    env = vt.Gymnasium(lanes_of(seen, spaces.Discrete(2)))
    policy = env.policy()
    value = env.value(trunk=policy)
    common = {id(p) for p in policy.parameters()} & {id(p) for p in value.parameters()}
    assert len(common) == 4  # weights and biases of two layers
    settings: dict[str, Any] = {"value": value, "fragment": 4, "updates": 2, "progress": False}
    vt.train(env, policy, vt.estimators.ppo(), **settings)
    observation = env.reset(seed=0)
    passes = AutogradPasses(policy, value)
    assert len(passes.parameters) == len({id(p) for p in passes.parameters}) == 8
    passes.forward(observation, torch.zeros(4, dtype=torch.long))
    passes.backward(torch.zeros(4), value_slope=torch.ones(4))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in value.parameters())
    with pytest.raises(vt.InputError, match="which would move the layers"):
        vt.train(env, policy, vt.estimators.reinforce_baseline(), value=value, updates=1)
    with pytest.raises(vt.InputError, match="no hidden layers"):
        env.value(trunk=vt.Categorical(torch.nn.Embedding(2, 2)))
    with pytest.raises(vt.InputError, match="memoryless"):
        env.value(trunk=env.policy(recurrent=4))


def test_a_run_with_a_trunk_in_common_loads_again(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    policy = env.policy(hidden=(8,), activation="relu")
    value = env.value(trunk=policy)
    vt.train(
        env, policy, vt.estimators.ppo(), value=value, fragment=16, updates=1, progress=False,
        out=tmp_path / "run",
    )  # fmt: skip
    _, policy_again, value_again = vt.load(tmp_path / "run")
    assert value_again is not None
    observation = env.reset(seed=1)
    torch.testing.assert_close(policy_again(observation), policy(observation))
    torch.testing.assert_close(value_again(observation), value(observation))
    mine = {id(p) for p in policy_again.parameters()}
    assert any(id(p) in mine for p in value_again.parameters())
