"""Generation: completions of prompts, drawn from the policy's own law, with their log π.

A plain loop over the model's forward pass with a key-value cache. A prompt is computed once however
many completions it has, prompts of like length go together, completions that have ended leave the
batch, and nothing but one uniform number a token is random.
"""

import inspect
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.model.law import draw
from vantage.language.model.masks import NOWHERE, attention_masks, layer_kinds
from vantage.language.model.policy import Policy

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
        lengths = (self.length - (~self.truncated).long()).tolist()
        return [row[:n] for row, n in zip(self.tokens.tolist(), lengths, strict=True)]


@runtime_checkable
class Engine(Protocol):
    """What draws completions: this package's own loop, or a server's client.

    An engine must draw from `policy.law` of the policy as it is now, and return the log-probability
    of each token under it. What differs is measured (`sampling/log_prob_difference_max`) and is
    corrected by estimators with a ratio.

    One that holds weights of its own has a method `update(policy)`, which takes them over: training
    calls it before every batch and at the end, so after every update, with the policy that is to
    sample. So do `evaluate` and `conformance` before they draw. `rollout` and `generate` do not.
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


def synchronise(engine: Engine, policy: Policy) -> None:
    """Hand the policy's weights to an engine that has a method `update`.

    Raises:
        InputError: a method that has to be awaited.
    """
    update = getattr(engine, "update", None)
    if update is None:
        return
    returned = update(policy)
    if inspect.iscoroutine(returned):
        returned.close()
    refuse_unless(
        not inspect.isawaitable(returned),
        f"{type(engine).__name__}.update is asynchronous, and the next batch is drawn once it "
        "returns; make it a plain method that waits until the weights have arrived.",
    )


@checked
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
        steps = steps_allowed(policy, prompts, num_generations, max_length)
        count = len(prompts) * num_generations
        uniform = torch.rand(count, steps, generator=generator, dtype=torch.float64)
        tokens = torch.full((count, steps), policy.pad_id)
        wide = next(policy.parameters()).dtype == torch.float64
        log_prob = torch.zeros(count, steps, dtype=torch.float64 if wide else torch.float32)
        for numbers in _together(policy, prompts, max(1, self.rows // num_generations)):
            places = torch.tensor(numbers)[:, None] * num_generations
            rows = (places + torch.arange(num_generations)).flatten()
            with torch.inference_mode():
                decoded = _decode(
                    policy,
                    [prompts[i] for i in numbers],
                    num_generations,
                    uniform[rows].to(policy.device),
                    self.greedy,
                )
            tokens[rows], log_prob[rows] = decoded[0].cpu(), decoded[1].cpu().to(log_prob.dtype)
        return finished(tokens, log_prob, policy.end_ids, policy.pad_id)


@checked
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
    return Decoding(greedy=greedy).generate(policy, prompts, num_generations, generator, max_length)


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


def steps_allowed(
    policy: Policy, prompts: list[list[int]], num_generations: int, max_length: int | None
) -> int:
    """Tokens of a completion, `max_length` or the policy's own; refuses what has no room for them.

    Raises:
        InputError: as in `Decoding.generate`.
    """
    steps = policy.max_completion_length if max_length is None else max_length
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
    return steps


def columns_of(prompt: float, steps: int, num_generations: int) -> int:
    """How many completions of a prompt to decode in one row of the cache, as its columns.

    With c columns a step reads the keys of N/c rows, each of the prompt and c completions, for N
    queries. Reading a key costs about twice what a query's product with it does, so the work goes
    as (N/c) (prompt + c · steps/2) (2 + c), and the mask that columns need costs some 32 keys more:
    long prompts are shared, short ones copied.

    >>> columns_of(256, 32, 8), columns_of(8, 32, 8)
    (8, 1)
    """
    sizes = [c for c in range(1, num_generations + 1) if num_generations % c == 0]
    return min(sizes, key=lambda c: (prompt + c * steps / 2 + 32 * (c > 1)) * (2 + c) / c)


def _together(policy: Policy, prompts: list[list[int]], most: int) -> list[list[int]]:
    """Numbers of the prompts decoded at once: of like length, or of one where it must be so."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    runs = [order]
    if not policy.packed:
        runs = [list(run) for _, run in groupby(order, key=lambda i: len(prompts[i]))]
    return [run[start : start + most] for run in runs for start in range(0, len(run), most)]


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
        which = decoding.which.flatten()
        logs = policy.law.log_probs(policy.head.logits(decoding.hidden.flatten(0, 1)))
        if greedy:
            best = logs.max(-1)
            token, value = best.indices, best.values
        else:
            token, value = draw(logs, uniform[which, step])
        tokens[which, step], log_prob[which, step] = token, value.to(log_prob.dtype)
        if step + 1 == uniform.shape[1]:
            break
        wanted = decoding.without_ended(token, torch.isin(token, ends))
        if wanted is None:
            break
        decoding.advance(wanted)
    return tokens, log_prob


class _Sequences:
    """Sequences that are being completed, on a grid of R rows and C columns, with their cache.

    A row of the cache holds a prompt and then, step after step, a key for each of its columns; a
    column sees the prompt and its own keys.

    Attributes:
        which: [R, C] numbers of the completions.
        hidden: [R, C, H] the last hidden state of each.
    """

    def __init__(self, policy: Policy, prompts: list[list[int]], num_generations: int, steps: int):
        from vantage.language.model import cache

        self.policy, self.caches = policy, cache
        self.decoder, self.config = policy.decoder, policy.base.config
        self.embed = policy.base.get_input_embeddings()
        device = policy.device
        self.prompt, self.past = max(map(len, prompts)), 0
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        padded = [prompt + [policy.pad_id] * (self.prompt - len(prompt)) for prompt in prompts]
        # padding stands on the right, where no token of a prompt sees it
        held = cache.empty_cache(self.prompt)
        out = self._forward(torch.tensor(padded, device=device), None, None, held)
        last = out[torch.arange(len(prompts), device=device), lengths - 1]
        mean = sum(map(len, prompts)) / len(prompts)
        columns = columns_of(mean, steps, num_generations) if policy.packed else 1
        refuse_unless(
            held.get_seq_length() == self.prompt,
            f"generate: {type(policy.base).__name__} keeps its past in something other than keys "
            "and values; sample with another engine.",
        )
        self.steps = steps
        self.cache = held
        self.length = lengths
        rows = torch.arange(len(prompts), device=device)
        rows = rows.repeat_interleave(num_generations // columns)
        self._take(rows, columns)
        self.which = torch.arange(len(prompts) * num_generations, device=device).view(-1, columns)
        self.hidden = last[rows][:, None].expand(-1, columns, -1)
        self.alive = torch.ones_like(self.which, dtype=torch.bool)
        # where prompts differ in length there are holes in the cache, and masks must know of them
        self.holes = len(set(map(len, prompts))) > 1

    def without_ended(
        self, token: Int[Tensor, " n"], ended: Bool[Tensor, " n"]
    ) -> Int[Tensor, " m"] | None:
        """Take note of what has ended; drop it when that pays. The tokens still wanted, or None."""
        self.alive &= ~ended.view_as(self.alive)
        left = self.alive.sum(1)
        count, widest = int((left > 0).sum()), int(left.max())
        if widest == 0:
            return None
        if count * widest > DENSE * self.alive.numel():
            return token
        rows = (left > 0).nonzero().squeeze(1)
        # each row keeps as many columns as the fullest needs, those that go on first
        keep = torch.argsort(~self.alive[rows], dim=1, stable=True)[:, :widest].sort(1).values
        self._take(rows, widest, keep)
        self.which = self.which[rows].gather(1, keep)
        self.alive = self.alive[rows].gather(1, keep)
        return token.view(len(left), -1)[rows].gather(1, keep).flatten()

    def advance(self, token: Int[Tensor, " n"]) -> None:
        """One forward pass on the tokens drawn last."""
        rows, columns = self.which.shape
        self.past += 1
        position: Tensor | None = None  # where nothing is shared the model counts for itself
        masks = None
        if self.policy.packed:
            position = (self.length + self.past - 1)[:, None].expand(rows, columns)
            masks = self._masks(position) if self.holes or columns > 1 else None
        self.hidden = self._forward(token.view(rows, columns), position, masks, self.cache)

    def _masks(self, position: Int[Tensor, "R C"]) -> Any:
        device = position.device
        rows, columns = position.shape
        place = torch.arange(self.prompt, device=device).expand(rows, -1)
        prompt = torch.where(place < self.length[:, None], place, NOWHERE)
        step = torch.arange(self.past, device=device).repeat_interleave(columns)
        key = torch.cat([prompt, self.length[:, None] + step], 1)
        column = torch.arange(columns, device=device)
        owner = torch.cat([torch.full((self.prompt,), -1, device=device), column.repeat(self.past)])
        allowed = None
        if columns > 1:
            allowed = ((owner < 0) | (owner == column[:, None])).expand(rows, columns, -1)
        return attention_masks(self.config, position, key, self.hidden.dtype, allowed)

    def _take(self, rows: Tensor, columns: int, keep: Tensor | None = None) -> None:
        """Rows of the cache, and of each the columns kept."""
        self.length = self.length[rows]
        capacity = self.prompt + columns * self.steps
        index = None
        if keep is not None and self.past and self.which.shape[1] > 1:
            begins = self.prompt + self.which.shape[1] * torch.arange(self.past, device=rows.device)
            generated = (begins[None, :, None] + keep[:, None, :]).flatten(1)
            prompt = torch.arange(self.prompt, device=rows.device).expand(len(rows), -1)
            index = torch.cat([prompt, generated], 1)
        self.cache = self.caches.taken(self.cache, rows, capacity, index)

    def _forward(self, tokens: Tensor, position: Tensor | None, masks: Any, cache: Any) -> Tensor:
        out = self.decoder(
            inputs_embeds=self.embed(tokens),
            position_ids=position,
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state
