"""The arithmetic of `benchmarks/control.py`: what it shows follows from what was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control_tables

    return control_tables


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control_work

    return control_work


def measured(work: str, trainer: str, number: int, seconds: float, total: float = 99.0) -> dict:
    return {
        "work": work,
        "trainer": trainer,
        "round": number,
        "steps": 1000,
        "seconds": seconds,
        "total_seconds": total,
    }


def test_ratios_are_taken_within_a_round(tables: Any) -> None:
    rows = tables.speed_rows(
        [
            measured("CartPole 4", "vantage", 0, 1.0),
            measured("CartPole 4", "vantage", 1, 2.0),  # a slow moment slows both
            measured("CartPole 4", "vantage", 2, 1.0),
            measured("CartPole 4", "SB3", 0, 4.0),
            measured("CartPole 4", "SB3", 1, 8.0),
            {"work": "CartPole 4", "trainer": "SB3", "round": 2, "error": "killed"},
        ]
    )
    sb3 = next(row for row in rows if row["trainer"] == "SB3")
    assert sb3["ratio"] == {"median": 4.0, "low": 4.0, "high": 4.0}
    assert sb3["rate"] == {"median": 187.5, "low": 125.0, "high": 250.0}
    assert sb3["goal"] == 4.0
    assert sb3["rounds"] == 2


def test_whole_process_counts_where_compilation_does(tables: Any) -> None:
    name = "tensor CartPole 64"
    ours, theirs = "vantage, tensor environment", "rejax"
    rows = tables.speed_rows(
        [measured(name, ours, 0, 1.0, total=10.0), measured(name, theirs, 0, 100.0, total=20.0)]
    )
    assert rows[0]["rate"]["median"] == 100.0
    assert rows[1]["ratio"]["median"] == 2.0


def test_failures_are_shown(tables: Any) -> None:
    rows = tables.speed_rows(
        [
            measured("CartPole 4", "vantage", 0, 1.0),
            {"work": "CartPole 4", "trainer": "SBX", "round": 0, "error": "no interpreter | given"},
        ]
    )
    by_name = {row["trainer"]: row for row in rows}
    assert by_name["SBX"]["error"] == "no interpreter | given"
    assert by_name["Tianshou"]["error"] == "not measured"
    shown = tables.markdown({"speed": [{**measured("CartPole 4", "vantage", 0, 1.0)}]})
    assert "| CartPole 4 | vantage | 1,000 (1,000–1,000) |" in shown


def test_an_unsolved_seed_takes_for_ever(tables: Any) -> None:
    runs = [{"trainer": "SB3", "seconds": s, "solved": s < 50} for s in (5.0, 7.0, 60.0)]
    (row,) = tables.solve_rows(runs)
    assert row["seconds"] == {"median": 7.0, "low": 5.0, "high": float("inf")}
    assert (row["solved"], row["seeds"]) == (2, 3)
    (none,) = tables.solve_rows([{"trainer": "SB3", "error": "not done after 120 s"}])
    assert none["error"] == "not done after 120 s"


def test_every_work_can_be_asked_for(work: Any) -> None:
    for entry in work.WORKS.values():
        for trainer in entry.trainers:
            told = work.asked(entry, trainer, seed=3, scale=0.001)
            assert told["updates"] == 1
            assert told["lr"] == 3e-4
            assert (BENCHMARKS / work.TRAINERS[trainer].script).is_file()
        assert entry.goals.keys() <= set(entry.trainers)
        if entry.epochs:
            assert entry.lanes * entry.fragment % entry.minibatches == 0
    for trainer in work.SOLVE:
        assert work.asked_to_solve(trainer, seed=1)["target"] == 475
    for name in ("tensor CartPole 64", "tensor CartPole 2048"):
        entry = work.WORKS[name]
        assert 2_000_000 <= entry.updates * entry.lanes * entry.fragment < 2_100_000


def test_a_record_is_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control

    path = tmp_path / "control.json"
    first = control.Record(path, "a command", {}, resume=False)
    first.add("speed", measured("CartPole 4", "vantage", 0, 1.0))
    first.add("speed", {"work": "CartPole 4", "trainer": "SB3", "round": 0, "error": "killed"})
    again = control.Record(path, "a command", {}, resume=True)
    assert again.has("speed", work="CartPole 4", trainer="vantage", round=0)
    assert not again.has("speed", work="CartPole 4", trainer="vantage", round=1)
    assert not again.has("speed", work="CartPole 4", trainer="SB3", round=0)


def test_difference_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control_check

    one = np.array([3.0, 4.0])
    assert control_check.difference(one, one * 1.01) == pytest.approx(0.01)


def test_a_peer_without_interpreter_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control

    found = control.measure(control.TRAINERS["SB3"], {}, peers={}, core=None, limit=1.0)
    assert found == {"error": "no interpreter was given (--peer sb3=...)"}


def test_a_script_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import control

    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no such thing')")
    found = control.measure(control.Trainer(str(script)), {}, peers={}, core=None, limit=60.0)
    assert found == {"error": "failed: ValueError: no such thing"}
