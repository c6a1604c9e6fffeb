"""What people type: lists with commas or spaces, names of other libraries, assignments."""

import sys

import pytest

import vantage as vt
from vantage.commands.arguments import HINTS, assignments, prepared, refuse_foreign_names
from vantage.commands.main import main
from vantage.errors import InputError


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("--estimators rloo,grpo", "--estimators rloo grpo"),
        ("--estimators rloo grpo", "--estimators rloo grpo"),
        ("--estimators=rloo,grpo --batch 8", "--estimators rloo grpo --batch 8"),
        ("--hidden 64,64 --lr 1e-3", "--hidden 64 64 --lr 1e-3"),
        ("--set epochs=4,minibatches=2 lr=1", "--set epochs=4 minibatches=2 lr=1"),
        ("--set sizes=(1,2)", "--set sizes=(1,2)"),
        ("--set name=a,b", "--set name=a,b"),
        ("--out a,b", "--out a,b"),
    ],
)
def test_lists_are_written_with_commas_or_spaces(typed: str, read: str) -> None:
    assert prepared(typed.split()) == read.split()


def test_assignments_are_literals_or_text() -> None:
    assert assignments("--set", ("a=1e-3", "b=auto", "c=true", "d=None", "e=(1, 2)")) == {
        "a": 1e-3, "b": "auto", "c": True, "d": None, "e": (1, 2),
    }  # fmt: skip
    with pytest.raises(InputError, match="write NAME=VALUE"):
        assignments("--set", ("epochs",))


@pytest.mark.parametrize("name", [*HINTS, "--env-id", "--total_timesteps"])
def test_names_of_other_libraries_get_a_hint(name: str) -> None:
    with pytest.raises(InputError, match=r"here|comes first"):
        refuse_foreign_names("train", ["CartPole-v1", f"{name}=3"])


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vantage", *arguments])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = int(error.code or 0)
    return code, *capsys.readouterr()


def test_the_command_line_takes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, capsys, "--version") == (0, f"vantage {vt.__version__}\n", "")
    code, _, error = command(monkeypatch, capsys, "train", "CartPole-v1", "--total-timesteps", "9")
    assert code == 2
    assert "--total-timesteps is called --steps here" in error
    for estimators in ("rloo,reinforce", "rloo reinforce"):
        code, out, _ = command(
            monkeypatch, capsys, "audit", "CartPole-v1", "--estimators", *estimators.split(),
            "--dry-run",
        )  # fmt: skip
        assert code == 0
        assert "rloo: 256 units of 16 trajectories" in out
        assert "reinforce: 256 units of 16 trajectories" in out


def test_what_a_dry_run_prints_is_what_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The effective learning rate, schedule, lanes and batch, the algorithm's or those given."""
    ppo = ("train", "CartPole-v1", "--algorithm", "ppo", "--dry-run")
    out = " ".join(command(monkeypatch, capsys, *ppo)[1].split())
    assert "lr 0.0003, schedule constant" in out
    assert "2,048 steps of 1 lane; 320 gradient steps on minibatches of 64" in out
    out = command(monkeypatch, capsys, *ppo, "--lr", "0.01", "--set", "epochs=2,anneal=True")[1]
    out = " ".join(out.split())
    assert "lr 0.01, schedule linear" in out
    assert "0.0003" not in out  # the rule's default, which is not in effect
    assert "64 gradient steps" in out
    code, out, error = command(monkeypatch, capsys, *ppo, "--lanes", "64", "--steps", "300000")
    assert code == 0
    assert "3 updates of 131,072 steps (64 lanes × 2048)" in " ".join(error.split())
