"""examples/article.ipynb plays through, and prints what it is shown printing."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

ARTICLE = Path(__file__).parents[1] / "examples" / "article.ipynb"


def cells() -> list[dict[str, Any]]:
    every = json.loads(ARTICLE.read_text("utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """What the notebook shows below a cell, of text that it printed."""
    streams = [each for each in cell["outputs"] if each["output_type"] == "stream"]
    return "".join("".join(each["text"]) for each in streams)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_plays_the_article() -> None:
    """Cell by cell in one namespace; every figure that is shown is drawn, and no other."""
    names: dict[str, Any] = {}
    shown = 0
    for cell in cells():
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile("".join(cell["source"]), str(ARTICLE), "exec"), names)
        assert out.getvalue() == printed(cell)
        assert not any(each["output_type"] == "error" for each in cell["outputs"])
        shown += sum("image/png" in each.get("data", {}) for each in cell["outputs"])
    drawn = len(plt.get_fignums()) + 2  # those that end a cell belong to no window
    plt.close("all")
    assert shown == drawn == 5


def test_its_numbers_are_the_exact_ones() -> None:
    """By another route than the cells': the article's own fractions."""
    text = "".join(printed(cell) for cell in cells())
    assert "J = 6.5" in text
    assert text.count("[0.625, -0.625, -0.375, 0.375]") == 4  # three routes to ∇J, and RLOO's mean
    assert "[0.469, -0.469, -0.281, 0.281]" in text  # Dr. GRPO: (K − 1)/K = 3/4 of it
