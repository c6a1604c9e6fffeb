"""What is printed is what was given: no markup, no emoji, and no character acts on the terminal."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from rich.table import Table

from vantage.commands.main import main
from vantage.runs.terminal import Terminal

SOURCE = Path(__file__).parents[1] / "src" / "vantage"
HOSTILE = "a[/b]c :smile: [red]x\x1b[2J\x1b]0;title\x07\u202e"
SHOWN = r"a[/b]c :smile: [red]x\x1b[2J\x1b]0;title\x07\u202e"


def test_strings_are_shown_as_they_are_alone_and_in_tables() -> None:
    file = io.StringIO()
    console = Terminal(file=file, width=200, force_terminal=True, color_system=None)
    console.print(HOSTILE)
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    assert file.getvalue().count(SHOWN) == 3
    assert "\x1b" not in file.getvalue()


def test_there_is_no_other_console() -> None:
    others = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"(?<![\w.])Console\((?!\))", path.read_text(encoding="utf-8"))
    ]
    assert others == []


@pytest.mark.parametrize("name", ["a[/b]c", "x :smile: [red]y", "esc\x1b[31mred"])
def test_commands_name_folders_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["vantage", "train", "tensor/CartPole-v1", "--updates", "1", "--lanes", "2",
                      "--batch", "2", "--out", name],
    )  # fmt: skip
    main()
    shown = capsys.readouterr()
    assert (tmp_path / name / "config.json").exists()
    assert "\x1b" not in shown.out + shown.err
    written = str(Path(name)).replace("\x1b", r"\x1b")
    assert f"Run folder: {written}\nReport: {written}/report.html\n" in shown.out
    if "\x1b" not in name:
        command = shown.out.split("Next: ")[1].strip()
        assert shlex.split(command) == ["vantage", "evaluate", str(Path(name))]


def test_errors_do_not_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vantage", "evaluate", "no\x1b[2Jwhere"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith(r"vantage: no\x1b[2Jwhere holds no run")
