"""Files of strangers are data: run folders import nothing, and what is wrong with them is named."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vantage as vt
from vantage.commands.main import main
from vantage.environments.remaking import remade


@pytest.fixture(scope="module")
def damage() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        import damage

        yield damage


@pytest.fixture(scope="module")
def original(damage: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a value function, an optimiser, a normaliser and lanes to carry on."""
    folder = tmp_path_factory.mktemp("strangers") / "run"
    damage.in_an_environment(folder, 2)
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def change(run: Path, key: str, value: Any, within: str | None = None) -> None:
    file = run / "config.json"
    config = json.loads(file.read_text())
    (config if within is None else config[within])[key] = value
    file.write_text(json.dumps(config))


# What a file may not do without the reader's word.

CODE = "raise AssertionError('this was run')"


@pytest.mark.parametrize(
    "description",
    [
        {"name": "stranger:Env"},
        {"name": "stranger.py:Env"},
        {"name": "os:system", "command": "touch taken"},
        {"name": "builtins:print", "file": 1},
        {"name": "CartPole-v1", "wrappers": ["stranger:Wrapper"]},
        {"name": "CartPole-v1", "wrappers": "stranger:Wrapper"},
        {"name": "CartPole-v1", "vector_kwargs": {"context": "fork"}},
        {"name": "CartPole-v1", "vectorization_mode": "async"},
        {"name": "CartPole-v1", "entry_point": 3},
        {"name": "CartPole-v1", "additional_wrappers": 1},
        {"name": "HalfCheetah-v5", "xml_file": "/etc/passwd"},
        {"name": "FrozenLake-v1", "desc": ["SG"]},
        {"name": "envpool/CartPole-v1", "num_threads": 3},
    ],
    ids=str,
)
def test_a_file_neither_imports_nor_calls_what_it_likes(
    description: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stranger.py").write_text(CODE)
    with pytest.raises(vt.InputError, match=r"config.json would .*trust=True\), or --trust") as no:
        remade(description | {"lanes": 1})
    assert description["name"] in str(no.value) or "stranger" in str(no.value)
    assert "stranger" not in sys.modules
    assert os.listdir(tmp_path) == ["stranger.py"]


def test_with_the_readers_word_it_does() -> None:
    env = remade({"name": "FrozenLake-v1", "lanes": 1, "desc": ["SG"]}, trust=True)
    assert env.observations.n == 2
    wrapped = {"name": "CartPole-v1", "lanes": 1, "wrappers": ["gymnasium.wrappers:TimeAwareObservation"]}  # fmt: skip # noqa: E501
    assert remade(wrapped, trust=True).observations.shape == (5,)


def test_numbers_for_parameters_that_an_environment_names_are_data() -> None:
    env = remade({"name": "FrozenLake-v1", "lanes": 1, "is_slippery": False})
    assert env.settings == {"is_slippery": False}
    with pytest.raises(vt.InputError, match="would make FrozenLake-v1 with slippery=False"):
        remade({"name": "FrozenLake-v1", "lanes": 1, "slippery": False})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lanes", 10**9, "asks for 1,000,000,000 lanes"),
        ("lanes", "4", "lanes is '4'"),
        ("lanes", 0, "asks for 0 lanes"),
        ("discount", "1", "discount is '1'"),
        ("normalise", 3, "normalise is 3"),
        ("normalise", {"clip": "x"}, "config.json: Normalized: clip='x' must be a number"),
        ("name", 3, "names no environment"),
        ("name", "a/b/c", "a/b/c"),
        ("name", "tensor/LQR", "config.json: tensor/LQR cannot be made"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(
    key: str, value: Any, message: str, run: Path
) -> None:
    change(run, key, value, "environment")
    with pytest.raises(vt.InputError, match=message):
        vt.load(run)


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_commands_ask_for_the_word_and_take_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "ownworld.py").write_text(
        "import gymnasium\n\ndef make():\n    return gymnasium.make('CartPole-v1')\n"
    )
    vt.train("ownworld:make", "reinforce", lanes=2, updates=1, batch=2, out="run", progress=False)
    monkeypatch.delitem(sys.modules, "ownworld")
    arguments = (
        ["evaluate", "run", "--episodes", "2"]
        if command == "evaluate"
        else ["audit", "ownworld", "--policy", "run", "--trajectories", "8", "--batch", "4"]
    )
    monkeypatch.setattr(sys, "argv", ["vantage", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "would import ownworld" in capsys.readouterr().err
    assert "ownworld" not in sys.modules
    if command == "evaluate":
        monkeypatch.setattr(sys, "argv", ["vantage", *arguments, "--trust"])
        main()
        assert "mean return" in capsys.readouterr().out
    sys.modules.pop("ownworld", None)


# Links, paths that lead elsewhere, and files that would take all memory.


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "lock"])
def test_links_in_a_run_folder_are_not_followed(
    name: str, run: Path, tmp_path: Path, damage: Any
) -> None:
    """Through a link, a resumed run would overwrite what belongs to somebody else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes((run / name).read_bytes() if (run / name).exists() else b"mine")
    before = elsewhere.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(elsewhere)
    with pytest.raises(vt.InputError, match=f"{name} is a link to"):
        damage.in_an_environment(run, 3, resume=True)
    assert elsewhere.read_bytes() == before


def test_links_in_a_checkpoint_are_not_followed(
    run: Path, tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint before is taken in its place, and where there is none it is refused."""
    file = run / "checkpoint" / "policy.safetensors"
    (tmp_path / "weights").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "weights")
    vt.load(run)
    said = " ".join(capsys.readouterr().err.split())
    assert f"is missing, or a link; what is loaded is {run / 'checkpoint.old'}" in said
    shutil.rmtree(run / "checkpoint.old")
    with pytest.raises(vt.InputError, match="is missing, or a link"):
        vt.load(run)
    with pytest.raises(vt.InputError, match="is missing, or a link"):
        damage.in_an_environment(run, 3, resume=True)


def test_networks_larger_than_their_weights_are_not_made(run: Path) -> None:
    made = json.loads((run / "config.json").read_text())["policy"]["made"]
    for hidden in ([10**12], [64] * 1000):
        change(run, "made", made | {"hidden": hidden}, "policy")
        with pytest.raises(vt.InputError, match="restore both from one copy"):
            vt.load(run)


def test_a_large_file_is_not_read(run: Path) -> None:
    with (run / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(vt.InputError, match="1,099,511,627,776 bytes, and at most"):
        vt.load(run)


# Damage of every kind to every file: `benchmarks/damage.py` does all of it, this a share.


@pytest.mark.parametrize(("kind", "every"), [("control", 41), ("language", 53)])
def test_damage_is_refused_by_name_or_does_not_matter(
    kind: str, every: int, damage: Any, tmp_path: Path
) -> None:
    original, expected = damage.prepared(tmp_path, kind)
    cases = [
        (name, way, change)
        for name in damage.files_of(original)
        for way, change in damage.ways(name.name, (original / name).read_bytes())
    ]
    for name, way, change in cases[::every]:
        came = damage.outcome(original, name, change, damage.KINDS[kind], expected)
        assert came.kind in damage.SOUND, (name, way, came)


@pytest.mark.parametrize("line", [0, 1])
def test_a_changed_line_of_metrics_is_not_built_on(line: int, run: Path, damage: Any) -> None:
    """A number that is still a number: only the checkpoint knows that it was another."""
    file = run / "metrics.jsonl"
    rows = [json.loads(each) for each in file.read_text().splitlines()]
    rows[line]["entropy"] += 1e-12
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(vt.InputError, match="the first 2 lines are not those"):
        damage.in_an_environment(run, 3, resume=True)


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (0, 0, 1), (1, 0)], ids=str)
def test_lines_of_metrics_come_once_and_in_order(order: tuple[int, ...], run: Path) -> None:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[number] for number in order))
    with pytest.raises(vt.InputError, match=r"line \d, is of update 1 and comes after"):
        vt.read_run(run)


def test_the_checker_of_damage_sees_what_is_accepted(damage: Any, tmp_path: Path) -> None:
    """A checker that cannot fail would find nothing."""
    original, expected = damage.prepared(tmp_path, "control")
    wrong = expected | {"resumed": [*expected["resumed"][:-1], {}]}
    keep = damage.outcome(
        original, Path("metrics.jsonl"), lambda c: c, damage.KINDS["control"], wrong
    )
    assert keep.kind == "other"
    raised = damage.outcome(original, Path("lock"), lambda c: c, _raise, expected)
    assert raised.kind == "raw ZeroDivisionError"


def _raise(*_: Any) -> None:
    raise ZeroDivisionError
