"""Lanes of tensor environments: ends and fresh starts, seeds, no waiting for a device."""

import json

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.utils._python_dispatch import TorchDispatchMode

import vantage as vt
from vantage.environments import TENSOR, TensorEnvironment
from vantage.environments.classic import CartPole, MountainCar, MountainCarContinuous, Pendulum
from vantage.environments.interface import Environment
from vantage.environments.lqr import LQR
from vantage.environments.rollout import episodes
from vantage.environments.tabular import Tabular
from vantage.environments.tensor import Carry, Dynamics, Randomness
from vantage.errors import InputError


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


PLANE = vt.exact.LQR(
    tensor([[0.9, 0.2], [-0.1, 0.8]]),
    tensor([[0.3], [0.6]]),
    tensor([[1.0, 0.1], [0.1, 0.5]]),
    tensor([[0.2]]),
    tensor([0.5, 0.8]),
    tensor([0.5, -0.3]),
    tensor([0.2, 0.4]),
    horizon=3,
    discount=0.95,
)


def every_kind(lanes=6):
    classic = [kind(lanes=lanes) for name, kind in TENSOR.items() if name != "tensor/LQR"]
    garnet = vt.MDP.garnet(5, 2, 3, seed=0, termination=0.2, horizon=7)
    return [*classic, LQR(PLANE, lanes), Tabular(garnet, lanes)]


KINDS = {env.name: env for env in every_kind()}
every_environment = pytest.mark.parametrize("env", KINDS.values(), ids=KINDS)


def some_action(env, generator):
    if isinstance(env.actions, Discrete):
        return torch.randint(env.actions.n, (env.lanes,), generator=generator)
    return torch.randn(env.lanes, *env.actions.shape, generator=generator)


class Clock(TensorEnvironment):
    """A task of one's own. State (age, mark of the episode); ends at 3 where the mark is high."""

    dynamics = Dynamics(
        name="clock",
        initial=lambda uniform: torch.stack([torch.zeros_like(uniform[0]), uniform[0]]),
        transition=lambda state, action, noise: (
            state + torch.tensor([[1.0], [0.0]]),
            state[0] + 10 * action,
            (state[0] == 2) & (state[1] > 0.5),
        ),
        observe=lambda state: state.T,
        observations=Box(0.0, 10.0, (2,)),
        actions=Discrete(3),
        starts=1,
        horizon=5,
    )


def test_an_episode_ends_in_one_step_and_the_next_begins_in_the_same():
    env = Clock(lanes=8)
    observation = env.reset(0)
    lengths = set()
    age = torch.zeros(8)
    for t in range(60):
        step = env.step(torch.full((8,), t % 3))
        age += 1
        mark = observation[:, 1]
        assert torch.equal(step.reward, observation[:, 0] + 10 * (t % 3))
        assert torch.equal(step.final_observation, torch.stack([age, mark], 1))
        assert torch.equal(step.terminated, (mark > 0.5) & (age == 3))
        assert torch.equal(step.truncated, (mark <= 0.5) & (age == 5))
        assert step.real.all()
        ended = step.terminated | step.truncated
        lengths |= set(age[ended].tolist())
        age = torch.where(ended, 0, age)
        assert torch.equal(step.observation[:, 0], age)
        assert torch.equal(step.observation[:, 1] == mark, ~ended)
        observation = step.observation
    assert lengths == {3.0, 5.0}


def test_an_end_at_the_time_limit_is_an_end_of_its_own():
    """Where an episode terminates in its last step, it is not truncated as well."""
    env = CartPole(lanes=2, dtype=torch.float64)
    env.reset(0)
    env.carry = Carry(
        tensor([[2.39, 0.0], [5.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([499, 499])
    )
    step = env.step(torch.tensor([1, 1]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]
    assert env.carry.elapsed.tolist() == [0, 0]


def test_the_left_wall_stops_a_car():
    env = MountainCar(lanes=1, dtype=torch.float64)
    env.reset(0)
    env.state = tensor([[-1.19], [-0.05]])
    assert env.step(torch.tensor([0])).final_observation.tolist() == [[-1.2, 0.0]]


def same_step(one, other):
    for name, value in one._asdict().items():
        expected = getattr(other, name)
        if value is None or expected is None:
            assert value is expected, name
        else:
            assert torch.equal(value, expected), name


def test_actions_beyond_the_bounds_are_those_at_the_bounds():
    for kind in (Pendulum, MountainCarContinuous):
        envs = kind(lanes=2), kind(lanes=2)
        bound = float(envs[0].actions.high[0])
        for env in envs:
            env.reset(0)
        beyond = envs[0].step(torch.tensor([[7.0], [-7.0]]))
        at = envs[1].step(torch.tensor([[bound], [-bound]]))
        same_step(beyond, at)


@every_environment
def test_equal_seeds_give_equal_bits(env):
    assert isinstance(env, Environment)

    def run(seed):
        generator = torch.Generator().manual_seed(9)
        seen = [env.reset(seed)]
        for _ in range(30):
            step = env.step(some_action(env, generator))
            seen += [step.observation, step.final_observation, step.reward]
        return seen

    one, again, other = run(3), run(3), run(4)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_environment
def test_shared_starts_are_one_state_for_each_group(env):
    observation = env.sharing(12).reset(0, shared=4)
    groups = observation.reshape(3, 4, -1)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))
    if "tabular" not in env.name:
        assert len(groups[:, 0].unique(dim=0)) == 3
    assert env.lanes == 6


def test_lanes_that_share_a_start_go_on_independently():
    env = LQR(PLANE, lanes=4)
    env.reset(0, shared=4)
    after = env.step(torch.zeros(4, 1)).observation
    assert len(after.unique(dim=0)) == 4


class NoWaiting(TorchDispatchMode):
    """Refuses operations whose result a device must be waited for."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@every_environment
def test_a_step_does_not_wait_for_the_device(env):
    """A step is `advance` with the next random numbers; on CPU the ids are looked at before."""
    env.reset(0)
    generator = torch.Generator().manual_seed(0)
    action = some_action(env, generator)
    with NoWaiting():
        for random in map(Randomness, *env.random(generator, 9)):
            env.carry, _ = env.advance(env.carry, action, random)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        bool(torch.ones(1))


@every_environment
def test_step_is_advance_with_the_numbers_of_its_generator(env):
    env.reset(5)
    carry, random = env.carry, next(env.sharing(env.lanes)._draws(torch.Generator().manual_seed(5)))
    assert torch.equal(random.fresh, carry.state)
    draws = env._draws(torch.Generator().manual_seed(5))
    next(draws)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = some_action(env, generator)
        carry, expected = env.advance(carry, action, next(draws))
        step = env.step(action)
        same_step(step, expected)


@every_environment
def test_a_policy_and_a_value_function_fit(env):
    policy, value = env.policy(), env.value((8,))
    observation = env.reset(0)
    action, log_prob = policy.sample(observation, torch.Generator().manual_seed(0))
    step = env.step(action)
    assert log_prob.shape == value(step.observation).shape == (6,)
    assert policy.log_prob(observation, action).shape == (6,)


def test_networks_start_as_those_of_gymnasium():
    ours, theirs = CartPole(lanes=2).policy(seed=3), vt.Gymnasium("CartPole-v1", 2).policy(seed=3)
    vector = torch.nn.utils.parameters_to_vector
    assert torch.equal(vector(ours.parameters()), vector(theirs.parameters()))


@pytest.mark.parametrize("name", TENSOR)
def test_a_run_folder_can_make_it_again(name):
    env = LQR(PLANE, 3) if name == "tensor/LQR" else TENSOR[name](3, 0.9, dtype=torch.float64)
    assert env.name == name
    settings = json.loads(json.dumps(env.settings))
    again = TENSOR[name](lanes=env.lanes, discount=env.discount, **settings)
    assert (again.lanes, again.discount, again.dtype) == (3, env.discount, torch.float64)
    assert torch.equal(env.reset(0), again.reset(0))
    action = some_action(env, torch.Generator().manual_seed(0))
    assert torch.equal(env.step(action).reward, again.step(action).reward)


def test_lqr_returns_agree_with_the_exact_objective():
    """20,000 episodes of three steps, 4.5 standard errors: fails once in 10⁵ seeds."""
    env = LQR(PLANE, lanes=20_000)
    policy = env.policy()
    weight, log_std = tensor([[-0.4, 0.3]]), tensor([-0.5])
    policy.net.weight.data.copy_(weight)
    policy.log_std.data.copy_(log_std)
    batch = episodes(env, policy, 20_000, seed=1)
    assert batch.reward.shape == (20_000, 3)
    assert (batch.discount[:, -1] == 0).all()
    R = (batch.reward * 0.95 ** torch.arange(3).double()).sum(1)
    J = PLANE.objective(weight, log_std).item()
    assert abs(R.mean().item() - J) < 4.5 * R.std().item() / 20_000**0.5


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="lanes=0"):
        CartPole(lanes=0)
    with pytest.raises(InputError, match=r"discount=1\.5"):
        CartPole(discount=1.5)
    env = CartPole(lanes=2)
    with pytest.raises(InputError, match="reset"):
        env.step(torch.tensor([0, 1]))
    env.reset(0)
    for wrong in ([0, 2], [-1, 0], [0], [0.0, 1.0]):
        with pytest.raises(InputError, match="ids from 0 to 1, one for each of 2 lanes"):
            env.step(torch.tensor(wrong))
    pendulum = Pendulum(lanes=2)
    pendulum.reset(0)
    with pytest.raises(InputError, match=r"real, of shape \(2, 1\)"):
        pendulum.step(torch.zeros(2))
