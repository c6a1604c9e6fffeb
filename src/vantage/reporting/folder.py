"""All runs under a folder, read again as they go on. What is damaged is a line, not an end."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.errors import InputError, refuse_unless
from vantage.reporting.curves import Curve
from vantage.reporting.facts import facts, state
from vantage.reporting.panels import BOOKKEEPING
from vantage.reporting.subject import Subject
from vantage.reporting.summary import signal_at_end
from vantage.runs.run import CONFIG, METRICS, read_run

DEEPEST = 6  # folders below the one that is asked for
MOST = 2_000  # runs


@dataclass(frozen=True)
class Entry:
    """A run, or what is wrong with it.

    Attributes:
        name: its path below the folder, with slashes.
        stamp: changes when the run goes on.
        changed: seconds since 1970.
    """

    name: str
    path: Path
    stamp: str
    changed: float
    subject: Subject | None
    fault: str = ""

    def line(self) -> dict[str, Any]:
        """What the table of all runs says of it."""
        told = {"name": self.name, "stamp": self.stamp, "changed": self.changed}
        if self.subject is None:
            return told | {"fault": self.fault}
        subject = self.subject
        last = {name: subject.last(name) for name in subject.curves.columns}
        snr = signal_at_end(subject)
        last["snr"] = None if snr is None or snr.value != snr.value else snr.value
        return told | {
            "where": subject.where, "how": subject.how, "state": state(subject),
            "facts": facts(subject), "last": last | {"updates": len(subject.history)},
        }  # fmt: skip

    def curves(self) -> dict[str, Any]:
        """Every metric of it as a curve."""
        if self.subject is None:
            return {"stamp": self.stamp, "grids": {}, "axes": [], "curves": {}}
        every = self.subject.curves
        drawn: dict[str, Curve | None] = {
            name: every.curve(name) for name in every.columns if name not in BOOKKEEPING
        }
        signal = every.signal()
        if signal is not None:
            drawn |= {"signal-to-noise ratio": signal[0], "noise scale": signal[1]}
        return {"stamp": self.stamp, "grids": every.grids, "axes": list(every.axes),
                "curves": drawn}  # fmt: skip


class RunsFolder:
    """The runs below a folder, by name; several threads may ask.

    Raises:
        InputError: it is no folder.
    """

    def __init__(self, root: Path) -> None:
        refuse_unless(root.is_dir(), f"{root} is no folder; name one that holds runs.")
        self.root = root
        self.entries: dict[str, Entry] = {}
        self.reading = threading.Lock()

    def runs(self) -> dict[str, Entry]:
        """All runs as they are now; those that did not change are not read again."""
        with self.reading:
            present = dict(_located(self.root))
            self.entries = {name: self._read(name, path) for name, path in present.items()}
            return dict(self.entries)

    def run(self, name: str) -> Entry | None:
        """The run of that name as it is now; None where there is none."""
        with self.reading:
            known = self.entries.get(name)
        if known is None:
            return self.runs().get(name)
        with self.reading:
            self.entries[name] = self._read(name, known.path)
            return self.entries[name]

    def _read(self, name: str, path: Path) -> Entry:
        stamp, changed = _stamp(path)
        known = self.entries.get(name)
        if known is not None and known.stamp == stamp:
            return known
        try:
            stored = read_run(path)
        except InputError as error:
            return Entry(name, path, stamp, changed, None, str(error))
        return Entry(name, path, stamp, changed, Subject(stored.config, stored.history))


def _located(root: Path) -> Iterator[tuple[str, Path]]:
    """Folders below root that hold a config.json, links left out; root itself may be one."""
    count = 0
    for here, folders, files in os.walk(root):
        path = Path(here)
        below = path.relative_to(root)
        if CONFIG in files:
            count += 1
            yield below.as_posix() if below.parts else root.resolve().name, path
        # what lies inside a run is its own: checkpoints, models
        if CONFIG in files or len(below.parts) >= DEEPEST or count >= MOST:
            folders.clear()
        folders.sort()


def _stamp(path: Path) -> tuple[str, float]:
    """What changes when a run goes on, and when it last did."""
    parts, changed = [], 0.0
    for name in (CONFIG, METRICS):
        try:
            facts_of_file = (path / name).lstat()
        except OSError:
            continue
        parts.append(f"{facts_of_file.st_mtime_ns:x}.{facts_of_file.st_size:x}")
        changed = max(changed, facts_of_file.st_mtime)
    return "-".join(parts), changed
