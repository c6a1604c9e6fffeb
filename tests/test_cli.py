"""The command line as a user meets it: results, errors of one line, exit codes."""

import sys
from pathlib import Path

import pytest
from console import code_of as vantage

from vantage.commands.language import commands
from vantage.commands.main import main

SMALL = ("--lanes", "4", "--batch", "4", "--updates", "2", "--hidden", "8")


def test_train_then_evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    assert vantage(monkeypatch, "train", "CartPole-v1", *SMALL, "--out", out) == 0
    printed = capsys.readouterr()
    assert "mean return" in printed.out
    assert "gradient SNR" in printed.out
    assert "SNR" in printed.err  # progress goes to standard error, so results pipe cleanly
    assert vantage(monkeypatch, "evaluate", out, "--episodes", "10") == 0
    assert "95 % interval" in capsys.readouterr().out


def test_dry_run_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    assert vantage(monkeypatch, "train", "CartPole-v1", "--out", out, "--dry-run") == 0
    assert "64 whole episodes" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_audit_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = ("--trajectories", "64", "--batch", "8", "--lanes", "8", "--group-size", "4")
    rows = ("--estimators", "reinforce,rloo")
    assert vantage(monkeypatch, "audit", "CartPole-v1", *sizes, *rows, "--dry-run") == 0
    assert "rloo: 16 units of 4 trajectories" in capsys.readouterr().out
    written = ("--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html"))
    assert vantage(monkeypatch, "audit", "CartPole-v1", *sizes, *rows, *written) == 0
    assert "95 % intervals" in capsys.readouterr().out
    assert (tmp_path / "a.json").exists()
    assert (tmp_path / "a.html").exists()


def test_audit_of_a_table_is_against_its_exact_gradient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--trajectories", "512", "--batch", "32", "--estimators", "reward_to_go")
    assert vantage(monkeypatch, "audit", "FrozenLake-v1", *sizes) == 0
    assert "the exact gradient" in capsys.readouterr().out


def test_estimators_prints_the_table_and_explains_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vantage(monkeypatch, "estimators") == 0
    assert "rloo" in capsys.readouterr().out
    assert vantage(monkeypatch, "estimators", "rloo") == 0
    explained = capsys.readouterr().out
    assert "@" in explained  # its citation, as BibTeX
    assert "Unbiased" in explained or "unbiased" in explained


def test_exact_prints_the_worked_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vantage(monkeypatch, "exact", "article") == 0
    printed = capsys.readouterr().out
    for figure in ("9.5", "3.5", "-2.5", "1.5", "0.625", "-0.375"):
        assert figure in printed


@pytest.mark.parametrize(
    "command", [[], ["train"], ["audit"], ["exact"], ["evaluate"], ["estimators"]]
)
def test_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert vantage(monkeypatch, *command, "--help") == 0
    assert "usage: vantage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "CartPol-v1"], "did you mean"),
        (["train", "CartPole-v1", "--batch", "0"], "batch=0"),
        (["train", "CartPole-v1", "--batch=-4"], "batch=-4"),
        (["train", "CartPole-v1", "--lanes", "0"], "lanes=0"),
        (["train", "CartPole-v1", "--estimator", "reinforc"], "reinforce"),
        (["train", "CartPole-v1", "--value", "False"], "needs a value function"),
        (["train", "CartPole-v1", "--discount", "2"], "(0, 1]"),
        (["train", "CartPole-v1", "--threads", "0"], "threads=0"),
        (["evaluate", "runs/nowhere"], "holds no run"),
        (["train", "CartPole-v1", "--estimator", "rloo", "--batch", "10"], "whole groups"),
        (["audit", "CartPole-v1", "--estimators", "reinforce,rlo"], "did you mean"),
        (["audit", "CartPole-v1", "--policy", "runs/nowhere"], "holds no run"),
        (["audit", "CartPole-v1", "--memory", "lots"], "give a size"),
        (["audit", "CartPole-v1", "--html", "report.txt"], "end it in .html"),
        (["audit", "CartPole-v1", "--trajectories", "64"], "an interval needs"),
        (["exact", "CartPole-v1"], "no transition table"),
        (["estimators", "rlo"], "rlo"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vantage(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("vantage: ")
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_folder_with_a_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    assert vantage(monkeypatch, "train", "CartPole-v1", *SMALL, "--out", out) == 0
    capsys.readouterr()
    assert vantage(monkeypatch, "train", "CartPole-v1", *SMALL, "--out", out) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_the_help_leads_to_language_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command for language models is named where a user would look for it."""
    for first in {line.split()[0] for line in commands()}:
        monkeypatch.setattr(sys, "argv", ["vantage", first, "--help"])
        with pytest.raises(SystemExit):
            main()
        words = capsys.readouterr().out.replace("(", " ").replace(",", " ").replace(")", " ")
        for line in commands():
            if line.startswith(first):
                assert line.split()[1] in words.split(), line
