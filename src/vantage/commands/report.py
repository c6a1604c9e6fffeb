"""`vantage report`: the report of a run, as a page or as pages that follow runs as they train."""

import webbrowser
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vantage.errors import refuse_unless
from vantage.reporting.serving import server
from vantage.reporting.writing import report
from vantage.runs.progress import terminal


def report_command(
    run: Positional[Path],
    out: Path | None = None,
    serve: bool = False,
    port: int | None = None,
    show: Annotated[bool, arg(name="open")] = False,
) -> None:
    """Write the report of a run as one HTML page; or serve those of all runs in a folder, live.

    Args:
        run: the run folder; with --serve, a folder with run folders in it, at any depth.
        out: where the page goes; report.html in the run folder by default.
        serve: show all runs of the folder in the browser, in a table to sort by any metric and with
            their curves over one another, fresh as they train; for this machine alone.
        port: the port of --serve; 8017 by default, or a free one where that is taken.
        show: open the page in the browser of this machine.
    """
    refuse_unless(
        out is None or not serve, "vantage report: --out writes a page, --serve none; give one."
    )
    refuse_unless(port is None or serve, f"vantage report --port {port}: it goes with --serve.")
    if serve:
        _serve(run, port, show)
        return
    refuse_unless(
        out is None or not out.is_dir(),
        f"vantage report --out {out}: this is a folder; name a file.",
    )
    path = report(run, out)
    opened = show and webbrowser.open(path.resolve().as_uri())
    hint = "It is open in your browser." if opened else "Open it in any browser."
    terminal.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, whole in itself. {hint}")


def _serve(root: Path, port: int | None, show: bool) -> None:
    """Until Ctrl-C."""
    with server(root, port) as running:
        address = f"http://127.0.0.1:{running.server_port}/"
        terminal.print(f"The runs in {root}: {address} (for this machine alone; Ctrl-C ends it)")
        if show:
            webbrowser.open(address)
        running.serve_forever()
