"""Transcripts: what the model said at an update, token by token, as a Parquet file per update.

runs/x/transcripts/000003.parquet    one row per completion

prompt                 text, or JSON of the messages
completion             text
tokens, token_ids      of what the policy said, the end token included
advantage, log_prob    of each of these tokens; log π as it was when the token was drawn
reward                 total; null where no function could score it
reward/NAME            of each reward function, before its weight; null where it said None
extra/NAME             of each column that a reward function logged by log_extra
row, group, length, truncated, update
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import InputError, refuse_unless
from vantage.language.sampling.rollout import Rollout
from vantage.language.tasks.prompts import decoded, token_texts
from vantage.language.tasks.task import Task
from vantage.runs.transcripts import file_of, import_parquet, read_update, updates_of

Record = dict[str, Any]


@checked
def recorder(
    run: str | Path, task: Task, tokenizer: Any, every: int = 1
) -> Callable[[int, Rollout, Tensor], None]:
    """A `watch` for `train` that writes a file into the run folder at every `every`-th update."""
    import_parquet()  # refused now rather than after the first update

    def watch(update: int, drawn: Rollout, advantage: Tensor) -> None:
        if update % every == 0 or update == 1:
            write_transcripts(run, update, transcripts(task, tokenizer, drawn, advantage))

    return watch


def transcripts(
    task: Task, tokenizer: Any, drawn: Rollout, advantage: Float[Tensor, "N T"]
) -> list[Record]:
    """Records of the completions of a rollout, in its order.

    Args:
        task, tokenizer: what the rollout was made with.
        drawn: N completions.
        advantage: [N, T] on the grid of `drawn.batch`.
    """
    texts = decoded(tokenizer, drawn.completion_ids, task.skip_special_tokens)
    sampled = drawn.sequences.sampled[:, 1:]
    columns = {f"extra/{name}": _column(values) for name, values in drawn.extra.items()}
    records = []
    for n, row in enumerate(drawn.rows):
        ids = drawn.sequences.tokens[n, 1:][sampled[n]].tolist()
        prompt = task.prompts[row]
        scores = {f"reward/{name}": _number(rewards[n]) for name, rewards in drawn.parts.items()}
        records.append(
            {
                "prompt": prompt if isinstance(prompt, str) else json.dumps(prompt),
                "completion": texts[n],
                "tokens": token_texts(tokenizer, ids),
                "token_ids": ids,
                "advantage": advantage[n][sampled[n]].tolist(),
                "log_prob": drawn.sequences.log_prob[n, 1:][sampled[n]].tolist(),
                "reward": float(drawn.reward[n]) if drawn.scorable[n] else None,
                **scores,
                **{name: values[n] for name, values in columns.items()},
                "row": row,
                "group": int(drawn.batch.group[n]),
                "length": len(ids),
                "truncated": bool(drawn.sequences.truncated[n]),
            }
        )
    return records


def write_transcripts(run: str | Path, update: int, records: list[Record]) -> Path:
    """Write the records of an update; a kill at any moment leaves the whole file or none.

    Raises:
        InputError: pyarrow is not installed, or the folder cannot be written to.
    """
    parquet = import_parquet()
    import pyarrow  # type: ignore[import-untyped]

    target = file_of(Path(run), update)
    unfinished = target.with_suffix(".new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(records), unfinished)
        os.replace(unfinished, target)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error}; choose another run folder.") from error
    return target


@checked
def read_transcripts(path: str | Path, update: int | None = None) -> list[Record]:
    """The records of an update of a run, or of all its updates in order, with their "update".

    Args:
        path: the run folder.
        update: which, from 1; all where None.

    Raises:
        InputError: none there, or not of that update, saying which there are.
    """
    run = Path(path)
    written = updates_of(run)
    refuse_unless(
        written,
        f"{run} holds no transcripts; they are written by language-model runs with out=.",
    )
    refuse_unless(
        update is None or update in written,
        f"{run} has no transcripts of update {update}; it has those of {_ranges(written)}.",
    )
    numbers = written if update is None else [update]
    return [record for number in numbers for record in read_update(run, number)]


def selected(
    records: Iterable[Record], worst: int = 0, best: int = 0, first: int = 0
) -> list[Record]:
    """The `first` records, then the `worst` of least reward, then the `best` of largest, once each.

    Records that could not be scored count as neither.
    """
    every = list(records)
    scored = sorted((r for r in every if r["reward"] is not None), key=lambda r: r["reward"])
    low, high = scored[:worst], scored[::-1][:best]
    selection: list[Record] = []
    for record in [*every[:first], *low, *high]:
        if not any(record is other for other in selection):
            selection.append(record)
    return selection


def _column(values: Sequence[Any]) -> list[Any]:
    """A column of one kind that a file can hold: numbers, truth values or texts, else all as text.

    >>> _column([1, None, 2.5]), _column(["4", 4, None])
    ([1, None, 2.5], ['4', '4', None])
    """
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    kinds = {type(value) for value in plain} - {type(None)}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return plain
    return [None if value is None else str(value) for value in plain]


def _number(value: Tensor) -> float | None:
    return None if torch.isnan(value) else float(value)


def _ranges(numbers: list[int]) -> str:
    """Numbers in order, runs of neighbours put together.

    >>> _ranges([1, 2, 3, 5, 8, 9])
    '1–3, 5, 8–9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
