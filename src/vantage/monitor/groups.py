"""How the steps of a trainer split into independent pieces; completions of a prompt in one pass.

TRL's trainers with `num_generations` generate for several passes at once and shuffle the
completions across them, by `shuffle_sequence_dict` of their module, so that passes share groups
and are dependent: with shuffled completions a group's inner products cannot be told from those
between groups. While `keep_whole` is in force, the same permutation moves whole groups.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import unwrap
from math import lcm
from typing import Any

import torch
from torch import Tensor

SHUFFLE = "shuffle_sequence_dict"


@dataclass
class Split:
    """The pieces of a trainer's step.

    Attributes:
        trainer: whose steps they are.
        passes: accumulation passes of a step, in a rank.
        passes_per_piece: how many make an independent piece.
        units: independent units of a step (prompts, examples), over all ranks.
        rows_per_unit: completions of a prompt; 1 otherwise.
        assumption: what is taken for granted, in words.
        problem: why nothing can be measured and what to do, or "".
    """

    trainer: Any
    passes: int
    passes_per_piece: int
    units: float
    rows_per_unit: int
    assumption: str = ""
    problem: str = ""
    original: Callable[[Any], Any] | None = field(default=None, repr=False)

    @property
    def grouped(self) -> bool:
        return self.rows_per_unit > 1

    def keep_whole(self) -> None:
        """From now on the completions of a prompt stay together when they are shuffled."""
        trainer, size = self.trainer, self.rows_per_unit
        if not self.grouped:
            return
        names = _names_of(trainer)
        original = self.original = trainer._prepare_inputs

        def prepared(batch: Any) -> Any:
            shuffle, names[SHUFFLE] = names[SHUFFLE], partial(shuffled_groups, size=size)
            try:
                return original(batch)
            finally:
                names[SHUFFLE] = shuffle

        trainer._prepare_inputs = prepared

    def let_go(self) -> None:
        """As the trainer was before `keep_whole`."""
        if self.original is not None:
            del self.trainer._prepare_inputs
            self.original = None

    def used_before(self) -> bool:
        """Whether the step about to begin learns from its completions again."""
        if not self.grouped:
            return False
        rounds = self.trainer._step // self.trainer.args.steps_per_generation
        return rounds % self.trainer.num_iterations != 0

    def whole(self, passes: int) -> bool:
        """Whether a step of so many passes, that has just ended, is as steps are."""
        if passes != self.passes:
            return False
        ends = self.trainer.accelerator.gradient_state
        return self.grouped or not (ends.end_of_dataloader and ends.remainder > 0)


def split_of(trainer: Any) -> Split:
    """How the trainer's steps are split, as it is configured."""
    arguments = trainer.args
    passes, ranks = arguments.gradient_accumulation_steps, arguments.world_size
    rows = arguments.per_device_train_batch_size
    size = trainer.num_generations if hasattr(trainer, "num_generations") else 1
    together = lcm(rows, size) // rows
    split = Split(trainer, passes, together, rows * passes * ranks / size, size)
    known = size == 1 or (_names_of(trainer) and hasattr(trainer, "_buffered_inputs"))
    advice = (
        "Raise gradient_accumulation_steps, and lower per_device_train_batch_size by the same "
        "factor if the batch is to stay as it is"
    )
    if not known:
        split.problem = (
            f"{type(trainer).__name__} has num_generations and no {SHUFFLE} that it would shuffle "
            "completions by: whether passes share groups is not known, and nothing is measured."
        )
    elif passes % together:
        split.problem = (
            f"a step of {passes} × {rows} rows does not hold whole groups of {size}, so that its "
            f"passes are dependent and nothing is measured. {advice}, to a multiple of {size} rows."
        )
    elif passes // together * ranks < 2:
        split.problem = (
            "a step is one piece, which says nothing of its noise, and nothing is measured. "
            f"{advice}."
        )
    split.assumption = _assumption(split, passes // together * ranks)
    return split


def _assumption(split: Split, pieces: int) -> str:
    if not split.grouped:
        return (
            f"a step is {pieces} passes, taken as independent and alike; a loss that compares "
            "examples across passes would make them dependent."
        )
    reuse = "; steps that use completions again are left out" * (split.trainer.num_iterations > 1)
    return (
        f"a step is {pieces} pieces of whole groups, taken as independent draws of prompts: "
        f"completions of a prompt stay in one {'pass' if split.passes_per_piece == 1 else 'piece'}"
        f"{reuse}."
    )


def _names_of(trainer: Any) -> dict[str, Any]:
    """Where the trainer looks up its shuffle: the names of the module that prepares inputs."""
    for kind in type(trainer).__mro__:
        method = vars(kind).get("_prepare_inputs")
        names = getattr(unwrap(method), "__globals__", {}) if method is not None else {}
        if SHUFFLE in names:
            return names
    return {}


def shuffled_groups(rows: dict[str, Any], *, size: int) -> dict[str, Any]:
    """Rows in a random order of their groups, `size` neighbours each.

    A permutation of all rows is drawn, as by TRL's `shuffle_sequence_dict`, so that what is drawn
    after it stays the same; groups come in the order in which it first meets them.
    """
    count = len(next(v for v in rows.values() if v is not None))
    met = torch.div(torch.randperm(count), size, rounding_mode="floor").tolist()
    order = [size * group + n for group in dict.fromkeys(met) for n in range(size)]

    def moved(column: Any) -> Any:
        if isinstance(column, Tensor):
            return column[order] if column.ndim else column
        return None if column is None else [column[n] for n in order]

    return {name: moved(column) for name, column in rows.items()}
