"""The training loop: collect, weigh, step; and say how much of it was signal."""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Literal

from vantage.arguments import checked
from vantage.environments.checking.check import before_training
from vantage.environments.holding import hold, innermost
from vantage.environments.lanes_at_once import refuse_unless_compilable
from vantage.errors import refuse_unless
from vantage.estimators.estimator import compares
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import AutogradPasses
from vantage.runs.progress import note
from vantage.runs.run import Run
from vantage.runs.seeds import generator_of
from vantage.runs.trackers import Tracker
from vantage.training import auto, schedules
from vantage.training import updates as update_rules
from vantage.training.callbacks import Callback
from vantage.training.control import ControlLearner
from vantage.training.door import MEMORY, check_starts, entry, shared
from vantage.training.evaluation import lanes_to_evaluate
from vantage.training.interface import OptimizerFactory, Update, memory_of
from vantage.training.running import RunOptions, carry_out
from vantage.training.schedules import Schedule
from vantage.training.settings import Settings, describe, few_updates, resolved, with_changes


@singledispatch
@checked
def train(
    env: object,
    policy: object = None,  # what people give by mistake is told so by the door, in a sentence
    estimator: object = None,
    *,
    lanes: int | None = None,
    discount: float | None = None,
    normalise: dict[str, object] | bool | None = None,
    device: object = None,
    value: object = None,
    update: Update | None = None,
    epochs: int | None = None,
    minibatches: int | None = None,
    max_grad_norm: float | Literal["rule"] | None = "rule",
    steps: int | None = None,
    updates: int | None = None,
    fragment: int | None = None,
    batch: int | Literal["auto"] | None = None,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lr: float | None = None,
    schedule: Schedule | str | None = None,
    optimizer: OptimizerFactory | None = None,
    delay: int | None = None,
    restart: int = 1 << 15,
    signal_every: int | None = 10,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 10.0,
    evaluate_every: int = 0,
    evaluation_episodes: int = 20,
    evaluation_env: object = None,
    keep_best: bool = False,
    keep_last: int = 0,
    stop_at: float | None = None,
    patience: int | None = None,
    skip_non_finite: bool = False,
    environment_timeout: float | None = None,
    callbacks: Sequence[Callback] = (),
    track: Sequence[Tracker] = (),
    threads: int = 1,
    compile: bool = False,
    progress: bool = True,
    dry_run: bool = False,
) -> Run:
    """Train a policy by gradient ascent on J: θ ← θ + α ĝ, equation [2].

        run = vt.train("CartPole-v1", vt.algorithms.ppo(), steps=100_000)
        run = vt.train(env, policy, vt.estimators.rloo(), updates=100)

    Each update collects a batch, `batch` whole episodes from fresh starts or `fragment` steps of
    every lane, weighs it with `estimator`, and lets the rule `update` change policy and V.
    `vantage.algorithms` has the published combinations of all of these. Everything random is drawn
    from (seed, update), so that the same seed gives the same bits and a resumed run is the run
    that was interrupted.

    A `vantage.language.Task` in place of `env` trains a language model: `vantage.language.train`
    says what it takes.

    Args:
        env: where to learn: an environment, or what `vantage.make` makes one of (an id, say), or an
            MDP, which is sampled.
        policy: trained in place; one that fits is made where it is left out.
        estimator: a row of `vantage.estimators`, or your own; an algorithm; or the name of either
            (an algorithm's, where both bear it). It may come second, in place of the policy.
        lanes: copies of the environment that step side by side, where it is made here; those of the
            algorithm, or 64, by default.
        discount: γ of the objective, where the environment is made here; that of the algorithm, or
            0.99, by default.
        normalise: observations and rewards by running statistics, where the environment is made
            here; as the algorithm has it by default.
        device: where the networks are and batches are kept ("cuda"), where the environment is made
            here; tensor environments run there too. The processor by default.
        value: V(s), trained in place; needed by estimators with a value baseline. Where given, an
            episode cut by a time limit is continued by the value of its final observation. One is
            made with the policy where it is needed.
        update: a rule of `vantage.updates`; that of the algorithm, or `Epochs` for an estimator
            with a ratio and `Ascent` for all others. So are `fragment`, `batch`, `lr`, `schedule`,
            `optimizer` and `delay` the algorithm's where they are left out.
        epochs, minibatches: passes over each batch, and optimiser steps of a pass, in place of the
            rule's own.
        max_grad_norm: longest gradient let through to the optimiser, None leaves it as it is; the
            rule's own where left out.
        steps: stop at the first update after which this many environment steps were used.
        updates: stop after this many updates. Give `steps` or `updates`, or both, unless the
            algorithm has a number of steps of its own (`vantage.tuned`).
        fragment: steps per lane and update, episodes carried over; by default 128 for several
            epochs with a value function.
        batch: whole episodes per update, by default 64 where no fragments are collected; "auto"
            grows and shrinks it, from 64, to hold `target_snr`.
        target_snr: the gradient's signal-to-noise ratio that batch="auto" holds.
        baseline: "auto" takes, at every update, the unbiased baseline whose gradient had the least
            variance over the updates before, in place of the estimator's own; the log says why.
        group_size: episodes compared with one another, for estimators that need groups.
        lr: learning rate of the policy's optimiser; where left out, that of the optimiser given, or
            else of the rule.
        schedule: how much of the run is done, 0 to 1, to a factor of every learning rate (and of
            `Natural.max_kl`): a function, or the name of one of `vantage.schedules`; constant by
            default.
        optimizer: parameters -> torch optimiser, in place of Adam.
        delay: the policy that acts is this many updates old, as in distributed actors; V-trace is
            the estimator for that. Fragments only.
        restart: start all lanes afresh once each has taken this many steps since the last start:
            resuming acts these again, and no more. Episodes under way are then dropped, as a
            truncation; where one has lasted all that time, lanes go on for twice as many, up to a
            million. Fragments only.
        signal_every: updates between two measurements of the gradient's signal-to-noise ratio in
            fragments, which costs a pass over the batch; None: never. It needs two lanes.
        seed: the seed of everything random here.
        out: run folder; None writes nothing.
        resume: carry on the run in `out` from its last checkpoint.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        evaluate_every: updates between evaluations of the policy, on lanes of their own, which
            change no bit of the run; 0: never.
        evaluation_episodes: whole episodes of an evaluation.
        evaluation_env: where to evaluate; lanes made as those of `env` were, where left out.
        keep_best: keep the best checkpoint, by the return of evaluations, or where there are none,
            of the last 100 episodes of training; see `Run.best` and `vantage.load(best=True)`.
        keep_last: how many checkpoints to keep beside the latest, of updates that were evaluated,
            or where none is, of those at which one was due; `vantage.load(update=40)` loads one.
        stop_at: end the run once that return is reached.
        patience: end the run once so many evaluations in a row were no better than one before.
        skip_non_finite: undo updates that meet a loss, gradient or parameter that is NaN or
            infinite, count them (`non_finite_updates`), and go on; by default the run stops before
            anything of that kind is saved.
        environment_timeout: seconds that one step or reset of all lanes may take; None: any. It
            holds in the main thread, and not on Windows.
        callbacks: functions of (run state, row) that are called after every update: they may act,
            return metrics to add to the row, or return True to end the run. See `RunState`.
        track: trackers that receive every update's metrics, such as
            `vantage.runs.trackers.TensorBoard(folder)`.
        threads: torch threads; small networks want one.
        compile: compile the steps of a tensor environment on a processor before the first, which
            takes some seconds and pays for itself in long runs; the same numbers to rounding. Where
            they cannot be compiled, a line says so and the run goes on without.
        progress: show progress: a live display on a terminal, plain lines elsewhere.
        dry_run: check everything and return a run with its settings in `.config`; nothing is
            collected and nothing written.

    Returns:
        Run with `.history`, one dict per update, `.policy`, `.value` and `.path`. `return` is the
        mean over episodes that ended in the update (None where none did), `return_100` over the
        last 100.

    Raises:
        InputError: settings that cannot work, before anything is collected.
        KeyboardInterrupt: after a checkpoint was written.
        Exception: of the environment, a callback or a tracker, after a checkpoint was written; a
            note says where it came from.
    """
    given = entry(
        env,
        policy,
        estimator,
        value,
        lanes=lanes,
        discount=discount,
        normalise=normalise,
        device=device,
        seed=seed,
    )
    world, actor, critic, weighs = given.env, given.policy, given.value, given.estimator
    preset = given.settings
    rule = with_changes(
        update or preset.get("update") or update_rules.default(weighs),
        epochs,
        minibatches,
        max_grad_norm,
    )
    if fragment is None and batch is None:
        fragment, batch = preset.get("fragment"), preset.get("batch")
    fragment, batch = resolved(rule, fragment, batch, weighs, critic)
    if steps is None and updates is None and given.algorithm is not None:
        steps = given.algorithm.steps
    settings = Settings(
        steps=steps,
        updates=updates,
        update=rule,
        fragment=fragment,
        batch=batch,
        target_snr=target_snr,
        baseline=baseline,
        group_size=group_size,
        lr=preset.get("lr") if lr is None else lr,
        schedule=schedules.named(schedule or preset.get("schedule", "constant")),
        delay=preset.get("delay", 0) if delay is None else delay,
        restart=restart,
        signal_every=signal_every,
        seed=seed,
        threads=threads,
        compile=compile,
    )
    settings.check(weighs, critic)
    if compile:
        refuse_unless_compilable(world)
    check_starts(world, weighs, group_size)
    refuse_unless(
        not (hasattr(rule, "fit") and shared(actor, critic)),
        f"{type(rule).__name__} fits V apart from the policy, which would move the layers that "
        "they share; make V with env.value(), without trunk and under, or train by an algorithm "
        "such as ppo.",
    )
    options = RunOptions(
        out=None if out is None else Path(out),
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        evaluate_every=evaluate_every,
        keep_best=keep_best,
        keep_last=keep_last,
        stop_at=stop_at,
        patience=patience,
        skip_non_finite=skip_non_finite,
        environment_timeout=environment_timeout,
        callbacks=callbacks,
        track=track,
        threads=threads,
        progress=progress,
    )
    options.check()
    candidates = auto.rules(weighs, baseline, critic is not None, compares(weighs))
    # the gradients of whole episodes are taken row by row, which needs modules as they are
    in_rows = fragment is None and rule.wants_gradient
    passes = AutogradPasses(actor, critic) if in_rows else fastest(actor, critic)
    remembered = memory_of(rule, passes, generator_of(seed, MEMORY))
    optimizers = rule.optimizers(
        passes, optimizer or preset.get("optimizer"), settings.lr, **remembered
    )
    config = describe(world, actor, critic, weighs, optimizers.get("policy"), settings)
    evaluation = (
        lanes_to_evaluate(world, evaluation_episodes, evaluation_env) if evaluate_every else None
    )
    config |= {"evaluation_episodes": evaluation_episodes}
    config["algorithm"] = None if given.algorithm is None else given.algorithm.name
    noticed = [] if resume else before_training(world)
    for line in noticed if progress else []:
        note(line)
    if progress and (few := few_updates(settings, world.lanes)):
        note(few)
    if dry_run:
        return Run(options.out, config, [], policy=actor, value=critic, env=world)
    if progress and compile:
        note(
            f"Steps of {world.name} are compiled first, which takes 10 to 60 seconds, or a few "
            "where the cache on disk has them."
        )
    learner = ControlLearner(
        world,
        passes,
        candidates,
        optimizers,
        settings,
        evaluation,
        evaluation_episodes,
        **remembered,
    )
    try:
        run = carry_out(learner, config, options, updates=updates, steps=steps)
    finally:
        hold(world, None)
        if compile:
            innermost(world).compile_steps(None)
    return replace(run, policy=actor, value=critic, env=world)
