"""What run folders hold is data: read within bounds, never run, its faults named; written whole."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vantage.errors import InputError, refuse_unless

LARGEST = 1 << 24  # bytes of a JSON file, or of a line of metrics; ours hold a few thousand
REMEDY = "restore it from a copy, or start a new run"


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file's contents are used into an error that names the file.

    Raises:
        InputError: the block raised; those that it raised itself pass, where they name the folder.
    """
    try:
        yield
    except InputError as error:
        if str(file.parent) in str(error):
            raise
        raise InputError(f"{file}: {error}") from error
    except KeyError as error:
        raise InputError(f"{file} cannot be used: it has no {error}; {REMEDY}.") from error
    except RecursionError as error:
        raise InputError(f"{file} cannot be used: it is nested too deeply; {REMEDY}.") from error
    except Exception as error:
        what = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{file} cannot be used: {what[:300]}; {REMEDY}.") from error


def refuse_link(file: Path) -> None:
    """Refuse a link in a run folder: what it leads to would be read or written in its place.

    Raises:
        InputError: naming both ends.
    """
    refuse_unless(
        not file.is_symlink(),
        f"{file} is a link to {file.readlink() if file.is_symlink() else ''}; a run folder holds "
        "its own files: put the file itself there.",
    )


def text_of(file: Path, largest: int = LARGEST) -> str:
    """The text of a file of a run folder.

    Raises:
        InputError: it is a link, no plain file, too large, or not UTF-8, naming it.
    """
    refuse_link(file)
    with naming(file):
        refuse_unless(file.is_file(), f"{file} cannot be used: it is no plain file; {REMEDY}.")
        size = file.stat().st_size
        refuse_unless(
            size <= largest,
            f"{file} cannot be used: it has {size:,} bytes, and at most {largest:,} are read; "
            f"{REMEDY}.",
        )
        return file.read_text(encoding="utf-8")


def object_of(file: Path) -> dict[str, Any]:
    """The JSON object that a file of a run folder holds.

    Raises:
        InputError: as `text_of`; or it holds no JSON object, naming the file.
    """
    text = text_of(file)
    return parsed(text, file)


def parsed(text: str, where: Path | str) -> dict[str, Any]:
    """The JSON object that a text is; NaN and infinities are not JSON.

    Raises:
        InputError: it is none, saying where it stands.
    """
    with naming(where if isinstance(where, Path) else Path(where)):
        try:
            plain = json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise InputError(f"{where} is not JSON: {error}; {REMEDY}.") from error
        refuse_unless(
            isinstance(plain, dict),
            f"{where} cannot be used: it holds no JSON object; {REMEDY}.",
        )
        return plain


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def write_whole(file: Path, text: str) -> None:
    """Whole or not at all: a half-written file could be neither carried on nor begun again."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
