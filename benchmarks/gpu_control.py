"""Control parts of `gpu.py`: PPO on tensor lanes beside rejax, Gymnasium lanes, the monitor."""

import json
import os
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from control_work import EQUAL
from torch import nn

import vantage as vt

Measured = dict[str, Any]
FRAGMENT, EPOCHS, MINIBATCHES = 32, 4, 4
PASSES = 4  # of a step that the monitor watches


def tensor_lanes(lanes: int, updates: int, device: torch.device) -> Measured:
    """Steps a second of PPO on tensor CartPole, update by update after three that warm up."""
    env = vt.CartPole(lanes=lanes, device=device)
    algorithm = vt.algorithms.ppo(
        fragment=FRAGMENT, epochs=EPOCHS, minibatches=MINIBATCHES, lr=1e-3
    )
    run = vt.train(
        env, env.policy(), algorithm, value=env.value(), updates=updates, progress=False,
        signal_every=None,
    )  # fmt: skip
    speeds = [row["steps_per_second"] for row in run.history[3:]]
    return {
        "steps_per_second": statistics.median(speeds),
        "range": [min(speeds), max(speeds)],
        "return_100": run.history[-1]["return_100"],
    }


def rejax(lanes: int, updates: int, python: str) -> Measured:
    """Steps a second of rejax with the same settings, without compilation.

    Training of `updates` and of eleven times as many is timed, each in a process of its own; the
    speed is that of the difference, and what is left of the shorter one is compilation and start.
    """
    seconds, steps = [], []
    for count in (updates, 11 * updates):
        told = EQUAL | {
            "task": "speed", "env": "CartPole-v1", "lanes": lanes, "fragment": FRAGMENT,
            "epochs": EPOCHS, "minibatches": MINIBATCHES, "lr": 1e-3, "updates": count, "seed": 0,
            "started": time.time(),
        }  # fmt: skip
        script = Path(__file__).parent / "peers" / "ppo_rejax.py"
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        done = subprocess.run(
            [python, str(script), json.dumps(told)], capture_output=True, text=True,
            env=environment, timeout=240,
        )  # fmt: skip
        if done.returncode:
            return {"error": done.stderr[-1500:]}
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        seconds.append(figures["seconds"])
        steps.append(figures["steps"])
    speed = (steps[1] - steps[0]) / (seconds[1] - seconds[0])
    return {
        "steps_per_second": speed,
        "seconds": seconds,
        "steps": steps,
        "compilation_seconds": seconds[0] - steps[0] / speed,
    }


def gymnasium_lanes(device: torch.device) -> Measured:
    """PPO on Gymnasium lanes with the networks on the device and on the CPU; copies of a step."""
    works = {"CartPole-v1, 64 lanes": ("CartPole-v1", 64, 128, 4, 4)}
    if find_spec("mujoco"):
        works["HalfCheetah-v5, 16 lanes"] = ("HalfCheetah-v5", 16, 128, 10, 32)
    return {
        name: {
            where: guarded(partial(_gymnasium, *work, torch.device(where)))
            for where in dict.fromkeys((device.type, "cpu"))
        }
        for name, work in works.items()
    }


def _gymnasium(
    name: str, lanes: int, fragment: int, epochs: int, minibatches: int, device: torch.device
) -> Measured:
    algorithm = vt.algorithms.ppo(fragment=fragment, epochs=epochs, minibatches=minibatches)
    run = vt.train(
        name, algorithm, lanes=lanes, updates=8, device=device, progress=False, signal_every=None
    )
    assert next(run.policy.parameters()).device.type == device.type
    speeds = [row["steps_per_second"] for row in run.history[2:]]
    found: Measured = {"steps_per_second": statistics.median(speeds)}
    if device.type == "cuda":
        found["copies"] = _copies(run, fragment)
    return found


def _copies(run: vt.Run, steps: int) -> Measured:
    """Copies to and from the device while one fragment is collected, a step."""
    from vantage.environments.fragments import Fragments
    from vantage.gradients.passes import AutogradPasses

    env: Any = run.env
    value: Any = run.value
    fragments = Fragments(env, AutogradPasses(run.policy, value))
    fragments.restart(seed=0)
    fragments.collect(steps, seed=1)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        fragments.collect(steps, seed=2)
        torch.cuda.synchronize()
    counts = {"HtoD": 0, "DtoH": 0}
    for event in profile.events():
        for direction in counts:
            counts[direction] += f"Memcpy {direction}" in event.name
    return {direction: count / steps for direction, count in counts.items()}


def monitor(repeats: int, device: torch.device) -> list[Measured]:
    """What the monitor adds to a step of four passes: a perceptron of 1 and of 98 million numbers.

    Plain and watched steps take turns; medians.
    """
    return [
        _watched(*size, 10 * repeats, device) for size in ((700, 512), (700, 8192), (7000, 512))
    ]


def _watched(width: int, rows: int, rounds: int, device: torch.device) -> Measured:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = torch.randn(PASSES, rows, width, device=device)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds + 2):
        for watched in (False, True):
            watcher = vt.Monitor(model) if watched else None
            synchronise(device)
            began = time.perf_counter()
            for piece in inputs:
                if watcher is None:
                    model(piece).square().mean().div(PASSES).backward()
                else:
                    with watcher.piece():
                        model(piece).square().mean().div(PASSES).backward()
            if watcher is not None:
                watcher.step()
            optimizer.step()
            optimizer.zero_grad()
            synchronise(device)
            seconds[watched].append(time.perf_counter() - began)
            if watcher is not None:
                watcher.close()
    plain, watched_too = (statistics.median(seconds[each][2:]) for each in (False, True))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows_of_a_pass": rows,
        "plain_seconds": plain,
        "watched_seconds": watched_too,
        "more_per_cent": 100 * (watched_too / plain - 1),
    }


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def guarded(work: Callable[[], Measured]) -> Measured:
    try:
        return work()
    except Exception:
        return {"error": traceback.format_exc()[-1500:]}
