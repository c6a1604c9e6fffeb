"""Training a language model by policy gradient: draw, score, weigh, step; signal in view."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch.optim import AdamW

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.model import adapters
from vantage.language.model.policy import Policy
from vantage.language.model.trl_names import hinted
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.generation import Decoding, Engine, synchronise
from vantage.language.sampling.rollout import Environment, prompts_of
from vantage.language.scoring.trial import settle_packing
from vantage.language.tasks.task import Task
from vantage.language.training.fixed import NAME, fixed_weights, refuse_other_weights
from vantage.language.training.learner import MODEL, LanguageLearner, Sources, Watcher
from vantage.language.training.masters import Masters
from vantage.language.training.settings import Settings, describe
from vantage.runs.checkpoint import seal
from vantage.runs.run import Run
from vantage.runs.trackers import Tracker
from vantage.training import schedules
from vantage.training.callbacks import Callback, RunState
from vantage.training.interface import OptimizerFactory, optimizer_of
from vantage.training.running import RunOptions, carry_out
from vantage.training.schedules import Schedule

LR = 1e-5  # of the default optimiser


@hinted
@checked
def train(
    task: Task,
    policy: Policy,
    estimator: Estimator,
    *,
    updates: int,
    batch: int | Literal["auto"] = 64,
    target_snr: float = 1.0,
    baseline: Literal["auto"] | None = None,
    baseline_every: int = 10,
    lr: float | None = None,
    schedule: Schedule | str = "constant",
    warmup: int = 0,
    optimizer: OptimizerFactory | None = None,
    epochs: int = 1,
    num_iterations: int | None = None,
    minibatches: int = 1,
    max_grad_norm: float | None = 1.0,
    reference: Policy | None = None,
    value: ValueHead | None = None,
    value_coefficient: float = 0.1,
    mask_truncated_completions: bool = False,
    resample_dead_groups: int = 0,
    engine: Engine | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    delay: int = 0,
    shared_prompts: bool | Literal["auto"] = "auto",
    token_budget: int = 16384,
    signal_every: int | Literal["auto"] = "auto",
    decompose_every: int = 10,
    evaluate_every: int = 0,
    keep_best: bool = False,
    keep_last: int = 0,
    stop_at: float | None = None,
    patience: int | None = None,
    skip_non_finite: bool = False,
    environment_timeout: float | None = None,
    callbacks: Sequence[Callback] = (),
    watch: Watcher | None = None,
    track: Sequence[Tracker] = (),
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    threads: int = 1,
    progress: bool = True,
) -> Run:
    """Train a language model on the rewards of a task by gradient ascent: θ ← θ + α ĝ.

    Each update draws batch / num_generations prompts, completes each `num_generations` times,
    scores the completions, weighs them with `estimator`, and takes epochs × minibatches steps.
    Everything random is drawn from (seed, update): the same seed gives the same bits, and a resumed
    run is the run that was interrupted.

    Args:
        task: prompts and rewards; it says how many completions a prompt gets.
        policy: trained in place; a LoRA policy trains its adapter.
        estimator: a row of `vantage.estimators`, or your own.
        updates: batches to learn from.
        batch: completions of an update, in whole groups of `task.num_generations`; "auto" starts
            with 64 and follows the measured noise scale: at each update the size that would have
            held `target_snr` over the last five, between 16 and 1,024, changing by a factor of two
            at most.
        target_snr: signal-to-noise ratio of a batch's gradient that batch="auto" holds.
        baseline: "auto" takes, at every update, the baseline whose gradient had the least variance
            when last measured, among those that leave the estimator unbiased: means of the other
            completions of the prompt or of the batch, whole or by half, V where there is a value
            head, and none.
        baseline_every: updates between those measurements. One costs a gradient per baseline.
        lr: learning rate; where left out, that of the optimiser given, or else 10⁻⁵.
        schedule: how much of the run after the warm-up is done, 0 to 1, to a factor of the learning
            rate: a function, or the name of one of `vantage.schedules`.
        warmup: updates over which the rate rises to its full height.
        optimizer: parameters -> torch optimiser, in place of AdamW without weight decay.
        epochs: passes over each batch.
        num_iterations: the same under the name of TRL; give one of the two.
        minibatches: steps of an epoch, each on as many whole groups.
        max_grad_norm: longest gradient let through to the optimiser; None leaves it as it is.
        reference: the policy that a KL is measured to, where the estimator has one. By default the
            policy as it is given: without its adapter where that is new, else a frozen copy.
        value: for estimators with a value baseline: trained jointly.
        value_coefficient: the weight of the value's mean squared error in the loss.
        mask_truncated_completions: leave completions cut at the limit out of loss and baselines.
        resample_dead_groups: rounds of drawing other prompts in place of those whose completions
            all got one reward and teach nothing. The gradient is then that of the prompts that have
            a signal, which is another objective.
        engine: draws completions; the package's own where None. One with a method `update` is given
            the policy after every update; see `Engine`.
        environment: answers completions, turn by turn, at most `turns`; see `rollout`.
        delay: the policy that samples is this many updates old, as where sampling and training run
            side by side. Rows without a ratio or an importance are biased then; the metrics say how
            far apart the two are. Each costs a copy of the trained parameters.
        shared_prompts: compute the prompt of a group once in the gradient; "auto" where token
            counts say that it pays. The metrics say how many completions shared a row.
        token_budget: tokens of one forward and backward pass. No result depends on it.
        signal_every: updates between measurements of the gradient's signal-to-noise ratio and noise
            scale; 0 never; "auto" every one, or every fifth where a batch is so small that its
            gradient in two pieces would cost much more than in one.
        decompose_every: updates between measurements of the gradient's noise between and within
            prompts, which split the passes in four; 0 never.
        evaluate_every: updates between evaluations on held-out prompts, greedily; 0 never. They
            change no bit of the run. Sets that the task holds out by name are evaluated each by
            itself, and together.
        keep_best: keep the best checkpoint, by the reward of evaluations, or where there are none,
            of the last five batches; see `Run.best` and `vantage.load(best=True)`.
        keep_last: how many checkpoints to keep beside the latest, of updates that were evaluated,
            or where none is, of those at which one was due; each holds the model as transformers
            loads it, and `vantage.load(update=40)` loads one.
        stop_at: end the run once that reward is reached.
        patience: end the run once so many evaluations in a row were no better than one before.
        skip_non_finite: undo updates that meet a loss, gradient or parameter that is NaN or
            infinite, count them (`non_finite_updates`), and go on; by default the run stops before
            anything of that kind is saved.
        environment_timeout: seconds that one answer of `environment` may take; None: any. It holds
            in the main thread, and not on Windows. That of rewards is `Task(reward_timeout=)`.
        callbacks: functions of (run state, row) that are called after every update: they may act,
            return metrics to add to the row, or return True to end the run. See `RunState`.
        watch: called with each update's rollout and advantages.
        track: trackers that receive every update's metrics, with the update as their step.
        seed: the seed of everything random here.
        out: run folder; None writes nothing. At the end `out/model` loads in transformers by path.
        resume: carry on the run in `out` from its last checkpoint, with the policy given anew as it
            was when the run began; another reference or frozen weights are refused.
        checkpoint_seconds: least time between checkpoints; one is always written at the end and on
            an interrupt.
        threads: torch threads.
        progress: show progress.

    Returns:
        Run with `.history`, one dict per update, and `.path`.

    Raises:
        InputError: settings that cannot work, before anything is generated.
        RewardError: a reward function failed; what was learned before is saved.
        KeyboardInterrupt: after a checkpoint was written.
        Exception: of a callback or a tracker, after a checkpoint was written; a note says where it
            came from.
    """
    refuse_unless(
        num_iterations is None or epochs == 1,
        f"train(epochs={epochs}, num_iterations={num_iterations}): two names of one number; "
        "give one of them.",
    )
    settings = Settings(
        updates=updates,
        batch=batch,
        target_snr=target_snr,
        baseline=baseline,
        baseline_every=baseline_every,
        lr=lr,
        schedule=schedules.named(schedule),
        warmup=warmup,
        epochs=epochs if num_iterations is None else num_iterations,
        minibatches=minibatches,
        max_grad_norm=max_grad_norm,
        value_coefficient=value_coefficient,
        mask_truncated_completions=mask_truncated_completions,
        resample_dead_groups=resample_dead_groups,
        shared_prompts=shared_prompts,
        token_budget=token_budget,
        signal_every=signal_every,
        decompose_every=decompose_every,
        turns=turns,
        delay=delay,
        seed=seed,
        threads=threads,
    )
    settings.check(task, policy, estimator, value)
    estimators = settings.rules(estimator, value, task.num_generations)
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
    if options.out is not None:
        policy.refuse_unless_saved()
    for name, rows in (task.held_out_sets or {"": task.held_out}).items():
        refuse_unless(
            not evaluate_every or len(rows) >= 2,
            f"train(evaluate_every={evaluate_every}): {len(rows)} prompts are held out"
            f"{f' as {name!r}' if name else ''}, and an evaluation needs two; make the task with "
            "held_out=0.1, or more rows.",
        )
    engine = engine or Decoding()
    prompts = prompts_of(
        "train", task, policy, task.train + (task.held_out if evaluate_every else [])
    )
    if isinstance(engine, Decoding):
        settle_packing("train", policy, prompts, task.num_generations)
    masters = Masters([p for p in policy.parameters() if p.requires_grad])
    trained = masters.parameters + (list(value.parameters()) if value is not None else [])
    default = partial(AdamW, lr=LR, weight_decay=0.0, fused=True)
    fitted = optimizer_of(trained, optimizer or default, lr)
    config = describe(task, policy, estimator, fitted, value, engine, settings)
    measured_to = _reference(policy, reference, estimator)
    if options.out is not None:
        config[NAME] = fixed_weights(policy, measured_to)
        if resume:
            refuse_other_weights(options.out, config[NAME])
    sources = Sources(task, engine, environment, measured_to)
    learner = LanguageLearner(sources, policy, value, estimators, fitted, settings, masters)
    if watch is not None:
        options = replace(options, callbacks=[_watching(learner, watch), *callbacks])
    masters.attach(fitted)
    try:
        run = carry_out(learner, config, options, updates=updates)
        synchronise(engine, policy)
    finally:
        masters.detach()
    run = replace(run, policy=policy, value=value)
    if options.out is not None:
        policy.save_pretrained(options.out / MODEL)
        seal(options.out / MODEL)
    return run


def _watching(learner: LanguageLearner, watch: Watcher) -> Callback:
    """The watcher as a callback."""

    def watching(state: RunState, row: dict[str, Any]) -> None:
        assert learner.latest is not None
        watch(row["update"], *learner.latest)

    watching.__name__ = getattr(watch, "__name__", "watch")
    return watching


def _reference(policy: Policy, given: Policy | None, estimator: Estimator) -> Policy | None:
    """A frozen copy of the policy as it is; None where it is the model without its adapter.

    None, too, where the estimator measures no KL.

    Raises:
        InputError: a reference that would move with the policy, that has other tokens, or that an
            estimator does not look at.
    """
    needed = "reference_log_prob" in estimator.needs
    if given is not None:
        _refuse_unfit(policy, given, estimator, needed)
        return given
    if not needed or (policy.has_adapter and not adapters.moves(policy.model)):
        return None
    frozen = copy.deepcopy(policy)
    frozen.requires_grad_(False)
    return frozen


def _refuse_unfit(policy: Policy, given: Policy, estimator: Estimator, needed: bool) -> None:
    refuse_unless(
        needed,
        f"train(reference=...): {estimator.name!r} measures no KL; give the estimator a "
        "coefficient, such as rloo(beta=0.05), or leave the reference out.",
    )
    trained = {id(p) for p in policy.parameters() if p.requires_grad}
    refuse_unless(
        trained.isdisjoint(id(p) for p in given.parameters()),
        "train(reference=...): it shares weights with the policy that is trained, and would "
        "move with it; leave reference out, or make it from a copy of the model.",
    )
    ours, other = (each.tokenizer and each.tokenizer.get_vocab() for each in (policy, given))
    refuse_unless(
        ours is None or other is None or ours == other,
        "train(reference=...): its tokenizer has another vocabulary than the policy's, so that one "
        "id would be two tokens; take a model of the same tokenizer.",
    )
