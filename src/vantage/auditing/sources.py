"""Where gradients from elsewhere come from: functions, iterables, arrays, folders of vectors.

Files are data: NumPy's without pickled objects, and safetensors. Nothing in them is run.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vantage.errors import InputError, refuse_unless

Draw = Callable[[int], Any]
Source = Draw | Iterable[Any] | str | Path


def listed(name: str, source: Any, seed: int) -> Draw:
    """The source as a function of the number of the draw, from 0, which is asked for in order.

    Raises:
        InputError: no source of gradients, or a folder without vectors.
    """
    if callable(source):
        return lambda n: source(seed + n)
    if isinstance(source, str | Path):
        return partial(_next, name, _saved(name, Path(source)))
    refuse_unless(
        isinstance(source, Iterable),
        f"audit_draws: {name!r} is {type(source).__name__}; give draw(seed) -> vector, an iterable "
        "of vectors, an array [draws, parameters], or a folder of .npy and .safetensors files.",
    )
    return partial(_next, name, iter(source))


def _next(name: str, vectors: Iterator[Any], n: int) -> Any:
    try:
        return next(vectors)
    except StopIteration:
        raise InputError(
            f"audit_draws: {name!r} ended after {n} gradients; draw more, or ask for draws={n}."
        ) from None


def vector(label: str, value: Any, parameters: int | None) -> Float[Tensor, " P"]:
    """The gradient as a flat tensor on the CPU, checked.

    Raises:
        InputError: no vector, another length than `parameters`, or numbers that are not finite.
    """
    try:
        flat = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{label}: {type(value).__name__} is no vector of numbers.") from error
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    refuse_unless(flat.ndim == 1, f"{label}: shape {tuple(flat.shape)}; give a flat vector.")
    refuse_unless(
        parameters is None or len(flat) == parameters,
        f"{label}: {len(flat):,} numbers, and the gradients before it have {parameters}; all "
        "sources differentiate the same parameters, in one order.",
    )
    broken = int((~flat.isfinite()).sum())
    refuse_unless(not broken, f"{label}: {broken} of {len(flat):,} numbers are not finite.")
    return flat


def _saved(name: str, folder: Path) -> Iterator[Any]:
    """The vectors of a folder, one file in memory at a time."""
    refuse_unless(folder.is_dir(), f"audit_draws: {name!r}: there is no folder {folder}.")
    files = sorted(p for p in folder.iterdir() if p.suffix in (".npy", ".safetensors"))
    refuse_unless(files, f"audit_draws: {name!r}: {folder} holds no .npy and no .safetensors.")
    return (row for file in files for row in _in_file(file))


def _in_file(file: Path) -> Iterator[Any]:
    """One vector of a file [P], or several of [n, P]; all tensors of a safetensors file in one."""
    try:
        if file.suffix == ".npy":
            numbers = np.load(file, mmap_mode="r", allow_pickle=False)
            rows = numbers if numbers.ndim == 2 else numbers[None]
            yield from (torch.from_numpy(np.array(row)) for row in rows)
        else:
            with safe_open(file, framework="pt") as tensors:
                names = sorted(tensors.keys())
                yield torch.cat([tensors.get_tensor(each).flatten() for each in names])
    except (ValueError, OSError, TypeError, SafetensorError) as error:
        raise InputError(f"audit_draws: {file} cannot be read: {error}") from error
