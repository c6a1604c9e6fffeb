"""The page to play with: whole in one file, put together from its parts, and the command for it."""

import re
import sys
from pathlib import Path

import pytest

from vantage import play
from vantage.commands.main import main

FOLDER = Path(play.__file__).parent


def test_the_page_is_one_file_below_a_megabyte() -> None:
    page = play.page()
    assert len(page.encode()) < 1_000_000
    assert page == play.page()
    assert "{{" not in page.split("<script>")[0]
    # Addresses that stay are names (of XML, of licences in comments), nothing that is fetched.
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page.split("<script>")[0]) == []
    assert re.findall(r"url\((?!data:)[^)]*\)|@import", page.split("<script>")[0]) == []
    assert "default-src 'none'" in page


def test_every_part_is_in_the_page() -> None:
    page = play.page()
    for path in [*FOLDER.glob("*.js"), *FOLDER.glob("stations/*.js")]:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first in page, path.name
    sections = re.findall(r'<section class="station" id="(\w+)"', page)
    assert sections == list(play.STATIONS)
    assert len(sections) == 8


def test_files_of_the_page_stay_readable() -> None:
    ours = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".html")]
    long = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in ours
        if "katex" not in path.parts
    }
    assert max(long.values()) <= 400, long


def test_the_command_writes_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []

    def open_page(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", open_page)
    target = tmp_path / "deep" / "article.html"
    monkeypatch.setattr(sys, "argv", ["vantage", "play", "--out", str(target)])
    main()
    assert target.read_text(encoding="utf-8") == play.page()
    assert opened == [target.as_uri()]
    monkeypatch.setattr(sys, "argv", ["vantage", "play", "--out", str(target), "--no-open"])
    main()
    assert opened == [target.as_uri()]
    assert "Open it in any browser" in capsys.readouterr().out


@pytest.mark.parametrize("name", [".", "taken/article.html"])
def test_the_command_refuses_what_is_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vantage", "play", "--out", name, "--no-open"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vantage: vantage play --out {name}: ")
    assert said.count("\n") == 1
