"""The result of an audit, which prints and saves itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from vantage.auditing.record import Findings
from vantage.pages.intervals import columns_of, interval_figure
from vantage.pages.numbers import text, written
from vantage.runs import notebook
from vantage.runs.terminal import Terminal

if TYPE_CHECKING:
    import matplotlib.figure


class Report(Findings):
    """The result of `vantage.audit`: its findings, with a table, a page and JSON of them."""

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON or as one HTML page with figures, by the file's ending.

        Raises:
            InputError: another ending.
        """
        from vantage.auditing.page import page

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
            "noise_scale": self.worded("noise scale\ntrajectories"),
            "aggressiveness": "max |Δ log π|\nper unit lr",
            "cost": self.worded("cost\ns/trajectory"),
        }
        table = Table(caption=f"95 % intervals in brackets; reference: {self.reference}")
        table.add_column("estimator")
        for heading in shown.values():
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(row.estimator, *(text(getattr(row, name)) for name in shown))
        return table

    def __repr__(self) -> str:
        names = ", ".join(row.estimator for row in self.rows)
        world = self.settings.get("environment", {})
        where = world.get("name") if isinstance(world, dict) else world
        return f"Report({names}; {where or 'an audit'}, against {self.reference})"

    def _repr_html_(self) -> str:
        return notebook.preformatted(str(self)) + notebook.svg(self.plot())

    def plot(self) -> "matplotlib.figure.Figure":
        """Signal-to-noise ratio of a batch, by estimator, with 95 % intervals."""
        batch = self.settings["batch"]
        estimates = {row.estimator: row.snr for row in self.rows}
        return interval_figure(estimates, f"SNR of a batch of {batch}")

    def to_pandas(self) -> object:
        """One line an estimator: every statistic with `_low` and `_high` beside it.

        Raises:
            InputError: pandas is not installed.
        """
        return notebook.frame(
            [{"estimator": row.estimator, **columns_of(row.statistics())} for row in self.rows]
        )

    def __str__(self) -> str:
        console = Terminal(width=160, force_terminal=False)
        with console.capture() as capture:
            for text in [self.sampled, *self.examples]:
                if text:
                    console.print(text, soft_wrap=True)
            for sentence in self.summary:
                console.print(f"• {sentence}", soft_wrap=True)
            console.print(self.table())
            for note in self.notes:
                console.print(f"Note: {note}", soft_wrap=True)
        return capture.get()
