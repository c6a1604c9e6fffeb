"""The command line: `vantage train | audit | exact | evaluate | estimators | transcripts`.

Each command calls the public API; `main` turns bad input into one line and a failure.
"""

import re
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from vantage import estimators as table
from vantage.auditing.audit import audit as measure
from vantage.auditing.units import plan_units
from vantage.comparing.cli import compare_command
from vantage.environments import Environment, Gymnasium, Tabular
from vantage.errors import InputError, refuse_unless
from vantage.exact import console as exact_console
from vantage.language import cli as language
from vantage.mdp import MDP
from vantage.policies import Policy, Value
from vantage.report import estimator_table
from vantage.training import load
from vantage.training.cli import evaluate, train

# Piped output has no terminal's width to fit: tables keep every digit.
WIDTH = None if sys.stdout.isatty() else 140
console = Console(highlight=False, soft_wrap=True, width=WIDTH)


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
                "compare": compare_command,
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
