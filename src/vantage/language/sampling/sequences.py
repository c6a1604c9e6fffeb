"""Rows of tokens, and the Batch made of them.

    tokens   what  is  2  +  2  =  |  4  <end>  <pad>
    sampled  0     0   0  0  0  0  |  1  1      0

The Batch looks one token ahead: its observation at step t is the tokens up to t, its action the
token at t + 1. A row is one trajectory, in one group with the other completions of its prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.language.model.policy import NOT_COUNTED
from vantage.language.sampling.generation import Completions


@dataclass(frozen=True)
class Sequences:
    """N rows of a prompt and what followed it, padded on the right to L tokens.

    Attributes:
        tokens: [N, L].
        sampled: [N, L] True where the policy sampled the token; False in prompts, in what an
            environment said in between, and in padding.
        log_prob: [N, L] log π of sampled tokens when they were drawn, 0 elsewhere.
        truncated: [N] whether the last completion was cut by the limit on its length.
    """

    tokens: Int[Tensor, "N L"]
    sampled: Bool[Tensor, "N L"]
    log_prob: Float[Tensor, "N L"]
    truncated: Bool[Tensor, " N"]


def joined(prompts: Sequence[Sequence[int]], completions: Completions, pad_id: int) -> Sequences:
    """Prompts and their completions as rows; `prompts` has one entry for each completion."""
    before = torch.tensor([len(prompt) for prompt in prompts])[:, None]
    longest = int(before.max())
    padded = [[*prompt] + [pad_id] * (longest - len(prompt)) for prompt in prompts]
    width = int((before[:, 0] + completions.length).max())
    place = torch.arange(width)
    index = (place - before).clamp(0, completions.tokens.shape[1] - 1)
    completed = (place >= before) & (place < before + completions.length[:, None])
    prompt = torch.nn.functional.pad(torch.tensor(padded), (0, width - longest), value=pad_id)
    return Sequences(
        tokens=torch.where(completed, completions.tokens.gather(1, index), prompt[:, :width]),
        sampled=completed,
        log_prob=torch.where(completed, completions.log_prob.gather(1, index), 0),
        truncated=completions.truncated,
    )


def as_batch(
    sequences: Sequences,
    reward: Float[Tensor, " N"],
    group: Int[Tensor, " N"],
    counted: Bool[Tensor, " N"] | None = None,
    weight: Float[Tensor, " N"] | None = None,
) -> Batch:
    """The record that estimators read.

    The reward comes with the last sampled token; the trajectory ends there: γ is 1 before it and
    0 at it. That is so at an end token and at the limit on length alike: the objective is the
    reward of the text as it was cut, which is what reward functions see, and nothing follows that
    a value could stand for. (To leave cut completions out, see `mask_truncated_completions`.)

    Args:
        sequences: N rows.
        reward: [N] of each.
        group: [N] which prompt.
        counted: [N] rows that take part; the others have an empty mask and no weight. All if None.
        weight: [N]; 1 over the number of rows that take part where None.
    """
    mask = sequences.sampled[:, 1:]
    if counted is not None:
        mask = mask & counted[:, None]
    rows, steps = mask.shape
    place = torch.arange(steps)
    last = (place == torch.where(mask, place, -1).amax(1, keepdim=True)) & mask
    usable = mask.any(1)
    if weight is None:
        weight = usable.double() / max(1, int(usable.sum()))
    kind = sequences.log_prob.dtype
    return Batch(
        observation=sequences.tokens[:, :-1],
        action=torch.where(mask, sequences.tokens[:, 1:], NOT_COUNTED),
        reward=torch.where(last, reward[:, None].to(kind), 0),
        discount=(~last).to(kind),
        boundary=last | (place == steps - 1),
        bootstrap=torch.zeros(rows, steps, dtype=kind),
        log_prob=torch.where(mask, sequences.log_prob[:, 1:], 0),
        mask=mask,
        episode=torch.arange(rows)[:, None].expand(rows, steps).contiguous(),
        group=group,
        weight=weight.to(kind),
    )
