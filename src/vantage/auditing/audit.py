"""`vantage.audit`: measure estimators of the policy gradient on an environment with a policy."""

from dataclasses import replace
from functools import singledispatch
from typing import Any

from torch import Tensor, nn

from vantage.arguments import checked
from vantage.auditing import exactly, measure, starts
from vantage.auditing.record import Row
from vantage.auditing.report import Report
from vantage.auditing.reporting import refuse_namesakes, reported
from vantage.auditing.samples import EPISODES, sample_of
from vantage.auditing.sampling import Sampling, collect, samplings
from vantage.auditing.units import Units, described, sketch_for
from vantage.estimators.estimator import Estimator, compares
from vantage.estimators.table import named
from vantage.policies import Policy
from vantage.runs.progress import counting
from vantage.runs.threads import torch_threads
from vantage.training.door import check_policy, check_value, estimator_of, opened, several
from vantage.training.settings import refuse_penalised


@singledispatch
@checked
def audit(
    env: Any,
    policy: Any,  # what people give by mistake is told so by the door, in a sentence
    estimators: object,
    *,
    trajectories: int = 4096,
    batch: int = 64,
    seed: int = 0,
    value: Any = None,
    reference: Estimator | None = None,
    group_size: int = 8,
    behaviour: Policy | None = None,
    target_snr: float = 4.0,
    memory: int = 4 << 30,
    threads: int = 1,
    progress: bool = True,
) -> Report:
    """How good are these gradients? Bias, variance, SNR and more, each with a 95 % interval.

    One set of samples and one set of gradient passes serve every estimator. Bias is measured
    against the exact gradient where the environment is a tabular MDP, else against an unbiased
    estimator, by products of different units, which are independent samples.

    Args:
        env: where: an environment, or what `vantage.make` makes one of; an MDP is sampled.
        policy: whose gradient is measured; it is not changed.
        estimators: rows of the table, or your own, with different names; of an algorithm, its
            estimator; or the name of either (a row's, where both bear it).
        trajectories: how many to sample, rounded down to whole batches.
        batch: trajectories of one gradient step, whose quality is reported.
        seed: the seed of everything random here.
        value: V(s) for the estimators that need one.
        reference: an unbiased estimator to measure bias against; by default rewards-to-go, minus V
            if there is a value function.
        group_size: trajectories of one start state, compared with one another by estimators that
            need groups; these are measured on trajectories of their own.
        behaviour: the policy that samples, where it is not `policy`: a stale or off-policy audit.
            The reference is then sampled from `policy` itself.
        target_snr: what the plan is made for.
        memory: bytes for unit gradients; larger models are sketched to stay within them.
        threads: torch threads.
        progress: show progress.

    Returns:
        Report: `.rows`, `.summary`, `.plan`; prints as a table, saves as JSON or HTML.

    Raises:
        InputError: sizes, inputs or names that cannot work, before anything is sampled; or an
            estimator compares trajectories of one start state where lanes cannot share one.
    """
    env = opened(env)
    check_policy(env, policy)
    if value is not None:
        check_value(env, policy, value)
    rows = [estimator_of(each) for each in several(estimators)]
    yardstick = _checked(rows, reference, value)
    exact_gradient = exactly.gradient(env, policy)
    same = yardstick if exact_gradient is None and behaviour is None else None
    sizes = trajectories, batch, group_size
    plans = samplings(env, rows, same, *sizes)
    off_policy = exact_gradient is None and behaviour is not None
    apart = samplings(env, [yardstick], None, *sizes) if off_policy else []
    sketch = sketch_for(policy, [(p.design, p.estimators) for p in plans + apart], memory, seed)

    def sample(what: str, plan: Sampling, seed: int, sampler: Policy | None) -> Units:
        with counting(what, plan.design.trajectories, progress) as done:
            return collect(plan, policy, seed, value, sampler, sketch, memory, done)

    with torch_threads(threads):
        # seeds of two sets of trajectories lie further apart than either's chunks
        sampled = [sample("audit", p, seed + i * 10**7, behaviour) for i, p in enumerate(plans)]
        star: Tensor | Units | None
        if exact_gradient is not None:
            star = exact_gradient if sketch is None else sketch(exact_gradient)
            against = "the exact gradient"
        elif apart:
            star = sample("reference", apart[0], seed + 10**6, None)
            against = f"{yardstick.name} on trajectories of the policy itself"
        else:
            star, against = None, f"{yardstick.name} on the same trajectories"
        against_estimator = yardstick if exact_gradient is None else None
        factors = {}
        if behaviour is None:
            factors = measure.known_factors(rows, against_estimator, group_size, env.discount)
        algebra = measure.by_algebra(factors)
        by_name: dict[str, Row] = {}
        sampled_for: list[str] = []
        with counting("statistics", len(rows), progress, "estimators") as done:
            for plan, units in zip(plans, sampled, strict=True):
                here = [row for row in rows if compares(row) == (plan.design.shared > 1)]
                decomposed = starts.decompositions(
                    env, policy, here, seed, value, behaviour, units.method.name, sketch, memory,
                    measure.undetermined,
                )  # fmt: skip
                known, refused = exactly.rows(
                    env, policy, here, plan.design, value, behaviour, exact_gradient
                )
                sampled_for += refused.values()
                reference_here = _reference(star, yardstick, units, sampled)
                for row in measure.rows(policy, here, units, reference_here, decomposed):
                    name = row.estimator
                    by_name[name] = replace(row, **algebra.get(name, {}) | known.get(name, {}))
                    done(len(by_name))
    measured = [by_name[row.name] for row in rows]
    settings = described(sampled, rows, seed, env.name, env.discount, type(policy).__name__)
    looked = sample_of(sampled, EPISODES)
    report = reported(measured, rows, sampled[0], against, settings, target_snr, looked, factors)
    return replace(report, notes=[*report.notes, *(f"sampled: {why}" for why in sampled_for)])


def _reference(
    star: Tensor | Units | None, yardstick: Estimator, units: Units, sampled: list[Units]
) -> Tensor | tuple[str, Units]:
    """What bias is measured against on these units: on the same trajectories where it can be."""
    if isinstance(star, Tensor):
        return star
    if star is None:
        star = next(each for each in (units, *sampled) if yardstick.name in each.gradients)
    return yardstick.name, star


def _checked(
    rows: list[Estimator], reference: Estimator | None, value: nn.Module | None
) -> Estimator:
    """The reference estimator, once all are known to have what they need."""
    refuse_namesakes(rows)
    yardstick = reference or _default_reference(rows, value)
    refuse_penalised([*rows, yardstick], "audit")
    available = {"group", "scores", "entropy"} | ({"value"} if value is not None else set())
    for estimator in [*rows, yardstick]:
        estimator.require(available)
    return yardstick


def _default_reference(rows: list[Estimator], value: nn.Module | None) -> Estimator:
    """An unbiased row of the least variance to be expected: of those given, or of the table."""
    default = named("reinforce_baseline" if value is not None else "reward_to_go")
    same = [row for row in rows if row == default]
    taken = {row.name for row in rows}
    if same:
        return same[0]
    return default if default.name not in taken else default.replace(name="reference")
