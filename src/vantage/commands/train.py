"""`vantage train` on environments, and `vantage evaluate`."""

import re
import shlex
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from vantage import estimators as table
from vantage.commands.arguments import assignments
from vantage.commands.plan import print_plan
from vantage.commands.tracking import trackers
from vantage.errors import refuse_unless
from vantage.estimators import Estimator
from vantage.reporting.writing import report_line
from vantage.runs.progress import WINDOW, return_text, terminal, windowed_snr
from vantage.runs.run import Run, read_config
from vantage.runs.seeds import seed_of
from vantage.training import algorithms
from vantage.training.algorithm import Algorithm
from vantage.training.door import POLICY, VALUE, opened
from vantage.training.evaluation import evaluate as evaluate_policy
from vantage.training.load import load
from vantage.training.loop import train as train_policy
from vantage.training.schedules import Name
from vantage.training.tuned import row_of
from vantage.training.video import film_run

STEPS = 300_000  # where nothing says how many


def train(
    env: Positional[str],
    algorithm: str | None = None,
    estimator: str | None = None,
    tuned: bool = False,
    set: tuple[str, ...] = (),
    env_set: tuple[str, ...] = (),
    steps: int | None = None,
    updates: int | None = None,
    fragment: int | None = None,
    batch: int | Literal["auto"] | None = None,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lanes: int | None = None,
    discount: float | None = None,
    normalise: bool | None = None,
    hidden: tuple[int, ...] | None = None,
    squash: bool = False,
    recurrent: int | None = None,
    value: bool | None = None,
    lr: float | None = None,
    schedule: Name | None = None,
    max_grad_norm: float | None = None,
    delay: int | None = None,
    evaluate_every: int = 0,
    evaluation_episodes: int = 20,
    keep_best: bool = False,
    keep_last: int = 0,
    stop_at: float | None = None,
    patience: int | None = None,
    skip_non_finite: bool = False,
    environment_timeout: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    trackio: str | None = None,
    device: str = "cpu",
    threads: int = 1,
    compile: bool = False,
    dry_run: bool = False,
) -> None:
    """Train a policy on an environment.

    Language models have commands of their own: `vantage train lm --help`, and from nothing `vantage
    train addition --help` (or copy, reverse, sort_letters).

    Args:
        env: a Gymnasium id, such as CartPole-v1; "tensor/" before it runs the dynamics as tensor
            code, "envpool/" runs EnvPool's. For one of your own module:Name or file.py:Name, a
            class, a function that makes one, or an id that the module registers.
        algorithm: a published combination, with its own number of lanes and learning rate, that
            `vantage algorithms` prints.
        estimator: a row of the table that `vantage estimators` prints, with the update rule it is
            made for; reinforce_baseline where no algorithm is named.
        tuned: take settings that are known to work on this environment, that `vantage algorithms
            tuned` prints; its steps too, where neither steps nor updates is given.
        set: settings of the algorithm or the estimator, NAME=VALUE, such as epochs=10.
        env_set: settings of the environment, NAME=VALUE: is_slippery=False, action_mask=True,
            max_episode_steps=200, wrappers=gymnasium.wrappers:FlattenObservation.
        steps: environment steps to use; where neither steps nor updates is given, those of --tuned,
            or 300,000.
        updates: updates to make.
        fragment: steps of every lane per update, episodes carried over.
        batch: whole episodes per update; "auto" holds a signal-to-noise ratio.
        target_snr: the ratio that --batch auto holds.
        baseline: "auto" takes the unbiased baseline of least measured variance at every update.
        group_size: episodes compared with one another, by estimators that need groups.
        lanes: copies of the environment that run side by side; those of the algorithm, or 64.
        discount: γ of the objective, in (0, 1]; that of --tuned, or 0.99.
        normalise: divide observations and rewards by their running statistics; as the algorithm has
            it.
        hidden: widths of the hidden layers of policy and value function; those of --tuned, or 64
            64.
        squash: put actions through a tanh, where they have bounds.
        recurrent: size of a GRU's memory, for environments that do not show their state.
        value: train a value function, too; by default when the estimator needs one. With it, an
            episode cut by a time limit is continued by its value.
        lr: learning rate; the algorithm's, or the update rule's, by default.
        schedule: how the learning rate goes over the run; the algorithm's, or constant, by default.
        max_grad_norm: longest gradient let through to the optimiser.
        delay: updates by which the policy that acts is behind.
        evaluate_every: updates between evaluations on lanes of their own; 0 for none.
        evaluation_episodes: whole episodes of an evaluation.
        keep_best: keep the checkpoint of the best return, of evaluations where there are any, for
            `vantage evaluate RUN --best`.
        keep_last: checkpoints to keep of evaluated updates, or else of those at which one was due,
            for `vantage evaluate RUN --update N`.
        stop_at: end the run once that return is reached, by evaluations where there are any, or
            else by the last 100 episodes.
        patience: end the run once so many evaluations in a row were no better than one before.
        skip_non_finite: undo and count updates whose loss, gradient or parameters are NaN or
            infinite, and go on; by default the run stops.
        environment_timeout: seconds that one step of all lanes may take; any by default.
        seed: the seed of all random numbers.
        out: run folder; runs/ENV-ALGORITHM-SEED by default.
        resume: go on with the run in that folder.
        tensorboard: also write TensorBoard events, into the run folder.
        wandb: also send metrics to this Weights & Biases project.
        trackio: also log metrics to this Trackio project.
        device: where networks and batches are, such as cuda; tensor environments run there too.
        threads: torch threads; small networks want one.
        compile: compile the steps of a tensor environment first, which takes some seconds and pays
            for itself in long runs; the same numbers to rounding.
        dry_run: print the settings and the batch arithmetic, and stop.
    """
    weighs, label = _estimator_of(env, algorithm, estimator, tuned, set)
    published = weighs if isinstance(weighs, Algorithm) else None
    if published is None:
        assert isinstance(weighs, Estimator)
        with_value = "value" in weighs.needs or baseline == "auto"
    else:
        with_value = published.value
    folder = out or Path("runs") / f"{re.sub('[/:]+', '-', env)}-{label}-{seed}"
    asked = {"hidden": hidden, "recurrent": recurrent}
    network: dict[str, Any] = {name: each for name, each in asked.items() if each is not None}
    of_policy = {} if published is None else published.policy_network()
    constructor = assignments("--env-set", env_set)
    world = opened(env, published, lanes, discount, normalise, device, **constructor)
    actor = world.policy(seed=seed_of(seed, POLICY), **of_policy | {"squash": squash} | network)
    critic = None
    if with_value if value is None else value:
        of_value = {} if published is None else published.value_network(actor)
        critic = world.value(seed=seed_of(seed, VALUE), **of_value | network)
    if tuned:
        terminal.print(f"Tuned: {row_of(env)}", markup=False)
    try:
        run = train_policy(
            world,
            actor,
            weighs,
            value=critic,
            max_grad_norm="rule" if max_grad_norm is None else max_grad_norm,
            steps=_steps(published) if steps is None and updates is None else steps,
            updates=updates,
            fragment=fragment,
            batch=batch,
            lr=lr,
            schedule=schedule,
            delay=delay,
            target_snr=target_snr,
            baseline=baseline,
            group_size=group_size,
            evaluate_every=evaluate_every,
            evaluation_episodes=evaluation_episodes,
            keep_best=keep_best,
            keep_last=keep_last,
            stop_at=stop_at,
            patience=patience,
            skip_non_finite=skip_non_finite,
            environment_timeout=environment_timeout,
            seed=seed,
            out=folder,
            resume=resume,
            track=trackers(folder, tensorboard, wandb, trackio),
            threads=threads,
            compile=compile,
            dry_run=dry_run,
        )
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        terminal.print(
            f"Stopped; {folder} is saved. Carry on with:\n  vantage {shlex.join(again)} --resume"
        )
        raise
    if dry_run:
        print_plan(run.config, folder)
    else:
        _print_end(env, label, run, folder)


def evaluate(
    run: Positional[Path],
    env: Annotated[Positional[str | None], arg(metavar="ENV")] = None,
    episodes: int = 100,
    seed: int = 1,
    greedy: bool = False,
    lanes: int | None = None,
    update: int | None = None,
    best: bool = False,
    video: Path | None = None,
    trust: bool = False,
) -> None:
    """Evaluate the policy of a run folder: mean return with a 95 % interval.

    Args:
        run: the run folder.
        env: the environment, where it is one of your own, module:Name or file.py:Name.
        episodes: how many whole episodes.
        seed: the seed of environment and actions; another than the training seed.
        greedy: take the likeliest action instead of sampling.
        lanes: copies of the environment; as in training by default.
        update: the checkpoint of that update, where it was kept; the latest by default.
        best: the best checkpoint, where it was kept.
        video: also film an episode there, of the latest checkpoint, as an MP4.
        trust: let the folder name modules to import: for runs of your own.
    """
    refuse_unless(
        video is None or (update is None and not best),
        "--video films the latest checkpoint; leave --update and --best out.",
    )
    refuse_unless(
        "task" not in read_config(run),
        f"{run} holds a language model; evaluate it in Python, where its task is: "
        f"from vantage import language; _, policy, _ = vantage.load({str(run)!r}); "
        "language.evaluate(task, policy).",
    )
    world, policy, _ = load(run, lanes, env=env, update=update, best=best, trust=trust)
    result = evaluate_policy(world, policy, episodes, seed, greedy)
    terminal.print(f"{world.name}, policy of {run}: {result}")
    if video is not None:
        terminal.print(film_run(run, video, 1, seed, greedy, env=env, trust=trust))


def folder_name(weighs: Estimator | Algorithm) -> str:
    """What run folders are called after: an estimator that bears an algorithm's name says so."""
    taken = isinstance(weighs, Estimator) and weighs.name in algorithms.TABLE
    return f"{weighs.name}-estimator" if taken else weighs.name


def _estimator_of(
    env: str,
    algorithm: str | None,
    estimator: str | None,
    tuned: bool,
    settings: tuple[str, ...],
) -> tuple[Estimator | Algorithm, str]:
    """What the command line names, with its settings, and what the run folder is called after."""
    given = {
        f"--algorithm {algorithm}": algorithm is not None,
        f"--estimator {estimator}": estimator is not None,
        "--tuned": tuned,
    }
    named = [name for name, is_given in given.items() if is_given]
    refuse_unless(
        len(named) <= 1,
        f"{' '.join(named)}: an algorithm has its estimator, and --tuned says both; give one of "
        "them.",
    )
    values = assignments("--set", settings)
    weighs: Estimator | Algorithm
    if tuned:
        weighs = row_of(env).build(**values)
    elif algorithm is not None:
        weighs = algorithms.named(algorithm, **values)
    else:
        weighs = table.named(estimator or "reinforce_baseline", **values)
    return weighs, folder_name(weighs)


def _steps(published: Algorithm | None) -> int:
    steps_published = None if published is None else published.steps
    return STEPS if steps_published is None else steps_published


def _print_end(env: str, label: str, run: Run, folder: Path) -> None:
    last, row = run.history[-WINDOW:], run.history[-1]
    snr = windowed_snr(last)
    signal = f"; gradient SNR {snr:.2f} over the last {len(last)}" if snr == snr else ""
    if run.stopped is not None:
        terminal.print(f"Ended early: {run.stopped}.", markup=False)
    mean = "no episode ended" if row["return_100"] is None else return_text(row["return_100"])
    terminal.print(
        f"{env}, {label}: mean return of the last 100 episodes {mean} after {row['steps']:,} steps "
        f"and {len(run.history)} updates{signal}.\n"
        f"Run folder: {folder}\n{report_line(folder)}Next: vantage evaluate {quote(str(folder))}"
    )
