"""Training for control, side by side with its peers: one thread each, in turn, one command.

Run: python benchmarks/control.py --peer sb3=/path/to/python --peer sbx=... --peer tianshou=...
         --peer torchrl=... --peer rejax=...

Every peer has an interpreter of its own, with its package and gymnasium[mujoco] installed; one
that is not given is left out, and the table says so. Parts: `check`, do we and SB3 compute the same
loss, gradient and advantages; `speed`, environment steps a second end to end, and rollouts alone;
`solve` (also `time-to-475`), seconds from process start to a mean return of 475 on CartPole-v1;
`gpu`. By default the first three. `markdown` prints the tables of every machine.

Each measurement is one process of one trainer: start, import, warm-up, timed updates. Rounds take
all trainers in turn, so that a machine that slows down slows all of them; ratios are taken
within a round, and the median over rounds is shown with the least and the greatest. Results, in
results/control.<processor>.json, are written after every measurement; --resume goes on where a run
was interrupted.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from control_check import check
from control_tables import cells, markdown
from control_work import GPU, SOLVE, TRAINERS, WORKS, Trainer, asked, asked_to_solve
from machines import file_of, machine, processor
from rich.console import Console
from rich.table import Table

import vantage as vt

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PARTS = ("check", "speed", "solve", "gpu")
LIMIT = 900.0  # seconds of one measurement
SOLVE_LIMIT = 120.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "PYTHONWARNINGS": "ignore",
}
PACKAGES = {
    "sb3": ("stable-baselines3", "torch"),
    "sbx": ("sbx-rl", "jax"),
    "tianshou": ("tianshou", "torch"),
    "torchrl": ("torchrl", "tensordict", "torch"),
    "rejax": ("rejax", "gymnax", "jax"),
}


def measure(
    trainer: Trainer,
    settings: dict[str, Any],
    peers: dict[str, str],
    core: str | None,
    limit: float,
) -> dict[str, Any]:
    """Start a trainer's script in a process of its own; what it said, or why it said nothing."""
    python = sys.executable if trainer.peer is None else peers.get(trainer.peer)
    if python is None:
        return {"error": f"no interpreter was given (--peer {trainer.peer}=...)"}
    pinned = ["taskset", "-c", core] if core is not None else []
    environment = os.environ | ONE_THREAD
    cache = Path(tempfile.gettempdir()) / f"vantage-control-{trainer.peer or 'ours'}"
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # a cache shared with others may be broken
    told = json.dumps({"started": time.time(), **settings})
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo leaves a log where it runs
        try:
            done = subprocess.run(
                [*pinned, python, str(HERE.resolve() / trainer.script), told],
                capture_output=True,
                text=True,
                env=environment,
                cwd=folder,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {limit:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        return dict(json.loads(lines[-1]))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"error": f"failed: {last[:200]}"}


def versions(peers: dict[str, str]) -> dict[str, dict[str, str]]:
    """Of every peer's packages."""
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    )
    found = {}
    for peer, python in peers.items():
        names = (*PACKAGES[peer], "gymnasium", "numpy")
        done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True)
        found[peer] = (
            json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-200:]}
        )
    return found


class Record:
    """The results, written after every measurement."""

    def __init__(self, path: Path, command: str, peers: dict[str, str], resume: bool):
        self.path = path
        old = json.loads(path.read_text()) if resume and path.exists() else {}
        self.data: dict[str, Any] = {
            "command": " && ".join(filter(None, [old.get("command"), command])),
            "machine": machine(),
            "vantage": vt.__version__,
            "torch": torch.__version__,
            "peers": versions(peers),
            **{part: old.get(part, []) for part in PARTS},
        }

    def has(self, part: str, **names: Any) -> bool:
        """Whether a measurement with these names is there, without an error."""
        return any(names.items() <= row.items() and "error" not in row for row in self.data[part])

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep a measurement."""
        self.data[part].append(row)
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")
        print(f"{part}: {row}", file=sys.stderr)


def speed(record: Record, start: Any, only: list[str], rounds: int, scale: float) -> None:
    """Every work by every trainer, in turn."""
    for number in range(rounds):
        for name, work in WORKS.items():
            for trainer in work.trainers:
                names = {"work": name, "trainer": trainer, "round": number}
                if not _asked_for(only, name, trainer) or record.has("speed", **names):
                    continue
                found = start(TRAINERS[trainer], asked(work, trainer, number, scale), limit=LIMIT)
                record.add("speed", names | found)


def solve(record: Record, start: Any, only: list[str], seeds: int) -> None:
    """Every trainer to the target, seed by seed."""
    for seed in range(seeds):
        for trainer in SOLVE:
            names = {"trainer": trainer, "seed": seed}
            if not _asked_for(only, "solve", trainer) or record.has("solve", **names):
                continue
            found = start(TRAINERS[trainer], asked_to_solve(trainer, seed), limit=SOLVE_LIMIT)
            record.add("solve", names | found)


def gpu(record: Record, start: Any, rounds: int) -> None:
    """The tensor environment on a GPU."""
    for number in range(rounds):
        found = start(TRAINERS["vantage, GPU"], asked(GPU, "vantage, GPU", number), limit=LIMIT)
        record.add("gpu", {"round": number} | found)


def _asked_for(only: list[str], work: str, trainer: str) -> bool:
    return not only or work in only or trainer in only or f"{work}/{trainer}" in only


def show(record: dict[str, Any]) -> None:
    """The tables on the terminal."""
    console = Console()
    for title, heads, body in cells(record):
        table = Table(*heads, title=title)
        for row in body:
            table.add_row(*row)
        console.print(table)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = [*PARTS, "time-to-475", "markdown"]
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="which parts (see above)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10, help="of `solve`")
    parser.add_argument("--scale", type=float, default=1.0, help="of the updates that are timed")
    parser.add_argument(
        "--only", action="append", default=[], help="a work, a trainer, or work/trainer; repeatable"
    )
    parser.add_argument("--core", help="run everything on this core; by default the last one")
    parser.add_argument("--gpu", action="store_true", help="measure the GPU as well")
    parser.add_argument("--resume", action="store_true", help="keep results that are there")
    parser.add_argument("--out", type=Path, help="by default a file of this processor")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.part == ["markdown"]:
        for path in [given.out] if given.out else sorted(RESULTS.glob("control.*.json")):
            print(markdown(json.loads(path.read_text())))
        return
    given.out = given.out or RESULTS / file_of("control", processor())
    parts = ["solve" if part == "time-to-475" else part for part in given.part]
    parts = (parts or ["check", "speed", "solve"]) + (["gpu"] if given.gpu else [])
    peers = dict(entry.split("=", 1) for entry in given.peer)
    unknown = peers.keys() - PACKAGES.keys()
    if unknown:
        sys.exit(f"--peer {', '.join(unknown)}: known are {', '.join(PACKAGES)}.")
    core = given.core or (str((os.cpu_count() or 1) - 1) if shutil.which("taskset") else None)
    start = partial(measure, peers=peers, core=core)
    # where a peer's interpreter lies is nobody's business but this machine's
    said = [word.split("=")[0] + "=PYTHON" if "=" in word else word for word in sys.argv]
    record = Record(given.out, "python " + shlex.join(said), peers, given.resume)
    if "check" in parts and not record.data["check"]:
        judge = Trainer("peers/check_sb3.py", "sb3")
        for row in check(partial(start, judge, limit=LIMIT)):
            record.add("check", row)
        wrong = [
            row for row in record.data["check"] if row.get("difference", 0) > row.get("allowed", 1)
        ]
        if wrong:
            sys.exit(f"Not the same loss or gradient, so nothing is timed: {wrong}")
    if "speed" in parts:
        speed(record, start, given.only, given.rounds, given.scale)
    if "solve" in parts:
        solve(record, start, given.only, given.seeds)
    if "gpu" in parts:
        gpu(record, start, given.rounds)
    show(record.data)
    print(f"written to {given.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
