"""What torch.compile makes of a step of tensor lanes: whether whole-update compilation would pay.

    python benchmarks/compiled.py

Each row is a process of its own with an empty cache: microseconds of `env.advance` as it is and
compiled, in turn, medians of interleaved repeats; seconds until the first compiled steps are done,
without a cache on disk and with the one that they left. Results are written to
results/compiled.<processor>.json, with the steps after which compilation has paid for itself, or
None where a compiled step is no faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machines import file_of, machine

from vantage.environments import TENSOR
from vantage.environments.tensor import Carry, Randomness

RESULTS = Path(__file__).parent / "results"
ENVIRONMENTS = ("tensor/CartPole-v1", "tensor/Pendulum-v1", "tensor/Acrobot-v1")
LANES = (64, 2048)
STEPS, REPEATS = 64, 15


def measured(name: str, lanes: int) -> dict[str, float]:
    """Microseconds a step, eager and compiled, and seconds of the first compiled steps."""
    torch.set_num_threads(1)
    env = TENSOR[name](lanes=lanes)
    env.reset(0)
    carry = env._carry()
    random = [Randomness(*env.draw()) for _ in range(STEPS)]
    discrete = env.actions.shape == ()
    action = torch.zeros(lanes, dtype=torch.long) if discrete else torch.zeros(lanes, 1)
    compiled = torch.compile(env.advance, fullgraph=True, dynamic=False)

    def seconds(function: object) -> float:
        at: Carry = carry
        started = time.perf_counter()
        for each in random:
            at, _ = function(at, action, each)  # type: ignore[operator]
        return time.perf_counter() - started

    with torch.no_grad():
        first = seconds(compiled)
        seconds(env.advance)
        pairs = [(seconds(env.advance), seconds(compiled)) for _ in range(REPEATS)]
    eager, fast = (statistics.median(each) / STEPS * 1e6 for each in zip(*pairs, strict=True))
    return {"eager_us": round(eager, 1), "compiled_us": round(fast, 1), "first_s": round(first, 2)}


def row(name: str, lanes: int) -> dict[str, object]:
    """A process with an empty cache, then one that meets the cache of the first."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        cold, warm = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--child", name, str(lanes)],
                    env=os.environ | settings, check=True, capture_output=True, text=True,
                ).stdout
            )
            for _ in range(2)
        )  # fmt: skip
    gain = (warm["eager_us"] - warm["compiled_us"]) / 1e6
    pays = {"cold": cold["first_s"], "warm": warm["first_s"]}
    return {
        "environment": name, "lanes": lanes, **warm, "first_s": cold["first_s"],
        "first_with_cache_s": warm["first_s"],
        "pays_after_steps": {
            cache: round(first / gain) * lanes if gain > 0 else None
            for cache, first in pays.items()
        },
    }  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--child", nargs=2, metavar=("ENV", "LANES"))
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(given.child[0], int(given.child[1]))))
        return
    information = machine()
    rows = []
    for name in ENVIRONMENTS:
        for lanes in LANES:
            rows.append(row(name, lanes))
            print(rows[-1], flush=True)
    result = {
        "command": "python benchmarks/compiled.py", "machine": information,
        "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    target = RESULTS / file_of("compiled", information["processor"])
    target.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
