"""Settings that are known to work: each row builds, names its source, and returns what was run."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import vantage as vt
from vantage.commands import main as console
from vantage.training.listing import tuned_markdown
from vantage.training.tuned import Row, row_of, rows

WORDS = ("train", "CartPole-v1", "--tuned", "--algorithm", "ppo")
ROOT = Path(__file__).parents[1]
# of Box2D's bindings
pytestmark = pytest.mark.filterwarnings("ignore:builtin type :DeprecationWarning")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("tuned_runs", ROOT / "benchmarks" / "tuned.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("row", rows().values(), ids=lambda row: row.env)
def test_a_row_builds_names_its_source_and_returns_what_was_run(row: Row, benchmark: Any) -> None:
    algorithm = row.build()
    assert row.env in gymnasium.registry
    assert row.source
    assert algorithm.source == row.source
    assert (algorithm.lanes, algorithm.discount, algorithm.steps) == (
        row.lanes,
        row.discount,
        row.steps,
    )
    config = vt.train(row.env, algorithm, dry_run=True, progress=False).config
    assert config["steps"] == row.steps
    assert config["environment"]["discount"] == row.discount
    assert ("normalise" in config["environment"]) == bool(row.normalise)
    assert row.returns
    assert row.returns == benchmark.returns_of(row)


def test_runs_with_other_settings_do_not_count(benchmark: Any) -> None:
    lunar = rows()["LunarLander-v3"]
    assert benchmark.returns_of(lunar)
    changed = Row(**{**vars(lunar), "settings": lunar.settings | {"lr": 1e-3}})
    assert benchmark.returns_of(changed) == []
    cartpole = rows()["CartPole-v1"]
    assert benchmark.returns_of(Row(**{**vars(cartpole), "lanes": 9})) == []


def test_the_documentation_shows_the_table_of_the_package() -> None:
    """docs/control.md: regenerate with `python docs/estimator_page.py`."""
    assert tuned_markdown() in (ROOT / "docs" / "control.md").read_text("utf-8")


def test_an_algorithm_brings_its_discount_steps_networks_and_normaliser() -> None:
    row = rows()["CartPole-v1"]
    algorithm = vt.tuned("tensor/CartPole-v1", epochs=1).replace(
        steps=512, normalise={"rewards": False}, network={"hidden": (8,), "activation": "relu"}
    )
    run = vt.train("tensor/CartPole-v1", algorithm, progress=False)
    assert run.history[-1]["steps"] >= 512
    assert run.env.discount == row.discount
    assert run.env.normalised["rewards"] is False
    assert run.policy.arguments["hidden"] == run.value.arguments["hidden"] == [8]
    assert run.policy.arguments["activation"] == "ReLU"
    told = vt.train(
        "tensor/CartPole-v1", algorithm, updates=1, discount=0.9, normalise=False, progress=False
    )
    assert told.env.discount == 0.9
    assert len(told.history) == 1


def test_what_belongs_to_the_policy_alone_is_not_given_to_the_value_function() -> None:
    algorithm = vt.algorithms.ppo(fragment=64).replace(network={"log_std": -1.0, "hidden": (8,)})
    run = vt.train("tensor/Pendulum-v1", algorithm, updates=1, dry_run=True, progress=False)
    assert run.policy.log_std.tolist() == [-1.0]


def test_an_environment_without_settings_gets_near_matches() -> None:
    with pytest.raises(vt.InputError, match="did you mean CartPole-v1"):
        vt.tuned("CartPole-v2")
    with pytest.raises(vt.InputError, match="known to work on 'Nothing'; there are"):
        vt.tuned("Nothing")
    assert row_of("envpool/CartPole-v1") is row_of("CartPole-v1")


def _said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["vantage", *words])
    console.main()
    return " ".join(capsys.readouterr().out.split())


def test_the_command_line_says_what_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(monkeypatch, capsys, "train", "CartPole-v1", "--tuned", "--dry-run")
    row = rows()["CartPole-v1"]
    for part in (row.source, row.outcome(), "γ 0.98", "8 lanes × 32 steps", "lr 0.001"):
        assert part in said
    assert "runs/CartPole-v1-ppo_tuned-0" in said
    said = _said(
        monkeypatch, capsys, "train", "CartPole-v1", "--tuned", "--dry-run", "--discount", "0.9",
        "--steps", "1000",
    )  # fmt: skip
    assert "γ = 0.9 algorithm" in said
    assert "until 1,000 steps" in said
    listed = _said(monkeypatch, capsys, "algorithms", "tuned")
    assert all(name[:8] in listed for name in rows())


def test_tuned_beside_an_algorithm_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vantage", *WORDS])
    with pytest.raises(SystemExit):
        console.main()
    assert "--tuned says both" in capsys.readouterr().err


def test_comparisons_take_networks_and_discount_from_the_algorithm(tmp_path: Path) -> None:
    algorithm = vt.tuned("CartPole-v1").replace(lanes=2, network={"hidden": (8,)})
    vt.compare(
        "tensor/CartPole-v1", {"tuned": algorithm, "plain": vt.estimators.reinforce()}, 2,
        steps=64, out=tmp_path, workers=1, evaluation_episodes=0, progress=False,
    )  # fmt: skip
    configs = {
        name: json.loads((tmp_path / name / "seed-000" / "config.json").read_text("utf-8"))
        for name in ("tuned", "plain")
    }
    assert configs["tuned"]["policy"]["hidden"] == [8]
    assert configs["plain"]["policy"]["hidden"] == [64, 64]
    assert configs["tuned"]["environment"]["discount"] == 0.98
    assert configs["plain"]["environment"]["discount"] == 0.99
