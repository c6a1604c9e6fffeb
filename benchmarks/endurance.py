"""Run after run in one process: do memory, open files, threads and processes stay where they are?

    python benchmarks/endurance.py                     10 minutes
    python benchmarks/endurance.py --minutes 60 --runs 200       an hour, and 200 runs at least

Runs take turns: an environment (PPO on Gymnasium lanes, with evaluations, checkpoints and the best
kept) and a language model (rewards, checkpoints), each followed by an audit and a report of the
environment's. After every run the resident memory, open file descriptors, threads and child
processes are noted. The first fifth is the warm-up; growth is that of the median of the last fifth
over the median of the second. Results go to benchmarks/results/endurance.json.
"""

import gc
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from machines import processor
from transformers.utils import logging

import vantage as vt
from vantage import language
from vantage.language.model import tiny
from vantage.language.tasks import tiny_tasks

RESULTS = Path(__file__).parent / "results" / "endurance.json"


def control(folder: Path, seed: int) -> None:
    """A run with all that is done beside learning, an audit and its report."""
    rule = vt.algorithms.ppo(fragment=16, epochs=2, minibatches=2)
    run = vt.train(
        "CartPole-v1", rule, lanes=4, normalise=True, updates=6, evaluate_every=3,
        evaluation_episodes=4, keep_best=True, keep_last=1, checkpoint_seconds=0, seed=seed,
        out=folder / "run", progress=False,
    )  # fmt: skip
    run.plot()
    env, policy, value = vt.load(folder / "run")
    report = vt.audit(
        env,
        policy,
        ["reinforce", "reward_to_go"],
        trajectories=64,
        batch=8,
        value=value,
        progress=False,
    )
    report.save(folder / "report.html")


def language_model(folder: Path, seed: int) -> None:
    """A run of a language model with evaluations, and an audit."""
    policy = tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2, seed=seed)
    task = tiny_tasks.addition(digits=1, num_generations=2)
    language.train(
        task, policy, vt.estimators.rloo(beta=0.1), batch=8, updates=4, evaluate_every=4,
        checkpoint_seconds=0, seed=seed, out=folder / "run", progress=False,
    )  # fmt: skip


def state() -> dict[str, int]:
    """What the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "memory": pages * os.sysconf("SC_PAGESIZE"),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "processes": len(children),
    }


def growth(values: list[int]) -> float:
    """Of the last fifth over the second fifth, by their medians."""
    fifth = max(1, len(values) // 5)
    return statistics.median(values[-fifth:]) / statistics.median(values[fifth : 2 * fifth]) - 1


def main(minutes: float = 10.0, runs: int = 0, results: Path = RESULTS) -> None:
    """Run for so long, and at least so often, and write what was held."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    started = time.monotonic()
    rows: list[dict[str, int]] = []
    while time.monotonic() - started < 60 * minutes or len(rows) < runs:
        with tempfile.TemporaryDirectory() as scratch:
            kind = control if len(rows) % 2 == 0 else language_model
            kind(Path(scratch), len(rows))
        rows.append(state())
        if len(rows) % 10 == 0:
            write(results, rows, time.monotonic() - started)
            print(len(rows), rows[-1], flush=True)
    write(results, rows, time.monotonic() - started)


def write(results: Path, rows: list[dict[str, int]], seconds: float) -> None:
    """Results, with what they depend on."""
    fifth = max(1, len(rows) // 5)
    after = rows[fifth:]
    plain: dict[str, Any] = {
        "command": "python benchmarks/endurance.py",
        "processor": processor(),
        "torch": torch.__version__,
        "runs": len(rows),
        "minutes": round(seconds / 60, 1),
        "memory_growth": round(growth([row["memory"] for row in rows]), 4),
        **{
            name: sorted({row[name] for row in after}) for name in ("files", "threads", "processes")
        },
        "memory_mib": [round(row["memory"] / 2**20, 1) for row in rows],
    }
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
