"""`policy.act` in a loop of one's own does what the package does inside, in every space."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import vantage as vt
from vantage.environments.rollout import Sight

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS: dict[str, gymnasium.Space] = {
    "box": BOX,
    "number": spaces.Box(-1.0, 1.0, (), np.float32),
    "picture": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "id": spaces.Discrete(4, start=3),
    "ids": spaces.MultiDiscrete([2, 3]),
    "dictionary": spaces.Dict(
        {"where": BOX, "kind": spaces.Discrete(3, start=-1), "bits": spaces.MultiBinary(2)}
    ),
    "tuple": spaces.Tuple((spaces.Discrete(2), BOX)),
}
ACTIONS: dict[str, gymnasium.Space] = {
    "id": spaces.Discrete(3, start=5),
    "ids": spaces.MultiDiscrete([2, 3], start=[1, -2]),
    "bits": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([-1.0, 0.0]), np.array([0.5, 2.0]), dtype=np.float64),
}


class Echo(gymnasium.Env):
    """Shows what its generator draws from the space, and pays by the action that it was given."""

    def __init__(self, seen: str, done: str):
        self.observation_space, self.action_space = OBSERVATIONS[seen], ACTIONS[done]
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.taken.append(np.array(action))
        self.time += 1
        return self.observation_space.sample(), float(np.sum(action)), self.time >= 5, False, {}


def echo(seen: str, done: str) -> str:
    name = f"Echo-{seen}-{done}-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=lambda: Echo(seen, done), disable_env_checker=True)
    return name


def inside(env: Any, policy: vt.Policy, seed: int, steps: int) -> list[torch.Tensor]:
    """Rewards of the likeliest actions in one lane, as a rollout takes them."""
    sight = Sight(policy, env.reset(seed))
    rewards = []
    for _ in range(steps):
        step = env.step(policy.applied(policy.mode(sight.observation)))
        rewards.append(float(step.reward if step.raw_reward is None else step.raw_reward))
        sight.after(step)
    return rewards


def outside(env: gymnasium.Env, policy: vt.Policy, seed: int, steps: int) -> list[float]:
    """The same in a plain loop over a Gymnasium environment."""
    observation, _ = env.reset(seed=seed)
    first, rewards = True, []
    for _ in range(steps):
        action = policy.act(observation, deterministic=True, first=first)
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        first = terminated or truncated
        if first:
            observation, _ = env.reset()
    return rewards


@pytest.mark.parametrize("recurrent", [None, 4])
@pytest.mark.parametrize("done", ACTIONS)
@pytest.mark.parametrize("seen", OBSERVATIONS)
def test_a_plain_loop_takes_the_actions_of_a_rollout(
    seen: str, done: str, recurrent: int | None
) -> None:
    name = echo(seen, done)
    env = vt.Gymnasium(name, lanes=1)
    policy = env.policy(recurrent=recurrent)
    with torch.no_grad():  # away from the start, where every choice is as likely
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    own = gymnasium.make(name, disable_env_checker=True)
    assert outside(own, policy, 3, 12) == pytest.approx(inside(env, policy, 3, 12), abs=1e-5)


@pytest.mark.parametrize("squash", [False, True])
def test_a_normalised_policy_is_worth_as_much_outside(squash: bool) -> None:
    env = vt.Normalized(vt.Gymnasium("Pendulum-v1", lanes=4))
    policy = env.policy(squash=squash)
    with torch.no_grad():
        policy.net[-1].weight.mul_(100)
    vt.train(env, policy, vt.estimators.reinforce(), batch=8, updates=2, progress=False, lr=1e-3)
    alone = env.frozen(vt.Gymnasium("Pendulum-v1", lanes=1))
    own = gymnasium.make("Pendulum-v1")
    assert outside(own, policy, 5, 200) == pytest.approx(inside(alone, policy, 5, 200), rel=1e-3)
    # and it does look at the statistics: another scale, another return
    env.statistics.table[2] *= 1e4
    assert outside(own, policy, 5, 200) != pytest.approx(inside(alone, policy, 6, 200), rel=1e-3)


def test_one_a_batch_arrays_and_tensors() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    policy = env.policy()
    batch = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    many = policy.act(batch, deterministic=True)
    assert many.shape == (6,)
    each = [policy.act(row, deterministic=True) for row in batch]
    assert each == many.tolist()
    assert all(env.actions.contains(action) for action in each)
    tensor = policy.act(torch.from_numpy(batch), deterministic=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.tolist() == many.tolist()
    assert policy.act(batch[0].tolist(), deterministic=True) == each[0]


def test_sampled_actions_follow_the_policy_and_the_seed() -> None:
    """Frequencies of 4,000 draws against π by four standard errors: wrong once in 16,000 seeds."""
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    policy, again = env.policy(), env.policy()
    with torch.no_grad():
        policy.net[-1].bias.copy_(torch.tensor([0.0, 1.0]))
    again.load_state_dict(policy.state_dict())
    observation = np.zeros((4000, 4), np.float32)
    drawn = policy.act(observation)
    share = torch.sigmoid(torch.tensor(1.0)).item()
    assert abs(drawn.mean() - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert (again.act(observation) == drawn).all()
    assert (again.act(observation) != drawn).any()  # the next call draws anew
    assert (env.policy().act(observation, seed=1) != drawn).any()


def test_a_memory_starts_empty_and_goes_on() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    policy = env.policy(recurrent=8)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(
                2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    seen = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)

    def actions(first: bool) -> list[int]:
        return [int(policy.act(row, deterministic=True, first=first and i == 0))
                for i, row in enumerate(seen)]  # fmt: skip

    once, afresh, carried = actions(True), actions(True), actions(False)
    assert once == afresh != carried


def test_what_is_not_an_observation_is_refused() -> None:
    policy = vt.Gymnasium("CartPole-v1", lanes=1).policy()
    with pytest.raises(vt.InputError, match=r"shape \(3,\); CartPole-v1 shows \(4,\)"):
        policy.act(np.zeros(3, np.float32))
    with pytest.raises(vt.InputError, match=r"policy\.terms = env\.terms"):
        vt.SoftmaxTable(2, 2).act(0)
