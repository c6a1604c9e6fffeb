"""One prompt, many completions, in one row: the prompt is computed once in the gradient too.

    tokens    what is 2 + 2 =  4 <end>  5 <end>  four
    position  0    1  2 3 4 5  6 7      6 7      6
    sees      ------prompt---  +self    +self    +self

Position ids continue from the prompt for every completion, and a 4-D mask lets a completion see the
prompt and itself. The gradient is the same to rounding. Fewer tokens pass through the layers; rows
grow longer, and attention with them: `packing` weighs the two.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch, last_steps
from vantage.language.model.masks import NOWHERE, attention_masks

PROMPT, PADDING = -1, -2  # segments beside the completions' own


@dataclass(frozen=True)
class Packed:
    """Rows that share their prompts.

    Attributes:
        tokens, position: [R, L].
        segment: [R, L] which completion of its row a token belongs to; −1 prompt, −2 padding.
        row, column: [M] where the state of each counted step of the batch's rows stands.
    """

    tokens: Int[Tensor, "R L"]
    position: Int[Tensor, "R L"]
    segment: Int[Tensor, "R L"]
    row: Int[Tensor, " M"]
    column: Int[Tensor, " M"]

    def masks(self, config: Any, dtype: torch.dtype) -> Any:
        """The attention masks of a model with this configuration."""
        key = torch.where(self.segment == PADDING, NOWHERE, self.position)
        same = self.segment[:, :, None] == self.segment[:, None, :]
        allowed = same | (self.segment == PROMPT)[:, None, :]
        return attention_masks(config, self.position, key, dtype, allowed)


def prompt_lengths(batch: Batch) -> Int[Tensor, " N"]:
    """Tokens of each row before the first chosen one; rows without any count as all prompt."""
    first = batch.mask.long().argmax(1) + 1
    return torch.where(batch.mask.any(1), first, batch.mask.shape[1])


def packing(prompt: float, completion: float, group: int, width: int) -> int:
    """How many completions of a prompt to put in one row; 1: sharing does not pay.

    The work of a row of L tokens goes as L (6 width + 0.6 L): its matrices, and attention under a
    dense mask, half of which the causal one of unshared rows leaves out. The 0.6 is measured.

    Args:
        prompt, completion: tokens, on average.
        group: completions of a prompt.
        width: the width of the model's hidden states.

    >>> packing(256, 32, 8, 128), packing(8, 31, 8, 128), packing(1, 31, 8, 128)
    (8, 4, 1)
    """
    alone = group * (prompt + completion) * (6 * width + 0.3 * (prompt + completion))
    best, least = 1, 0.97 * alone  # something must be gained: a 4-D mask has costs of its own
    for together in range(2, group + 1):
        length = prompt + together * completion
        work = math.ceil(group / together) * length * (6 * width + 0.6 * length)
        if work < least:
            best, least = together, work
    return best


def packs(batch: Batch, together: int) -> list[list[int]]:
    """Rows of one group and one prompt, at most `together` of them each, in the batch's order."""
    lengths = prompt_lengths(batch).tolist()
    observation = batch.observation
    open_packs: dict[tuple[int, bytes], list[int]] = {}
    rows: list[list[int]] = []
    for row, group in enumerate(batch.group.tolist()):
        prompt = observation[row, : lengths[row]].cpu().numpy().tobytes()
        pack = open_packs.get((group, prompt))
        if pack is None or len(pack) >= together:
            pack = open_packs[group, prompt] = []
            rows.append(pack)
        pack.append(row)
    return rows


def packed(batch: Batch, rows: list[list[int]], pad_id: int) -> Packed:
    """Lay out packs of rows, each a row of the result.

    Returns:
        Packed, with `row` and `column` in the order of `batch.select(flat rows).mask`.
    """
    prompt = prompt_lengths(batch)
    before, until = prompt.tolist(), last_steps(batch).tolist()
    width = max(before[p[0]] + sum(max(0, until[n] - before[n]) for n in p) for p in rows)
    shape = (len(rows), width)
    tokens = torch.full(shape, pad_id, device=batch.observation.device)
    position = torch.zeros_like(tokens)
    segment = torch.full_like(tokens, PADDING)
    offset = []
    place = torch.arange(batch.mask.shape[1], device=tokens.device)
    for r, pack in enumerate(rows):
        end = int(before[pack[0]])
        tokens[r, :end] = batch.observation[pack[0], :end]
        position[r, :end] = place[:end]
        segment[r, :end] = PROMPT
        for number, n in enumerate(pack):
            tail = slice(before[n], max(until[n], before[n]))
            start, end = end, end + tail.stop - tail.start
            offset.append(start)
            tokens[r, start:end] = batch.observation[n, tail]
            position[r, start:end] = place[tail]
            segment[r, start:end] = number
    flat = torch.tensor([n for pack in rows for n in pack], device=tokens.device)
    of_pack = torch.tensor([r for r, pack in enumerate(rows) for _ in pack], device=tokens.device)
    which, step = batch.mask[flat].nonzero(as_tuple=True)
    beyond = step - prompt[flat][which]
    begins = torch.tensor(offset, device=tokens.device)[which]
    # the first chosen token follows the last of the prompt, which all completions share
    column = torch.where(beyond < 0, step, begins + beyond)
    return Packed(tokens, position, segment, of_pack[which], column)


def shared_states(policy: Any, layout: Packed) -> Float[Tensor, "M H"]:
    """The hidden states at the counted steps."""
    here = Packed(**{name: tensor.to(policy.device) for name, tensor in vars(layout).items()})
    masks = here.masks(policy.base.config, next(policy.base.parameters()).dtype)
    hidden = policy.states(here.tokens, here.position, masks)
    return hidden[here.row, here.column]
