"""The command line: `vantage train | audit | exact | evaluate | estimators | transcripts`.

Each command calls the public API; `main` turns bad input into one line and a failure.
"""

import json as json_format
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from vantage import estimators as table
from vantage.auditing.audit import audit as measure
from vantage.auditing.units import plan_units
from vantage.environments import Environment, Gymnasium, Tabular
from vantage.errors import InputError, refuse_unless
from vantage.exact import console as exact_console
from vantage.language import cli as language
from vantage.mdp import MDP
from vantage.policies import Policy, Value
from vantage.report import estimator_table
from vantage.report.console import WINDOW, windowed_snr
from vantage.training import evaluate as evaluate_policy
from vantage.training import load
from vantage.training import train as train_policy

# Piped output has no terminal's width to fit: tables keep every digit.
WIDTH = None if sys.stdout.isatty() else 140
console = Console(highlight=False, soft_wrap=True, width=WIDTH)


def train(
    env: Positional[str],
    estimator: str = "reinforce_baseline",
    steps: int | None = None,
    updates: int | None = None,
    batch: int | Literal["auto"] = 64,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lanes: int = 64,
    discount: float = 0.99,
    hidden: tuple[int, ...] = (64, 64),
    value: bool | None = None,
    lr: float = 1e-2,
    value_lr: float = 1e-2,
    max_grad_norm: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    threads: int = 1,
    dry_run: bool = False,
) -> None:
    """Train a policy on a Gymnasium environment.

    For a language model: `vantage train lm --help`; for a tiny one, from nothing, on one core:
    `vantage train addition --help` (also copy, reverse, sort_letters).

    Args:
        env: a Gymnasium id, such as CartPole-v1.
        estimator: a row of the table that `vantage estimators` prints.
        steps: environment steps to use; 300,000 where neither steps nor updates is given.
        updates: updates to make.
        batch: whole episodes per update; "auto" holds a signal-to-noise ratio.
        target_snr: the ratio that --batch auto holds.
        baseline: "auto" takes the unbiased baseline of least measured variance at every update.
        group_size: episodes compared with one another, by estimators that need groups.
        lanes: copies of the environment that run side by side.
        discount: γ of the objective, in (0, 1].
        hidden: widths of the hidden layers of policy and value function.
        value: with a learned value function; by default when the estimator needs one. With it, an
            episode cut by a time limit is continued by its value.
        lr: learning rate of the policy (Adam).
        value_lr: learning rate of the value function (Adam).
        max_grad_norm: longest gradient let through to the optimiser.
        seed: of everything random.
        out: run folder; runs/ENV-ESTIMATOR-SEED by default.
        resume: carry on the run in that folder.
        threads: torch threads; small networks want one.
        dry_run: print the settings and the batch arithmetic, and stop.
    """
    rule = table.named(estimator)
    world = Gymnasium(env, lanes=lanes, discount=discount)
    folder = out or Path("runs") / f"{env.replace('/', '-')}-{estimator}-{seed}"
    steps = 300_000 if steps is None and updates is None else steps
    with_value = ("value" in rule.needs or baseline == "auto") if value is None else value
    if dry_run:
        console.print(f"{env}: {lanes} lanes, γ = {discount}, estimator {rule.name}")
        console.print_json(json_format.dumps(rule.columns()))
        per_lane = "" if batch == "auto" else f", {batch // lanes} to {-(-batch // lanes)} a lane"
        console.print(
            f"Each update: {batch} whole episodes{per_lane}, one gradient step. "
            f"Until {_goal(steps, updates)}. Written to {folder}."
        )
        return
    try:
        run = train_policy(
            world,
            world.policy(hidden),
            rule,
            value=world.value(hidden) if with_value else None,
            steps=steps,
            updates=updates,
            batch=batch,
            target_snr=target_snr,
            baseline=baseline,
            group_size=group_size,
            lr=lr,
            value_lr=value_lr,
            max_grad_norm=max_grad_norm,
            seed=seed,
            out=folder,
            resume=resume,
            threads=threads,
        )
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        console.print(
            f"Stopped; {folder} is saved. Carry on with:\n  vantage {shlex.join(again)} --resume"
        )
        raise
    last = run.history[-WINDOW:]
    console.print(
        f"{env}, {rule.name}: mean return {run.history[-1]['return']:.1f} after "
        f"{run.history[-1]['steps']:,} steps and {len(run.history)} updates; "
        f"gradient SNR {windowed_snr(last):.2f} over the last {len(last)}.\n"
        f"Run folder: {folder}\nNext: vantage evaluate {folder}"
    )


def _goal(steps: int | None, updates: int | None) -> str:
    goals = [f"{steps:,} steps" if steps else "", f"{updates:,} updates" if updates else ""]
    return " or ".join(goal for goal in goals if goal)


def evaluate(
    run: Positional[Path],
    episodes: int = 100,
    seed: int = 1,
    greedy: bool = False,
    lanes: int | None = None,
) -> None:
    """Evaluate the policy of a run folder: mean return with a 95 % interval.

    Args:
        run: the run folder.
        episodes: how many whole episodes.
        seed: of the environment and the actions; another than the training seed.
        greedy: take the likeliest action instead of sampling.
        lanes: copies of the environment; as in training by default.
    """
    env, policy, _ = load(run, lanes)
    result = evaluate_policy(env, policy, episodes, seed, greedy)
    console.print(f"{env.name}, policy of {run}: {result}")


def audit(
    env: Positional[str],
    policy: Path | None = None,
    estimators: str = "reinforce,reward_to_go,reinforce_baseline,rloo,a2c",
    trajectories: int = 4096,
    batch: int = 64,
    group_size: int = 8,
    lanes: int = 64,
    discount: float | None = None,
    hidden: tuple[int, ...] = (64, 64),
    target_snr: float = 4.0,
    memory: str = "4GB",
    seed: int = 0,
    threads: int = 1,
    json: Path | None = None,
    html: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Measure estimators on an environment: bias, variance, SNR and more, with 95 % intervals.

    Args:
        env: a Gymnasium id. One with a table of transitions (FrozenLake-v1, say) is audited against
            its exact gradient.
        policy: run folder whose policy (and value function) is audited; without it, the policy that
            training would start from.
        estimators: rows of the table, by name, with commas between them.
        trajectories: whole episodes to sample.
        batch: episodes of one gradient step, whose quality is reported.
        group_size: episodes compared with one another, by estimators that need groups.
        lanes: copies of the environment that run side by side.
        discount: γ of the objective; the run's, or 0.99.
        hidden: widths of the hidden layers, where no run is given.
        target_snr: what the plan is made for.
        memory: for unit gradients, such as 500MB or 4GB; larger models are sketched to fit.
        seed: of everything random.
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
        dry_run: print the arithmetic of units and batches, and stop.
    """
    rows = [table.named(name.strip()) for name in estimators.split(",") if name.strip()]
    for target, ending in ((json, ".json"), (html, ".html")):
        refuse_unless(
            target is None or target.suffix == ending,
            f"--{ending[1:]} {target}: end it in {ending}.",
        )
    world, actor, value = _audited(env, policy, lanes, discount, hidden)
    design = plan_units(rows, trajectories, batch, group_size)
    if dry_run:
        for row in rows:
            unit = design.unit(row)
            console.print(
                f"{row.name}: {design.trajectories // unit:,} units of {unit} trajectories "
                f"({design.trajectories:,} in all), batches of {batch}"
            )
        return
    report = measure(
        world,
        actor,
        rows,
        trajectories=trajectories,
        batch=batch,
        seed=seed,
        value=value,
        group_size=group_size,
        target_snr=target_snr,
        memory=_bytes(memory),
        threads=threads,
    )
    console.print(str(report), end="")
    for target in (json, html):
        if target is not None:
            console.print(f"Written: {report.save(target)}")


def _audited(
    env: str, run: Path | None, lanes: int, discount: float | None, hidden: tuple[int, ...]
) -> tuple[Environment, Policy, Value]:
    """The environment, policy and value function to audit."""
    if run is not None:
        trained, policy, value = load(run, lanes)
        refuse_unless(
            trained.name == env, f"{run} was trained on {trained.name}, not {env}; name that."
        )
        refuse_unless(
            discount is None or discount == trained.discount,
            f"{run} was trained with γ = {trained.discount}; leave --discount out.",
        )
        if value is None:
            console.print(
                f"{run} has no value function: estimators with one are audited with an untrained V."
            )
        return trained, policy, value or trained.value(hidden)
    gamma = 0.99 if discount is None else discount
    known = Gymnasium(env, lanes=lanes, discount=gamma)
    world: Environment = known
    if hasattr(known.vector, "envs") and hasattr(known.vector.envs[0].unwrapped, "P"):
        world = Tabular(MDP.from_gymnasium(env, discount=gamma), lanes)
    return world, known.policy(hidden), known.value(hidden)


def _bytes(text: str) -> int:
    """A size such as 500MB or 4GB.

    >>> _bytes("4GB"), _bytes("1.5 MB")
    (4294967296, 1572864)
    """
    found = re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise InputError(f"--memory {text}: give a size such as 500MB or 4GB.")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def exact(
    world: Positional[str],
    discount: float | None = None,
    horizon: int | None = None,
    figure: Path | None = None,
) -> None:
    """Print J, its gradient, variances and best baselines of a tabular problem, without sampling.

    Args:
        world: article, corridor, or a Gymnasium id with a table of transitions.
        discount: γ of an environment; 1 by default.
        horizon: length of an environment's episodes, if it is limited.
        figure: also draw the problem there (PNG, SVG or PDF).
    """
    exact_console.run(world, discount=discount, horizon=horizon, figure=figure, console=console)


def estimators(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None) -> None:
    """Print the table of estimators, or explain one row of it.

    Args:
        name: a row of the table.
    """
    console.print(estimator_table.table() if name is None else estimator_table.explain(name))


def main() -> None:
    """Entry point of the `vantage` command."""
    try:
        if language.dispatch(sys.argv[1:]):
            return
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": train,
                "audit": audit,
                "exact": exact,
                "evaluate": evaluate,
                "estimators": estimators,
                "transcripts": language.transcripts,
            },
            prog="vantage",
            description="Policy gradients you can see.",
        )
    except InputError as error:
        print(f"vantage: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
