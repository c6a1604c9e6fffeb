"""Generation: completions of prompts, drawn from the policy's own law, with their log π.

A plain loop over the model's forward pass with a key-value cache. A prompt is computed once however
many completions it has, prompts of like length go together, completions that have ended leave the
batch, and nothing but one uniform number a token is random.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.errors import refuse_unless
from vantage.language.law import draw
from vantage.language.masks import NOWHERE, attention_masks, layer_kinds
from vantage.language.policy import Policy

DENSE = 0.75  # completions that have ended are dropped once fewer than this share are left


@dataclass(frozen=True)
class Completions:
    """N completions of at most T tokens; those of one prompt are neighbours.

    Attributes:
        tokens: [N, T], the end token included; the pad token after the end.
        log_prob: [N, T] log π of each token when it was drawn, 0 after the end.
        length: [N] tokens, the end token included.
        truncated: [N] cut at T tokens without an end.
    """

    tokens: Int[Tensor, "N T"]
    log_prob: Float[Tensor, "N T"]
    length: Int[Tensor, " N"]
    truncated: Bool[Tensor, " N"]

    def ids(self) -> list[list[int]]:
        """Token ids of each completion, without what ended it."""
        kept = (self.length - (~self.truncated).long()).tolist()
        return [row[:n] for row, n in zip(self.tokens.tolist(), kept, strict=True)]


@runtime_checkable
class Engine(Protocol):
    """What draws completions: this package's own loop, or a server's client.

    An engine must draw from `policy.law` of the policy as it is now, and return the log-probability
    of each token under it. What differs is measured (`sampling/log_prob_difference`) and is
    corrected by estimators with a ratio.
    """

    def generate(
        self,
        policy: Policy,
        prompts: list[list[int]],
        num_generations: int,
        generator: torch.Generator,
        max_length: int | None = None,
    ) -> Completions:
        """`num_generations` completions of each prompt, neighbours, in the order of prompts."""
        ...


@dataclass(frozen=True)
class Decoding:
    """The engine of this package.

    Attributes:
        rows: completions decoded at once, at most.
        greedy: take the likeliest token instead of drawing.
    """

    rows: int = 1024
    greedy: bool = False

    def generate(
        self,
        policy: Policy,
        prompts: list[list[int]],
        num_generations: int,
        generator: torch.Generator,
        max_length: int | None = None,
    ) -> Completions:
        """As in `Engine`.

        Every completion has random numbers of its own: what it becomes depends, but for rounding,
        on neither the other prompts nor the rows decoded with it.

        Raises:
            InputError: an empty prompt, or one that leaves no room within the model's positions.
        """
        steps = policy.max_completion_length if max_length is None else max_length
        _check_prompts(policy, prompts, num_generations, steps)
        count = len(prompts) * num_generations
        uniform = torch.rand(count, steps, generator=generator, dtype=torch.float64)
        tokens = torch.full((count, steps), policy.pad_id)
        wide = next(policy.parameters()).dtype == torch.float64
        log_prob = torch.zeros(count, steps, dtype=torch.float64 if wide else torch.float32)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        together = max(1, self.rows // num_generations)
        for start in range(0, len(order), together):
            chosen = order[start : start + together]
            places = torch.tensor(chosen)[:, None] * num_generations
            rows = (places + torch.arange(num_generations)).flatten()
            with torch.inference_mode():
                found = _decode(
                    policy,
                    [prompts[i] for i in chosen],
                    num_generations,
                    uniform[rows].to(policy.device),
                    self.greedy,
                )
            tokens[rows], log_prob[rows] = found[0].cpu(), found[1].cpu().to(log_prob.dtype)
        return finished(tokens, log_prob, policy.end_ids, policy.pad_id)


def generate(
    policy: Policy,
    prompts: list[list[int]],
    num_generations: int,
    generator: torch.Generator,
    max_length: int | None = None,
    greedy: bool = False,
) -> Completions:
    """`num_generations` completions of each prompt, by the engine of this package.

    Args:
        policy: draws, under its law.
        prompts: token ids of each.
        num_generations: completions of each.
        generator: on the CPU; the source of everything random.
        max_length: tokens of a completion; the policy's own where None.
        greedy: take the likeliest token instead of drawing.
    """
    return Decoding(greedy=greedy).generate(
        policy, prompts, num_generations, generator, max_length
    )


def finished(
    tokens: Int[Tensor, "N T"],
    log_prob: Float[Tensor, "N T"],
    end_ids: tuple[int, ...],
    pad_id: int,
) -> Completions:
    """Completions from rows of tokens, of which only those up to the first end token count."""
    ends = torch.isin(tokens, torch.tensor(end_ids, dtype=torch.long))
    truncated = ~ends.any(1)
    length = torch.where(truncated, tokens.shape[1], ends.long().argmax(1) + 1)
    counted = torch.arange(tokens.shape[1]) < length[:, None]
    return Completions(
        torch.where(counted, tokens, pad_id), torch.where(counted, log_prob, 0), length, truncated
    )


def _check_prompts(
    policy: Policy, prompts: list[list[int]], num_generations: int, steps: int
) -> None:
    layer_kinds(policy.base.config)
    refuse_unless(prompts, "generate(prompts=[]): give at least one prompt.")
    refuse_unless(
        num_generations >= 1 and steps >= 1,
        f"generate(num_generations={num_generations}, max_length={steps}): at least 1 each.",
    )
    room = getattr(policy.base.config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts):
        refuse_unless(prompt, f"generate: prompt {number} has no tokens; a prompt needs one.")
        refuse_unless(
            room is None or len(prompt) + steps <= room,
            f"generate: prompt {number} has {len(prompt)} tokens, and with {steps} more it exceeds "
            f"the {room} positions of the model; shorten it, or lower max_completion_length.",
        )


def _decode(
    policy: Policy,
    prompts: list[list[int]],
    num_generations: int,
    uniform: Float[Tensor, "N T"],
    greedy: bool,
) -> tuple[Int[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Tokens and their log π; what follows an end token means nothing."""
    decoding = _Sequences(policy, prompts, num_generations, uniform.shape[1])
    tokens = torch.full_like(uniform, policy.pad_id, dtype=torch.long)
    log_prob = torch.zeros_like(uniform)
    ends = torch.tensor(policy.end_ids, device=uniform.device)
    for step in range(uniform.shape[1]):
        rows = decoding.rows
        logs = policy.law.log_probs(policy.head.logits(decoding.hidden))
        if greedy:
            best = logs.max(-1)
            token, chosen = best.indices, best.values
        else:
            token, chosen = draw(logs, uniform[rows, step])
        tokens[rows, step], log_prob[rows, step] = token, chosen.to(log_prob.dtype)
        going = decoding.mark_ended(torch.isin(token, ends))
        if step + 1 == uniform.shape[1] or not going:
            break
        decoding.advance(token)
    return tokens, log_prob


class _Sequences:
    """Sequences that are being completed, with their cache.

    Attributes:
        rows: [n] which completions are in the batch.
        hidden: [n, H] the last hidden state of each.
    """

    def __init__(
        self, policy: Policy, prompts: list[list[int]], num_generations: int, steps: int
    ):
        from vantage.language.cache import empty_cache, taken

        self.policy, self.taken = policy, taken
        self.decoder, self.config = policy.decoder, policy.base.config
        self.embed = policy.base.get_input_embeddings()
        device = policy.device
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(lengths.max())
        padded = [prompt + [policy.pad_id] * (longest - len(prompt)) for prompt in prompts]
        # padding stands on the right, where no token of a prompt sees it
        cache = empty_cache(longest)
        out = self._forward(torch.tensor(padded, device=device), None, None, cache)
        last = out[torch.arange(len(prompts), device=device), lengths - 1]
        of_prompt = torch.arange(len(prompts), device=device).repeat_interleave(num_generations)
        self.capacity = longest + steps
        self.cache = taken(cache, of_prompt, self.capacity)
        self.hidden = last[of_prompt]
        self.rows = torch.arange(len(of_prompt), device=device)
        self.alive = torch.ones_like(self.rows, dtype=torch.bool)
        self.position = lengths[of_prompt]
        self.used = longest
        # where prompts differ in length there are holes in the cache, and masks must know of them
        self.key: Tensor | None = None
        if len(set(map(len, prompts))) > 1:
            place = torch.arange(longest, device=device).expand(len(prompts), -1)
            held = torch.where(place < lengths[:, None], place, NOWHERE)
            room = torch.full((len(of_prompt), steps), NOWHERE, device=device)
            self.key = torch.cat([held[of_prompt], room], 1)

    def mark_ended(self, ended: Bool[Tensor, " n"]) -> bool:
        """Take note of what has ended, and drop it when it pays; whether anything goes on."""
        self.alive &= ~ended
        left = int(self.alive.sum())
        if 0 < left <= DENSE * len(self.rows):
            self.keep = self.alive.nonzero().squeeze(1)
            self.cache = self.taken(self.cache, self.keep, self.capacity)
            self.rows, self.position = self.rows[self.keep], self.position[self.keep]
            self.key = None if self.key is None else self.key[self.keep]
            self.alive = torch.ones_like(self.rows, dtype=torch.bool)
            self.dropped = True
        else:
            self.dropped = False
        return left > 0

    def advance(self, token: Int[Tensor, " n"]) -> None:
        """One forward pass on the tokens drawn last."""
        if self.dropped:
            token = token[self.keep]
        masks = None
        position = self.position[:, None]
        if self.key is not None:
            self.key[:, self.used] = self.position
            masks = attention_masks(
                self.config, position, self.key[:, : self.used + 1], self.hidden.dtype
            )
        self.hidden = self._forward(token[:, None], position, masks, self.cache)[:, -1]
        self.position = self.position + 1
        self.used += 1

    def _forward(self, tokens: Tensor, position: Tensor | None, masks: Any, cache: Any) -> Tensor:
        out = self.decoder(
            inputs_embeds=self.embed(tokens),
            position_ids=position,
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state
