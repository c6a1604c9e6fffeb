"""Environments as tensor code: Gymnasium's dynamics, starts and ends, to rounding."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from gymnasium.wrappers import ClipAction
from scipy.stats import ks_2samp

from vantage.environments import TENSOR

CLASSIC = [name for name in TENSOR if name != "tensor/LQR"]
LANES = 2


def at_random(env, observation, rng):
    """Real actions go beyond the bounds."""
    if isinstance(env.actions, Discrete):
        return torch.from_numpy(rng.integers(env.actions.n, size=LANES))
    return torch.from_numpy(rng.normal(0, 2 * env.actions.high[0], (LANES, 1)))


def along(env, observation, rng):
    """Push the way it moves, or let go: takes a car up the hill and an acrobot over the line."""
    way = -observation[:, 4].sign() if "Acrobot" in env.name else observation[:, 1].sign()
    way = torch.where(torch.from_numpy(rng.random(LANES)) < 0.9, way, 0)
    return (way + 1).long() if isinstance(env.actions, Discrete) else way[:, None]


def upright(env, observation, rng):
    """Keep a pole up until the time limit."""
    return (observation[:, 2] + observation[:, 3] + 0.05 * observation[:, 1] > 0).long()


def side_by_side(name, act, steps, together, atol=1e-9):
    """Step ours and Gymnasium's and compare everything; counts episodes ended in either way.

    With `together`, Gymnasium is put into our state before every step, so that each step is
    compared by itself; without, both run on from their common start.
    """
    env, rng = TENSOR[name](lanes=LANES, dtype=torch.float64), np.random.default_rng(0)
    made = (
        gymnasium.make(name.removeprefix("tensor/"), disable_env_checker=True) for _ in range(LANES)
    )
    peers = [peer if isinstance(peer.action_space, Discrete) else ClipAction(peer) for peer in made]
    env.reset(0)
    for lane, peer in enumerate(peers):
        start_together(env, lane, peer, seed=lane)
    ends = np.zeros(2, int)
    for _ in range(steps):
        action = act(env, env.dynamics.observe(env.state), rng)
        if together:
            for lane, peer in enumerate(peers):
                peer.unwrapped.state = env.state[:, lane].numpy().copy()
        step = env.step(action)
        theirs = [peer.step(action[lane].numpy())[:4] for lane, peer in enumerate(peers)]
        seen, reward, terminated, truncated = (np.array(part) for part in zip(*theirs, strict=True))
        ours = step.final_observation.numpy().astype(np.float32)
        # float32 of equal numbers may differ in its last place
        assert (np.abs(ours - seen) <= atol + 2e-7 * np.abs(seen)).all()
        assert (np.abs(step.reward.numpy() - reward) < atol).all()
        assert (step.terminated.numpy() == terminated).all()
        assert (step.truncated.numpy() == (truncated & ~terminated)).all()
        for lane in np.flatnonzero(terminated | truncated):
            start_together(env, lane, peers[lane])
        ends += [terminated.sum(), (truncated & ~terminated).sum()]
    return ends.tolist()


def start_together(env, lane, peer, seed=None):
    peer.reset(seed=seed)
    state = env.state.clone()
    state[:, lane] = torch.from_numpy(np.asarray(peer.unwrapped.state, np.float64))
    env.state = state


RUNS = [
    ("tensor/CartPole-v1", at_random, 600, "terminated"),
    ("tensor/CartPole-v1", upright, 501, "truncated"),
    ("tensor/Pendulum-v1", at_random, 450, "truncated"),
    ("tensor/Acrobot-v1", at_random, 501, "truncated"),
    ("tensor/Acrobot-v1", along, 300, "terminated"),
    ("tensor/MountainCar-v0", at_random, 401, "truncated"),
    ("tensor/MountainCar-v0", along, 300, "terminated"),
    ("tensor/MountainCarContinuous-v0", at_random, 1000, "truncated"),
    ("tensor/MountainCarContinuous-v0", along, 300, "terminated"),
]


@pytest.mark.parametrize(("name", "act", "steps", "end"), RUNS)
def test_every_step_is_that_of_gymnasium(name, act, steps, end):
    terminated, truncated = side_by_side(name, act, steps, together=True)
    assert {"terminated": terminated, "truncated": truncated}[end] > 0


@pytest.mark.parametrize(("name", "act"), [run[:2] for run in RUNS if run[1] is not upright])
def test_whole_episodes_are_those_of_gymnasium(name, act):
    """Not those of a pole kept upright, an unstable place that makes much of rounding.

    Gymnasium itself rounds the state of the continuous car to float32 after every step.
    """
    side_by_side(name, act, 210, False, atol=1e-5 if "Continuous" in name else 1e-9)


@pytest.mark.parametrize("name", CLASSIC)
def test_starts_have_the_distribution_of_gymnasium(name):
    """Kolmogorov–Smirnov on every coordinate, 2,000 starts against 20,000, at the 10⁻⁶ level."""
    env = TENSOR[name](lanes=10_000, dtype=torch.float64)
    peer = gymnasium.make(name.removeprefix("tensor/")).unwrapped
    peer.reset(seed=0)
    theirs = np.array([peer.reset() and np.array(peer.state, np.float64) for _ in range(2000)])
    env.reset(0)
    first = env.state
    after_episodes = next(env._randomness).fresh
    ours = torch.cat([first, after_episodes], 1).numpy()
    for coordinate, known in zip(ours, theirs.T, strict=True):
        assert ks_2samp(coordinate, known).pvalue > 1e-6
        low, high = known.min(), known.max()
        slack = (high - low) / 100  # the ends of a range that 2,000 numbers have explored
        assert abs(coordinate.min() - low) <= slack
        assert abs(coordinate.max() - high) <= slack


@pytest.mark.parametrize("name", CLASSIC)
def test_spaces_and_limits_are_those_of_gymnasium(name):
    env, peer = TENSOR[name](lanes=2), gymnasium.make(name.removeprefix("tensor/"))
    assert env.observations == peer.observation_space
    assert env.actions == peer.action_space
    assert env.dynamics.horizon == peer.spec.max_episode_steps
    assert env.reset(0).dtype == torch.float32
    assert all(peer.observation_space.contains(row.numpy()) for row in env.reset(0))
