"""The page on environments says what the checker says."""

import re
from pathlib import Path

import gymnasium
import pytest
import sick

import vantage as vt
from vantage.environments.checking import check as checking

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| `([^`]*)`[^|]* \| (ok|error|warning) \| ?([^|]*?) ?\|$",
    PAGE.split("## Ten environments", 1)[1].split("## One contract", 1)[0],
    flags=re.M,
)


def test_ten_environments_are_shown() -> None:
    assert len(ROWS) == 10
    assert sum(verdict == "ok" for _, verdict, _ in ROWS) == 5


@pytest.mark.parametrize(("name", "verdict", "by"), ROWS)
def test_the_table(name: str, verdict: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "SHORT", 20)
    if name == "Hopper-v5":
        pytest.importorskip("mujoco")
    if name == "Taxi-v4" and name not in gymnasium.registry:
        pytest.skip("this Gymnasium has another version of Taxi")
    report = vt.check_environment(getattr(sick, name, name), steps=300, measure=False)
    assert report.ok == (verdict == "ok"), str(report)
    if not report.ok:
        wrong = [finding for finding in report.findings if finding.severity != "note"]
        assert wrong[0].severity == verdict
        assert list(dict.fromkeys(finding.check for finding in wrong)) == by.split(", ")


def test_what_is_printed() -> None:
    printed = re.search(r"```text\n(.*?)```", PAGE, flags=re.S)
    assert printed is not None
    said = " ".join(str(vt.check_environment(sick.OwnReseeded, measure=False)).split())
    assert said.startswith(" ".join(printed[1].split()))


def test_the_checks_are_listed() -> None:
    cells = re.findall(r"^\| ([a-z, ]+) \| [^|]+\? \|$", PAGE, flags=re.M)
    assert ", ".join(cells) == ", ".join(checking.CHECKS)


def test_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))
    exec(code, {})
    expected = re.findall(r"# (True.*)$", code, flags=re.M)
    assert capsys.readouterr().out.split("\n")[:-1] == expected
