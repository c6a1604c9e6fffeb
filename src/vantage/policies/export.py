"""Policies as files that other runtimes read: ONNX and TorchScript, checked once written."""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vantage.errors import InputError, refuse_unless

ENDINGS = {".onnx": "ONNX", ".pt": "TorchScript", ".ts": "TorchScript"}
TOLERANCE = 1e-4  # between what was written and the policy, in actions of order 1


def write(module: nn.Module, example: tuple[Tensor, ...], path: str | Path) -> Path:
    """Write a network that acts, read it back and compare it with what it came from.

    Args:
        module: observation [n, ...] (and memory [n, H]) to actions (and memory).
        example: inputs for two lanes.
        path: ending in .onnx, or in .pt or .ts for TorchScript.

    Raises:
        InputError: another ending; a package that is missing; a policy that cannot be written, or
            that acts otherwise once written.
    """
    file = Path(path)
    refuse_unless(
        file.suffix in ENDINGS,
        f"export({str(path)!r}): end it in .onnx, or in .pt for TorchScript.",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    module = module.eval()
    try:
        (_onnx if file.suffix == ".onnx" else _torchscript)(module, example, file)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise InputError(
            f"export: this policy cannot be written as {ENDINGS[file.suffix]}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    _check(module, example, file)
    return file


def run(path: str | Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What a file that `write` wrote gives for inputs."""
    if Path(path).suffix == ".onnx":
        session = _package("onnxruntime").InferenceSession(str(path))
        names = [each.name for each in session.get_inputs()]
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        return [torch.from_numpy(each) for each in session.run(None, given)]
    with _quietly(), torch.no_grad():
        return _listed(torch.jit.load(str(path))(*inputs))


def _onnx(module: nn.Module, example: tuple[Tensor, ...], file: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _package(name)
    names = ["observation", "memory"][: len(example)]
    lanes = torch.export.Dim("lanes")
    shapes: Any = ({0: lanes},) if len(example) == 1 else ({0: lanes}, ({0: lanes},))
    with _quietly():
        torch.onnx.export(
            module,
            example,
            str(file),
            input_names=names,
            output_names=["action", "next_memory"][: len(example)],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _torchscript(module: nn.Module, example: tuple[Tensor, ...], file: Path) -> None:
    with _quietly(), torch.no_grad():
        traced = torch.jit.trace(module, example, check_trace=False)
        torch.jit.save(traced, str(file))


def _check(module: nn.Module, example: tuple[Tensor, ...], file: Path) -> None:
    """Compare on other inputs, of another number of lanes, than those that it was written with."""
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        torch.cat([each, each[:1]]) + torch.rand(3, *each.shape[1:], generator=generator)
        if each.is_floating_point()
        else torch.cat([each, each[:1]])
        for each in example
    )
    with torch.no_grad():
        expected = _listed(module(*inputs))
    for ours, theirs in zip(expected, run(file, inputs), strict=True):
        gap = (ours.double() - theirs.double()).abs().max().item()
        if not gap <= TOLERANCE * (1 + ours.double().abs().max().item()):
            raise InputError(
                f"export: {file} acts otherwise than the policy, by {gap:.3g}; do not use it."
            )


def _listed(given: Any) -> list[Tensor]:
    return list(given) if isinstance(given, tuple) else [given]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"export to ONNX needs the package {name}: pip install 'vantage-rl[onnx]'."
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """What exporters say on the way is for their authors."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
