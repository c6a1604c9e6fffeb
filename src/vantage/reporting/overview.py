"""The page of all runs of a folder: a table to sort, and their curves over one another."""

from importlib.resources import files
from pathlib import Path

from vantage.pages.document import document, script_of
from vantage.pages.tables import escaped
from vantage.reporting.page import style


def overview(root: Path) -> str:
    """The page; its script asks for the runs, and again as they go on."""
    return document(
        f"Runs in {root.resolve().name or root}",
        f'<p class="faint"><code>{escaped(root)}</code> <span id="said"></span></p>',
        (files("vantage.reporting") / "overview.html").read_text(encoding="utf-8"),
        style=style(),
        script=script_of("pages", "charts") + script_of("reporting", "overview"),
        connect="'self'",
    )
