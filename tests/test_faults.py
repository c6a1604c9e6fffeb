"""What goes wrong in a run's surroundings: saved first, named, and never saved where it is NaN."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vantage as vt
from vantage.runs import checkpoint


def train(folder: Path, updates: int = 3, **settings: Any) -> vt.Run:
    return vt.train(
        "tensor/CartPole-v1", "reinforce", lanes=2, batch=2, updates=updates, out=folder,
        progress=False, **settings,
    )  # fmt: skip


def spoil(state: Any, row: dict[str, Any]) -> None:
    if row["update"] == 2:
        with torch.no_grad():
            next(state.policy.parameters()).view(-1)[0] = torch.nan


def test_a_checkpoint_never_holds_a_nan(tmp_path: Path) -> None:
    """The one before stays, and the run goes on from there."""
    folder = tmp_path / "run"
    with pytest.raises(vt.InputError, match=r"of the policy is not finite after update 2: it is"):
        train(folder, callbacks=[spoil], checkpoint_seconds=0)
    held = load_file(folder / "checkpoint" / "policy.safetensors")
    assert all(tensor.isfinite().all() for tensor in held.values())
    resumed = train(folder, resume=True)
    plain = train(tmp_path / "plain")
    assert len(resumed.history) == 3
    for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_saved_does_not_hide_what_went_wrong_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, just as a callback fails."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def fail(state: Any, row: dict[str, Any]) -> None:
        monkeypatch.setattr(checkpoint, "save", full)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as raised:
        train(tmp_path / "run", callbacks=[fail])
    notes = " ".join(raised.value.__notes__)
    assert "callback fail of update 1" in notes
    assert "No space left on device" in notes


def test_a_run_on_a_full_disk_goes_on_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file of a checkpoint finds no room, the one before stays."""
    plain = train(tmp_path / "plain")
    for number in range(3):
        folder = tmp_path / str(number)
        train(folder, updates=1)
        written, save_file = 0, checkpoint.save_file

        def filling(*arguments: Any, number: int = number, save_file: Any = save_file) -> None:
            nonlocal written
            written += 1
            if written > number:
                raise OSError(28, "No space left on device")
            save_file(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", filling)
            with pytest.raises(OSError, match="No space left"):
                train(folder, resume=True, checkpoint_seconds=0)
        resumed = train(folder, resume=True)
        for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
            assert torch.equal(one, other)
