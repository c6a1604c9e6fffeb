"""Commands, run in the process of the test."""

import sys

import pytest

from vantage.commands.main import main


def code_of(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run `vantage` with these words; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["vantage", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str]:
    """`code_of`, and all that was printed, to both streams."""
    code = code_of(monkeypatch, *words)
    printed = capsys.readouterr()
    return code, printed.out + printed.err
