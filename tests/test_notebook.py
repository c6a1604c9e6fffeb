"""Results at the end of a cell: short lines, small tables, figures, DataFrames."""

import sys
import types
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from rich.console import Console

import vantage as vt
from vantage.runs import notebook
from vantage.runs.progress import Progress


@pytest.fixture(scope="module")
def run() -> vt.Run:
    return vt.train("CartPole-v1", "ppo", updates=3, fragment=64, lanes=2, progress=False, seed=0)


@pytest.fixture(scope="module")
def report(run: vt.Run) -> vt.Report:
    rows = [vt.estimators.reinforce(), vt.estimators.rloo()]
    return vt.audit(
        run.env, run.policy, rows, trajectories=32, batch=8, group_size=4, progress=False
    )


def test_lines_are_short_and_tables_small(run: vt.Run, report: vt.Report) -> None:
    env = run.env
    shown: list[Any] = [
        run, report, vt.evaluate(env, run.policy, episodes=4), vt.estimators.ppo(),
        vt.algorithms.ppo(), env, vt.make("tensor/Pendulum-v1", lanes=2), vt.Normalized(env),
        vt.MDP.article(), vt.Tabular(vt.MDP.article()),
    ]  # fmt: skip
    for each in shown:
        line = repr(each)
        assert len(line) < 600, line
        assert " at 0x" not in line
        assert "\n" not in line
        page = each._repr_html_()
        assert " at 0x" not in page
        assert "<table>" in page or "<pre" in page
    assert repr(run).startswith("Run(ppo on CartPole-v1, 3 updates, 384 steps, return ")
    assert "<svg" in run._repr_html_()
    assert repr(vt.estimators.rloo()).startswith("Estimator(rloo: ")
    assert "leave_one_out" in repr(vt.estimators.rloo())
    assert repr(vt.MDP.article()).startswith("MDP(")
    assert "<svg" in report._repr_html_()


def test_names_are_text_not_html() -> None:
    page = notebook.facts("<b>", {"<i>": "<script>"}) + notebook.preformatted("<script>")
    assert "<script>" not in page
    assert "<b>" not in page


def test_figures_show_what_was_measured(run: vt.Run, report: vt.Report) -> None:
    figure = run.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [row["steps"] for row in run.history]
    (axes,) = report.plot().axes
    points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    measured = [row.snr.value for row in report.rows]
    assert points == [value for value in measured if np.isfinite(value)]
    assert points
    assert [label.get_text() for label in axes.get_yticklabels()] == ["reinforce", "rloo"]


def test_tables_for_pandas(run: vt.Run, report: vt.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    history = run.to_pandas()
    assert list(history["steps"]) == [row["steps"] for row in run.history]
    table = report.to_pandas().set_index("estimator")
    snr = report.row("rloo").snr
    assert table.loc["rloo", ["snr", "snr_low", "snr_high"]].tolist() == pytest.approx(
        [snr.value, snr.low, snr.high], nan_ok=True
    )
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(vt.InputError, match="pip install pandas"):
        run.to_pandas()


def test_a_comparison_and_a_run_read_back(tmp_path: Path) -> None:
    comparison = vt.compare(
        "CartPole-v1", ["reinforce", "rloo"], seeds=2, steps=600, lanes=4, workers=1,
        evaluation_episodes=4, out=tmp_path / "c", progress=False,
    )  # fmt: skip
    assert repr(comparison).startswith("Comparison(reinforce, rloo; 4 runs)")
    assert "<svg" in comparison._repr_html_()
    assert len(comparison.plot().axes[0].get_yticklabels()) == 2
    pytest.importorskip("pandas")
    assert len(comparison.to_pandas()) == 4
    again = vt.read_run(next((tmp_path / "c").rglob("metrics.jsonl")).parent)
    assert "on CartPole-v1" in repr(again)
    assert again.to_pandas()["steps"].iloc[-1] >= 600


def test_progress_in_a_notebook_needs_no_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One output that is replaced; ipywidgets is never asked for."""
    pages: list[str] = []
    handle = types.SimpleNamespace(update=pages.append)
    display = types.ModuleType("IPython.display")
    display.HTML = lambda page: page  # type: ignore[attr-defined]
    display.display = lambda page, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with Progress(100, None, [], console=Console(force_jupyter=True)) as progress:
        for update in (1, 2):
            progress.update(
                {"update": update, "steps": 50 * update, "return_100": 7.0, "step_time": 1.0}
            )
    assert "steps: 50 of 100" in pages[0]
    assert "steps: 100 of 100" in pages[-1]
    assert "7.0" in pages[-1]
