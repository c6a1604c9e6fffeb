"""The training loop: collect, weigh, step; and say how much of it was signal."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import singledispatch
from pathlib import Path
from typing import Literal

from torch import nn
from torch.optim import Adam, Optimizer

from vantage.environments.interface import Environment
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import AutogradPasses, Passes
from vantage.policies import Policy
from vantage.runs.interrupts import Interrupts
from vantage.runs.progress import Progress
from vantage.runs.run import Run, open_run
from vantage.runs.running import until_done
from vantage.runs.threads import torch_threads
from vantage.runs.trackers import Tracker
from vantage.training import auto
from vantage.training import updates as update_rules
from vantage.training.epochs import Epochs
from vantage.training.learner import Learner, OptimizerFactory
from vantage.training.schedules import Schedule, constant
from vantage.training.settings import Settings, describe, resolved
from vantage.training.updates import Update


@singledispatch
def train(
    env: Environment,
    policy: Policy,
    estimator: Estimator,
    *,
    value: nn.Module | None = None,
    update: Update | None = None,
    steps: int | None = None,
    updates: int | None = None,
    fragment: int | None = None,
    batch: int | Literal["auto"] | None = None,
    target_snr: float = 2.0,
    baseline: Literal["auto"] | None = None,
    group_size: int = 8,
    lr: float | None = None,
    schedule: Schedule = constant,
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
        lr: learning rate of the default optimiser, Adam; the rule's own where left out.
        schedule: how much of the run is done, 0 to 1, to a factor of every learning rate (and of
            `Natural.max_kl`); see `vantage.schedules`.
        optimizer: parameters -> torch optimiser, in place of Adam(lr).
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
        schedule=schedule,
        delay=delay,
        restart=restart,
        signal_every=signal_every,
        seed=seed,
        threads=threads,
    )
    settings.check(estimator, value)
    refuse_unless(not resume or out is not None, "train(resume=True): say which run with out=.")
    grouped = "group" in estimator.needs
    rules = auto.rules(estimator, baseline, value is not None, grouped)
    in_rows = fragment is None and not isinstance(rule, Epochs)
    passes = AutogradPasses(policy, value) if in_rows else fastest(policy, value)
    optimizers = _optimizers(settings, policy, value, passes, optimizer)
    config = describe(env, policy, value, estimator, optimizers.get("policy"), settings)
    learner = Learner(env, policy, value, estimator, rules, optimizers, passes, settings)
    folder = None if out is None else Path(out)
    with (
        torch_threads(threads),
        Interrupts() as interrupts,
        ExitStack() as stack,
    ):
        for tracker in track:
            stack.enter_context(closing(tracker))
        if folder is not None:
            open_run(folder, config, resume)
            learner.restore(folder, resume)
        display = stack.enter_context(Progress(steps, updates, learner.history, progress))
        until_done(learner, folder, display, interrupts, checkpoint_seconds, track, "steps")
    return Run(folder, config, learner.history)


def _optimizers(
    settings: Settings,
    policy: Policy,
    value: nn.Module | None,
    passes: Passes,
    optimizer: OptimizerFactory | None,
) -> dict[str, Optimizer]:
    """One for both networks where the rule trains them jointly, else one for each."""
    factory = optimizer or settings.adam()
    rule = settings.update
    if isinstance(rule, Epochs):
        return {"policy": factory(passes.parameters)}
    made = {} if factory is None else {"policy": factory(policy.parameters())}
    if value is not None:
        made["value"] = Adam(value.parameters(), lr=rule.fit.lr)
    return made
