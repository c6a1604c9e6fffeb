"""The tutorials: every printed line is what the code prints."""

import doctest
import re
from pathlib import Path
from unittest.mock import patch

import pytest

import vantage as vt

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "audit.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with patch.dict(vt.estimators.TABLE):  # rows of a page are no rows of other tests
        failed, tried = doctest.testfile(
            str(page), module_relative=False, optionflags=doctest.ELLIPSIS
        )
    assert failed == 0
    assert tried >= 4


def test_the_numbers_read_off_the_picture_are_those_of_the_picture() -> None:
    page = (DOCS / "tutorials" / "read_an_audit.md").read_text(encoding="utf-8")
    picture = (DOCS / "figures" / "audit.svg").read_text(encoding="utf-8")
    shown = {
        name: tuple(map(float, numbers))
        for name, *numbers in re.findall(r"(\w+) ([\d.]+), from ([\d.]+) to ([\d.]+\d)", picture)
    }
    assert "reinforce undetermined" in picture
    for name in ("reward_to_go", "reinforce_baseline"):
        assert str(shown[name][0]) in page
    assert f"ppo` stands first at {shown['ppo'][0]:.1f}" in page
    for name in ("rloo", "reward_to_go"):
        low, high = shown[name][1:]
        assert f"`{name}` ({low:.0f} to {high:.0f})" in page
    assert shown["rloo"][2] > shown["reward_to_go"][1] > shown["reinforce_baseline"][2]
