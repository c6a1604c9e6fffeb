"""Checkpoints: all a run needs to carry on, bit for bit. Safetensors and JSON, no pickles."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from vantage.errors import InputError, refuse_unless

POSITION, TENSORS = "position.json", "position.safetensors"


def save(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    position: dict[str, Any],
    tensors: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint in place of the one before; a kill at any moment leaves one of the two.

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
    (new / POSITION).write_text(json.dumps(position))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, modules: dict[str, nn.Module], optimizers: dict[str, Optimizer]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Restore modules and optimisers in place; returns the position and the other tensors.

    Raises:
        InputError: no checkpoint there, or one of another shape, naming the file.
    """
    folder = _complete(folder)
    for name, module in modules.items():
        load_module(folder / f"{name}.safetensors", module)
    for name, optimizer in optimizers.items():
        tensors = load_file(folder / f"{name}_optimizer.safetensors")
        plain = json.loads((folder / f"{name}_optimizer.json").read_text())
        optimizer.load_state_dict(_join_optimizer(tensors, plain))
    return json.loads((folder / POSITION).read_text()), load_file(folder / TENSORS)


def load_module(file: Path, module: nn.Module) -> None:
    """Load weights into a module of the same shape.

    Raises:
        InputError: the file is missing or does not fit, naming it.
    """
    refuse_unless(file.exists(), f"There is no {file}; the run has no checkpoint yet.")
    try:
        module.load_state_dict(load_file(file))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"{file} does not fit the network given: {first}") from error


def exists(folder: Path) -> bool:
    """Whether `load` would find a checkpoint."""
    return any((candidate / POSITION).exists() for candidate in _candidates(folder))


def _complete(folder: Path) -> Path:
    """The checkpoint's folder; the previous one where a kill fell between two renames."""
    found = [candidate for candidate in _candidates(folder) if (candidate / POSITION).exists()]
    refuse_unless(found, f"There is no checkpoint in {folder}; start the run anew.")
    return found[0]


def _candidates(folder: Path) -> list[Path]:
    return [folder, folder.with_name(folder.name + ".old")]


def _split_optimizer(optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
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


def _join_optimizer(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(i): dict(e) for i, e in plain["state"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    return {"param_groups": plain["param_groups"], "state": state}
