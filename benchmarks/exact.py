"""Cost of the exact world against size: J, ∇J and the variance, tabular policies, one thread.

Run: OMP_NUM_THREADS=1 python benchmarks/exact.py

Dense Garnet(S, 4, S) up to 400 states: gradient, and trace with the trajectory-optimal baseline.
Sparse Garnet(S, 2, 5): objective and gradient up to 100,000 states and 1,000,000
transitions. Every time is the median of three; memory is the peak of the whole process.
"""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scipy
import torch

import vantage as vt

torch.set_num_threads(1)
RESULTS = Path(__file__).parent / "results" / "exact.json"


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Median wall-clock time of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def dense(states: int) -> dict[str, Any]:
    """Gradient and moments of a dense world."""
    mdp = vt.MDP.garnet(states, 4, states, discount=0.95, seed=0)
    policy = vt.SoftmaxTable(states, 4)
    return {
        "states": states,
        "actions": 4,
        "transitions": states * 4 * states,
        "parameters": states * 4,
        "gradient_s": seconds(lambda: vt.exact.gradient(mdp, policy)),
        "moments_none_s": seconds(lambda: vt.exact.moments(mdp, policy)),
        "moments_trajectory_s": seconds(lambda: vt.exact.moments(mdp, policy, "trajectory")),
    }


def listed(states: int) -> dict[str, Any]:
    """Objective and gradient of a sparse world with ten transitions a state."""
    begin = time.perf_counter()
    mdp = vt.MDP.garnet(states, 2, 5, discount=0.99, seed=0, sparse=True)
    transitions = len(mdp.edges.state)
    built = time.perf_counter() - begin
    policy = vt.SoftmaxTable(states, 2)
    return {
        "states": states,
        "actions": 2,
        "transitions": transitions,
        "build_s": built,
        "objective_s": seconds(lambda: vt.exact.objective(mdp, policy)),
        "gradient_s": seconds(lambda: vt.exact.gradient(mdp, policy)),
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    record: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/exact.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "vantage": vt.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}, other processes may be running",
        "sparse": [],
        "dense": [],
    }
    for states in (1_000, 10_000, 100_000):  # first, so that the peak of memory is theirs
        record["sparse"].append(listed(states))
        print(record["sparse"][-1])
    for states in (25, 50, 100, 200, 400):
        record["dense"].append(dense(states))
        print(record["dense"][-1])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
