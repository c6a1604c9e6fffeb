"""One measurement of Vantage, in a process of its own; `benchmarks/control.py` starts it."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parent / "peers"))
import gymnasium
import numpy as np
import torch
from clock import Clock, Returns, Solved, say, settings  # type: ignore[import-not-found]

import vantage as vt
from vantage.environments import CartPole
from vantage.environments.envpool import EnvPool
from vantage.environments.fragments import Fragments
from vantage.gradients.mlp_passes import fastest


def environment(given: SimpleNamespace) -> Any:
    """The lanes, by the backend that was asked for."""
    backend, common = getattr(given, "backend", "default"), (given.lanes, given.gamma)
    if backend == "tensor":
        return CartPole(*common, device=getattr(given, "device", "cpu"))
    if backend == "envpool":
        return EnvPool(given.env, *common, num_threads=1)
    return vt.Gymnasium(given.env, *common)


def algorithm(given: SimpleNamespace) -> vt.Algorithm:
    """The settings of the work as ours."""
    settings = vt.algorithms.ppo(
        fragment=given.fragment,
        epochs=given.epochs,
        minibatches=given.minibatches,
        lr=given.lr,
        lambda_=given.lambda_,
        epsilon=given.clip,
        value_coefficient=given.value_coefficient,
        entropy=given.entropy,
        standardise=given.standardise,
        max_grad_norm=given.max_grad_norm,
        anneal=getattr(given, "anneal", False),
    )
    assert isinstance(settings.update, vt.updates.Epochs)
    assert settings.update.eps == given.eps
    return settings


def train(given: SimpleNamespace, tracker: Any, **length: Any) -> None:
    """`vt.train` as anybody would call it; the gradient's signal is measured as by default."""
    env = environment(given)
    policy, value = env.policy(seed=given.seed), env.value(seed=given.seed + 1)
    common = {"value": value, "seed": given.seed, "progress": False, "track": [tracker]}
    vt.train(env, policy, algorithm(given), **common, **length)


class Stopwatch:
    """A tracker that starts and stops the clock."""

    def __init__(self, given: SimpleNamespace):
        self.given, self.clock, self.before = given, Clock(given.started), 0
        if given.warmup == 0:
            self.clock.begin()

    def log(self, row: dict[str, Any], step: int) -> None:
        """An update is done."""
        if getattr(self.given, "device", "cpu") == "cuda":
            torch.cuda.synchronize()
        if row["update"] == self.given.warmup:
            self.before = step
            self.clock.begin()
        if row["update"] == self.given.warmup + self.given.updates:
            self.clock.end(step - self.before)

    def close(self) -> None:
        """Nothing is open."""


class Watch:
    """A tracker that looks at the mean return."""

    def __init__(self, returns: Returns):
        self.returns, self.episodes, self.steps = returns, 0, 0

    def log(self, row: dict[str, Any], step: int) -> None:
        """An update is done."""
        self.episodes, self.steps = self.episodes + row["episodes"], step
        if row["return_100"] is not None:
            self.returns.recent.clear()
            self.returns.recent.append(row["return_100"])
        if self.episodes >= 100 and row["return_100"] >= self.returns.target:
            self.returns.report(step, solved=True)
            raise Solved

    def close(self) -> None:
        """Nothing is open."""


def speed(given: SimpleNamespace) -> None:
    """Time updates after a warm-up."""
    if getattr(given, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        say(error="no GPU was there")
        return
    train(given, Stopwatch(given), updates=given.warmup + given.updates)


def solve(given: SimpleNamespace) -> None:
    """Train until the target is reached."""
    watch = Watch(Returns(given.target, given.started))
    try:
        train(given, watch, steps=given.steps)
    except Solved:
        return
    watch.returns.report(watch.steps, solved=False)


def rollout(given: SimpleNamespace) -> None:
    """Time the collection of fragments alone: acting, stepping and recording, no value function."""
    env, clock = environment(given), Clock(given.started)
    fragments = Fragments(env, fastest(env.policy(seed=0), None))
    fragments.restart(seed=given.seed)
    for seed in range(given.warmup):
        fragments.collect(given.fragment, seed)
    clock.begin()
    for seed in range(given.updates):
        fragments.collect(given.fragment, given.warmup + seed)
    clock.end(given.updates * given.fragment * given.lanes)


def raw(given: SimpleNamespace) -> None:
    """Time the environment alone: random actions drawn beforehand, nothing kept."""
    clock, steps = Clock(given.started), given.updates * given.fragment
    if gymnasium.spec(given.env).vector_entry_point is None:
        lanes = [gymnasium.make(given.env) for _ in range(given.lanes)]
        act, space = _one_by_one(lanes, given.seed), lanes[0].action_space
    else:
        vector = gymnasium.make_vec(given.env, given.lanes, vectorization_mode="vector_entry_point")
        vector.reset(seed=given.seed)
        act, space = vector.step, vector.single_action_space
    space.seed(given.seed)
    actions = np.array([[space.sample() for _ in range(given.lanes)] for _ in range(256)])
    for t in range(given.warmup * given.fragment):
        act(actions[t % 256])
    clock.begin()
    for t in range(steps):
        act(actions[t % 256])
    clock.end(steps * given.lanes)


def _one_by_one(lanes: list[gymnasium.Env], seed: int) -> Any:
    for lane, env in enumerate(lanes):
        env.reset(seed=seed + lane)

    def act(actions: np.ndarray) -> None:
        for env, action in zip(lanes, actions, strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return act


TASKS = {"speed": speed, "solve": solve, "rollout": rollout, "raw": raw}

if __name__ == "__main__":
    torch.set_num_threads(1)
    told = settings()
    TASKS[told.task](told)
