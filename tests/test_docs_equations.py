"""The page that walks through the equations: every printed number is what the code prints."""

import doctest
from pathlib import Path

import torch

PAGE = Path(__file__).parents[1] / "docs" / "equations.md"


def test_the_page_prints_what_it_says():
    options = torch._tensor_str.PRINT_OPTS
    before = (options.precision, options.sci_mode)
    try:
        failed, tried = doctest.testfile(
            str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
        )
    finally:
        torch.set_printoptions(precision=before[0], sci_mode=before[1])
    assert failed == 0
    assert tried > 25
