"""The completions of a prompt, sorted by what an estimator reads of them.

What a completion weighs depends on its kind, and on the kinds of the others of its batch. This
module lists completions, finds their kinds by watching the estimator look, and weighs every way in
which a batch can be made up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb, prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.columns import describe, look_at
from vantage.estimators.estimator import Estimator
from vantage.estimators.inputs import penalty
from vantage.estimators.scores import Scores
from vantage.exact.enumeration import multisets
from vantage.exact.kinds import BySteps, Kinds, added, moments_by_steps
from vantage.gradients.weighted import row_gradients, weighted_products
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.rollout import greedy_reward
from vantage.language.scoring.enumeration import enumerated_with_parts
from vantage.language.scoring.scoring import Passes, score_batch
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import parts_at_the_end, reference_log_prob, valued

PASSES = Passes(1, 16384)
MULTISETS = 1_000_000  # most ways to make up a group that are weighed
BATCHES = 50_000  # the same where every batch has to be weighed by itself
AT_ONCE = 16_384  # groups weighed at once
ROWS = 64  # completions whose scores are held at once
PER_ROW = ("group", "weight")
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """Every completion of a prompt, at the steps that can count.

    Attributes:
        whole: the rows as the policy reads them.
        steps: the steps of `whole`, those of the completions.
        batch: the rows at these steps, with their probability given the prompt.
        log_prob: [n, T] under the policy.
        inputs: what else the estimator reads, at these steps.
    """

    whole: Batch
    steps: slice
    batch: Batch
    log_prob: Float[Tensor, "n T"]
    inputs: Inputs


def listed(
    task: Task,
    policy: Policy,
    rows: list[int],
    estimator: Estimator,
    behaviour: Policy | None,
    value: ValueHead | None,
    reference: Policy | None,
) -> list[Prompt]:
    batch, parts = enumerated_with_parts(task, behaviour or policy, rows)
    every = valued(batch, policy, value, PASSES)
    log_prob, entropy = every.log_prob, None
    if behaviour is not None or "entropy" in estimator.needs:
        scored, entropy = score_batch(policy, every, PASSES)
        log_prob = log_prob if behaviour is None else scored
    inputs: Inputs = {}
    if "reference_log_prob" in estimator.needs:
        inputs["reference_log_prob"] = reference_log_prob(every, policy, reference, PASSES)
    if "entropy" in estimator.needs:
        inputs["entropy"] = entropy
    if "reward_parts" in estimator.needs:
        inputs |= parts_at_the_end(every, task, parts)
    if "greedy_return" in estimator.needs:
        greedy = greedy_reward(task, policy, rows)
        inputs["greedy_return"] = greedy[every.group][:, None].expand_as(log_prob).to(log_prob)
    return [
        _one_prompt(every, log_prob, inputs, estimator, policy, group) for group in range(len(rows))
    ]


def _one_prompt(
    every: Batch,
    log_prob: Float[Tensor, "N T"],
    inputs: Inputs,
    estimator: Estimator,
    policy: Policy,
    group: int,
) -> Prompt:
    members = (every.group == group).nonzero().flatten()
    whole = every.select(members)
    counted = whole.mask.any(0).nonzero().flatten()
    steps = slice(int(counted[0]), int(counted[-1]) + 1)
    fields = {
        name: tensor if name in PER_ROW else tensor[:, steps]
        for name, tensor in whole.tensors().items()
    }
    chance = whole.weight.double()
    row = torch.arange(whole.rows)[:, None]
    fields |= {
        "weight": chance / chance.sum(),
        "episode": row.expand_as(fields["mask"]).contiguous(),
    }
    batch = Batch(**fields)
    given = {name: tensor[members][:, steps] for name, tensor in inputs.items()}
    prompt = Prompt(whole, steps, batch, log_prob[members][:, steps], given)
    if "scores" in estimator.needs:
        alone = replace(batch, weight=torch.ones_like(batch.weight))
        pieces = [
            weighted_products(scores, _numbered(alone.select(rows)), estimator)
            for rows, scores in _scores(policy, prompt)
        ]
        given["scores"] = Scores(*(torch.cat(each) for each in zip(*pieces, strict=True)))
    return prompt


@dataclass(frozen=True)
class Sorted:
    """The completions of a batch's prompts by kinds, and every way to make up the batch.

    Attributes:
        rows: one row of each kind, with its inputs and log-probabilities under the policy.
        members: [U, n K] the kinds in each batch, prompt by prompt.
        probability: [U].
    """

    rule: Estimator
    rows: Batch
    log_prob: Float[Tensor, "M T"]
    inputs: Inputs
    kinds: Kinds
    members: Int[Tensor, "U nK"]
    probability: Float[Tensor, " U"]
    prompts: int
    signed: bool

    @staticmethod
    def of(rule: Estimator, policy: Policy, prompts: list[Prompt], size: int) -> "Sorted":
        """Sort the completions of a batch's prompts, of which each has `size` in the batch.

        Raises:
            InputError: more ways to make up a batch than can be weighed, with the arithmetic.
        """
        signed = any(_is_signed(rule, prompt) for prompt in prompts)
        kinds, one_of_each = zip(
            *(_kinds(rule, policy, prompt, size, signed) for prompt in prompts), strict=True
        )
        members, probability = _made_up(rule, kinds, size)
        pairs = list(zip(prompts, one_of_each, strict=True))
        rows = [prompt.batch.select(each).tensors() for prompt, each in pairs]
        return Sorted(
            rule,
            Batch(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]}),
            torch.cat([prompt.log_prob[each] for prompt, each in pairs]),
            _joined([_rows_of(prompt.inputs, each) for prompt, each in pairs]),
            Kinds.joined(kinds),
            members,
            probability,
            len(prompts),
            signed,
        )

    def moments(self, row_weight: float) -> tuple[BySteps, int]:
        """Moments of ĝ where each row weighs `row_weight`, and over how many multisets."""
        at_once = 1 if self.rule.couples == "batch" else AT_ONCE
        pieces = []
        for places in torch.arange(len(self.members)).split(at_once):
            members = self.members[places]
            weight = self._weights(members, row_weight)
            pieces.append(moments_by_steps(self.kinds, members, self.probability[places], weight))
            if len(pieces) == 64:
                pieces = [added(pieces)]
        return added(pieces), len(self.members)

    def _weights(self, members: Int[Tensor, "U nK"], row_weight: float) -> Float[Tensor, "U nK F"]:
        units, rows = members.shape
        flat = members.flatten()
        group = torch.arange(units * self.prompts).repeat_interleave(rows // self.prompts)
        batch = _numbered(self.rows.select(flat))
        weight = torch.full_like(batch.weight, row_weight)
        batch = replace(batch, group=group, weight=weight)
        given = _rows_of(self.inputs, flat)
        advantage = self.rule.advantage(batch, self.log_prob[flat], **given).double()
        share = self.rule.share(batch).double()
        parts = [share * advantage]
        if self.signed:
            parts = [share * advantage.clamp(min=0), share * advantage.clamp(max=0)]
        if self.rule.kl_in_loss is not None:
            parts.append(-share)
        return torch.stack(parts, -1).reshape(units, rows, -1)


def _kinds(
    rule: Estimator, policy: Policy, prompt: Prompt, size: int, signed: bool
) -> tuple[Kinds, Int[Tensor, " M"]]:
    """A prompt's completions by what the rule reads of them, and a row of each kind."""
    batch = prompt.batch
    read = [batch.tensors()[name] for name in sorted(_fields_read(rule, prompt, size))]
    if rule.kl_in_reward or look_at("log_prob", rule.returns, rule.selection):
        read.append(prompt.log_prob)
    for tensor in prompt.inputs.values():
        read += list(tensor) if isinstance(tensor, Scores) else [tensor]
    key = torch.cat([tensor.double().flatten(1) for tensor in read], 1)
    values, kind = key.unique(dim=0, return_inverse=True)
    count = len(values)
    representative = torch.empty(count, dtype=torch.long)
    representative[kind] = torch.arange(batch.rows)
    chance = batch.weight.new_zeros(count).index_add_(0, kind, batch.weight)
    factor = _factors(rule, prompt, signed)
    features = factor.shape[1] * factor.shape[2]
    width = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    mean = chance.new_zeros(count, features, width)
    second = chance.new_zeros(count, features, features)
    for rows, scores in _scores(policy, prompt):
        vectors = (factor[rows][..., None] * scores[:, :, None]).flatten(1, 2)
        given = (batch.weight[rows] / chance[kind[rows]])[:, None, None]
        mean.index_add_(0, kind[rows], given * vectors)
        second.index_add_(0, kind[rows], given * (vectors @ vectors.mT))
    steps = batch.mask.sum(1)[representative]
    return Kinds(chance, steps, mean, second - mean @ mean.mT), representative


def _made_up(
    rule: Estimator, every: Sequence[Kinds], size: int
) -> tuple[Int[Tensor, "U nK"], Float[Tensor, " U"]]:
    """Every multiset of `size` kinds of each prompt, combined over prompts."""
    counts = [len(kinds.probability) for kinds in every]
    ways = [comb(count + size - 1, size) for count in counts]
    limit = BATCHES if rule.couples == "batch" else MULTISETS
    told = " and ".join(f"{count:,}" for count in counts)
    refuse_unless(
        prod(ways) <= limit,
        f"expectation: {rule.name!r} tells {told} kinds of completions apart, and groups of {size} "
        f"can be made up of them in {prod(ways):,} ways, more than {limit:,}; use fewer "
        "completions per prompt, a reward of fewer values, or shorter completions.",
    )
    members, probability = torch.zeros(1, 0, dtype=torch.long), torch.ones(1, dtype=torch.float64)
    for number, kinds in enumerate(every):
        tuples, chance = multisets(torch.arange(counts[number])[:, None], kinds.probability, size)
        tuples = tuples + sum(counts[:number])
        members = torch.cat(
            [members.repeat_interleave(len(tuples), 0), tuples.repeat(len(members), 1)], 1
        )
        probability = (probability[:, None] * chance).flatten()
    return members, probability


def _scores(
    policy: Policy, prompt: Prompt
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "n T P"]]]:
    """∇ log π of every step of the completions, some rows at a time, in float64."""
    width = prompt.batch.mask.shape[1]
    for rows in torch.arange(prompt.batch.rows).split(ROWS):
        batch = prompt.whole.select(rows)
        steps = []
        for step in range(width):
            one = torch.zeros_like(batch.log_prob)
            one[:, prompt.steps.start + step] = 1
            steps.append(row_gradients(policy, batch, one).double())
        yield rows, torch.stack(steps, 1)


def _factors(rule: Estimator, prompt: Prompt, signed: bool) -> Float[Tensor, "n T J"]:
    """What multiplies the score of a step beside the advantage: the clipped ratio, and the KL."""
    batch, log_prob = prompt.batch, prompt.log_prob
    factors = [_multiplier(rule, prompt, 1.0)]
    if signed:
        factors.append(_multiplier(rule, prompt, -1.0))
    if rule.kl_in_loss is not None:
        reference = prompt.inputs["reference_log_prob"]
        factors.append(penalty(rule.kl_in_loss, batch, log_prob, reference))
    return torch.where(batch.mask[..., None], torch.stack(factors, -1), 0).double()


def _multiplier(rule: Estimator, prompt: Prompt, advantage: float) -> Float[Tensor, "n T"]:
    """The factor of an advantage that is the same everywhere."""
    log_prob = prompt.log_prob
    return rule.multiplier(prompt.batch, log_prob, torch.full_like(log_prob, advantage))


def _is_signed(rule: Estimator, prompt: Prompt) -> bool:
    """Whether a good completion and a bad one are clipped differently somewhere."""
    up, down = (_multiplier(rule, prompt, sign) for sign in (1.0, -1.0))
    far = [_multiplier(rule, prompt, size) for size in (0.1, 10.0, -0.1, -10.0)]
    same = all(bool(torch.equal(a, b)) for a, b in zip(far, (up, up, down, down), strict=True))
    refuse_unless(
        same,
        f"expectation: the clip {describe(rule.clip)} of {rule.name!r} depends on the size of the "
        "advantage and not on its sign alone; completions then have no kinds. Sample it.",
    )
    return not bool(torch.equal(up, down))


def _fields_read(rule: Estimator, prompt: Prompt, size: int) -> set[str]:
    """The fields of a batch that the rule looks at, by watching it look."""
    read: set[str] = set()

    class Watched(Batch):
        def __getattribute__(self, name: str) -> object:
            read.add(name)
            return super().__getattribute__(name)

    rows = torch.arange(prompt.batch.rows)[: 2 * size]
    if len(rows) < 2 * size:
        rows = torch.arange(2 * size) % prompt.batch.rows
    group = torch.arange(2).repeat_interleave(size)
    watched = Watched(**(_numbered(prompt.batch.select(rows)).tensors() | {"group": group}))
    read.clear()
    rule.advantage(watched, prompt.log_prob[rows], **_rows_of(prompt.inputs, rows))
    rule.share(watched)
    # which row it is, and how many there are, is no property of a completion
    return read & (set(prompt.batch.tensors()) - {"episode", "group", "weight"}) | {"mask"}


def _numbered(batch: Batch) -> Batch:
    """Rows taken several times are trajectories of their own."""
    episode = torch.arange(batch.rows)[:, None].expand_as(batch.mask).contiguous()
    return replace(batch, episode=episode)


def _rows_of(inputs: Inputs, rows: Tensor) -> Inputs:
    return {
        name: Scores(value.norm[rows], value.product[rows])
        if isinstance(value, Scores)
        else value[rows]
        for name, value in inputs.items()
    }


def _joined(given: list[Inputs]) -> Inputs:
    return {
        name: Scores(*(torch.cat(each) for each in zip(*(g[name] for g in given), strict=True)))
        if isinstance(given[0][name], Scores)
        else torch.cat([g[name] for g in given])
        for name in given[0]
    }
