"""Runs the settings of `vantage/training/tuned.json` and writes down what comes out.

    python benchmarks/tuned.py run CartPole-v1 Pendulum-v1 --seeds 3
    python benchmarks/tuned.py ship

`run` trains each environment with its row, evaluates the last policy, and adds a record to
results/tuned.json; a seed that is there already, of the same settings, is not run again. `ship`
copies the returns of training into the package's file, from where `vantage algorithms tuned` shows
them. Runs of the same settings that `benchmarks/learning.py` made count too: LEARNING names them.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import vantage as vt
from vantage.training.tuned import Row, rows

RESULTS = Path(__file__).parent / "results" / "tuned.json"
LEARNED = RESULTS.with_name("learning.json")
# of config.json, what a run depends on
ASKED = ("environment", "estimator", "update", "fragment", "lr", "schedule", "steps")
# columns that records lack, with what they were then
YOUNGER = {"importance": "none", "selection": "none", "restraint": "–"}
# settings of algorithms that records lack, with what they were then
SINCE = {"trpo": {"every_action": False}}
SHIPPED = Path(vt.__file__).parent / "training" / "tuned.json"
LEARNING = {
    "LunarLander-v3": "lunarlander_ppo",
    "HalfCheetah-v5": "halfcheetah_ppo",
    "Swimmer-v5": "swimmer_ppo",
}
EPISODES = 100


def settings_of(row: Row) -> dict[str, Any]:
    """What a run depends on."""
    apart = ("returns", "env", "source")
    return {name: each for name, each in asdict(row).items() if name not in apart}


def measured(row: Row, seed: int) -> dict[str, Any]:
    """Train once and evaluate the last policy, with and without noise."""
    started = time.time()
    run = vt.train(row.env, row.build(), seed=seed, progress=False)
    seconds = time.time() - started
    sampled = vt.evaluate(run.env, run.policy, EPISODES, seed=1_000 + seed)
    greedy = vt.evaluate(run.env, run.policy, EPISODES, seed=1_000 + seed, greedy=True)
    return {
        "seed": seed,
        "return": round(sampled.mean, 3),
        "interval": [round(sampled.low, 3), round(sampled.high, 3)],
        "greedy": round(greedy.mean, 3),
        "training": run.history[-1]["return_100"],
        "steps": run.history[-1]["steps"],
        "seconds": round(seconds, 1),
        "settings": settings_of(row),
    }


def run(names: list[str], seeds: int) -> None:
    """Runs that are missing, one after another; each is written as soon as it ends."""
    for name in names:
        row = rows()[name]
        for seed in range(seeds):
            results = _read()
            same = _same(results, row)
            if any(each["seed"] == seed for each in same):
                continue
            record = measured(row, seed)
            results["runs"][name] = [*same, record]
            _write(RESULTS, results)
            print(
                name, {key: each for key, each in record.items() if key != "settings"}, flush=True
            )


def ship() -> None:
    """Write the returns into the package; rows that were not run are named."""
    table = json.loads(SHIPPED.read_text("utf-8"))
    for name, content in table.items():
        content["returns"] = returns_of(rows()[name])
        if not content["returns"]:
            print(f"{name}: not run with these settings")
    _write(SHIPPED, table)


def returns_of(row: Row) -> list[float]:
    """Returns of the runs with a row's settings, by seed."""
    done = {each["seed"]: each["training"] for each in _same(_read(), row)}
    if row.env in LEARNING:
        held = json.loads(LEARNED.read_text("utf-8"))["runs"]
        for each in held:
            if each["case"] == LEARNING[row.env] and as_asked(row, each["settings"]):
                done[each["seed"]] = each["return"]
    return [round(done[seed], 2) for seed in sorted(done)]


def as_asked(row: Row, settings: dict[str, Any]) -> bool:
    """Whether a recorded run has all the settings of a row."""
    config = vt.train(row.env, row.build(), dry_run=True, progress=False).config
    asked = json.loads(json.dumps({name: config[name] for name in ASKED}))
    recorded = settings | {"estimator": YOUNGER | settings["estimator"]}
    return not row.network and all(recorded[name] == asked[name] for name in ASKED)


def _same(results: dict[str, Any], row: Row) -> list[dict[str, Any]]:
    done = results["runs"].get(row.env, [])
    return [each for each in done if _whole(each["settings"]) == settings_of(row)]


def _whole(recorded: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record, those that are younger among them."""
    since = SINCE.get(recorded["algorithm"], {})
    return recorded | {"settings": since | recorded["settings"]}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, one thread" if models else platform.machine()


def _read() -> dict[str, Any]:
    if RESULTS.exists():
        return json.loads(RESULTS.read_text("utf-8"))
    return {
        "command": "python benchmarks/tuned.py run ENV --seeds 3 (MuJoCo, BipedalWalker: 1)",
        "episodes": EPISODES,
        "processor": _processor(),
        "versions": {"vantage": vt.__version__, "torch": torch.__version__},
        "runs": {},
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("env", nargs="+")
    running.add_argument("--seeds", type=int, default=1)
    commands.add_parser("ship")
    given = parser.parse_args()
    if given.command == "run":
        run(given.env, given.seeds)
    else:
        ship()


if __name__ == "__main__":
    main()
