"""`vantage train` on environments, and `vantage evaluate`."""

import ast
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vantage import estimators as table
from vantage.environments.making import make
from vantage.errors import refuse_unless
from vantage.runs.progress import WINDOW, terminal, windowed_snr
from vantage.runs.run import Run
from vantage.runs.trackers import TensorBoard, Tracker, WandB
from vantage.training import algorithms
from vantage.training.evaluation import evaluate as evaluate_policy
from vantage.training.load import load
from vantage.training.loop import train as train_policy
from vantage.training.schedules import Name
from vantage.training.settings import resolved, with_changes
from vantage.training.updates import default
from vantage.training.video import film_run


def train(
    env: Positional[str],
    algorithm: str | None = None,
    estimator: str | None = None,
    set: tuple[str, ...] = (),
    steps: int | None = None,
    updates: int | None = None,
    fragment: int | None = None,
    batch: int | Literal["auto"] | None = None,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lanes: int = 64,
    discount: float = 0.99,
    normalise: bool = False,
    hidden: tuple[int, ...] = (64, 64),
    squash: bool = False,
    recurrent: int | None = None,
    value: bool | None = None,
    lr: float | None = None,
    schedule: Name | None = None,
    max_grad_norm: float | None = None,
    delay: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    threads: int = 1,
    dry_run: bool = False,
) -> None:
    """Train a policy on an environment.

    Language models have commands of their own: `vantage train lm --help`, and from nothing `vantage
    train addition --help` (or copy, reverse, sort_letters).

    Args:
        env: a Gymnasium id, such as CartPole-v1; "tensor/" before it runs the dynamics as tensor
            code, "envpool/" runs EnvPool's.
        algorithm: a published combination: reinforce, vpg, a2c, ppo, ppo_continuous, natural, trpo,
            impala.
        estimator: a row of the table that `vantage estimators` prints, with the update rule it is
            made for; reinforce_baseline where no algorithm is named.
        set: settings of the algorithm or the estimator, NAME=VALUE, such as epochs=10.
        steps: environment steps to use; 300,000 where neither steps nor updates is given.
        updates: updates to make.
        fragment: steps of every lane per update, episodes carried over.
        batch: whole episodes per update; "auto" holds a signal-to-noise ratio.
        target_snr: the ratio that --batch auto holds.
        baseline: "auto" takes the unbiased baseline of least measured variance at every update.
        group_size: episodes compared with one another, by estimators that need groups.
        lanes: copies of the environment that run side by side.
        discount: γ of the objective, in (0, 1].
        normalise: observations and rewards by their running statistics.
        hidden: widths of the hidden layers of policy and value function.
        squash: actions through a tanh, where they have bounds.
        recurrent: size of a GRU's memory, for environments that do not show their state.
        value: with a learned value function; by default when the estimator needs one. With it, an
            episode cut by a time limit is continued by its value.
        lr: learning rate.
        schedule: of the learning rate over the run.
        max_grad_norm: longest gradient let through to the optimiser.
        delay: updates by which the policy that acts is behind.
        seed: of everything random.
        out: run folder; runs/ENV-ESTIMATOR-SEED by default.
        resume: carry on the run in that folder.
        tensorboard: also write TensorBoard events, into the run folder.
        wandb: also send metrics to this Weights & Biases project.
        threads: torch threads; small networks want one.
        dry_run: print the settings and the batch arithmetic, and stop.
    """
    chosen = _chosen(algorithm, estimator, set)
    given = {
        "fragment": fragment,
        "batch": batch,
        "lr": lr,
        "schedule": schedule,
        "delay": delay,
    }
    chosen |= {name: setting for name, setting in given.items() if setting is not None}
    rule = chosen["estimator"]
    chosen["update"] = with_changes(
        chosen.get("update", default(rule)),
        epochs=None,
        minibatches=None,
        max_grad_norm="rule" if max_grad_norm is None else max_grad_norm,
    )
    world = make(env, lanes, discount, normalise)
    label = algorithm or rule.name
    folder = out or Path("runs") / f"{env.replace('/', '-')}-{label}-{seed}"
    steps = 300_000 if steps is None and updates is None else steps
    with_value = ("value" in rule.needs or baseline == "auto") if value is None else value
    network: dict[str, Any] = {"hidden": hidden, "recurrent": recurrent}
    critic = world.value(**network) if with_value else None
    if dry_run:
        _print_plan(env, lanes, discount, chosen, critic, steps, updates, folder)
        return
    track: list[Tracker] = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    track += [] if wandb is None else [WandB(wandb, folder)]
    try:
        run = train_policy(
            world,
            world.policy(**network, squash=squash),
            value=critic,
            steps=steps,
            updates=updates,
            target_snr=target_snr,
            baseline=baseline,
            group_size=group_size,
            seed=seed,
            out=folder,
            resume=resume,
            track=track,
            threads=threads,
            **chosen,
        )
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        terminal.print(
            f"Stopped; {folder} is saved. Carry on with:\n  vantage {shlex.join(again)} --resume"
        )
        raise
    _print_end(env, label, run, folder)


def evaluate(
    run: Positional[Path],
    episodes: int = 100,
    seed: int = 1,
    greedy: bool = False,
    lanes: int | None = None,
    video: Path | None = None,
) -> None:
    """Evaluate the policy of a run folder: mean return with a 95 % interval.

    Args:
        run: the run folder.
        episodes: how many whole episodes.
        seed: of the environment and the actions; another than the training seed.
        greedy: take the likeliest action instead of sampling.
        lanes: copies of the environment; as in training by default.
        video: also film an episode there, as an MP4.
    """
    env, policy, _ = load(run, lanes)
    result = evaluate_policy(env, policy, episodes, seed, greedy)
    terminal.print(f"{env.name}, policy of {run}: {result}")
    if video is not None:
        terminal.print(film_run(run, video, 1, seed, greedy))


def _chosen(
    algorithm: str | None, estimator: str | None, settings: tuple[str, ...]
) -> dict[str, Any]:
    """Arguments of `vantage.train` from the names on the command line."""
    refuse_unless(
        algorithm is None or estimator is None,
        f"--algorithm {algorithm} --estimator {estimator}: an algorithm has its estimator; give "
        "one of the two.",
    )
    own: dict[str, Any] = {}
    for text in settings:
        name, equals, literal = text.partition("=")
        refuse_unless(name and equals, f"--set {text}: write NAME=VALUE.")
        own[name] = _literal(literal)
    if algorithm is not None:
        return algorithms.named(algorithm, **own)
    return {"estimator": table.named(estimator or "reinforce_baseline", **own)}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _print_plan(
    env: str,
    lanes: int,
    discount: float,
    chosen: dict[str, Any],
    value: Any,
    steps: int | None,
    updates: int | None,
    folder: Path,
) -> None:
    rule, update = chosen["estimator"], chosen["update"]
    fragment, batch = resolved(update, chosen.get("fragment"), chosen.get("batch"), rule, value)
    terminal.print(f"{env}: {lanes} lanes, γ = {discount}, estimator {rule.name}")
    terminal.print_json(json.dumps(rule.columns()))
    terminal.print(f"{update}")
    if fragment is not None:
        size = f"{fragment} steps of {lanes} lanes = {fragment * lanes:,} steps"
    elif batch == "auto":
        size = "whole episodes, as many as hold the SNR"
    else:
        assert isinstance(batch, int)
        size = f"{batch} whole episodes, {batch // lanes} to {-(-batch // lanes)} a lane"
    passes = update.optimizer_steps
    goals = [f"{steps:,} steps" if steps else "", f"{updates:,} updates" if updates else ""]
    terminal.print(
        f"Each update: {size}, {passes} gradient step{'s' if passes > 1 else ''}. "
        f"Until {' or '.join(goal for goal in goals if goal)}. Would be written to {folder}."
    )
    if fragment is not None and hasattr(update, "minibatches"):
        terminal.print(f"Minibatches of {fragment * lanes // update.minibatches:,} steps.")


def _print_end(env: str, label: str, run: Run, folder: Path) -> None:
    last, row = run.history[-WINDOW:], run.history[-1]
    snr = windowed_snr(last)
    signal = f"; gradient SNR {snr:.2f} over the last {len(last)}" if snr == snr else ""
    mean = "no episode ended" if row["return_100"] is None else f"{row['return_100']:.1f}"
    terminal.print(
        f"{env}, {label}: mean return of the last 100 episodes {mean} after {row['steps']:,} steps "
        f"and {len(run.history)} updates{signal}.\n"
        f"Run folder: {folder}\nNext: vantage evaluate {folder}"
    )
