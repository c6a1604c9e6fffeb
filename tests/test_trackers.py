"""Trackers: the numbers of the history, read back; no row twice when a run is resumed."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vantage.errors import InputError
from vantage.runs import trackers

pytest.importorskip("tensorboard")
ROWS: list[dict[str, Any]] = [
    {"update": i, "steps": 100 * i, "return": 1.5 * i, "snr": None, "loss": float("nan"),
     "batch_reason": "doubled", "baseline_variance": {"none": 1.0}, "flag": True}
    for i in range(1, 7)
]  # fmt: skip


def track(tracker: trackers.Tracker, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        tracker.log(row, row["steps"])
    tracker.close()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself would show: its server reads event files with this."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return {
        tag: [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_every_tracker_keeps_the_protocol(tmp_path: Path) -> None:
    for kind in (trackers.TensorBoard, trackers.WandB, trackers.Trackio):
        assert isinstance(kind.log, type(trackers.Tracker.log))
    assert isinstance(trackers.TensorBoard(tmp_path), trackers.Tracker)


def test_tensorboard_shows_the_finite_numbers_of_the_history(tmp_path: Path) -> None:
    track(trackers.TensorBoard(tmp_path), ROWS)
    found = scalars(tmp_path)
    assert set(found) == {"update", "steps", "return"}
    assert found["return"] == [(100 * i, 1.5 * i) for i in range(1, 7)]


def test_tensorboard_forgets_what_a_resumed_run_makes_again(tmp_path: Path) -> None:
    track(trackers.TensorBoard(tmp_path), ROWS)
    again = [row | {"return": -1.0} for row in ROWS[3:]]
    track(trackers.TensorBoard(tmp_path), again)
    assert [step for step, _ in scalars(tmp_path)["return"]] == [100, 200, 300, 400, 500, 600]
    assert [value for _, value in scalars(tmp_path)["return"]] == [1.5, 3.0, 4.5, -1.0, -1.0, -1.0]


class Service:
    """Stands for a service that keeps all it is sent, by run."""

    def __init__(self, key: str):
        self.key, self.runs, self.sent = key, [], list[tuple[str, int, dict[str, float]]]()

    def init(self, **settings: Any) -> "Service":
        self.runs.append(settings[self.key])
        assert settings["resume"] == "allow"
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.sent.append((self.runs[-1], step, numbers))

    def finish(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "key"), [(trackers.WandB, "id"), (trackers.Trackio, "name")], ids=["wandb", "trackio"]
)
def test_a_service_is_sent_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, key: str
) -> None:
    service = Service(key)
    monkeypatch.setattr(trackers, "_package", lambda *_: service)
    track(kind("project", tmp_path), ROWS[:4])
    track(kind("project", tmp_path), ROWS[2:])  # resumed two updates back
    assert [step for _, step, _ in service.sent] == [100, 200, 300, 400, 500, 600]
    assert len({run for run, _, _ in service.sent}) == 1
    assert service.sent[0][2] == {"update": 1.0, "steps": 100.0, "return": 1.5}
    track(kind("project", tmp_path), ROWS[:1])  # had no checkpoint: begins again
    assert service.runs[-1] != service.runs[0]
    assert service.sent[-1][1] == 100


@pytest.mark.parametrize(
    "text",
    ["", "[" * 5000, "[]", '{"id": "a"}', '{"id": 5, "step": 1}', '{"id": "a", "step": "1"}',
     '{"id": "a", "step": true}', '{"id": "a", "step": 1' + "0" * 5000 + "}", "\ud800"],
)  # fmt: skip
def test_a_damaged_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(trackers, "_package", lambda *_: Service("id"))
    (tmp_path / "wandb.json").write_text(text, "utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=r"wandb\.json"):
        trackers.WandB("project", tmp_path)
    (tmp_path / "wandb.json").unlink()
    (tmp_path / "wandb.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        trackers.WandB("project", tmp_path)


def test_wandb_offline_writes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    script = (
        "import json, sys\n"
        "from vantage.runs.trackers import WandB\n"
        "tracker = WandB('vantage', sys.argv[1])\n"
        "for row in json.loads(sys.argv[2]):\n"
        "    tracker.log(row, row['steps'])\n"
        "tracker.close()\n"
    )
    rows = [{"update": i, "steps": 100 * i, "return": 1.5 * i} for i in range(1, 4)]
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false",
             "WANDB_DISABLE_GIT": "true", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1",
             "WANDB_DISABLE_CODE": "true", "WANDB_CONSOLE": "off",
             "WANDB_X_DISABLE_STATS": "true"}  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), json.dumps(rows)],
        env=quiet, cwd=tmp_path, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    written = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(written) == 1
    assert json.loads((tmp_path / "wandb.json").read_text())["step"] == 300
    assert json.loads((tmp_path / "wandb.json").read_text())["id"] in written[0].name
    assert b"return" in written[0].read_bytes()


def test_trackio_keeps_rows_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    script = (
        "import sys\n"
        "from vantage.runs.trackers import Trackio\n"
        "for first in (1, 3):\n"
        "    tracker = Trackio('vantage', sys.argv[1])\n"
        "    for i in range(first, first + 3):\n"
        "        tracker.log({'update': i, 'steps': 10 * i, 'return': 0.5 * i}, 10 * i)\n"
        "    tracker.close()\n"
    )
    quiet = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path),
             "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=quiet, cwd=tmp_path,
                   check=True, capture_output=True, timeout=120)  # fmt: skip
    (held,) = (tmp_path / "trackio").glob("vantage*.db")
    with sqlite3.connect(held) as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    database.close()
    assert [step for step, _ in rows] == [10, 20, 30, 40, 50]
    assert [json.loads(text)["return"] for _, text in rows] == [0.5, 1.0, 1.5, 2.0, 2.5]


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"vantage-rl\[tensorboard\]"):
        trackers.TensorBoard(tmp_path)
    with pytest.raises(InputError, match=r"vantage-rl\[wandb\]"):
        trackers.WandB("project", tmp_path)
    with pytest.raises(InputError, match=r"vantage-rl\[trackio\]"):
        trackers.Trackio("project", tmp_path)
