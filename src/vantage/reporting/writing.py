"""`vantage.report`: a run folder as one page."""

from pathlib import Path
from typing import Any

from vantage.errors import InputError
from vantage.reporting.page import page
from vantage.reporting.subject import Subject
from vantage.runs.progress import note
from vantage.runs.run import read_run
from vantage.runs.stored import refuse_link, write_whole

FILE = "report.html"


def report(run: str | Path | Any, out: str | Path | None = None) -> Path:
    """Write the report of a run: one HTML page, whole in itself, that asks nothing of any network.

    It says in words whether the run learned, whether its gradient was signal and what to change;
    then shows every metric as a curve, the SNR with its intervals, checkpoints, settings, how to
    make the run again; and of a language model, its completions token by token. `train` writes one
    at the end, and where it is stopped by Ctrl-C; this one may be written while the run goes on.

    Args:
        run: a run folder, or the `Run` that `train` returned.
        out: the file; report.html in the run folder by default.

    Returns:
        The file.

    Raises:
        InputError: the folder holds no run, or a damaged one; the file cannot be written.
    """
    path = getattr(run, "path", run)
    if path is None:
        raise InputError(f"report({run!r}): it was not written to a folder; train with out=.")
    folder = Path(path)
    stored = read_run(folder)
    target = folder / FILE if out is None else Path(out)
    if out is None:
        refuse_link(target)
    text = page(Subject(stored.config, stored.history), folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error}; name another file.") from error
    return target


def report_line(folder: Path) -> str:
    """Where the report of a run lies, as a line; nothing where none was written."""
    return f"Report: {folder / FILE}\n" if (folder / FILE).is_file() else ""


def report_at_end(folder: Path) -> None:
    """The report of a run that has ended or was stopped; what goes wrong with it is one line."""
    try:
        report(folder)
    except Exception as error:  # the run is saved: its report must not hide that
        note(f"No report was written ({type(error).__name__}: {error}); vantage report {folder}.")
