"""The result of a comparison, which prints and saves itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from vantage.comparing.record import Findings
from vantage.pages.numbers import number, text, written
from vantage.runs import notebook
from vantage.runs.terminal import Terminal

if TYPE_CHECKING:
    import matplotlib.figure


class Comparison(Findings):
    """The result of `vantage.compare`: its findings, with tables, a page and JSON of them."""

    def save(self, path: str | Path) -> Path:
        """Write the comparison as JSON or as one HTML page with figures, by the file's ending.

        Raises:
            InputError: another ending.
        """
        from vantage.comparing.page import page

        return written(path, "Comparison", self.to_dict, lambda: page(self))

    def table(self) -> Table:
        """The rows as a table for a terminal."""
        table = Table(caption=f"Score: {self.score}. 95 % intervals in brackets.")
        gap = any(row.optimality_gap is not None for row in self.rows)
        for heading in (
            "estimator", "runs", "IQM", "mean", "median", *["optimality gap"] * gap,
            "training return\nlast 100 episodes", "steps", "seconds a run",
        ):  # fmt: skip
            table.add_column(heading, justify="left" if heading == "estimator" else "right")
        for row in self.rows:
            runs = f"{row.runs}" + (f"\n{row.failed} failed" if row.failed else "")
            table.add_row(
                Text(row.estimator), runs, text(row.iqm), text(row.mean), text(row.median),
                *([text(row.optimality_gap)] if row.optimality_gap is not None else []),
                "–" if row.training is None else number(row.training),
                f"{row.steps:,.0f}", number(row.seconds),
            )  # fmt: skip
        return table

    def pair_table(self) -> Table:
        """The pairs as a table for a terminal."""
        table = Table("first", "second", "P(first > second)", caption="One run of each; ties ½.")
        for pair in self.pairs:
            table.add_row(Text(pair.first), Text(pair.second), text(pair.probability))
        return table

    def __repr__(self) -> str:
        names = ", ".join(row.estimator for row in self.rows)
        return f"Comparison({names}; {len(self.runs)} runs)"

    def _repr_html_(self) -> str:
        return notebook.preformatted(str(self)) + notebook.svg(self.plot())

    def plot(self) -> "matplotlib.figure.Figure":
        """Interquartile mean of the score, by estimator, with 95 % intervals."""
        from vantage.pages.intervals import interval_figure

        return interval_figure({row.estimator: row.iqm for row in self.rows}, "score, IQM")

    def to_pandas(self) -> object:
        """One line a run: environment, estimator, seed, scores, steps, seconds, folder.

        Raises:
            InputError: pandas is not installed.
        """
        return notebook.frame(self.runs)

    def __str__(self) -> str:
        console = Terminal(width=160, force_terminal=False)
        with console.capture() as capture:
            for sentence in self.summary:
                console.print(f"• {sentence}", soft_wrap=True)
            console.print(self.table())
            if self.pairs:
                console.print(self.pair_table())
            for note in self.notes:
                console.print(f"Note: {note}", soft_wrap=True)
        return capture.get()
