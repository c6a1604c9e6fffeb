"""The command `vantage audit ENV`."""

from collections.abc import Callable
from pathlib import Path

from tyro.conf import Positional

from vantage.auditing.audit import audit as measure
from vantage.auditing.sampling import samplings
from vantage.auditing.sizes import size_in_bytes
from vantage.commands.arguments import assignments
from vantage.environments import Environment, Gymnasium, Tabular
from vantage.errors import refuse_unless
from vantage.estimators import table
from vantage.estimators.estimator import Estimator, compares
from vantage.exact.mdp import MDP
from vantage.policies import Policy, Value
from vantage.runs.progress import terminal
from vantage.training import load
from vantage.training.door import estimator_of


def audit(
    env: Positional[str],
    policy: Path | None = None,
    estimators: tuple[str, ...] = (
        "reinforce",
        "reward_to_go",
        "reinforce_baseline",
        "rloo",
        "a2c",
    ),
    trajectories: int = 4096,
    batch: int = 64,
    group_size: int = 8,
    env_set: tuple[str, ...] = (),
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
    trust: bool = False,
) -> None:
    """Measure estimators on an environment: bias, variance, SNR and more, with 95 % intervals.

    Language models have commands of their own: `vantage audit lm --help`, and
    `vantage audit trl --help` for trainers of TRL.

    Args:
        env: a Gymnasium id, or module:Name for one of your own. One with a table of transitions
            (FrozenLake-v1, say) is audited against its exact gradient.
        policy: run folder whose policy (and value function) is audited; without it, the policy that
            training would start from.
        estimators: rows of the table that `vantage estimators` prints, or algorithms.
        trajectories: whole episodes to sample.
        batch: episodes of one gradient step, whose quality is reported.
        group_size: episodes of one start state, which estimators that need groups compare.
        env_set: settings of the environment, NAME=VALUE, where no run is given.
        lanes: copies of the environment that run side by side.
        discount: γ of the objective; the run's, or 0.99.
        hidden: widths of the hidden layers, where no run is given.
        target_snr: what the plan is made for.
        memory: the bound on unit gradients, such as 500MB or 4GB; larger ones are sketched to fit.
        seed: the seed of all random numbers.
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
        dry_run: print the arithmetic of units and batches, and stop.
        trust: let the run folder name modules to import: for runs of your own.
    """
    rows = rows_named(estimators)
    check_endings(json, html)
    world, actor, value = _audited(env, env_set, policy, lanes, discount, hidden, trust)
    if dry_run:
        for plan in samplings(world, rows, None, trajectories, batch, group_size):
            for row in plan.estimators:
                unit = plan.design.unit(row)
                starts = f", groups of {group_size} from one start" if compares(row) else ""
                terminal.print(
                    f"{row.name}: {plan.design.trajectories // unit:,} units of {unit} "
                    f"trajectories ({plan.design.trajectories:,} in all), batches of {batch}"
                    f"{starts}"
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
        memory=size_in_bytes(memory),
        threads=threads,
    )
    terminal.print(str(report), end="")
    write(report.save, json, html)


def rows_named(estimators: tuple[str, ...], beta: float | None = None) -> list[Estimator]:
    """Estimators by name, of rows of the table or of algorithms; of rows, where beta is given."""
    if beta is None:
        return [estimator_of(name) for name in estimators]
    return [table.named(name, beta=beta) for name in estimators]


def check_endings(json: Path | None, html: Path | None) -> None:
    """Refuse names of reports that do not say what they hold, before anything is measured."""
    for target, ending in ((json, ".json"), (html, ".html")):
        refuse_unless(
            target is None or target.suffix == ending,
            f"--{ending[1:]} {target}: end it in {ending}.",
        )


def write(save: Callable[[Path], Path], json: Path | None, html: Path | None) -> None:
    """Save a report where it was asked for, and say so."""
    for target in (json, html):
        if target is not None:
            terminal.print(f"Written: {save(target)}")


def _audited(
    env: str,
    env_set: tuple[str, ...],
    run: Path | None,
    lanes: int,
    discount: float | None,
    hidden: tuple[int, ...],
    trust: bool,
) -> tuple[Environment, Policy, Value]:
    """The environment, policy and value function to audit."""
    if run is not None:
        trained, policy, value = load(run, lanes, env=env if ":" in env else None, trust=trust)
        refuse_unless(not env_set, f"--env-set: {run} has its own environment's settings.")
        refuse_unless(
            trained.name == env, f"{run} was trained on {trained.name}, not {env}; name that."
        )
        refuse_unless(
            discount is None or discount == trained.discount,
            f"{run} was trained with γ = {trained.discount}; leave --discount out.",
        )
        if value is None:
            terminal.print(
                f"{run} has no value function: estimators with one are audited with an untrained V."
            )
        return trained, policy, value or trained.value(hidden)
    gamma = 0.99 if discount is None else discount
    settings = assignments("--env-set", env_set)
    known = Gymnasium(env, lanes=lanes, discount=gamma, **settings)
    world: Environment = known
    as_it_is = ":" not in env and not {"wrappers", "action_mask"} & settings.keys()
    if as_it_is and hasattr(known.vector, "envs") and hasattr(known.vector.envs[0].unwrapped, "P"):
        world = Tabular(MDP.from_gymnasium(env, discount=gamma, **settings), lanes)
    return world, known.policy(hidden), known.value(hidden)
