"""What is learned: the returns that training reaches on standard tasks, with seeds and intervals.

    python benchmarks/learning.py                       every case that has no result yet
    python benchmarks/learning.py --only cartpole_ppo   one case
    python benchmarks/learning.py --table               what there is so far, as Markdown

Each case trains `seeds` runs with stated settings. The figure is the mean return of the last 100
training episodes (actions sampled), the mean over seeds with a 95 % interval (Student's t over
seeds). Results go to benchmarks/results/learning.json, one run at a time; a run that is there is
not made again.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machines import processor

import vantage as vt
from vantage.statistics.intervals import mean_interval

RESULTS = Path(__file__).parent / "results" / "learning.json"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A task, how it is trained, and the return it is to reach.

    Attributes:
        env: as `vantage.make` knows it.
        steps: environment steps of a run.
        goal: what the mean over seeds is to reach.
        algorithm: what trains.
        make: keyword arguments of `vantage.make`.
        policy: keyword arguments of `env.policy`.
    """

    env: str
    steps: int
    goal: float
    algorithm: Callable[[], vt.Algorithm]
    make: Settings
    policy: Settings = field(default_factory=dict)
    seeds: int = 3
    value: bool = True


def _reinforce_baseline() -> vt.Algorithm:
    row = vt.estimators.reinforce_baseline()
    return vt.Algorithm(row, vt.updates.Ascent(lr=1e-2), batch=64)


def _table(entropy: float) -> vt.Algorithm:
    """Natural gradient on a softmax table, whose Fisher information is small: little damping."""
    natural = vt.algorithms.natural(
        fragment=128,
        max_kl=0.02,
        damping=1e-3,
        every_action=False,  # as the results were made
    )
    assert isinstance(natural.update, vt.updates.Natural)
    plain = natural.estimator.replace(scale=vt.scales.none, entropy=entropy)
    fit = vt.updates.Fit(lr=0.3, epochs=5, minibatch=1 << 30)
    return natural.replace(estimator=plain, update=replace(natural.update, iterations=30, fit=fit))


CASES = {
    "cartpole_ppo": Case(
        "CartPole-v1", 500_000, 490,
        lambda: vt.algorithms.ppo(
            fragment=32, epochs=20, minibatches=1, lr=1e-3, lambda_=0.8, anneal=True
        ),
        {"lanes": 8, "discount": 0.98}, seeds=5,
    ),
    "cartpole_reinforce_baseline": Case(
        "CartPole-v1", 500_000, 475, _reinforce_baseline, {"lanes": 64}, seeds=5,
    ),
    "acrobot_ppo": Case(
        "Acrobot-v1", 500_000, -86,
        lambda: vt.algorithms.ppo(
            fragment=256, epochs=4, minibatches=64, lr=3e-4, lambda_=0.94, anneal=False
        ),
        {"lanes": 16, "normalise": True}, seeds=5,
    ),
    "pendulum_ppo": Case(
        "Pendulum-v1", 500_000, -250,
        lambda: vt.algorithms.ppo(fragment=1024, epochs=10, minibatches=64, lr=1e-3, anneal=False),
        {"lanes": 4, "discount": 0.9}, seeds=5,
    ),
    "lunarlander_ppo": Case(
        "LunarLander-v3", 1_000_000, 200,
        lambda: vt.algorithms.ppo(
            fragment=1024, epochs=4, minibatches=256, lr=3e-4, lambda_=0.98, entropy=0.01,
            anneal=False,
        ),
        {"lanes": 16, "discount": 0.999},
    ),
    "halfcheetah_ppo": Case(
        "HalfCheetah-v5", 1_000_000, 1500, vt.algorithms.ppo_continuous,
        {"lanes": 1, "normalise": True},
    ),
    "halfcheetah_vpg": Case(
        "HalfCheetah-v5", 3_000_000, 624, vt.algorithms.vpg, {"lanes": 1, "normalise": True},
        policy={"log_std": -0.5},
    ),
    "swimmer_ppo": Case(
        "Swimmer-v5", 1_000_000, 100,
        lambda: vt.algorithms.ppo_continuous(lambda_=0.98),
        {"lanes": 1, "discount": 0.9999, "normalise": True},
    ),
}  # fmt: skip
# Tasks with a table of transitions: id, γ, horizon, and coefficients of the entropy bonus, one
# after another, 60 updates each. The goal is within 2 % of the optimum.
TABLES = {
    "frozenlake": ("FrozenLake-v1", 0.99, 100, (0.01, 0.003, 0.003, 0.0)),
    "cliffwalking": ("CliffWalking-v1", 1.0, 200, (1.0, 1.0, 0.5, 0.5, 0.2, 0.0)),
}


def main(
    only: tuple[str, ...] = (),
    seeds: int | None = None,
    table: bool = False,
    scale: float = 1.0,
    results: Path = RESULTS,
) -> None:
    """Run the cases that have no result yet.

    Args:
        only: names of cases; all of them by default.
        seeds: runs of each, instead of its own number.
        table: print what there is and stop.
        scale: shorten every run by this factor, to see that it works; give --results too.
        results: where they are kept.
    """
    torch.set_num_threads(1)
    held = json.loads(results.read_text()) if results.exists() else {"runs": []}
    if table:
        print(markdown(held))
        return
    for name in only or (*CASES, *TABLES):
        count = seeds or (CASES[name].seeds if name in CASES else 3)
        for seed in range(count):
            if any(r["case"] == name and r["seed"] == seed for r in held["runs"]):
                continue
            run = _case(name, seed, scale) if name in CASES else _tabular(name, seed)
            held = json.loads(results.read_text()) if results.exists() else {"runs": []}
            held["runs"].append(run)
            held |= {"command": "python benchmarks/learning.py", "machine": _machine()}
            results.parent.mkdir(exist_ok=True)
            results.write_text(json.dumps(held, indent=1) + "\n")
            print(f"{name}, seed {seed}: {run['return']:.1f} in {run['seconds']:.0f} s", flush=True)
    print(markdown(held))


def _case(name: str, seed: int, scale: float = 1.0) -> dict[str, Any]:
    case = CASES[name]
    env = vt.make(case.env, **case.make)
    started, cpu = time.perf_counter(), time.process_time()
    run = vt.train(
        env,
        env.policy(seed=seed, **case.policy),
        case.algorithm(),
        value=env.value(seed=1000 + seed),
        steps=int(case.steps * scale),
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    last = run.history[-1]
    return {
        "case": name,
        "env": case.env,
        "seed": seed,
        "goal": case.goal,
        "steps": last["steps"],
        "return": last["return_100"],
        "best_return_100": max(r["return_100"] for r in run.history if r["return_100"] is not None),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "settings": _plain(run.config),
    }


def _tabular(name: str, seed: int) -> dict[str, Any]:
    """Train a softmax table by sampling; its exact J beside the exact optimum."""
    env_id, discount, horizon, bonuses = TABLES[name]
    mdp = vt.MDP.from_gymnasium(env_id, discount=discount, horizon=horizon)
    env = vt.Tabular(mdp, lanes=64)
    policy, value = env.policy(), env.value()
    started, cpu = time.perf_counter(), time.process_time()
    steps = 0
    for stage, entropy in enumerate(bonuses):
        run = vt.train(
            env,
            policy,
            _table(entropy),
            value=value,
            updates=60,
            seed=1000 * seed + stage,
            progress=False,
        )
        steps += run.history[-1]["steps"]
    best = optimum(mdp)
    return {
        "case": name,
        "env": env_id,
        "seed": seed,
        "goal": best - 0.02 * abs(best),
        "optimum": best,
        "steps": steps,
        "return": float(vt.exact.objective(mdp, policy).detach()),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "settings": _plain(run.config) | {"entropy bonuses": bonuses},
    }


def optimum(mdp: vt.MDP) -> float:
    """The best J of any policy, even of one that sees the clock, by backward induction.

    No softmax policy over states alone can come to more.
    """
    assert mdp.horizon is not None
    edges = mdp.edges
    value = torch.zeros(mdp.states, dtype=torch.float64)
    pair = edges.state * mdp.actions + edges.action
    for _ in range(mdp.horizon):
        ahead = torch.where(mdp.terminal[edges.next], 0.0, value[edges.next])
        worth = edges.probability * (edges.reward + mdp.discount * ahead)
        q = torch.zeros(mdp.states * mdp.actions, dtype=torch.float64).index_add(0, pair, worth)
        value = torch.where(mdp.terminal, 0.0, q.view(mdp.states, mdp.actions).amax(1))
    return float(mdp.initial @ value)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in ("versions", "policy", "value")}


def _machine() -> dict[str, Any]:
    return {"processor": processor(), "torch": torch.__version__}


def markdown(held: dict[str, Any]) -> str:
    """One row a case: the mean over seeds with its interval."""
    lines = [
        "| case | environment | steps | seeds | return | 95 % interval | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (*CASES, *TABLES):
        runs = [r for r in held["runs"] if r["case"] == name]
        if not runs:
            continue
        returns = np.array([r["return"] for r in runs])
        digits = 3 if name == "frozenlake" else 1
        interval = "–"
        if len(runs) > 1:
            mean = mean_interval(returns.tolist())
            interval = f"{mean.low:.{digits}f} to {mean.high:.{digits}f}"
        lines.append(
            f"| {name} | {runs[0]['env']} | {runs[0]['steps']:,} | {len(runs)} | "
            f"{returns.mean():.{digits}f} | {interval} | "
            f"{np.median([r['seconds'] for r in runs]):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
