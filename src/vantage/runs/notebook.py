"""What a notebook shows of a result: a small table and a figure; and tables for pandas."""

import html
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vantage.errors import InputError

if TYPE_CHECKING:
    import matplotlib.figure

PLAIN = "<pre style='line-height:1.3'>{}</pre>"


def facts(
    title: str, rows: Mapping[str, object], figure: "matplotlib.figure.Figure | None" = None
) -> str:
    """A heading, names and values, and a figure below, as HTML."""
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    drawn = "" if figure is None else svg(figure)
    return f"<div><strong>{html.escape(title)}</strong><table>{lines}</table>{drawn}</div>"


class Cell:
    """A place in a notebook's output that shows what it was given last, without widgets."""

    def __init__(self) -> None:
        self.display: Any = importlib.import_module("IPython.display")
        self.handle = self.display.display(self.display.HTML(""), display_id=True)

    def show(self, page: str) -> None:
        """Show this HTML in place of what was shown before."""
        self.handle.update(self.display.HTML(page))


def preformatted(text: str) -> str:
    """Text with its columns kept, as HTML."""
    return PLAIN.format(html.escape(text))


def svg(figure: "matplotlib.figure.Figure") -> str:
    """A figure within HTML."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    drawing = file.getvalue()
    return drawing[drawing.index("<svg") :]


def frame(rows: Sequence[Mapping[str, object]]) -> object:
    """A pandas DataFrame with one line for every dictionary.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise InputError("to_pandas needs pandas: pip install pandas.") from error
    return pandas.DataFrame([dict(row) for row in rows])
