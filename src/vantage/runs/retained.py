"""Checkpoints that are kept beside the latest one: the last few, and the best.

runs/cartpole/
  checkpoint/               where the run carries on from
  checkpoints/update-40/    the last few that were kept, one folder each
  best/                     the one with the largest return

Each is whole by itself. Files are linked rather than copied where the disk can: none is changed
once it is written.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from vantage.errors import refuse_unless
from vantage.runs import checkpoint
from vantage.runs.run import CHECKPOINT
from vantage.runs.terminal import Terminal

CHECKPOINTS, BEST, PREFIX = "checkpoints", "best", "update-"
Export = Callable[[Path], None]


def kept_updates(folder: Path) -> dict[int, Path]:
    """The kept checkpoints of a run folder by their update, oldest first."""
    every = (folder / CHECKPOINTS).glob(f"{PREFIX}*")
    numbered = {int(p.name.removeprefix(PREFIX)): p for p in every if _number(p) is not None}
    return dict(sorted(numbered.items()))


def keep_update(folder: Path, update: int, last: int, export: Export) -> None:
    """Keep the latest checkpoint as that of `update`; of all kept, the `last` newest stay.

    Args:
        export: adds to the checkpoint what it needs to be loaded by itself.
    """
    _keep(folder / CHECKPOINT, folder / CHECKPOINTS / f"{PREFIX}{update}", export)
    for number, path in list(kept_updates(folder).items())[:-last]:
        if number != update:
            shutil.rmtree(path)


def keep_best(folder: Path, export: Export) -> None:
    """Keep the latest checkpoint as the best."""
    _keep(folder / CHECKPOINT, folder / BEST, export)


def checkpoint_at(folder: Path, update: int | None, best: bool) -> Path:
    """The folder of a checkpoint: the latest, that of an update, or the best.

    Raises:
        InputError: it was not kept, naming those that are.
    """
    refuse_unless(
        update is None or not best, f"update={update} and best=True: ask for one checkpoint."
    )
    if best:
        path = folder / BEST
        refuse_unless(path.exists(), f"{folder} has no best checkpoint; train with keep_best=True.")
        return path
    if update is None:
        return folder / CHECKPOINT
    held = kept_updates(folder)
    refuse_unless(
        update in held,
        f"{folder} has no checkpoint of update {update}; "
        + (f"there are those of {', '.join(map(str, held))}." if held else "train with keep_last="),
    )
    return held[update]


def intact(
    folder: Path,
    fault: Callable[[Path], str | None] = checkpoint.fault,
    then: str = "the run goes on from",
) -> Path | None:
    """The newest checkpoint of a run folder that is as it was written; None where there is none.

    Where the latest is damaged, says so on standard error and takes the one kept before it.

    Args:
        fault: what is wrong with a checkpoint, or None.
        then: what becomes of the one that is taken, for the message.

    Raises:
        InputError: there are checkpoints, and all of them are damaged, naming what is wrong.
    """
    latest = folder / CHECKPOINT
    candidates = [path for path in checkpoint.candidates(latest) if path.exists()]
    candidates += [path for _, path in sorted(kept_updates(folder).items(), reverse=True)]
    faults = [] if latest.exists() or not candidates else [f"There is no {latest}"]
    for path in candidates:
        damage = fault(path)
        if damage is None:
            if faults:
                Terminal(file=sys.stderr).print(f"{faults[0]}; {then} {path}.", soft_wrap=True)
            return path
        faults.append(damage)
    refuse_unless(not candidates, f"No checkpoint of {folder} can be used: {'; '.join(faults)}.")
    return None


def readable(folder: Path, path: Path) -> Path:
    """A checkpoint of a run folder that is as it was written: this one, or one before the latest.

    Raises:
        InputError: it is damaged, and was asked for by its update or as the best, or all are.
    """
    if path == folder / CHECKPOINT:
        return intact(folder, checkpoint.change, "what is loaded is") or path
    damage = checkpoint.change(path)
    refuse_unless(damage is None, f"The checkpoint {path} cannot be used: {damage}.")
    return path


def _number(path: Path) -> int | None:
    text = path.name.removeprefix(PREFIX)
    return int(text) if text.isdecimal() and path.is_dir() else None


def _keep(source: Path, target: Path, export: Export) -> None:
    """A copy in place of what was there; a kill at any moment leaves a whole one or none."""
    new, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)
    shutil.copytree(source, new, copy_function=_linked)
    export(new)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
