"""Functions of tensors compiled by torch.compile, with a cache on disk that is the user's alone.

torch's own cache lies in the folder for temporary files, under a name that others know, and what is
read from it is unpickled and run. Ours lies in the user's folder for caches and is refused where
anybody else may write to it. `TORCHINDUCTOR_CACHE_DIR` names another one.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vantage.errors import refuse_unless
from vantage.runs.interrupts import Interrupts
from vantage.runs.progress import note

CACHE = "TORCHINDUCTOR_CACHE_DIR"
# Graphs of one function, with other shapes, that a process may have; torch's own limit is 8.
MOST_GRAPHS = 256


class Compilation:
    """Compiles functions; once one cannot be compiled, that is said and all run as they are.

    Args:
        name: the environment whose steps are compiled, for the line that says so.

    Attributes:
        works: whether nothing has failed so far.
    """

    def __init__(self, name: str) -> None:
        self.name, self.works = name, True

    def __call__(self, function: Callable[..., Any], *example: Any) -> Callable[..., Any] | None:
        """The function, compiled for inputs like `example`; None where it cannot be.

        Args:
            function: pure, of tensors and what holds them; it branches on no tensor's value.
            example: inputs whose outcome is not looked at.

        Raises:
            KeyboardInterrupt: a stop was asked for meanwhile. The compiler, a process that the
                terminal stops too, may have failed for that alone.
        """
        if not self.works:
            return None
        with Interrupts() as interrupts:
            try:
                with _kept_in(cache_folder()):
                    compiled: Callable[..., Any] = torch.no_grad()(
                        torch.compile(function, fullgraph=True, dynamic=False, options=_options())
                    )
                    with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
                        compiled(*example)
            except Exception as error:  # whatever it is, steps can be taken as they are
                self.works = False
                reason = error
        interrupts.raise_if_asked()
        if not self.works:
            note(
                f"Steps of {self.name} cannot be compiled: {_in_a_line(reason)}. The run goes on "
                "without, with the numbers of compile=False."
            )
            return None
        return compiled


def compact(tensor: Tensor) -> Tensor:
    """The tensor with the strides of a new one, for others are compiled anew.

    `contiguous` leaves those of dimensions of length 1 as they are.
    """
    return tensor.reshape(-1).view(tensor.shape)


def cache_folder() -> Path:
    """Where compiled code is kept: what `TORCHINDUCTOR_CACHE_DIR` says, or a folder of the user's.

    Raises:
        InputError: somebody else owns the folder or may write to it.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get(CACHE) or _folder_of_torch())
    if folder == _folder_of_torch():
        # torch enters it there as soon as its compiler is imported, which is nobody's choice
        folder = caches / "vantage" / "compiled"
    refuse_unless(
        _is_ours_alone(folder),
        f"{folder} belongs to somebody else, or others may write to it, and what is in it would be "
        f"run: name a folder of your own by {CACHE}",
    )
    return folder


def _options() -> dict[str, Any]:
    """Settings of inductor's: no workers, which would outlive the run, and nothing of strangers.

    Headers are compiled once and for all, which saves half of the time, into a folder that nothing
    moves from among the temporary files, where a stranger may have made it first.
    """
    headers = _is_ours_alone(_folder_of_torch())
    return {"compile_threads": 1, "cpp_cache_precompile_headers": headers}


def _folder_of_torch() -> Path:
    """Where torch keeps compiled code by default."""
    # takes two seconds, which those who compile nothing need not wait
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return Path(default_cache_dir())


def _is_ours_alone(folder: Path) -> bool:
    """Whether the folder, made where there is none, is the user's and nobody else may write to it.

    Where the system does not tell users apart by number, as Windows, folders are their own.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not hasattr(os, "getuid"):
        return True
    # where it is a link, whose is the link, too
    owners = {folder.lstat().st_uid, folder.stat().st_uid}
    others = folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return owners == {os.getuid()} and not others


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let torch keep in that folder what it compiles in the block."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before


def _in_a_line(error: Exception) -> str:
    """What went wrong, without the advice for developers that follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
