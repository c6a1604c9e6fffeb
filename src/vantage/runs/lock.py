"""One process at a time writes into a run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vantage.errors import InputError
from vantage.runs.stored import refuse_link

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which names this process, for the length of a block.

    The lock is the operating system's and ends with the process that holds it, however that ends:
    a file that a killed process left behind locks nothing.

    Raises:
        InputError: another run holds it, naming its process; the folder cannot be written to.
    """
    refuse_link(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error}; choose another folder.") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise InputError(
                    f"{folder} is in use by process {file.read().strip() or 'unknown'}; wait until "
                    "it has ended, or choose another folder with out (--out)."
                ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        # emptied, not removed: another process may already wait with the file open
        file.truncate(0)
