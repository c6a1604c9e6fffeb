"""What does an audit cost?

    OMP_NUM_THREADS=1 python benchmarks/audit.py

One thread; times are medians of interleaved repeats. Four questions:

1. trajectory gradients of one estimator, against one plain gradient and against a loop of backward
   passes over the same batch;
2. a whole audit of 1, 2, 5 and 10 estimators on CartPole, sampling included and without it;
3. peak memory against trajectories under `memory=`, each in a fresh process;
4. time per trajectory of each gradient method, for a perceptron and a small sequence model.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from audit_models import sequence_batch, sequence_policy
from audit_tables import show
from torch import nn

import vantage as vt
from vantage.auditing import sampling as audit_sampling
from vantage.batch import Batch
from vantage.environments.rollout import episodes
from vantage.gradients.per_trajectory import METHODS, contributions
from vantage.runs.run import versions

RESULTS = Path(__file__).parent / "results" / "audit.json"
TEN = (
    vt.estimators.reinforce_baseline(),
    vt.estimators.reinforce(),
    vt.estimators.reward_to_go(),
    vt.estimators.rloo(),
    vt.estimators.actor_critic(),
    vt.estimators.a2c(),
    vt.estimators.ppo(),
    vt.estimators.grpo(),
    vt.estimators.reinforce_mean(),
    vt.estimators.reinforce_leave_one_out(),
)
BATCH = 64
Found = dict[str, Any]
sampled: list[float] = []  # seconds of every collection since it was last cleared


@dataclass
class Arguments:
    """Measure the cost of audits."""

    repeats: int = 3
    trajectories: int = 4096
    updates: int = 9
    """of training before the audit"""
    counts: tuple[int, ...] = (1, 2, 5, 10)
    """numbers of estimators"""
    memory_mib: int = 64
    memory_trajectories: tuple[int, ...] = (512, 2048, 8192)
    out: Path = RESULTS
    peak: int = 0
    """measure the peak memory of one audit of so many trajectories, and print it; used by 3"""


def interleaved(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each task; each round runs every task once."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def trained(updates: int) -> tuple[vt.Gymnasium, vt.Policy, nn.Module]:
    """CartPole with a policy and a value function after a few updates."""
    torch.manual_seed(0)
    env = vt.Gymnasium("CartPole-v1", lanes=64)
    policy, value = env.policy(), env.value()
    rule = vt.estimators.reinforce_baseline()
    vt.train(env, policy, rule, value=value, updates=updates, seed=0, progress=False)
    return env, policy, value


def one_estimator(policy: vt.Policy, batch: Batch, repeats: int) -> Found:
    """Trajectory gradients against one gradient and against the loop."""
    rule = TEN[0]
    weights = rule.weights(batch)[None]

    def by(method: str) -> Callable[[], object]:
        return lambda: [0 for _ in contributions(policy, batch, weights, method)]

    tasks = {"gradient": lambda: vt.gradient(policy, batch, rule)}
    seconds = interleaved(tasks | {name: by(name) for name in METHODS}, repeats)
    plain = seconds.pop("gradient")
    return {
        "trajectories": batch.rows,
        "steps": batch.steps,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "gradient_seconds": plain,
        "seconds": seconds,
        "over_gradient": {name: found / plain for name, found in seconds.items()},
        "loop_over": {name: seconds["loop"] / found for name, found in seconds.items()},
    }


def whole_audits(
    env: vt.Gymnasium, policy: vt.Policy, value: nn.Module, arguments: Arguments
) -> Found:
    """Seconds of an audit by the number of estimators, and where they go."""
    parts: dict[int, list[dict[str, float]]] = {count: [] for count in arguments.counts}
    steps = 0
    audit_once(env, policy, value, 1, 4 * BATCH)  # pays for what is loaded once
    for _ in range(arguments.repeats):
        for count in arguments.counts:
            spent, steps = audit_once(env, policy, value, count, arguments.trajectories)
            parts[count].append(spent)
    found = {
        str(count): {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for count, runs in parts.items()
    }
    first, last = found[str(arguments.counts[0])], found[str(arguments.counts[-1])]
    return {
        "trajectories": arguments.trajectories,
        "steps_per_trajectory": steps / arguments.trajectories,
        "updates_of_training": arguments.updates,
        "seconds": found,
        "ratio": last["total"] / first["total"],
        "ratio_without_sampling": last["without sampling"] / first["without sampling"],
        "all_ratios": [
            b["total"] / a["total"]
            for a, b in zip(parts[arguments.counts[0]], parts[arguments.counts[-1]], strict=True)
        ],
    }


def audit_once(
    env: vt.Gymnasium, policy: vt.Policy, value: nn.Module, count: int, trajectories: int
) -> tuple[dict[str, float], int]:
    """Seconds of one audit, and of its sampling; steps sampled."""
    sampled.clear()
    started = time.perf_counter()
    report = vt.audit(
        env,
        policy,
        list(TEN[:count]),
        value=value,
        trajectories=trajectories,
        batch=BATCH,
        progress=False,
    )
    total, sampling = time.perf_counter() - started, sum(sampled)
    seconds = {"total": total, "sampling": sampling, "without sampling": total - sampling}
    return seconds, int(report.settings["steps"])


def watch_sampling() -> None:
    """Note what every audit spends on collecting episodes."""
    collector = audit_sampling.episodes

    def timed(*args: Any, **settings: Any) -> Batch:
        started = time.perf_counter()
        batch = collector(*args, **settings)
        sampled.append(time.perf_counter() - started)
        return batch

    audit_sampling.episodes = timed


def peak_memory(arguments: Arguments) -> list[Found]:
    """Peak resident memory of audits of more and more trajectories, each in a fresh process."""
    found = []
    for trajectories in (0, *arguments.memory_trajectories):
        command = [sys.executable, __file__, "--peak", str(trajectories or -1)]
        command += ["--memory-mib", str(arguments.memory_mib)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]) | {"trajectories": trajectories})
    return found


def peak(trajectories: int, memory_mib: int) -> None:
    """Audit four estimators of an untrained policy and print the peak; -1: only what is loaded."""
    torch.set_num_threads(1)
    env = vt.Gymnasium("CartPole-v1", lanes=64)
    policy, value = env.policy(hidden=(128, 128)), env.value()
    sketched = False
    if trajectories > 0:
        report = vt.audit(
            env,
            policy,
            list(TEN[:4]),
            value=value,
            trajectories=trajectories,
            batch=BATCH,
            memory=memory_mib << 20,
            progress=False,
        )
        sketched = any("sketched" in note for note in report.notes)
    print(json.dumps({"peak_mib": peak_kib() / 1024, "sketched": sketched}))


def peak_kib() -> int:
    """Peak resident memory of this process. Linux lets ru_maxrss start from the parent's peak, so
    that its own is read from /proc where there is one."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def methods(policy: vt.Policy, value: nn.Module, env: vt.Gymnasium, repeats: int) -> Found:
    """Milliseconds per trajectory of each method, for ranks 1 and 4."""
    short = episodes(env, policy, 32, seed=1, value=value)
    cases = {"perceptron": (policy, short), "sequence": (sequence_policy(), sequence_batch())}
    found: Found = {}
    for name, (model, batch) in cases.items():
        for rank in (1, 4):
            generator = torch.Generator().manual_seed(0)
            basis = torch.randn(batch.rows, rank, batch.reward.shape[1], generator=generator)

            def task(
                method: str, model: Any = model, batch: Batch = batch, basis: Any = basis
            ) -> Callable[[], object]:
                return lambda: METHODS[method](model, batch, basis)

            for method in METHODS:
                task(method)()
            seconds = interleaved({method: task(method) for method in METHODS}, repeats)
            found[f"{name}, rank {rank}"] = {
                "parameters": sum(p.numel() for p in model.parameters()),
                "steps": batch.steps / batch.rows,
                "ms": {method: 1e3 * took / batch.rows for method, took in seconds.items()},
            }
    return found


def main(arguments: Arguments) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    env, policy, value = trained(arguments.updates)
    watch_sampling()
    batch = episodes(env, policy, 512, seed=0, value=value)
    found: Found = {
        "command": " ".join(["OMP_NUM_THREADS=1", "python", *sys.argv]),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_at_start": os.getloadavg()[0],
        },
        "versions": versions(),
        "threads": 1,
        "repeats": arguments.repeats,
        "one_estimator": one_estimator(policy, batch, arguments.repeats),
        "audits": whole_audits(env, policy, value, arguments),
        "memory": {"memory_mib": arguments.memory_mib, "peaks": peak_memory(arguments)},
        "methods": methods(policy, value, env, arguments.repeats),
    }
    found["machine"]["load_at_end"] = os.getloadavg()[0]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    show(found)


if __name__ == "__main__":
    chosen = tyro.cli(Arguments)
    if chosen.peak:
        peak(chosen.peak, chosen.memory_mib)
    else:
        main(chosen)
