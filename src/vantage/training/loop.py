"""The training loop: collect, weigh, step; and say how much of it was signal."""

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Literal

from torch import nn

from vantage.environments.interface import Environment
from vantage.estimators.estimator import Estimator
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import AutogradPasses
from vantage.policies import Policy
from vantage.runs.run import Run
from vantage.runs.trackers import Tracker
from vantage.training import auto, schedules
from vantage.training import updates as update_rules
from vantage.training.control import ControlLearner
from vantage.training.interface import OptimizerFactory, Update
from vantage.training.running import RunOptions, carry_out
from vantage.training.schedules import Schedule
from vantage.training.settings import Settings, describe, resolved, with_changes


@singledispatch
def train(
    env: Environment,
    policy: Policy,
    estimator: Estimator,
    *,
    value: nn.Module | None = None,
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
    schedule: Schedule | str = "constant",
    optimizer: OptimizerFactory | None = None,
    delay: int = 0,
    restart: int = 1 << 15,
    signal_every: int | None = 10,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 10.0,
    track: Sequence[Tracker] = (),
    threads: int = 1,
    progress: bool = True,
) -> Run:
    """Train a policy by gradient ascent on J: θ ← θ + α ĝ, equation [2].

    Each update collects a batch, `batch` whole episodes from fresh starts or `fragment` steps of
    every lane, weighs it with `estimator`, and lets the rule `update` change policy and V.
    `vantage.algorithms` has the published combinations: `vt.train(env, policy, value=value,
    steps=500_000, **vt.algorithms.ppo())`. Everything random is drawn from (seed, update), so that
    the same seed gives the same bits and a resumed run is the run that was interrupted.

    A `vantage.language.Task` in place of `env` trains a language model: `vantage.language.train`
    says what it takes.

    Args:
        env: where to learn.
        policy: trained in place.
        estimator: a row of `vantage.estimators`, or your own.
        value: V(s), trained in place; needed by estimators with a value baseline. Where given, an
            episode cut by a time limit is continued by the value of its final observation.
        update: a rule of `vantage.updates`; by default `Epochs` for an estimator with a ratio,
            `Ascent` for all others.
        epochs, minibatches: passes over each batch, and optimiser steps of a pass, in place of the
            rule's own.
        max_grad_norm: longest gradient let through to the optimiser, None leaves it as it is; the
            rule's own where left out.
        steps: stop at the first update after which this many environment steps were used.
        updates: stop after this many updates. Give `steps` or `updates`, or both.
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
            `Natural.max_kl`): a function, or the name of one of `vantage.schedules`.
        optimizer: parameters -> torch optimiser, in place of Adam.
        delay: the policy that acts is this many updates old, as in distributed actors; V-trace is
            the estimator for that. Fragments only.
        restart: start all lanes afresh once each has taken this many steps since the last start:
            resuming acts these again, and no more. Episodes under way are then dropped, as a
            truncation. Fragments only.
        signal_every: updates between two measurements of the gradient's signal-to-noise ratio in
            fragments, which costs a pass over the batch; None: never. It needs two lanes.
        seed: of everything random here.
        out: run folder; None writes nothing.
        resume: carry on the run in `out` from its last checkpoint.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        track: trackers that receive every update's metrics, such as
            `vantage.runs.trackers.TensorBoard(folder)`.
        threads: torch threads; small networks want one.
        progress: show progress: a live display on a terminal, plain lines elsewhere.

    Returns:
        Run with `.history`, one dict per update, and `.path`. `return` is the mean over episodes
        that ended in the update (None where none did), `return_100` over the last 100.

    Raises:
        InputError: settings that cannot work, before anything is collected.
        KeyboardInterrupt: after a checkpoint was written.
    """
    rule = update_rules.default(estimator) if update is None else update
    rule = with_changes(rule, epochs, minibatches, max_grad_norm)
    fragment, batch = resolved(rule, fragment, batch, estimator, value)
    settings = Settings(
        steps=steps,
        updates=updates,
        update=rule,
        fragment=fragment,
        batch=batch,
        target_snr=target_snr,
        baseline=baseline,
        group_size=group_size,
        lr=lr,
        schedule=schedules.named(schedule),
        delay=delay,
        restart=restart,
        signal_every=signal_every,
        seed=seed,
        threads=threads,
    )
    settings.check(estimator, value)
    options = RunOptions(
        out=None if out is None else Path(out),
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        track=track,
        threads=threads,
        progress=progress,
    )
    options.check()
    candidates = auto.rules(estimator, baseline, value is not None, "group" in estimator.needs)
    # the gradients of whole episodes are taken row by row, which needs modules as they are
    in_rows = fragment is None and rule.wants_gradient
    passes = AutogradPasses(policy, value) if in_rows else fastest(policy, value)
    optimizers = rule.optimizers(passes, optimizer, lr)
    config = describe(env, policy, value, estimator, optimizers.get("policy"), settings)
    learner = ControlLearner(env, passes, candidates, optimizers, settings)
    return carry_out(learner, config, options, updates=updates, steps=steps)
