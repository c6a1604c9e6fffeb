"""Every completion of a model small enough, with its probability as weight: exact expectations.

The same estimators and gradients as on samples then give exact values: with weight π(τ) in place of
1/N, [4] is ∇J and not an estimate of it.
"""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import finished
from vantage.language.sampling.sequences import as_batch, joined
from vantage.language.scoring.scoring import Passes, score_batch
from vantage.language.tasks.task import Task

MOST = 200_000


def enumerated(task: Task, policy: Policy, rows: list[int] | None = None) -> Batch:
    """All completions of the prompts of some rows, each prompt as likely as the others.

    Args:
        task, policy: what is asked, and whose probabilities.
        rows: the rows of the task; those trained on where None.

    Returns:
        Batch with weight π(τ)/len(rows), which sums to 1, and one group for each prompt. Weights of
        estimators that compare completions mean nothing on it: its rows are not samples.

    Raises:
        InputError: more completions than can be listed, with the arithmetic; a truncated law.
    """
    return enumerated_with_parts(task, policy, rows)[0]


def enumerated_with_parts(
    task: Task, policy: Policy, rows: list[int] | None = None
) -> tuple[Batch, dict[str, Float[Tensor, " N"]]]:
    """`enumerated`, and the completions' rewards by function, before their weights."""
    subset = list(task.train) if rows is None else rows
    vocabulary = policy.base.config.get_text_config().vocab_size
    steps, ends = policy.max_completion_length, policy.end_ids
    count = (vocabulary - len(ends)) ** steps * len(subset)
    refuse_unless(
        count <= MOST,
        f"enumerated: {vocabulary} tokens, {steps} steps and {len(subset)} prompts make more than "
        f"{count:,} completions, of which {MOST:,} can be listed; lower max_completion_length, or "
        "give fewer rows.",
    )
    refuse_unless(
        not policy.law.truncates, "enumerated: under a truncated law most completions cannot occur."
    )
    going = [i for i in range(vocabulary) if i not in ends]
    listed = [
        [*before, end]
        for length in range(steps)
        for before in itertools.product(going, repeat=length)
        for end in ends
    ]
    listed += [list(whole) for whole in itertools.product(going, repeat=steps)]
    tokens = torch.tensor([ids + [policy.pad_id] * (steps - len(ids)) for ids in listed])
    repeated = [row for row in subset for _ in listed]
    wide = next(policy.parameters()).dtype == torch.float64
    unknown = torch.zeros(len(repeated), steps, dtype=torch.float64 if wide else torch.float32)
    drawn = finished(tokens.repeat(len(subset), 1), unknown, ends, policy.pad_id)
    prompts = task.encode(policy.tokenizer)
    rewards = task.score_ids(repeated, drawn.ids(), policy.tokenizer)
    refuse_unless(
        bool(rewards.scorable.all()),
        "enumerated: some completions are worth None, that is, cannot be scored and leave their "
        "group: groups of random size have no exact value here. Give every completion a number.",
    )
    sequences = joined([prompts[row] for row in repeated], drawn, policy.pad_id)
    group = torch.arange(len(subset)).repeat_interleave(len(listed))
    batch = as_batch(sequences, rewards.total.to(unknown.dtype), group)
    log_prob, _ = score_batch(policy, batch, Passes(1, 16384))
    weight = log_prob.double().sum(1).exp() / len(subset)
    return replace(batch, log_prob=log_prob, weight=weight.to(batch.weight)), rewards.parts
