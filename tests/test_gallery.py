"""The pictures of the documentation: committed, small, light and dark, and still true."""

import importlib.util
import random
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from run_folders import control_row

from vantage.pages.standalone import standalone
from vantage.reporting.subject import Subject

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
NAMES = (
    "learning",
    "report",
    "language_run",
    "clouds",
    "variance",
    "corridor",
    "audit",
    "group_sizes",
    "transcript",
)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    """The script, as a module."""
    found = importlib.util.spec_from_file_location("gallery", ROOT / "examples" / "gallery.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def title(svg: str) -> str:
    text = ElementTree.fromstring(svg).findtext(f"{SVG}title")
    assert text
    return text


def test_the_gallery_is_what_it_says(gallery: ModuleType) -> None:
    assert tuple(gallery.FIGURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_small_described_and_shown(name: str) -> None:
    svg = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    assert len(svg.encode()) < 100_000
    assert len(title(svg)) > 60
    assert "prefers-color-scheme: dark" in svg
    assert not re.findall(r"#0[1-5]0[1-5]0[1-5]\b|#1010\d\d\b", svg)  # a placeholder is no colour
    assert not re.findall(r"<script|https?://(?!www\.w3\.org)", svg)
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    shown = re.findall(rf"!\[([^\]]+)\]\(figures/{name}\.svg\)\n\n(\S.*)", pages)
    assert shown
    assert all(len(alternative) > 20 for alternative, _ in shown)  # and a sentence below


@pytest.mark.parametrize("name", ["clouds", "variance", "corridor", "group_sizes"])
def test_numbers_of_a_figure_are_those_of_the_code(gallery: ModuleType, name: str) -> None:
    """What takes no training is drawn again; its description holds its numbers."""
    committed = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    assert title(standalone(gallery.FIGURES[name]())) == title(committed)


def test_curves_of_a_report_are_those_of_its_run(gallery: ModuleType) -> None:
    """Less than a curve has points, so that each point is one update's mean."""
    draw = random.Random(0)
    history = [control_row(update, draw) for update in range(1, 61)]
    subject = Subject({}, history)
    said = title(standalone(gallery.reported(subject, ("Return", "Signal-to-noise ratio"))))
    first, last = history[0]["return"], history[-1]["return"]
    assert f"Return, training: {first:.3g} at first, {last:.3g} at last" in said
    at_end = [row for row in history if "eval/return" in row][-1]["eval/return"]
    assert re.search(rf"Return, evaluation: [\d.]+ at first, {at_end:.3g} at last", said)


def test_a_transcript_escapes_what_the_model_says(gallery: ModuleType) -> None:
    record = {
        "prompt": "<b>1+1=",
        "tokens": ["&", "</text><script>"],
        "advantage": [0.5, -0.5],
        "reward": 0.0,
    }
    svg = standalone(gallery.transcript_svg([record]))
    assert "<script" not in svg
    texts = [one.text for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert texts[:2] == ["<b>1+1=", "&"]
