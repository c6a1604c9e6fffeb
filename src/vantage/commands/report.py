"""`vantage report`: the report of a run, as a page or as pages that follow runs as they train."""

import webbrowser
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vantage.errors import refuse_unless
from vantage.reporting.writing import report
from vantage.runs.progress import terminal


def report_command(
    run: Positional[Path],
    out: Path | None = None,
    show: Annotated[bool, arg(name="open")] = False,
) -> None:
    """Write the report of a run: one HTML page with curves, signal, settings and what it said.

    Args:
        run: the run folder.
        out: where the page goes; report.html in the run folder by default.
        show: open it in the browser of this machine.
    """
    refuse_unless(
        out is None or not out.is_dir(),
        f"vantage report --out {out}: this is a folder; name a file.",
    )
    path = report(run, out)
    opened = show and webbrowser.open(path.resolve().as_uri())
    said = "It is open in your browser." if opened else "Open it in any browser."
    terminal.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, whole in itself. {said}")
