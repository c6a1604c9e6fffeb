"""What an estimator's gradient is on average, exactly, on a language model small enough to list.

Every completion of every prompt is listed with its probability, and an estimator that compares the
completions of a prompt is weighed on every way in which a group of K can be made up, by the kinds
of completions that it tells apart (`vantage.exact.kinds`). So the bias of GRPO, say, is a number
without an error bar.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import comb
from typing import Any

import torch
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.estimators.aggregates import per_token, per_trajectory
from vantage.estimators.columns import function_of
from vantage.estimators.estimator import Estimator
from vantage.exact.enumeration import Expectation
from vantage.exact.kinds import over_steps
from vantage.language.auditing.kinds import Prompt, Sorted, listed
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import (
    AVAILABLE,
    refuse_frozen,
    refuse_infinite_kl,
    refuse_missing_value,
)


@checked
def expectation(
    task: Task,
    policy: Policy,
    estimator: Estimator,
    num_generations: int | None = None,
    *,
    rows: Sequence[int] | None = None,
    prompts: int | None = None,
    behaviour: Policy | None = None,
    value: ValueHead | None = None,
    reference_policy: Policy | None = None,
) -> Expectation:
    """Exact mean and variance of the gradient of one batch of prompts × K completions.

    With the counts of each kind of completion in a group, all weights are known: the sum runs over
    these multisets and not over tuples of completions. Rows that couple the whole batch are summed
    over the batches' multisets, but for the mean over tokens (DAPO), which couples groups through
    their number of tokens alone and is summed over that.

    Args:
        task, policy: what is asked, and whose gradient it is. The model is used in its own
            precision; after `policy.double()` the result is exact to 1e-10 and better, where the
            architecture computes in float64 throughout (the norms of a Llama do not: 1e-8).
        estimator: any row of the table but for an entropy bonus.
        num_generations: K, completions per prompt; the task's where None.
        rows: the rows of the task; those trained on where None.
        prompts: different prompts in a batch, as training draws them within an epoch; all of `rows`
            where None, so that the variance has no part from the choice of prompts.
        behaviour: the policy that the completions are drawn from, where it is not `policy`.
        value: V(s_t), for estimators that need it.
        reference_policy: what a KL is measured to; a LoRA policy without its adapter where None.

    Returns:
        Expectation: mean [P], E ĝ; trace, tr Cov(ĝ) of the batch; batches, how many multisets were
        weighed. The mean of `reinforce()` is ∇J of the mean reward over `rows`.

    Raises:
        InputError: too many completions or multisets, with the arithmetic; a missing input.
    """
    subset = list(task.train) if rows is None else list(rows)
    size = task.num_generations if num_generations is None else num_generations
    drawn = len(subset) if prompts is None else prompts
    refuse_unless(size >= 1, f"expectation(num_generations={size}): at least one completion.")
    refuse_unless(
        1 <= drawn <= len(subset),
        f"expectation(prompts={drawn}): a batch holds 1 to {len(subset)} different prompts.",
    )
    _refuse(estimator, policy, behaviour, value, reference_policy, size)
    every = listed(task, policy, subset, estimator, behaviour, value, reference_policy)
    # the mean over tokens divides the plain sum by one number of the whole batch
    by_token = function_of(estimator.aggregate) is per_token
    rule = replace(estimator, aggregate=per_trajectory) if by_token else estimator
    if rule.couples == "batch":
        return _whole_batches(rule, policy, every, size, drawn, by_token)
    if by_token:
        return _over_tokens(rule, policy, every, size, drawn)
    return _by_prompt(rule, policy, every, size, drawn)


def _by_prompt(
    rule: Estimator, policy: Policy, every: list[Prompt], size: int, drawn: int
) -> Expectation:
    """Prompts do not look at one another: average means, add covariances."""
    # nothing is compared: one completion is a group
    group = 1 if rule.couples == "none" else size
    means, traces, weighed = [], [], 0
    for prompt in every:
        sorted_out = Sorted.of(rule, policy, [prompt], group)
        totals, count = sorted_out.moments(1 / group)
        mean, square = totals.total
        means.append(mean)
        traces.append((square - mean @ mean) * group / size)
        weighed += count
    of_prompts, prompts = torch.stack(means), len(every)
    mean = of_prompts.mean(0)
    trace = torch.stack(traces).mean() / drawn
    if drawn < prompts:  # prompts are drawn without replacement
        between = (of_prompts - mean).square().sum(1).mean()
        trace = trace + between / drawn * (prompts - drawn) / (prompts - 1)
    return Expectation(mean, trace, weighed)


def _over_tokens(
    rule: Estimator, policy: Policy, every: list[Prompt], size: int, drawn: int
) -> Expectation:
    """The sum over a batch's groups, divided by the number of its tokens."""
    groups, weighed = [], 0
    for prompt in every:
        moments, count = Sorted.of(rule, policy, [prompt], size).moments(1.0)
        groups.append(moments)
        weighed += count
    return _mixed([over_steps(subset) for subset in _subsets(groups, drawn)], weighed)


def _whole_batches(
    rule: Estimator, policy: Policy, every: list[Prompt], size: int, drawn: int, by_token: bool
) -> Expectation:
    """Each batch weighed by itself."""
    pairs, weighed = [], 0
    for subset in _subsets(every, drawn):
        row = 1.0 if by_token else 1 / (drawn * size)
        moments, count = Sorted.of(rule, policy, subset, size).moments(row)
        pairs.append(over_steps([moments]) if by_token else moments.total)
        weighed += count
    return _mixed(pairs, weighed)


def _mixed(pairs: list[tuple[Tensor, Tensor]], weighed: int) -> Expectation:
    """Mean and trace of ĝ where each of the (E ĝ, E‖ĝ‖²) given is as likely as the others."""
    mean = torch.stack([each[0] for each in pairs]).mean(0)
    square = torch.stack([each[1] for each in pairs]).mean()
    return Expectation(mean, square - mean @ mean, weighed)


def _subsets(items: list[Any], count: int) -> Iterator[list[Any]]:
    number = comb(len(items), count)
    refuse_unless(
        number <= 2000,
        f"expectation(prompts={count}): {len(items)} prompts make {number:,} different batches, "
        "and what couples a batch is weighed on each of them; give fewer rows, or no prompts=.",
    )
    return (list(each) for each in itertools.combinations(items, count))


def _refuse(
    estimator: Estimator,
    policy: Policy,
    behaviour: Policy | None,
    value: ValueHead | None,
    reference: Policy | None,
    size: int,
) -> None:
    estimator.require({"group", *AVAILABLE} if size > 1 else set(AVAILABLE))
    refuse_missing_value("expectation", estimator, value)
    refuse_infinite_kl("expectation", estimator, policy)
    refuse_frozen("expectation", policy)
    refuse_unless(
        reference is not None or policy.has_adapter or "reference_log_prob" not in estimator.needs,
        f"expectation: {estimator.name!r} measures a KL to a reference policy: pass "
        "reference_policy=, a language.Policy.",
    )
    refuse_unless(
        not estimator.entropy,
        f"expectation: {estimator.name!r} has an entropy bonus, which is no weight on scores; take "
        "it off with .replace(entropy=0.0).",
    )
    refuse_unless(
        behaviour is None or estimator.restraint is None,
        f"expectation(behaviour=...): {estimator.name!r} restrains the policy where it has left "
        "the one that sampled, which is no multiple of an advantage; take it off with "
        ".replace(restraint=None).",
    )
    refuse_unless(
        behaviour is None or behaviour.max_completion_length == policy.max_completion_length,
        "expectation(behaviour=...): the two policies have different max_completion_length.",
    )
