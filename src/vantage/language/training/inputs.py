"""What estimators look at beyond rewards: V, a reference policy, the reward of greedy completions.

Training and audits have them from here, batch by batch, without a graph.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.weighted import scores
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.rollout import Rollout, greedy_reward
from vantage.language.scoring.scoring import Passes, score_batch, scored_passes
from vantage.language.tasks.task import Task

PROXIMAL = "proximal_log_prob"  # of the policy that an update begins with
# what there is, or can be, of a language model's completions
AVAILABLE = frozenset(
    {"scores", "greedy_return", "reference_log_prob", "value", "entropy"}
    | {"reward_parts", "reward_weights"}
)


@torch.no_grad()
def valued(batch: Batch, policy: Policy, value: ValueHead | None, passes: Passes) -> Batch:
    """The batch with V(s_t), where there is a value head."""
    if value is None:
        return batch
    predicted = torch.zeros_like(batch.log_prob)
    for one in scored_passes(policy, batch, passes):
        predicted[one.rows] = one.grid(value(one.states)).to(predicted)
    return replace(batch, value=predicted)


@torch.no_grad()
def inputs_of(
    estimator: Estimator,
    task: Task,
    policy: Policy,
    reference: Policy | None,
    drawn: Rollout,
    passes: Passes,
    entropy: Float[Tensor, "N T"] | None = None,
) -> dict[str, Tensor]:
    """What the estimator needs of reference, greedy completions, entropies and rewards' parts.

    Args:
        reference: the policy that a KL is measured to; None: `policy` without its adapter.
        entropy: the entropies of the policy, where the batch has been scored already.
    """
    batch, inputs = drawn.batch, {}
    if "reference_log_prob" in estimator.needs:
        inputs["reference_log_prob"] = reference_log_prob(batch, policy, reference, passes)
    if "greedy_return" in estimator.needs:
        rows = list(dict.fromkeys(drawn.rows))
        reward = greedy_reward(task, policy, rows, drawn.environment, drawn.turns, drawn.state)
        by_row = dict(zip(rows, reward.tolist(), strict=True))
        each = torch.tensor([by_row[row] for row in drawn.rows]).to(batch.log_prob)
        inputs["greedy_return"] = each[:, None].expand_as(batch.log_prob)
    if "entropy" in estimator.needs:
        if entropy is None:
            _, entropy = score_batch(policy, batch, passes)
        inputs["entropy"] = entropy
    if "reward_parts" in estimator.needs:
        inputs |= parts_at_the_end(batch, task, drawn.parts)
    return inputs


def parts_at_the_end(
    batch: Batch, task: Task, parts: Mapping[str, Float[Tensor, " N"]]
) -> dict[str, Float[Tensor, "N T K"]]:
    """Each reward function's own rewards, at the last step that counts, and its weight."""
    weights = torch.tensor(task.scoring.weights).to(batch.reward)
    each = torch.stack([parts[name] for name in task.scoring.functions], -1).to(batch.reward)
    last = (batch.boundary & batch.mask)[..., None]
    grid = torch.where(last, each[:, None], 0)
    return {"reward_parts": grid, "reward_weights": weights.expand_as(grid)}


def inputs_and_scores(
    estimator: Estimator,
    task: Task,
    policy: Policy,
    reference: Policy | None,
    drawn: Rollout,
    batch: Batch,
    passes: Passes,
    entropy: Float[Tensor, "N T"] | None = None,
) -> dict[str, Any]:
    """`inputs_of`, and the scores' norms and products on the whole batch where they are needed.

    Args:
        batch: that of `drawn`, with values where there is a value head.
        entropy: as in `inputs_of`.
    """
    known = inputs_of(estimator, task, policy, reference, drawn, passes, entropy)
    inputs: dict[str, object] = dict(known)
    if "scores" in estimator.needs:
        inputs["scores"] = scores(policy, batch, estimator, **inputs)
    return inputs


def reference_log_prob(
    batch: Batch, policy: Policy, reference: Policy | None, passes: Passes
) -> Float[Tensor, "N T"]:
    """log π_ref of every counted step, under the law of `policy`.

    Of `reference`, or where None of `policy` without its adapter.
    """
    if reference is not None:
        under = copy.copy(reference)
        under.law = policy.law  # a KL compares two policies under one law
        return score_batch(under, batch, passes)[0]
    with policy.without_adapter():
        return score_batch(policy, batch, passes)[0]


def refuse_missing_value(caller: str, estimator: Estimator, value: nn.Module | None) -> None:
    """Refuse an estimator with a value baseline where there is no value head.

    Raises:
        InputError: naming caller and estimator, with the remedy.
    """
    refuse_unless(
        value is not None or "value" not in estimator.needs,
        f"{caller}: {estimator.name!r} needs a value head: pass "
        "value=vantage.language.ValueHead(policy).",
    )


def refuse_frozen(caller: str, policy: Policy) -> None:
    """Refuse a policy of which nothing is trained, and so nothing has a gradient.

    Raises:
        InputError: naming caller and model.
    """
    refuse_unless(
        any(p.requires_grad for p in policy.parameters()),
        f"{caller}: no parameter of this {type(policy.base).__name__} requires a gradient; take "
        "Policy(lora=8), or let it have some with model.requires_grad_(True).",
    )


def refuse_infinite_kl(caller: str, estimator: Estimator, policy: Policy) -> None:
    """Refuse a KL to a reference policy where the sampling law leaves tokens out.

    Raises:
        InputError: naming caller, estimator and law.
    """
    refuse_unless(
        not (policy.law.truncates and "reference_log_prob" in estimator.needs),
        f"{caller}: {estimator.name!r} measures a KL to a reference policy, which is infinite "
        f"where a truncated law ({policy.law}) gives a token no probability. Sample with "
        "temperature alone.",
    )
