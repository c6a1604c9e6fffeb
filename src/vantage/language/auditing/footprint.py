"""What an audit of a language model takes beyond the model, line by line, before it samples.

Unit gradients are held throughout; sampling, scoring, forming gradients and statistics come one
after the other. Sizes are chosen so that all stays within the bound: whole gradients or a sketch,
rows of a chunk, completions decoded at once, tokens of a scoring pass. All of it is for texts of
full length, an estimate from above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vantage.auditing.units import LEAST_SKETCH, Design
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.per_trajectory import METHODS, Room, vectors_held
from vantage.language.model.head import chunk
from vantage.language.sampling.generation import Decoding
from vantage.language.scoring.arithmetic import Shape, bytes_text

PROMPTS = 64  # of which two completions are kept apart: enough for an interval
MOST_SKETCH = 1 << 20  # numbers: squared norms then carry a relative error of 0.14 %
TOKENS = 16384  # of a scoring pass, at most
STATISTICS = 32 << 20  # bytes: blocks in float64 and what intervals are made from
SLACK = 4  # of the bound a quarter is left to the allocator, which keeps part of what is freed
DIRECTIONS = 12  # vectors of P numbers, as the change of log-probabilities along 8 of them takes


@dataclass(frozen=True)
class Footprint:
    """Sizes of an audit's parts, in bytes where nothing else is said.

    Attributes:
        memory: the bound.
        parameters: P, numbers that a gradient has.
        units: unit gradients of all estimators.
        sketched: numbers of a sketched unit gradient; None where they are whole.
        held: throughout, by what.
        turns: one after the other, by what.
        rows: rows of a chunk at full length, by method; 0 where it does not fit.
        decoded: completions decoded at once.
        token_budget: tokens of a scoring pass.
        looked: rows of a pass that looks at the change of log-probabilities.
        room: what forming gradients may take.
    """

    memory: int
    parameters: int
    units: int
    sketched: int | None
    held: dict[str, int]
    turns: dict[str, int]
    rows: dict[str, int]
    decoded: int
    token_budget: int
    looked: int
    room: Room

    @property
    def peak(self) -> int:
        """Most that is held at once, with the allocator's slack."""
        return (sum(self.held.values()) + max(self.turns.values())) * SLACK // (SLACK - 1)

    def __str__(self) -> str:
        if self.sketched is None:
            kept = f"{self.units:,} whole, of {self.parameters:,} numbers each"
        else:
            kept = (
                f"{self.units:,} sketched to {self.sketched:,} numbers of {self.parameters:,}: "
                f"squared norms to about {100 * (2 / self.sketched) ** 0.5:.2g} %"
            )
        able = [f"{name} ({count})" for name, count in self.rows.items() if count > 0]
        unable = [name for name, count in self.rows.items() if count == 0]
        methods = f"the quickest of {', '.join(able)}" if len(able) > 1 else able[0]
        if unable:
            methods += f"; too large: {', '.join(unable)}"
        lines = {**self.held, **{f"{name}, in turn": size for name, size in self.turns.items()}}
        return "\n".join(
            [
                f"gradients  {kept}",
                f"method     {methods}; in parentheses the completions at once",
                f"sampling   {self.decoded:,} completions at once; scoring passes of up to "
                f"{self.token_budget:,} tokens",
                "memory     estimated at full length, beyond the model:",
                *(f"  {name:<34}{bytes_text(size):>10}" for name, size in lines.items() if size),
                f"  {'slack of the allocator':<34}{bytes_text(self.peak // SLACK):>10}",
                f"  {'peak':<34}{bytes_text(self.peak):>10} of {bytes_text(self.memory)}",
            ]
        )


def footprint(
    shape: Shape,
    design: Design,
    estimators: Sequence[Estimator],
    prompt: int,
    completion: int,
    memory: int,
) -> Footprint:
    """Sizes that stay within `memory` bytes.

    Args:
        shape: the shape of the model.
        design: the design of the audit; its groups are completions of a prompt.
        estimators: all that are measured, the reference among them.
        prompt, completion: most tokens of each.

    Raises:
        InputError: not even the smallest sizes fit, with what they would take.
    """
    if shape.positions is not None:
        completion = min(completion, shape.positions - prompt)
    work, usable = _Work(shape, design, estimators, prompt, completion), memory - memory // SLACK
    size = work.length(memory)
    held, group = work.held(size), design.group
    free = usable - sum(held.values())
    room = Room(free, lambda name, steps: _pass(shape, name, steps))
    results = 3 * len(estimators) * size * work.width
    rows = {
        name: min(design.batch, room.rows(name, work.gradient, 1, results, work.longest))
        for name in METHODS
    }
    logits, a_row = _logits(shape), _pass(shape, "loop", work.longest)
    decoded = min(design.batch, Decoding().rows, (free - logits) // work.decoding)
    decoded = max(work.fewest, decoded // group * group)
    tokens = min(TOKENS, design.batch * work.longest, (free - logits) // work.scoring)
    tokens = max(work.longest, tokens)
    change = free - STATISTICS - DIRECTIONS * work.gradient
    formed = {
        name: rows[name] * (results + work.gradient * vectors_held(name, 1)[1])
        + (1 if name == "loop" else rows[name]) * _pass(shape, name, work.longest)
        for name in METHODS
    }
    return Footprint(
        memory=memory,
        parameters=shape.trained,
        units=work.units,
        sketched=None if size == shape.trained else size,
        held=held,
        turns=work.turns(size, decoded, tokens, min(free, max(formed.values()))),
        rows=rows,
        decoded=decoded,
        token_budget=tokens,
        looked=max(1, min(design.batch, change // (3 * a_row))),
        room=room,
    )


@dataclass(frozen=True)
class _Work:
    """What an audit has to do, and the bytes that its parts take for given sizes."""

    shape: Shape
    design: Design
    estimators: Sequence[Estimator]
    prompt: int
    completion: int

    @property
    def width(self) -> int:
        """Bytes of a number of a unit gradient."""
        return max(self.shape.width, 4)

    @property
    def gradient(self) -> int:
        return self.shape.trained * self.width

    @property
    def longest(self) -> int:
        return self.prompt + self.completion

    @property
    def units(self) -> int:
        return sum(self.design.trajectories // self.design.unit(e) for e in self.estimators)

    @property
    def pairs(self) -> int:
        """Completions whose own gradients are kept."""
        alone = sum(e.couples == "none" for e in self.estimators) if self.design.group > 1 else 0
        return 2 * alone * min(PROMPTS, self.design.trajectories // self.design.group)

    @property
    def fewest(self) -> int:
        """Completions that have to be decoded at once: a group, or a greedy one of each prompt."""
        greedy = any("greedy_return" in e.needs for e in self.estimators)
        return max(self.design.group, self.design.batch // self.design.group if greedy else 1)

    @property
    def decoding(self) -> int:
        """Of one completion while it is decoded."""
        return _decoding(self.shape, self.longest)

    @property
    def scoring(self) -> int:
        """Of one token while a batch is scored."""
        return _scoring(self.shape, self.prompt, self.completion, self.design.group)

    def held(self, size: int) -> dict[str, int]:
        """Throughout, where `size` numbers of each unit gradient are kept."""
        return {
            "unit gradients": self.units * size * self.width,
            "pairs of completions": self.pairs * size * self.width,
            "signs of the sketch": 0 if size == self.shape.trained else self.shape.trained,
        }

    def turns(self, size: int, decoded: int, tokens: int, formed: int) -> dict[str, int]:
        """One after the other. The first scoring is a trial of two groups.

        Args:
            decoded: completions at once.
            tokens: the tokens of a scoring pass.
            formed: bytes of the largest chunk of gradients.
        """
        a_row, logits = _pass(self.shape, "loop", self.longest), _logits(self.shape)
        one = self.gradient + a_row + 3 * len(self.estimators) * size * self.width
        trial = min(TOKENS, 2 * self.design.group * self.longest)
        scores = any("scores" in e.needs for e in self.estimators)
        every = 4 * self.design.batch * self.completion * self.gradient
        whole = size == self.shape.trained
        change = DIRECTIONS * self.gradient + 3 * a_row if whole else 0
        return {
            "sampling": decoded * self.decoding + logits,
            "scoring": max(tokens, trial) * self.scoring + logits,
            "scores of every step": every if scores else 0,
            "forming gradients": max(formed, one),
            "statistics": STATISTICS + change,
        }

    def least(self, size: int) -> int:
        """The peak where chunks are as small as they can be."""
        return sum(self.held(size).values()) + self._largest(size)

    def _largest(self, size: int) -> int:
        return max(self.turns(size, self.fewest, self.longest, 0).values())

    def length(self, memory: int) -> int:
        """Numbers to keep of each unit gradient: all of them, or as many as leave as much again for
        chunks of several rows, in steps of halves.

        Raises:
            InputError: not even the smallest sketch fits.
        """
        usable, size = memory - memory // SLACK, self.shape.trained
        if self.least(size) <= usable:
            return size
        fewest = min(LEAST_SKETCH, size)
        size = max(fewest, min(MOST_SKETCH, size // 2))
        while size > fewest and 2 * self.least(size) - self.least(0) > usable:
            size = max(fewest, size // 2)
        needed = self.least(size) * SLACK // (SLACK - 1) + SLACK
        refuse_unless(
            needed <= memory,
            f"audit(memory={memory:,} bytes): beyond the model it takes {needed:,}, of them "
            f"{self._largest(size):,} for the largest of sampling, scoring and forming a "
            f"gradient, the rest for {self.units} unit gradients of {self.shape.trained:,} "
            f"parameters in sketches of {size:,} numbers. Give as much, or take a smaller batch, "
            "shorter completions or fewer estimators.",
        )
        return size


def _pass(shape: Shape, method: str, steps: int) -> int:
    """Bytes of the pass over one row of `steps` tokens, forwards and backwards, by a method.

    Of a token in a layer: in attention the norm's input and output (twice), q, k, v (before and
    after positions, keys and values for all heads) and the output; five of the inner width in the
    MLP, as much again for gradients of one layer. vmap holds all logits of a row, and so does
    `by_layers` where the head is tied to embeddings and left to vmap.
    """
    token = 11 * shape.hidden + 4 * shape.kv_width + 5 * shape.intermediate
    attention = 4 * shape.heads * steps * steps
    layers = (shape.layers + 2) * (steps * token + attention) * shape.width
    whole = method == "vmap" or (method == "layers" and shape.tied)
    logits = 8 * steps * shape.vocabulary * 4 if whole else _logits(shape)
    # where a parameter is used twice its gradients are added up
    return layers + logits + 2 * shape.largest * shape.width


def _logits(shape: Shape) -> int:
    """Bytes of a chunk of logits, with what is made of them."""
    return 5 * chunk(shape.vocabulary, shape.hidden) * 4


def _decoding(shape: Shape, longest: int) -> int:
    """Bytes that a completion takes while it is decoded: its cache, one layer's keys and values for
    all heads, and logits with what is drawn from them, partly in float64."""
    cache = (2 * shape.layers + 4) * shape.kv_width * longest * shape.width
    one_layer = (4 * shape.hidden * shape.width + 4 * shape.heads * 4) * longest
    return cache + one_layer + 40 * shape.vocabulary


def _scoring(shape: Shape, prompt: int, completion: int, group: int) -> int:
    """Bytes that a token takes while a batch is scored without a graph, in one layer.

    Its row of the attention matrix is as long as the texts that share a row.
    """
    row = prompt + group * completion
    own = 8 * shape.hidden + 4 * shape.kv_width + 4 * shape.intermediate
    return own * shape.width + 3 * shape.heads * row * 4
