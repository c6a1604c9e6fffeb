"""What the README shows works as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from vantage.commands.main import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# Sizes at which the example takes seconds; everything else in it is run as it is written.
SHORTER = {"40_000": "4_096", "episodes=100": "episodes=4", "trajectories=1024": "trajectories=512"}
COMMANDS = [
    line.removeprefix("$ vantage ").split("#")[0].split()
    for line in README.splitlines()
    if line.startswith("$ vantage ")
]
DRY = ("train", "audit", "compare")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    for long, short in SHORTER.items():
        assert long in code
        code = code.replace(long, short)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed.startswith("mean return")
    assert "grpo: " in printed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_one(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Long ones with --dry-run; those that read a run or a file of the user's must name it."""
    monkeypatch.chdir(tmp_path)
    dry = (
        ["--dry-run"]
        if command[0] in DRY and "lm" not in command
        else ["--no-open"]
        if command[0] == "play"
        else []
    )
    monkeypatch.setattr(sys, "argv", ["vantage", *command, *dry])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    absent = next((w for w in command if "/" in w or w.endswith((".jsonl", ".py:loss"))), None)
    if absent is not None and "--out" not in command:
        assert code == 2
        assert captured.err.startswith("vantage: ")
    else:
        assert code == 0, captured.err
