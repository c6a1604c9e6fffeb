"""Checkpoints: all a run needs to carry on, bit for bit. Safetensors and JSON, no pickles."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from vantage.errors import InputError, refuse_unless
from vantage.runs import stored

POSITION, TENSORS, CHECKSUMS = "position.json", "position.safetensors", "checksums.json"
FORMAT = 3  # of what a position means; one of another format leads to other numbers


def save(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    position: dict[str, object],
    tensors: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint; a kill at any moment leaves it or the one before, whole.

    The one before stays beside it, with ".old" after its name, for the day that a file of the
    latest cannot be read.

    Args:
        folder: where it goes; replaced as a whole.
        modules, optimizers: what to save, by name.
        position: where the run is (counts of updates and steps), JSON.
        tensors: what else there is to carry on from, by name.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, module in modules.items():
        # tensors that share storage (tied weights) are saved once each: clone them apart
        state = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
        save_file(state, new / f"{name}.safetensors")
    for name, optimizer in optimizers.items():
        moments, plain = _split_optimizer(optimizer)
        save_file(moments, new / f"{name}_optimizer.safetensors")
        (new / f"{name}_optimizer.json").write_text(json.dumps(plain))
    apart = {name: tensor.clone().contiguous() for name, tensor in (tensors or {}).items()}
    save_file(apart, new / TENSORS)
    (new / POSITION).write_text(json.dumps({"format": FORMAT, **position}))
    seal(new)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)


def load(
    folder: Path, modules: dict[str, nn.Module], optimizers: dict[str, Optimizer]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Restore modules and optimisers in place; returns the position and the other tensors.

    Raises:
        InputError: no checkpoint there, or one that is damaged, of an earlier version or of another
            shape, naming the file.
    """
    folder = _complete(folder)
    damage = fault(folder)
    refuse_unless(damage is None, f"The checkpoint {folder} cannot be used: {damage}.")
    for name, module in modules.items():
        load_module(folder / f"{name}.safetensors", module)
    for name, optimizer in optimizers.items():
        tensors = read_tensors(folder / f"{name}_optimizer.safetensors")
        plain = stored.object_of(folder / f"{name}_optimizer.json")
        with stored.naming(folder / f"{name}_optimizer.json"):
            optimizer.load_state_dict(_join_optimizer(tensors, plain))
    return stored.object_of(folder / POSITION), read_tensors(folder / TENSORS)


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint: which file is missing or was changed; None if nothing is."""
    try:
        plain = stored.object_of(folder / POSITION)
    except InputError as error:
        return str(error).rstrip(".")
    if plain.get("format") != FORMAT:
        return f"{folder / POSITION} was written by another version of Vantage; start a new run"
    return change(folder)


def seal(folder: Path) -> None:
    """Write the checksums of a folder's files beside them."""
    checksums = {file.name: _checksum(file) for file in sorted(folder.iterdir()) if file.is_file()}
    checksums.pop(CHECKSUMS, None)
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=2))


def change(folder: Path) -> str | None:
    """Which file of a sealed folder is missing or was changed; None if none is."""
    try:
        checksums = stored.object_of(folder / CHECKSUMS)
    except InputError as error:
        return str(error).rstrip(".")
    for name, checksum in checksums.items():
        file = folder / Path(name).name  # never elsewhere
        if not file.is_file() or file.is_symlink():
            return f"{file} is missing, or a link"
        if _checksum(file) != checksum:
            return f"{file} is damaged: it is not what was written"
    return None


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: it is missing or damaged, naming it.
    """
    stored.refuse_link(file)
    refuse_unless(file.exists(), f"There is no {file}; the run has no checkpoint yet.")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}; restore it from a copy.") from error


def load_module(file: Path, module: nn.Module) -> None:
    """Load weights into a module of the same shape.

    Raises:
        InputError: the file is missing or does not fit, naming it.
    """
    tensors = read_tensors(file)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"{file} does not fit the network given: {first}") from error


def exists(folder: Path) -> bool:
    """Whether `load` would find a checkpoint."""
    return any((candidate / POSITION).exists() for candidate in candidates(folder))


def _complete(folder: Path) -> Path:
    """The checkpoint's folder; the previous one where a kill fell between two renames."""
    whole = [candidate for candidate in candidates(folder) if (candidate / POSITION).exists()]
    refuse_unless(whole, f"There is no checkpoint in {folder}; start the run anew.")
    return whole[0]


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def candidates(folder: Path) -> list[Path]:
    """Where a checkpoint may be: there, or aside, where a kill fell between two renames."""
    return [folder, folder.with_name(folder.name + ".old")]


def _split_optimizer(optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """A state dict as tensors (by "parameter.key") and the rest, which JSON can hold."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Any] = {"param_groups": state["param_groups"], "state": {}}
    for index, entries in state["state"].items():
        plain["state"][str(index)] = {}
        for key, entry in entries.items():
            if isinstance(entry, torch.Tensor):
                tensors[f"{index}.{key}"] = entry.detach().clone().contiguous()
            else:
                plain["state"][str(index)][key] = entry
    return tensors, plain


def _join_optimizer(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, object]:
    state: dict[int, dict[str, object]] = {int(i): dict(e) for i, e in plain["state"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    return {"param_groups": plain["param_groups"], "state": state}
