"""The command line: `vantage train | evaluate | estimators`. Each command calls the public API."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from vantage import estimators as table
from vantage.environments import Gymnasium
from vantage.errors import InputError
from vantage.report.console import WINDOW, windowed_snr
from vantage.training import evaluate as evaluate_policy
from vantage.training import load
from vantage.training import train as train_policy

console = Console(highlight=False, soft_wrap=True)


def train(
    env: Positional[str],
    estimator: str = "reinforce_baseline",
    steps: int | None = None,
    updates: int | None = None,
    batch: int = 64,
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

    Args:
        env: a Gymnasium id, such as CartPole-v1.
        estimator: a row of the table that `vantage estimators` prints.
        steps: environment steps to use; 300,000 where neither steps nor updates is given.
        updates: updates to make.
        batch: whole episodes per update.
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
    with_value = "value" in rule.needs if value is None else value
    if dry_run:
        console.print(f"{env}: {lanes} lanes, γ = {discount}, estimator {rule.name}")
        console.print_json(json.dumps(rule.columns()))
        console.print(
            f"Each update: {batch} whole episodes, "
            f"{batch // lanes} to {-(-batch // lanes)} a lane, one gradient step. "
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


def estimators(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None) -> None:
    """Print the table of estimators, or explain one row of it.

    Args:
        name: a row of the table.
    """
    console.print(table.table() if name is None else table.explain(name))


def main() -> None:
    """Entry point of the `vantage` command."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"train": train, "evaluate": evaluate, "estimators": estimators},
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
