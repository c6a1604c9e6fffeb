"""The result of an audit, which prints and saves itself."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from vantage.auditing.page import page
from vantage.auditing.record import Findings
from vantage.pages.numbers import text, written


class Report(Findings):
    """The result of `vantage.audit`: its findings, with a table, a page and JSON of them."""

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON or as one HTML page with figures, by the file's ending.

        Raises:
            InputError: another ending.
        """
        return written(path, "Report", self.to_dict, lambda: page(self))

    def table(self) -> Table:
        """The rows as a table for a terminal."""
        batch = self.settings["batch"]
        shown = {
            "bias": "bias\n‖G−G*‖/‖G*‖",
            "scale": "scale\nG·G*/‖G*‖²",
            "cosine": "cosine\ncos(G, G*)",
            "variance": "variance\ntr Σ",
            "snr": f"SNR\nbatch {batch}",
            "noise_scale": "noise scale\ntrajectories",
            "aggressiveness": "max |Δ log π|\nper unit lr",
            "cost": "cost\ns/trajectory",
        }
        table = Table(caption=f"95 % intervals in brackets; reference: {self.reference}")
        table.add_column("estimator")
        for heading in shown.values():
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(row.estimator, *(text(getattr(row, name)) for name in shown))
        return table

    def __str__(self) -> str:
        console = Console(width=160, force_terminal=False, highlight=False)
        with console.capture() as capture:
            for sentence in self.summary:
                console.print(f"• {sentence}", soft_wrap=True)
            console.print(self.table())
            for note in self.notes:
                console.print(f"Note: {note}", soft_wrap=True)
        return capture.get()
