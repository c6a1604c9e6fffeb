"""Files of strangers are data: run folders import nothing, and what is wrong with them is named."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vantage as vt
from vantage.commands.main import main
from vantage.environments.remaking import remade


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a value function, an optimiser, a normaliser and lanes to carry on."""
    folder = tmp_path_factory.mktemp("strangers") / "run"
    train(folder, 2)
    return folder


def train(folder: Path, updates: int, resume: bool = False) -> None:
    vt.train(
        "tensor/CartPole-v1", vt.algorithms.ppo(fragment=8, epochs=1, minibatches=1), lanes=4,
        normalise=True, updates=updates, out=folder, resume=resume, progress=False, keep_best=True,
        evaluate_every=1, evaluation_episodes=2,
    )  # fmt: skip


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def change(run: Path, key: str, value: Any, within: str | None = None) -> None:
    file = run / "config.json"
    config = json.loads(file.read_text())
    (config if within is None else config[within])[key] = value
    file.write_text(json.dumps(config))


def use(run: Path) -> str:
    """What the first of all that read a run folder says is wrong; any other exception fails."""
    readers = (lambda: vt.load(run), lambda: vt.read_run(run), lambda: train(run, 3, True))
    return next(filter(None, map(_said, readers)), "")


def _said(reader: Callable[[], object]) -> str:
    try:
        reader()
    except vt.InputError as error:
        return str(error)
    return ""


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
        ("normalise", {"clip": "x"}, "config.json cannot be used"),
        ("name", 3, "names no environment"),
        ("name", "a/b/c", "a/b/c"),
        ("name", "tensor/LQR", "config.json cannot be used"),
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
def test_links_in_a_run_folder_are_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    """Through a link, a resumed run would overwrite what belongs to somebody else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes((run / name).read_bytes() if (run / name).exists() else b"mine")
    before = elsewhere.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(elsewhere)
    with pytest.raises(vt.InputError, match=f"{name} is a link to"):
        train(run, 3, resume=True)
    assert elsewhere.read_bytes() == before


def test_links_in_a_checkpoint_are_not_followed(run: Path, tmp_path: Path) -> None:
    file = run / "checkpoint" / "policy.safetensors"
    (tmp_path / "weights").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "weights")
    with pytest.raises(vt.InputError, match="is a link to"):
        vt.load(run)
    with pytest.raises(vt.InputError, match="is missing, or a link"):
        train(run, 3, resume=True)


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


# Damage of every kind to every file.


def _json_with(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        head, _, tail = content.partition(b"\n") if b"}\n{" in content else (content, b"", b"")
        return json.dumps(change(json.loads(head))).encode() + b"\n" + tail

    return changed


def _without(key: str) -> Callable[[Any], Any]:
    return lambda plain: {k: v for k, v in plain.items() if k != key}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "last byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "deep": lambda content: b"[" * 200_000,
    "deep object": lambda content: b'{"a":' * 200_000,
    "a list": lambda content: b"[]",
    "a number": lambda content: b"3",
    "null": lambda content: b"null",
    "NaN": lambda content: b'{"update": NaN}\n',
    "huge number": lambda content: b'{"update": ' + b"9" * 5000 + b"}\n",
    "empty object": lambda content: b"{}\n",
    "twice": lambda content: content * 2,
    "header of 2**60": lambda content: (1 << 60).to_bytes(8, "little") + content[8:],
}


@pytest.mark.parametrize("how", range(5))
def test_damage_is_named(how: int, original: Path, tmp_path: Path) -> None:
    """Files of a run folder, each in three ways: it is read as it was, or refused with its name."""
    names = list(DAMAGES)
    for number, file in enumerate(sorted(f for f in original.rglob("*") if f.is_file())):
        name = file.relative_to(original)
        run = Path(shutil.copytree(original, tmp_path / str(number)))
        damaged = run / name
        damaged.write_bytes(DAMAGES[names[(5 * number + how) % len(names)]](file.read_bytes()))
        said = use(run)
        assert not said or str(run) in said, (name, said)


def test_every_key_of_the_settings_may_be_lost_or_of_another_kind(
    original: Path, tmp_path: Path
) -> None:
    config = json.loads((original / "config.json").read_text())
    places = [(None, key) for key in config]
    places += [
        (key, inner) for key, part in config.items() if isinstance(part, dict) for inner in part
    ]
    run = Path(shutil.copytree(original, tmp_path / "run"))
    values = (None, [], {}, "text", -1, 1e300, "lost")
    for number, (within, key) in enumerate(places):
        for value in (values[number % 7], values[(number + 3) % 7]):
            changed = json.loads(json.dumps(config))
            part = changed if within is None else changed[within]
            part[key] = value
            if value == "lost":
                del part[key]
            (run / "config.json").write_text(json.dumps(changed))
            for reader in (vt.load, vt.read_run):
                said = _said(lambda reader=reader: repr(reader(run)))
                assert len(said) < 1500
