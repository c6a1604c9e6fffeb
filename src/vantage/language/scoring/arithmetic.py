"""What a run would do, before it does it: completions, passes, steps, epochs, tokens, memory."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vantage.errors import InputError
from vantage.language.model.head import chunk
from vantage.language.scoring.shared_prompt import packing
from vantage.pages.numbers import counted

DECODED = 1024  # rows that generation decodes at once


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as its configuration gives them.

    Attributes:
        parameters, trained: numbers.
        layers, hidden, intermediate, kv_width: of the decoder; kv_width is the width of
            the keys, and of the values, that a layer keeps of a token.
        vocabulary: tokens there are.
        positions: longest text, or None.
        width: bytes of a number.
        heads: heads of attention, for queries.
        largest: numbers of the largest parameter.
        tied: whether the vocabulary head is the embedding.
    """

    parameters: int
    trained: int
    layers: int
    hidden: int
    intermediate: int
    kv_width: int
    vocabulary: int
    positions: int | None
    width: int
    heads: int
    largest: int
    tied: bool


def shape_of(model: Any, width: int, trained: int | None = None) -> Shape:
    """The sizes of a transformers model; one on the "meta" device will do.

    Args:
        model: a causal language model.
        width: bytes of a number.
        trained: parameters that are; all of them where None.
    """
    config = model.config.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())
    heads, hidden = config.num_attention_heads, config.hidden_size
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or hidden // heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return Shape(
        parameters=parameters,
        trained=parameters if trained is None else trained,
        layers=config.num_hidden_layers,
        hidden=hidden,
        intermediate=inner or 4 * hidden,
        kv_width=kv_heads * head_width,
        vocabulary=config.vocab_size,
        positions=getattr(config, "max_position_embeddings", None),
        width=width,
        heads=heads,
        largest=max(p.numel() for p in model.parameters()),
        tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
    )


@dataclass(frozen=True)
class Workload:
    """The arithmetic of a run; prints as the text of `--dry-run`.

    Attributes:
        lengths: tokens of each training prompt.
        rows, held_out: prompts to train on, and not to.
    """

    shape: Shape
    lengths: Sequence[int]
    rows: int
    held_out: int
    batch: int
    num_generations: int
    num_iterations: int
    minibatches: int
    updates: int
    max_completion_length: int
    token_budget: int = 16384
    checkpointing: bool = False
    reference: bool = False

    @property
    def prompts(self) -> int:
        """Prompts of an update: one group of completions each."""
        return self.batch // self.num_generations

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.updates * self.num_iterations * self.minibatches

    @property
    def epochs(self) -> float:
        """How often each training prompt is drawn."""
        return self.updates * self.prompts / self.rows

    @property
    def together(self) -> int:
        """Completions that would share their prompt's computation, if all had the full length."""
        middle = statistics.median(self.lengths)
        after = self.max_completion_length
        return packing(middle, after, self.num_generations, self.shape.hidden)

    @property
    def tokens(self) -> int:
        """Most tokens that one epoch over a batch sends through the model."""
        rows = -(-self.num_generations // self.together) * self.prompts
        return rows * (max(self.lengths) + self.together * self.max_completion_length)

    @property
    def passes(self) -> int:
        """Forward and backward passes of an epoch over a batch, at most."""
        row = max(self.lengths) + self.together * self.max_completion_length
        rows = -(-self.num_generations // self.together) * self.prompts // self.minibatches
        return self.minibatches * -(-rows // max(1, self.token_budget // row))

    def memory(self) -> dict[str, int]:
        """Bytes by what holds them, at completions of full length. An estimate.

        Generation (the cache) and the gradient (activations) come one after the other.
        """
        shape, longest = self.shape, max(self.lengths) + self.max_completion_length
        decoded = min(self.batch, DECODED)
        at_once = min(self.tokens, max(self.token_budget, longest))
        scored = self.batch * self.max_completion_length
        # what backward needs of a token: in attention the norm's input and output (twice), q, k, v
        # (before and after positions) and the output; three of the inner width in the MLP
        layer = 7 * shape.hidden + 4 * shape.kv_width + 4 * shape.intermediate
        widths = shape.layers * (shape.hidden if self.checkpointing else layer)
        widths += layer if self.checkpointing else 0
        sizes = {
            "parameters": shape.parameters * shape.width,
            "gradients": shape.trained * shape.width,
            "optimiser (AdamW)": 2 * shape.trained * shape.width,
            "reference model": shape.parameters * shape.width if self.reference else 0,
            "cache of generation": 2
            * shape.layers
            * shape.kv_width
            * decoded
            * longest
            * shape.width,
            "activations of a pass": at_once * widths * shape.width,
            "chunk of logits": 3
            * min(chunk(shape.vocabulary, shape.hidden), scored * shape.vocabulary)
            * 4,
        }
        return {name: size for name, size in sizes.items() if size}

    def refuse_what_does_not_fit(self) -> None:
        """Refuse prompts that leave no room for a completion.

        Raises:
            InputError: naming the longest prompt and the room there is.
        """
        longest, room = max(self.lengths) + self.max_completion_length, self.shape.positions
        if room is not None and longest > room:
            raise InputError(
                f"The longest prompt has {max(self.lengths)} tokens; with max_completion_length="
                f"{self.max_completion_length} that is {longest}, and the model has {room} "
                "positions. Shorten one of them."
            )

    def __str__(self) -> str:
        lengths, shape = sorted(self.lengths), self.shape
        middle = statistics.median(lengths)
        before, after = max(lengths), self.max_completion_length
        product = f"{counted(self.num_iterations, 'iteration')} × "
        product += f"{counted(self.minibatches, 'minibatch', 'es')}"
        steps = counted(self.num_iterations * self.minibatches, "optimiser step")
        shared = f"{self.together} completions share" if self.together > 1 else "none share"
        memory = self.memory()
        peak = sum(memory.values()) - min(
            memory["cache of generation"], memory["activations of a pass"]
        )
        return "\n".join(
            [
                f"model      {shape.parameters:,} parameters, {shape.trained:,} trained, "
                f"{shape.width} bytes each",
                f"batch      {self.batch} completions = {self.prompts} prompts × "
                f"{self.num_generations} completions: {self.prompts} groups of "
                f"{self.num_generations}",
                f"update     {product} = {steps}, each on {self.batch // self.minibatches} "
                f"completions; at most {counted(self.passes, 'pass', 'es')} of "
                f"{self.token_budget:,} tokens an iteration; of a prompt's "
                f"completions {shared} its computation",
                f"run        {self.updates:,} updates = {self.steps:,} optimiser steps, "
                f"{self.updates * self.batch:,} completions, at most "
                f"{self.updates * self.batch * after:,} new tokens",
                f"data       {self.rows:,} prompts to train on, {self.held_out:,} held out; "
                f"{self.updates * self.prompts:,} prompts drawn = {self.epochs:.2f} epochs",
                f"tokens     prompts {lengths[0]} to {before}, median {middle:g}; completions up "
                f"to {after}; text up to {before + after}"
                + (f" of {shape.positions:,} positions" if shape.positions else ""),
                "memory     estimated at full length:",
                *(f"  {name:<24}{bytes_text(size):>10}" for name, size in memory.items()),
                f"  {'peak':<24}{bytes_text(peak):>10}",
            ]
        )


def bytes_text(size: int) -> str:
    """Bytes to read.

    >>> bytes_text(1536), bytes_text(3 * 1024**3)
    ('1.5 KiB', '3.0 GiB')
    """
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f} {units[0]}"
