"""By how much a loss climbs ∇J: the factor as a formula, and what it depends on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from vantage.conformance.losses.door import Loss
from vantage.conformance.losses.expected import Expected, RefusedError, expected
from vantage.conformance.losses.problems import ONE, Problem, choice

TOLERANCE = 1e-5  # relative, of a factor
# One decision with one thing changed. Each has one direction, so that a factor is all there is.
CHANGES: tuple[tuple[str, Problem, int, int, int], ...] = (
    # what, problem, completions per prompt, groups of the prompt, padding
    ("the number of completions per prompt", ONE, 3, 1, 0),
    ("the number of prompts in the batch", ONE, 2, 2, 0),
    ("padding", ONE, 2, 1, 2),
    ("the scale of the rewards", Problem("scale", (choice(0.5, 10.0, 0.0),)), 2, 1, 0),
    ("the level of the rewards", Problem("level", (choice(0.5, 11.0, 10.0),)), 2, 1, 0),
    ("the probability of success", Problem("probability", (choice(0.75, 1.0, 0.0),)), 4, 1, 0),
    (
        "the length of the completions",
        Problem("length", (choice(0.5, choice(0.5, 1.0, 1.0), choice(0.5, 0.0, 0.0)),)),
        2,
        1,
        0,
    ),
)
Size = Callable[[int, int, int], float]  # of completions per prompt K, rows N, steps T
BY_GROUP: dict[str, Size] = {
    "1": lambda K, N, T: 1.0,
    "(K − 1)/K": lambda K, N, T: (K - 1) / K,
    "K/(K − 1)": lambda K, N, T: K / (K - 1) if K > 1 else math.inf,
    "√((K − 1)/K)": lambda K, N, T: math.sqrt((K - 1) / K),
}
BY_BATCH: dict[str, Size] = {
    "1": lambda K, N, T: 1.0,
    "N": lambda K, N, T: N,
    "N/K": lambda K, N, T: N / K,
    "K": lambda K, N, T: K,
}
BY_STEPS: dict[str, Size] = {
    "1": lambda K, N, T: 1.0,
    "1/T": lambda K, N, T: 1 / T,
    "1/(T − 1)": lambda K, N, T: 1 / (T - 1),
}
LEGEND = {
    "K": "the number of completions per prompt",
    "N": "the number of rows",
    "T": "the number of steps, padding included",
}


@dataclass(frozen=True)
class Factor:
    """c in E[step] = c ∇J.

    Attributes:
        low, high: over the problems.
        formula: as far as it is one of the customary ones; empty otherwise.
        depends_on: what changes it, each tried by itself on one decision.
    """

    low: float
    high: float
    formula: str
    depends_on: tuple[str, ...]

    def __str__(self) -> str:
        span = f"{self.low:.4g}"
        span += "" if _equal(self.low, self.high) else f" to {self.high:.4g}"
        if not self.depends_on:
            return span
        letters = [f"{key} {text}" for key, text in LEGEND.items() if key in self.formula]
        formula = f"{self.formula} ({span}), {listed(letters)}" if letters else span
        return f"{formula}; it depends on {listed(self.depends_on)}"


def listed(words: Sequence[str], joint: str = "and") -> str:
    """A list in a sentence."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joint} {words[-1]}"


def factor_of(loss: Loss, cells: Sequence[Expected], ordered: bool) -> Factor:
    """The factor of a loss over the problems that it was evaluated on."""
    factors = [cell.factor for cell in cells]
    if all(_equal(factor, 1) for factor in factors):
        return Factor(min(factors), max(factors), "1", ())
    changes = _changes(loss, ordered)
    on = tuple(what for what, before, after in changes if not _equal(before.factor, after.factor))
    sizes = [after for _, before, after in changes if after.problem is before.problem]
    return Factor(min(factors), max(factors), _formula([*cells, *sizes]), on)


def _formula(cells: Sequence[Expected]) -> str:
    """A product of customary sizes and a constant that fits every problem."""
    sizes = [(cell.size, cell.batches.members.shape[1], cell.steps) for cell in cells]
    # the fewest parts first
    names = sorted(product(BY_GROUP, BY_BATCH, BY_STEPS), key=lambda n: 3 - n.count("1"))
    for group, batch, steps in names:
        parts = (BY_GROUP[group], BY_BATCH[batch], BY_STEPS[steps])
        worth = [math.prod(factor(*size) for factor in parts) for size in sizes]
        if not all(0 < value < math.inf for value in worth):  # a group of one
            continue
        left = [cell.factor / value for cell, value in zip(cells, worth, strict=True)]
        if all(_equal(x, left[0]) for x in left):
            constant = [] if _equal(left[0], 1) else [f"{left[0]:.4g}"]
            named = constant + [name for name in (group, batch, steps) if name != "1"]
            return " · ".join(named) or "1"
    return ""


def _changes(loss: Loss, ordered: bool) -> list[tuple[str, Expected, Expected]]:
    """One decision, before and after each change, where the loss can be evaluated."""
    changes = []
    for what, problem, size, copies, padding in CHANGES:
        # as many completions before, but where their number is the change itself
        before = 2 if problem is ONE else size
        try:
            base = expected(loss, ONE, before, ordered=ordered)
            changed = expected(loss, problem, size, ordered=ordered, copies=copies, padding=padding)
        except RefusedError:  # the battery reports it, and says on what
            continue
        changes.append((what, base, changed))
    return changes


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other), 1e-9)
