"""A policy and its environment in one graph: `torch.compile(fullgraph=True)` changes nothing.

Three environments are traced whole; the others, and machine code of one, which is half a minute of
C++, are among the long checks.
"""

import os
import subprocess
import sys

import pytest

# A process of its own: the run-time type checks of the tests are no part of what is compiled.
PROGRAM = """
import sys

import torch

import vantage as vt
from vantage.environments import LQR, TENSOR, Tabular
from vantage.environments.tensor import Randomness

torch.set_num_threads(1)
backend, *names = sys.argv[1:]
lanes, steps = 8, 40


def made(name):
    if name == "tensor/LQR":
        one, half = torch.ones(1, 1), torch.full((1,), 0.5)
        return LQR(vt.exact.LQR(one, one / 2, one, one, half, half, half, horizon=3), lanes)
    if name == "tabular":
        return Tabular(vt.MDP.garnet(5, 2, 3, seed=0, termination=0.2, horizon=7), lanes)
    return TENSOR[name](lanes=lanes)


def together(env, policy):
    discrete = env.actions.shape == ()

    def act_and_step(carry, observation, chance, random):
        with torch.no_grad():
            at = policy(observation)
        action = (at - (-chance.log()).log()).argmax(-1) if discrete else at + chance - 0.5
        return env.advance(carry, action, random)

    return act_and_step


def run(env, policy, function):
    generator = torch.Generator().manual_seed(0)
    observation, carry, taken = env.reset(0), env.carry, []
    width = policy(observation).shape[-1]
    for random in map(Randomness, *env.random(generator, steps)):
        chance = torch.rand(lanes, width, generator=generator, dtype=env.dtype)
        carry, step = function(carry, observation, chance, random)
        observation = step.observation
        taken.append(step)
    return taken


for name in names:
    torch._dynamo.reset()
    env = made(name)
    policy = env.policy(hidden=() if "LQR" in name else (16,))
    function = together(env, policy)
    eager = run(env, policy, function)
    compiled = run(env, policy, torch.compile(function, fullgraph=True, backend=backend))
    for one, other in zip(eager, compiled, strict=True):
        assert torch.equal(one.terminated, other.terminated), name
        assert torch.equal(one.truncated, other.truncated), name
        for field in ("observation", "reward", "final_observation"):
            near = {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(getattr(one, field), getattr(other, field), **near)
    print(name, int(sum((step.terminated | step.truncated).sum() for step in eager)))
"""


def ends_seen(backend, *names):
    """How many episodes ended in each environment while eager and compiled code agreed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend, *names],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: int(count) for name, count in map(str.split, done.stdout.splitlines())}


ENDING = ["tensor/CartPole-v1", "tensor/LQR", "tabular"]
OTHERS = ["tensor/Pendulum-v1", "tensor/Acrobot-v1", "tensor/MountainCar-v0"]


@pytest.mark.parametrize(
    "names",
    [ENDING, pytest.param([*OTHERS, "tensor/MountainCarContinuous-v0"], marks=pytest.mark.long)],
)
def test_every_environment_is_one_graph_with_its_policy(names):
    ends = ends_seen("aot_eager", *names)
    assert list(ends) == names
    assert names != ENDING or min(ends.values()) > 0


@pytest.mark.long
def test_machine_code_does_what_eager_code_does():
    assert ends_seen("inductor", "tensor/CartPole-v1")["tensor/CartPole-v1"] > 0
