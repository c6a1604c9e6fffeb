"""What an environment costs: memory that grows, and the time it leaves to a policy."""

import gc
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import torch

from vantage.environments.checking.record import Finding
from vantage.environments.checking.traces import actions_of
from vantage.environments.interface import Environment
from vantage.policies import Policy

WINDOWS = 5  # of steps; the first is left out
ROW = 64  # steps of every lane in the gradient pass that is timed
PYTHON_BYTES = 16  # a step in every window from which growth is remarked on
LEAST = 1 << 15  # bytes in all: caches that fill once stay below it
PROCESS_BYTES = 2048  # the same of the whole process, where pages and caches come and go


def judge_memory(env: gymnasium.Env, seed: int, steps: int, seconds: float) -> list[Finding]:
    """Whether memory grows with every step, measured after a reset.

    Args:
        env: stepped with random actions.
        seed: the seed of environment and actions.
        steps: in each of `WINDOWS` windows.
        seconds: no more windows are begun after these; without all of them nothing is said.
    """
    draw, until = actions_of(env.action_space, seed), time.monotonic() + seconds
    python, process = [], []
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        for window in range(WINDOWS):
            if window and time.monotonic() > until:
                return []
            _bare(env, draw, steps, seed)
            env.reset(seed=seed)
            gc.collect()
            python.append(tracemalloc.get_traced_memory()[0])
            process.append(_resident())
    finally:
        if not tracing:
            tracemalloc.stop()
    for kind, sizes, least in (
        ("Python", python, PYTHON_BYTES),
        ("process", process, PROCESS_BYTES),
    ):
        growth = [(b - a) / steps for a, b in pairwise(sizes[1:])]
        if min(growth) > least and sizes[-1] - sizes[1] > LEAST:
            mean = sum(growth) / len(growth)
            return [
                Finding(
                    "warning",
                    "memory",
                    f"{kind} memory grows by {mean:.0f} bytes a step, also over resets: "
                    f"{mean * 1e6 / 2**30:.2g} GiB in a million steps of one lane.",
                    "empty lists and caches in reset, or bound them (collections.deque(maxlen=n)).",
                )
            ]
    return []


def _bare(env: gymnasium.Env, draw: Callable[[object], object], steps: int, seed: int) -> None:
    _, info = env.reset(seed=seed)
    for _ in range(steps):
        _, _, terminated, truncated, info = env.step(draw(info))
        if terminated or truncated:
            _, info = env.reset()


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


class Speed(NamedTuple):
    """Seconds a step of one lane, in the environment and in the policy."""

    lanes: int
    environment: float
    acting: float
    gradient: float

    @property
    def policy_share(self) -> float:
        """Of collecting and one gradient pass, the share that the policy has."""
        policy = self.acting + self.gradient
        return policy / (policy + self.environment)


def speed(
    env: Environment, policy: Policy, draw: Callable[[torch.Generator], Any], seconds: float
) -> Speed:
    """How fast lanes step, and how fast a policy acts on them and is differentiated.

    Args:
        env: stepped with random actions.
        policy: fits it; it is not changed.
        draw: a function that `contract.random_actions` gives.
        seconds: spent at most, about a half of them on the environment.
    """
    generator = torch.Generator().manual_seed(0)
    first = env.reset(seed=0)
    actions = [draw(generator).to(first.device) for _ in range(64)]
    memory = policy.begin(env.lanes)
    started = torch.ones(env.lanes, dtype=torch.bool, device=first.device)
    observation = policy.see(first, started, memory)
    on_device = torch.Generator(first.device).manual_seed(0)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    rows = observation[:, None].repeat(1, ROW, *[1] * (observation.dim() - 1))
    taken = policy.sample(observation, on_device)[0][:, None]
    taken = taken.repeat(1, ROW, *[1] * (taken.dim() - 2))

    def differentiate() -> None:
        torch.autograd.grad(policy.log_prob(rows, taken).sum(), parameters, allow_unused=True)

    turn = iter(range(1 << 62))
    environment = _seconds(lambda: env.step(actions[next(turn) % 64]), seconds / 2)
    acting = _seconds(lambda: policy.sample(observation, on_device), seconds / 4)
    gradient = _seconds(differentiate, seconds / 4) / ROW
    return Speed(env.lanes, *(cost / env.lanes for cost in (environment, acting, gradient)))


def _seconds(call: Callable[[], object], budget: float) -> float:
    """Seconds a call, at the mean of calls that fill a budget after one that warms up."""
    call()
    begun, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - begun < budget:
        call()
        calls += 1
    return (time.perf_counter() - begun) / calls
