"""Runs of every kind are killed (SIGKILL), resumed, and compared with the run that never was.

    python benchmarks/reliability.py                    200 kills of every kind, as far as they lack
    python benchmarks/reliability.py --kills 20 --only ppo_tensor
    python benchmarks/reliability.py --minutes 25       as many as that time allows, in turns

A run is begun in a process of its own and killed, resumed and killed again, up to five times, then
let go to its end. Every second kill is sent after a random time; the others fall on a random
operation on files (opening, renaming, removing, making a folder) within the run's own folder, most
of which belong to the writing of a checkpoint: one is written after every update. At the end
metrics.jsonl must hold every update once, with the numbers of the uninterrupted run but for times,
and every file of weights and optimiser states must be the same to the byte.

Results go to benchmarks/results/reliability.json after every run; what is there is added to.
"""

import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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

RESULTS = Path(__file__).parent / "results" / "reliability.json"
TIMES = ("_time", "per_second", "seconds")  # metrics that no two runs share
PRELOADED = (
    "gymnasium.vector", "gymnasium.envs.mujoco", "mujoco", "peft", "transformers", "torch.optim",
    "gymnasium.envs.classic_control", "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2", "vantage.training.loop",
    "vantage.language.training.train", "vantage.language.model.cache", "vantage.comparing.compare",
)  # fmt: skip
MOST = 5  # kills of one run
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
Kind = Callable[[Path, bool], None]
SMALL_PPO = vt.algorithms.ppo(fragment=16, epochs=2, minibatches=2)


def settings(folder: Path, resume: bool) -> dict[str, Any]:
    """What all runs have in common; a checkpoint is written after every update."""
    return {"out": folder, "resume": resume, "checkpoint_seconds": 0, "progress": False}


def whole_episodes(folder: Path, resume: bool) -> None:
    vt.train("tensor/CartPole-v1", "reinforce_baseline", lanes=4, batch=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def batch_auto(folder: Path, resume: bool) -> None:
    vt.train("tensor/CartPole-v1", "rloo", lanes=16, batch="auto", baseline="auto", updates=6,
             **settings(folder, resume))  # fmt: skip


def ppo_tensor(folder: Path, resume: bool) -> None:
    vt.train("tensor/CartPole-v1", SMALL_PPO, lanes=8, updates=6,
             **settings(folder, resume))  # fmt: skip


def ppo_gymnasium(folder: Path, resume: bool) -> None:
    vt.train("CartPole-v1", SMALL_PPO, lanes=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def tabular(folder: Path, resume: bool) -> None:
    env = vt.Tabular(vt.MDP.short_corridor(), lanes=8)
    vt.train(env, env.policy(), "reward_to_go", batch=8, updates=6, **settings(folder, resume))


def mujoco_normalised(folder: Path, resume: bool) -> None:
    vt.train("InvertedPendulum-v5", SMALL_PPO, lanes=2, normalise=True,
             updates=6, **settings(folder, resume))  # fmt: skip


def gru(folder: Path, resume: bool) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy, value = env.policy(seed=1, recurrent=8), env.value(seed=2, recurrent=8)
    rule = SMALL_PPO
    vt.train(env, policy, rule, value=value, updates=6, **settings(folder, resume))


def v_trace_with_delay(folder: Path, resume: bool) -> None:
    vt.train("tensor/CartPole-v1", vt.algorithms.impala(fragment=16, delay=2), lanes=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def ppg(folder: Path, resume: bool) -> None:
    """A policy phase of four updates: most kills fall in the middle of one."""
    rule = vt.algorithms.ppg(fragment=16, phase=4, minibatches=2, auxiliary_epochs=2)
    vt.train("tensor/CartPole-v1", rule, lanes=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def kronecker(folder: Path, resume: bool) -> None:
    """The running averages of factors, and the last moves."""
    vt.train("tensor/CartPole-v1", vt.algorithms.acktr(fragment=16), lanes=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def acer(folder: Path, resume: bool) -> None:
    """With batches of a memory that is full from the fourth update on."""
    rule = vt.algorithms.acer(fragment=16, begin=64, capacity=192)
    vt.train("tensor/CartPole-v1", rule, lanes=4, updates=6,
             **settings(folder, resume))  # fmt: skip


def evaluated(folder: Path, resume: bool) -> None:
    """With evaluations, the best and the last checkpoints, and a callback."""
    vt.train("tensor/CartPole-v1", SMALL_PPO, lanes=4, updates=6,
             evaluate_every=2, evaluation_episodes=2, keep_best=True, keep_last=2,
             callbacks=[norm], **settings(folder, resume))  # fmt: skip


def norm(state: Any, row: dict[str, Any]) -> dict[str, float]:
    """A callback."""
    return {"norm": sum(float(p.detach().norm()) for p in state.policy.parameters())}


def language_model(folder: Path, resume: bool, **more: Any) -> None:
    policy = tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2)
    _language(folder, resume, policy, **more)


def lora(folder: Path, resume: bool) -> None:
    plain = tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2)
    adapted = language.Policy(plain.model, plain.tokenizer, max_completion_length=2, lora=2)
    _language(folder, resume, adapted, estimator=vt.estimators.rloo(beta=0.1))


def several_epochs(folder: Path, resume: bool) -> None:
    language_model(folder, resume, epochs=2, minibatches=2, estimator=vt.estimators.dr_grpo())


def turns(folder: Path, resume: bool) -> None:
    language_model(folder, resume, environment=again, turns=2)


def again(said: str, turn: int, row: dict[str, Any]) -> str | None:
    """An environment that asks once more."""
    return f"{len(said)}=" if turn == 0 else None


def _language(folder: Path, resume: bool, policy: Any, **more: Any) -> None:
    task = tiny_tasks.addition(digits=1, num_generations=2)
    estimator = more.pop("estimator", vt.estimators.rloo())
    language.train(task, policy, estimator, batch=8, updates=6, lr=1e-3,
                   **settings(folder, resume), **more)  # fmt: skip


def compare(folder: Path, resume: bool) -> None:
    """A comparison is asked for again as it was; one that was killed ends its workers first."""
    for _ in range(100):
        try:
            vt.compare("CartPole-v1", ["reinforce", "rloo"], 2, out=folder, steps=200, batch=8,
                       lanes=4, hidden=(8,), evaluation_episodes=2, workers=1,
                       progress=False)  # fmt: skip
            return
        except vt.InputError as error:
            if "under way" not in str(error) and "in use" not in str(error):
                raise
            time.sleep(0.2)


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        whole_episodes, ppo_tensor, ppo_gymnasium, tabular, mujoco_normalised, gru,
        v_trace_with_delay, ppg, acer, kronecker, batch_auto, evaluated, language_model, lora,
        several_epochs, turns, compare,
    )
}  # fmt: skip


# ---- kills -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """The uninterrupted run: how long it took, how often it touched files, and what it left."""

    seconds: float
    events: int
    trace: dict[str, Any]


def start(kind: Kind, folder: Path, dies_at: int | None = None, counts: Path | None = None) -> int:
    """Begin or resume a run in a process of its own; returns its number.

    Args:
        dies_at: the operation on files in the folder before which the process kills itself.
        counts: where it writes how many there were.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        number = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal number
            if event in EVENTS and str(arguments[0]).startswith(str(folder)):
                number += 1
                if number == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        kind(folder, (folder / "config.json").exists())
        if counts is not None:
            counts.write_text(str(number))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def trace_of(folder: Path) -> dict[str, Any]:
    """What must be the same: metrics but for times, and all weights and states."""
    trace: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if ".old/" in name or ".new" in name:
            continue
        if file.suffix == ".safetensors":
            trace[name] = file.read_bytes()
        elif file.name == "metrics.jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            trace[name] = [{k: v for k, v in row.items() if not timed(k)} for row in rows]
        elif file.name == "result.json":
            plain = json.loads(file.read_text())
            trace[name] = {k: v for k, v in plain.items() if not timed(k)}
    return trace


def timed(name: str) -> bool:
    return any(part in name for part in TIMES)


def measured(kind: Kind, folder: Path) -> Measure:
    """Make the uninterrupted run.

    Raises:
        SystemExit: it fails.
    """
    counts = folder.with_name("events")
    started = time.monotonic()
    _, status = os.waitpid(start(kind, folder, counts=counts), 0)
    if status:
        raise SystemExit(f"{kind.__name__} fails without a kill.")
    return Measure(time.monotonic() - started, int(counts.read_text()), trace_of(folder))


def tried(kind: Kind, folder: Path, whole: Measure, draws: random.Random) -> dict[str, Any]:
    """One run, killed up to five times; how often it was, and what differs at its end."""
    by_time = by_file = 0
    for attempt in range(MOST + 1):
        last, aimed = attempt == MOST, draws.random() < 0.5
        left = max(1, whole.events // (attempt + 1))
        process = start(kind, folder, draws.randint(1, left) if aimed and not last else None)
        if not aimed and not last:
            ended = _sleep(process, draws.uniform(0, whole.seconds / (attempt + 1)))
            if ended is None:
                os.kill(process, signal.SIGKILL)
        else:
            ended = None
        status = os.waitpid(process, 0)[1] if ended is None else ended
        if status == 0:
            break
        if not os.WIFSIGNALED(status):
            return {"by_time": by_time, "by_file": by_file, "differs": ["a resumed run failed"]}
        by_time, by_file = by_time + (not aimed), by_file + aimed
    trace = trace_of(folder)
    names = trace.keys() | whole.trace.keys()
    differs = [name for name in sorted(names) if trace.get(name) != whole.trace.get(name)]
    return {"by_time": by_time, "by_file": by_file, "differs": differs}


def _sleep(process: int, seconds: float) -> int | None:
    """Wait; the status of a process that ended meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return status
        time.sleep(0.002)
    return None


def preload() -> None:
    """Import what runs need, once and not in every process."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in PRELOADED:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)


def main(
    kills: int = 200,
    minutes: float = float("inf"),
    only: tuple[str, ...] = (),
    results: Path = RESULTS,
) -> None:
    """Kill runs of every kind and write what came of it.

    Args:
        kills: of every kind, those counted that are in the results.
        minutes: after which to stop.
        only: kinds; all by default.
        results: a JSON file; what is there is added to.
    """
    preload()
    until = time.monotonic() + 60 * minutes
    held = json.loads(results.read_text()) if results.exists() else {"kinds": {}}
    wholes: dict[str, Measure] = {}
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: Path(scratch) / name for name in only or KINDS}
        waiting = list(places)
        while waiting and time.monotonic() < until:
            name = waiting.pop(0)
            row = held["kinds"].setdefault(
                name, {"kills": 0, "by_time": 0, "by_file": 0, "runs": 0, "equal": 0, "differ": []}
            )
            if row["kills"] >= kills:
                continue
            if name not in wholes:
                wholes[name] = measured(KINDS[name], places[name])
            draws = random.Random(f"{name} {row['runs']}")
            folder = places[name].with_name(f"{name}-{row['runs']}")
            found = tried(KINDS[name], folder, wholes[name], draws)
            row["by_time"] += found["by_time"]
            row["by_file"] += found["by_file"]
            row["kills"] = row["by_time"] + row["by_file"]
            row["runs"] += 1
            row["equal"] += not found["differs"]
            row["differ"] += found["differs"]
            waiting.append(name)
            write(results, held)
            print(f"{name}: {row['kills']} kills, {row['equal']} of {row['runs']} runs equal",
                  flush=True)  # fmt: skip


def write(results: Path, held: dict[str, Any]) -> None:
    """Results, with what they depend on."""
    rows = held["kinds"].values()
    total = {name: sum(row[name] for row in rows) for name in ("kills", "runs", "equal")}
    plain = {
        "command": "python benchmarks/reliability.py",
        "processor": processor(),
        "torch": torch.__version__,
        **total,
        "kinds": held["kinds"],
    }
    results.parent.mkdir(exist_ok=True)
    new = results.with_name(results.name + ".new")
    new.write_text(json.dumps(plain, indent=1) + "\n")
    new.replace(results)


if __name__ == "__main__":
    tyro.cli(main)
