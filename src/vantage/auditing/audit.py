"""`vantage.audit`: measure estimators of the policy gradient on an environment with a policy."""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

from torch import Tensor, nn

from vantage.auditing import exactly, measure, starts
from vantage.auditing.report import Report
from vantage.auditing.reporting import refuse_namesakes, reported
from vantage.auditing.units import Units, collect, described, plan_units, sketch_for
from vantage.environments.interface import Environment
from vantage.estimators.estimator import Estimator
from vantage.estimators.table import named
from vantage.policies import Policy
from vantage.runs.progress import counting
from vantage.runs.threads import torch_threads


@singledispatch
def audit(
    env: Environment,
    policy: Policy,
    estimators: Sequence[Estimator],
    *,
    trajectories: int = 4096,
    batch: int = 64,
    seed: int = 0,
    value: nn.Module | None = None,
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
        env: where.
        policy: whose gradient is measured; it is not changed.
        estimators: rows of the table, or your own, with different names.
        trajectories: how many to sample, rounded down to whole batches.
        batch: trajectories of one gradient step, whose quality is reported.
        seed: of everything random here.
        value: V(s) for the estimators that need one.
        reference: an unbiased estimator to measure bias against; by default rewards-to-go, minus V
            if there is a value function.
        group_size: trajectories compared with one another by estimators that need groups.
        behaviour: the policy that samples, where it is not `policy`: a stale or off-policy audit.
            The reference is then sampled from `policy` itself.
        target_snr: what the plan is made for.
        memory: bytes for unit gradients; larger models are sketched to stay within them.
        threads: torch threads.
        progress: show progress.

    Returns:
        Report: `.rows`, `.summary`, `.plan`; prints as a table, saves as JSON or HTML.

    Raises:
        InputError: sizes, inputs or names that cannot work, before anything is sampled.
    """
    rows = list(estimators)
    yardstick = _checked(rows, reference, value)
    design = plan_units([*rows, yardstick], trajectories, batch, group_size)
    exact_gradient = exactly.gradient(env, policy)
    among_them = exact_gradient is not None or yardstick.name in {row.name for row in rows}
    sampled = rows if among_them or behaviour is not None else [*rows, yardstick]
    kept = [*rows, yardstick] if behaviour is not None and exact_gradient is None else sampled
    sketch = sketch_for(policy, kept, design, memory, seed)

    def sample(what: str, which: list[Estimator], seed: int, sampler: Policy | None) -> Units:
        with counting(what, design.trajectories, progress) as done:
            return collect(env, policy, which, design, seed, value, sampler, sketch, memory, done)

    with torch_threads(threads):
        units = sample("audit", sampled, seed, behaviour)
        star: Tensor | tuple[str, Units]
        if exact_gradient is not None:
            star = exact_gradient if sketch is None else sketch(exact_gradient)
            against = "the exact gradient"
        elif behaviour is None:
            star, against = (yardstick.name, units), f"{yardstick.name} on the same trajectories"
        else:
            star = yardstick.name, sample("reference", [yardstick], seed + 10**6, None)
            against = f"{yardstick.name} on trajectories of the policy itself"
        decomposed = starts.decompositions(
            env, policy, rows, seed, value, behaviour, units.method.method, sketch, memory,
            measure.undetermined,
        )  # fmt: skip
        known = exactly.rows(env, policy, rows, design, value, behaviour, exact_gradient)
        found = [
            replace(row, **known.get(row.estimator, {}))
            for row in measure.rows(policy, rows, units, star, decomposed)
        ]
    settings = described(units, rows, seed, env.name, env.discount, type(policy).__name__)
    return reported(found, rows, units, against, settings, target_snr)


def _checked(
    rows: list[Estimator], reference: Estimator | None, value: nn.Module | None
) -> Estimator:
    """The reference estimator, once all are known to have what they need."""
    refuse_namesakes(rows)
    yardstick = reference or _default_reference(rows, value)
    available = {"group", "scores"} | ({"value"} if value is not None else set())
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
