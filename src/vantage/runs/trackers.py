"""Trackers: TensorBoard, Weights & Biases and Trackio, for runs that are watched from elsewhere.

A run folder has its metrics.jsonl in any case. A tracker is given the same rows, one per update,
with environment steps as the step. It logs finite numbers under the names they have in the history;
text, nested records and null are left to metrics.jsonl.

    vt.train(..., out="runs/a", track=[vt.TensorBoard("runs/a/tensorboard")])

A resumed run makes again the updates after its last checkpoint. No row is tracked twice:
TensorBoard is told to forget what came after; the other two cannot, and skip what they have.
"""

import json
import math
import secrets
from importlib import import_module
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from vantage.errors import InputError, refuse_unless
from vantage.runs.stored import naming, object_of, write_whole


@runtime_checkable
class Tracker(Protocol):
    """What `vantage.train` asks of a tracker; anything that has these two can be one."""

    def log(self, row: dict[str, object], step: int) -> None:
        """Take in the metrics of an update. `step` counts environment steps and only grows.

        A run that was resumed begins at the first update it makes again.
        """
        ...

    def close(self) -> None:
        """Write what is left. Called once, however training ended."""
        ...


class TensorBoard:
    """Event files for TensorBoard.

    Args:
        folder: where they go; `tensorboard --logdir FOLDER` shows them.

    Raises:
        InputError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path):
        _package("tensorboard", "TensorBoard")
        self.folder = Path(folder)
        self.writer: Any = None

    def log(self, row: dict[str, object], step: int) -> None:
        """Write an update's numbers; those of an earlier writer from `step` on are purged."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, step, new_style=True)

    def close(self) -> None:
        """Flush and close the event file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class WandB:
    """A run on Weights & Biases, or offline where WANDB_MODE=offline says so.

    Args:
        project: the project of the run.
        folder: the folder of this run; wandb's files go there, and wandb.json, which holds the
            run's id and the last step logged, so that a resumed run carries on the same W&B run.
        **settings: further arguments of `wandb.init`, such as `name`, `entity`, `config`.

    Raises:
        InputError: wandb is not installed.
    """

    def __init__(self, project: str, folder: str | Path, **settings: object):
        self.wandb = _package("wandb", "WandB")
        self.project, self.settings = project, settings
        self.memory = _Memory(Path(folder), "wandb.json")
        self.run: Any = None

    def log(self, row: dict[str, object], step: int) -> None:
        """Log an update's numbers, unless an earlier process has logged this step."""
        if not self.memory.is_new(row, step):
            return
        if self.run is None:
            self.run = self.wandb.init(
                project=self.project, dir=str(self.memory.folder), id=self.memory.id,
                resume="allow", **self.settings,
            )  # fmt: skip
        self.run.log(numbers(row), step=step)

    def close(self) -> None:
        """Finish the run."""
        if self.run is not None:
            self.run.finish()
            self.run = None


class Trackio:
    """A run in Trackio, on this machine unless `space_id` says otherwise.

    Args:
        project: the project of the run.
        folder: the folder of this run; trackio.json there holds its name and the last step logged.
        **settings: further arguments of `trackio.init`, such as `name`, `config`, `space_id`.

    Raises:
        InputError: trackio is not installed.
    """

    def __init__(self, project: str, folder: str | Path, **settings: object):
        self.trackio = _package("trackio", "Trackio")
        # what the machine does besides training is not this run's business unless asked for
        quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        self.project, self.settings = project, quiet | settings
        self.memory = _Memory(Path(folder), "trackio.json")
        self.run: Any = None

    def log(self, row: dict[str, object], step: int) -> None:
        """Log an update's numbers, unless an earlier process has logged this step."""
        if not self.memory.is_new(row, step):
            return
        if self.run is None:
            named = {"name": self.memory.id} | self.settings
            self.run = self.trackio.init(project=self.project, resume="allow", **named)
        self.run.log(numbers(row), step=step)

    def close(self) -> None:
        """Finish the run."""
        if self.run is not None:
            self.run.finish()
            self.run = None


def numbers(row: dict[str, object]) -> dict[str, float]:
    """The finite numbers of a row.

    >>> numbers({"return": 1.5, "update": 2, "snr": None, "batch_reason": "doubled"})
    {'return': 1.5, 'update': 2.0}
    """
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    }


class _Memory:
    """The id of a tracked run and the last step it was given, kept in a file.

    A run that begins again from its first update, for want of a checkpoint, is tracked as new.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.file = folder, folder / name
        present = self.file.exists() or self.file.is_symlink()
        new: dict[str, Any] = {"id": secrets.token_hex(4), "step": -1}
        memory = object_of(self.file) if present else new
        with naming(self.file):
            self.id: str = memory["id"]
            self.step: int = memory["step"]
            refuse_unless(
                isinstance(self.id, str) and type(self.step) is int,
                f"{self.file} cannot be used: its id {self.id!r:.60} is no text or its step "
                f"{self.step!r:.60} no whole number; delete it, and the run is tracked as new.",
            )

    def is_new(self, row: dict[str, object], step: int) -> bool:
        """Whether this step has not been logged yet; from now on it counts as logged."""
        if row.get("update") == 1 and self.step >= 0:
            self.id, self.step = secrets.token_hex(4), -1
        if step <= self.step:
            return False
        # before it is sent: a kill in between loses a row, where the reverse would send it twice
        self.step = step
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, json.dumps({"id": self.id, "step": step}))
        return True


def _package(name: str, tracker: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{tracker} needs the package {name}: pip install 'vantage-rl[{name}]'."
        ) from error
