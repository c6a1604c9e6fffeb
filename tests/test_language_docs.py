"""The page on language models: every printed line is what the code prints."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "language.md"


def test_the_page_prints_what_it_says() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0
    assert tried > 15
