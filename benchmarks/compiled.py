"""What `vt.train(..., compile=True)` brings, and after how many steps it has paid for itself.

    python benchmarks/compiled.py

Each row is two processes, the first with an empty cache, as on a machine where nothing has been
compiled, and the second with the cache that it left.
A process trains with and without the option in turn, by PPO with one epoch of one minibatch, so
that most of an update is collection: microseconds of a step of all lanes, learning included, are
medians over all updates of the runs but their first. All times are processor time, of this process
and of the compiler, for other work wanders less in it; seconds on the clock until the first update
is done stand beside. Results are written to results/compiled.<processor>.json, with the steps after
which compilation has paid for itself, or None where a compiled step is no faster.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machines import file_of, machine

import vantage as vt

RESULTS = Path(__file__).parent / "results"
ENVIRONMENTS = ("tensor/Acrobot-v1", "tensor/CartPole-v1")
LANES = (1, 64, 2048)
FRAGMENT, UPDATES, REPEATS = 32, 6, 4


def processor_time() -> float:
    """Seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def updates(name: str, lanes: int, compile: bool) -> list[float]:
    """Seconds of processor time of every update of a run."""
    algorithm = vt.algorithms.ppo(fragment=FRAGMENT, epochs=1, minibatches=1)
    at = []
    vt.train(
        name, algorithm, lanes=lanes, updates=UPDATES, compile=compile, signal_every=None,
        callbacks=[lambda state, row: at.append(processor_time())], progress=False,
    )  # fmt: skip
    return [later - earlier for earlier, later in itertools.pairwise(at)]


def measured(name: str, lanes: int) -> dict[str, float]:
    """Microseconds a step, with and without, and seconds that a first run takes longer."""
    updates(name, lanes, compile=False)
    started = time.perf_counter(), processor_time()
    updates(name, lanes, compile=True)
    first, used = time.perf_counter() - started[0], processor_time() - started[1]
    plain: list[float] = []
    fast: list[float] = []
    for _ in range(REPEATS):
        plain += updates(name, lanes, compile=False)
        fast += updates(name, lanes, compile=True)
    step, compiled = (statistics.median(each) / FRAGMENT for each in (plain, fast))
    learning = UPDATES * FRAGMENT * compiled  # of the first run, which is not compilation
    return {
        "step_us": round(step * 1e6, 1), "compiled_us": round(compiled * 1e6, 1),
        "first_s": round(used - learning, 2), "first_on_the_clock_s": round(first - learning, 2),
    }  # fmt: skip


def row(name: str, lanes: int) -> dict[str, object]:
    """A process with an empty cache, then one that meets the cache of the first."""
    with tempfile.TemporaryDirectory() as cache:
        # torch keeps compiled headers among the temporary files
        settings = {"TORCHINDUCTOR_CACHE_DIR": cache, "TMPDIR": cache, "OMP_NUM_THREADS": "1"}
        cold, warm = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--child", name, str(lanes)],
                    env=os.environ | settings, check=True, capture_output=True, text=True,
                ).stdout
            )
            for _ in range(2)
        )  # fmt: skip
    gain = statistics.mean(each["step_us"] - each["compiled_us"] for each in (cold, warm)) / 1e6
    return {
        "environment": name, "lanes": lanes, "empty_cache": cold, "cache": warm,
        "pays_after_steps": {
            which: round(each["first_s"] / gain) * lanes if gain > 0 else None
            for which, each in (("empty_cache", cold), ("cache", warm))
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
    torch.set_num_threads(1)
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
