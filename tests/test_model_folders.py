"""Folders of language models are data, whole, and on this machine: anything else is refused."""

import json
import os
import pickle
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from language_models import ARCHITECTURES, model, tokenizer
from safetensors.torch import load_file, save_file

import vantage as vt
from vantage import language
from vantage.commands.language_options import ModelOptions
from vantage.commands.model_shape import shape_of_options


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    model("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_folders_load_with_the_weights_they_hold(name: str, tmp_path: Path) -> None:
    """Tied weights too, which are stored once."""
    saved = model(name)
    saved.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = language.Policy(tmp_path).model.state_dict()
    assert loaded.keys() == saved.state_dict().keys()
    for key, weight in saved.state_dict().items():
        assert torch.equal(weight, loaded[key]), key


def test_a_missing_weight_is_refused_by_name(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(vt.InputError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight \(1 wei"):
        language.Policy(folder)


def test_a_layer_more_in_the_settings_than_in_the_weights_is_refused(folder: Path) -> None:
    change(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(vt.InputError, match=r"lack model\.layers\.2\..* which would be random"):
        language.Policy(folder)


class Payload:
    """What a pickle runs as it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("taken",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickled_weights_are_not_read(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(vt.InputError, match="transformers cannot load it"):
        language.Policy(folder)
    assert not Path("taken").exists()


def test_honest_pickled_weights_are_not_read_either(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(vt.InputError, match="weights as safetensors"):
        language.Policy(folder)


def test_code_in_a_folder_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the reader asked whether to: a question on a terminal is answered in haste."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (folder / "code.py").write_text("raise AssertionError('this was run')")
    change(
        folder / "config.json",
        model_type="stranger",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    with pytest.raises(vt.InputError, match="transformers cannot load it"):
        language.Policy(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "llama", "num_attention_heads": "x"}'),
        ("config.json", b"[" * 100_000),
        ("model.safetensors", b""),
        ("model.safetensors", (1 << 60).to_bytes(8, "little")),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"3"),
    ],
)
def test_damaged_folders_are_refused_in_one_error(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    expected = r"^Policy\('.*'\): transformers cannot load it: .*; give the folder"
    with pytest.raises(vt.InputError, match=expected):
        language.Policy(folder)
    if not name.endswith("safetensors"):  # --dry-run reads the rest in the same way
        with pytest.raises(vt.InputError, match=expected):
            shape_of_options(ModelOptions(model=folder))


@pytest.mark.parametrize("name", ["gpt2", "someone/model", "nowhere/at/all", "", "a b", "../x"])
def test_a_name_that_is_not_here_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look at a hub, and so no retries."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("looked elsewhere"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked elsewhere"))
    monkeypatch.chdir(tmp_path)
    begun = time.perf_counter()
    with pytest.raises(vt.InputError, match="nothing is downloaded"):
        language.Policy(name)
    assert time.perf_counter() - begun < 5  # retries take half a minute
