"""Scores of a batch in passes: rows of like length together, no more tokens at once than allowed.

Everything that is counted across the batch (advantages, lengths, numbers of tokens) is counted once
and before; a pass only adds its rows' part. The gradient does not depend on how rows are split.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.batch import Batch, last_steps
from vantage.errors import refuse_unless
from vantage.language.model.head import score_hidden
from vantage.language.model.policy import Policy
from vantage.language.scoring.shared_prompt import (
    packed,
    packing,
    packs,
    prompt_lengths,
    shared_states,
)

Sharing = bool | Literal["auto"]


@dataclass(frozen=True)
class Passes:
    """How to go over a batch.

    Attributes:
        together: completions of a prompt in one row; 1: each has its own.
        token_budget: tokens of one pass, padding included; a longer row is a pass of its own.
    """

    together: int
    token_budget: int

    def split(self, batch: Batch, rows: Int[Tensor, " n"] | None = None) -> list[list[list[int]]]:
        """Passes over the rows given (all if None): a list of packs of rows for each."""
        candidates = torch.arange(batch.rows) if rows is None else rows
        usable = candidates[batch.mask[candidates].any(1)]
        if len(usable) == 0:
            return []
        selected = batch.select(usable)
        numbers = usable.tolist()
        before, until = prompt_lengths(selected).tolist(), last_steps(selected).tolist()
        packs_ = (
            packs(selected, self.together)
            if self.together > 1
            else [[n] for n in range(selected.rows)]
        )
        sizes = [before[p[0]] + sum(until[n] - before[n] for n in p) for p in packs_]
        order = sorted(range(len(packs_)), key=lambda i: sizes[i])
        passes: list[list[list[int]]] = []
        room = 0
        for i in reversed(order):  # the longest first: it sets the width of its pass
            if room < 1:
                passes.append([])
                room = max(1, self.token_budget // sizes[i])
            passes[-1].append([numbers[n] for n in packs_[i]])
            room -= 1
        return passes


def plan_passes(
    batch: Batch, policy: Policy, shared: Sharing = "auto", token_budget: int = 16384
) -> Passes:
    """Whether prompts are shared, by token counts, where the policy allows; see `packing`.

    Args:
        shared: True puts all completions of a prompt in one row, False none, "auto" as many as
            make the least work.
        token_budget: tokens of one pass.
    """
    refuse_unless(token_budget >= 1, f"token_budget={token_budget}: at least one token a pass.")
    usable = batch.mask.any(1)
    _, sizes = batch.group[usable].unique(return_counts=True)
    group = int(sizes.max()) if len(sizes) else 1
    if not shared or group == 1 or not policy.packed:
        return Passes(1, token_budget)
    if shared is True:
        return Passes(group, token_budget)
    before = prompt_lengths(batch)[usable].double()
    after = (last_steps(batch)[usable] - before).clamp(min=0).double()
    width = policy.base.config.get_text_config().hidden_size
    return Passes(packing(float(before.mean()), float(after.mean()), group, width), token_budget)


class Pass(NamedTuple):
    """One pass: rows [n], and of their M counted steps, row after row, all that is computed."""

    rows: Int[Tensor, " n"]
    mask: Bool[Tensor, "n T"]
    states: Float[Tensor, "M H"]
    log_prob: Float[Tensor, " M"]
    entropy: Float[Tensor, " M"]

    def grid(self, flat: Float[Tensor, " M"]) -> Float[Tensor, "n T"]:
        """Numbers of the counted steps at their places, 0 elsewhere, on the batch's device."""
        flat = flat.detach().to(self.mask.device)
        return flat.new_zeros(self.mask.shape).masked_scatter_(self.mask, flat)


def scored_passes(
    policy: Policy, batch: Batch, passes: Passes, rows: Int[Tensor, " n"] | None = None
) -> Iterator[Pass]:
    """Go over the batch, or the rows given, pass by pass."""
    device = policy.device
    for pack in passes.split(batch, rows):
        flat = torch.tensor([n for p in pack for n in p], device=batch.mask.device)
        piece = batch.select(flat)
        if passes.together > 1:
            layout = packed(batch, pack, policy.pad_id)
            states = shared_states(policy, layout)
        else:
            width = int(last_steps(piece).max())
            counted = piece.mask[:, :width].to(device)
            states = policy.states(piece.observation[:, :width].to(device))[counted]
        tokens = piece.action[piece.mask].to(device)
        scores = score_hidden(policy.head, policy.law, states, tokens)
        yield Pass(flat, piece.mask, states, scores.log_prob, scores.entropy)


@torch.no_grad()
def score_batch(
    policy: Policy, batch: Batch, passes: Passes
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """log π and entropy of every counted step, [N, T] each, 0 elsewhere; no gradient."""
    log_prob, entropy = torch.zeros_like(batch.log_prob), torch.zeros_like(batch.log_prob)
    for one in scored_passes(policy, batch, passes):
        log_prob[one.rows] = one.grid(one.log_prob).to(log_prob.dtype)
        entropy[one.rows] = one.grid(one.entropy).to(entropy.dtype)
    return log_prob, entropy
