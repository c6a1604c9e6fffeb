"""Rows of data: dicts, from a list, a file (JSONL, CSV, Parquet), a dataset or a table."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vantage.errors import InputError, refuse_unless
from vantage.runs.transcripts import import_parquet

Row = dict[str, Any]
LISTED = re.compile(r"\[\s*\{\s*['\"](role|content)['\"]\s*:")  # messages, as str or JSON has them
# a list of dicts, a path, a datasets.Dataset or a table of another library, none of them imported
Source = object
# how tables give their rows as dicts: polars, pyarrow, pandas
TABLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",)),
)  # fmt: skip


def read_rows(source: Source) -> list[Row]:
    """Rows as dicts that all have the same columns; what a row does not say is None.

    Args:
        source: a list of dicts; the path of a .jsonl, .csv or .parquet file; a
            `datasets.Dataset`; or a table of pandas, polars or pyarrow. Values of a CSV file are
            strings.

    Raises:
        InputError: not one of these, no rows, or a row that is not one, naming file and line.

    >>> read_rows([{"prompt": "1+1="}, {"prompt": "2+2=", "answer": "4"}])[0]
    {'prompt': '1+1=', 'answer': None}
    """
    if isinstance(source, str | Path):
        rows, origin = _read_file(Path(source)), str(source)
    else:
        rows, origin = _from_memory(source), "the rows"
    refuse_unless(rows, f"{origin}: there are no rows; give at least one.")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def held_out_sets(given: Any) -> tuple[tuple[str, float], dict[str, list[Row]]]:
    """What a task holds out: the share of its own rows with the name of that set, and other rows.

    Args:
        given: a share, rows, or a mapping of names to either. A set without a name is called "".

    Raises:
        InputError: a share outside [0, 1), or two of them; names that no metric can have.
    """
    sets = dict(given) if isinstance(given, Mapping) else {"": given}
    shares = {name: x for name, x in sets.items() if isinstance(x, int | float)}
    for name, share in shares.items():
        where = f" of {name!r}" if name else ""
        refuse_unless(0 <= share < 1, f"Task(held_out={share}){where}: a share lies in [0, 1).")
    refuse_unless(
        sets and len(shares) < 2,
        f"Task(held_out={given!r}): several sets by name are rows each, and one may be a share.",
    )
    for name in sets if isinstance(given, Mapping) else ():
        refuse_unless(
            isinstance(name, str) and re.fullmatch(r"[\w.-]+", name),
            f"Task(held_out=...): a set is called {name!r}; metrics are named after it: letters, "
            "digits, '_', '-' and '.'.",
        )
    apart = {name: read_rows(x) for name, x in sets.items() if name not in shares}
    return next(iter(shares.items()), ("", 0.0)), apart


def _from_memory(source: Any) -> list[Row]:
    refuse_unless(
        not isinstance(getattr(source, "column_names", None), Mapping),
        "rows is a DatasetDict of several splits; give one of them, such as dataset['train'].",
    )
    if hasattr(source, "to_list") and hasattr(source, "column_names"):
        return source.to_list()
    if hasattr(source, "columns"):
        for name, arguments in TABLES:
            if hasattr(source, name):
                return [_without_nan(row) for row in getattr(source, name)(*arguments)]
    refuse_unless(
        isinstance(source, Iterable) and not isinstance(source, Mapping),
        f"rows is a {type(source).__name__}; give a list of dicts, the path of a JSONL, CSV or "
        "Parquet file, a datasets.Dataset, or a table of pandas, polars or pyarrow.",
    )
    rows = list(source)
    for number, row in enumerate(rows):
        refuse_unless(
            isinstance(row, Mapping),
            f"Row {number} is {row!r}, a {type(row).__name__}; a row is a dict of columns, such as "
            "{'prompt': ..., 'answer': ...}.",
        )
    return [dict(row) for row in rows]


def _without_nan(row: Mapping[Any, Any]) -> Row:
    """A row with None where a table says NaN, which is how pandas says that nothing is there."""
    return {
        str(column): None if isinstance(value, float) and value != value else value
        for column, value in row.items()
    }


def _read_file(path: Path) -> list[Row]:
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    refuse_unless(
        path.suffix in readers,
        f"{path}: rows are read from files that end in {', '.join(readers)}; convert it to one.",
    )
    refuse_unless(path.is_file(), f"{path}: there is no such file.")
    return readers[path.suffix](path)


def _jsonl(path: Path) -> list[Row]:
    rows = []
    # split at newlines only: splitlines() would also split at characters that JSON text may hold
    for number, line in enumerate(io.StringIO(_text(path), newline=None), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, or nested or long beyond measure
            raise InputError(f"{path}, line {number} is not JSON: {error}.") from error
        refuse_unless(
            isinstance(row, dict),
            f"{path}, line {number} is {line[:60]!r}; a row is a JSON object.",
        )
        rows.append(row)
    return rows


def _csv(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            refuse_unless(
                None not in row and None not in row.values(),
                f"{path}, line {reader.line_num} has not as many fields as the header "
                f"({', '.join(reader.fieldnames or ())}); quote fields that hold commas.",
            )
            refuse_unless(
                not LISTED.match(row.get("prompt") or ""),
                f"{path}, line {reader.line_num}: the prompt is a list of messages written as "
                "text, and a field of CSV holds text alone; save the rows as JSONL or Parquet.",
            )
            rows.append(dict(row))
    except csv.Error as error:
        raise InputError(f"{path}, after line {reader.line_num}, is not CSV: {error}.") from error
    return rows


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 where a byte order mark says so."""
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line} holds {data[error.start : error.start + 1]!r}, not UTF-8; "
            "save the file as UTF-8 (of Latin-1: iconv -f latin1 -t utf-8)."
        ) from error


def _parquet(path: Path) -> list[Row]:
    parquet = import_parquet()
    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read: {error}.") from error
