"""Where a run folder holds what a language model said, and how it is read: as data, within bounds.

`vantage.language.transcripts` says what the columns are, and writes them.
"""

import json
from pathlib import Path
from typing import Any

from vantage.errors import InputError, refuse_unless
from vantage.runs.stored import REMEDY, naming, refuse_link

FOLDER = "transcripts"
LARGEST_FILE = 1 << 30  # bytes of an update's file
COLUMNS = ("prompt", "completion", "tokens", "advantage", "log_prob", "reward", "group", "length")


def import_parquet() -> Any:
    """`pyarrow.parquet`, which belongs to the language extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise InputError(
            "Parquet needs pyarrow; install it with: pip install 'vantage-rl[language]'."
        ) from error
    return pyarrow.parquet


def file_of(run: Path, update: int) -> Path:
    """The file of an update's transcripts."""
    return run / FOLDER / f"{update:06d}.parquet"


def updates_of(run: Path) -> list[int]:
    """The updates whose transcripts a run folder holds, in order."""
    names = [file.stem for file in (run / FOLDER).glob("*.parquet")]
    return sorted(int(name) for name in names if name.isdecimal())


def read_update(run: Path, update: int) -> list[dict[str, Any]]:
    """The records of an update, each with its "update".

    Raises:
        InputError: pyarrow is not installed; the file is a link, too large, no Parquet file or
            lacks a column, naming it.
    """
    parquet, file = import_parquet(), file_of(run, update)
    refuse_link(file.parent)
    refuse_link(file)
    with naming(file):
        facts = parquet.read_metadata(file)
        groups = [facts.row_group(i).total_byte_size for i in range(facts.num_row_groups)]
        size = max(file.stat().st_size, sum(groups))  # unpacked
        refuse_unless(
            size <= LARGEST_FILE,
            f"{file} cannot be used: it has {size:,} bytes, and at most {LARGEST_FILE:,} are read; "
            f"{REMEDY}.",
        )
        table = parquet.read_table(file)
        missing = [name for name in COLUMNS if name not in table.column_names]
        refuse_unless(not missing, f"{file} cannot be used: it has no column {missing}; {REMEDY}.")
        return [{"update": update, **record} for record in table.to_pylist()]


def spoken(prompt: str) -> str:
    """A prompt to read: messages with their roles.

    >>> print(spoken('[{"role": "user", "content": "2+2="}]'))
    user: 2+2=
    """
    try:
        messages = json.loads(prompt)
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
    except (ValueError, TypeError, KeyError, RecursionError):
        return prompt
