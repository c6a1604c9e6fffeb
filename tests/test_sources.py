"""Whatever people call an environment: the lanes of all are the same, or the message says why."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, RescaleAction, TimeLimit

import vantage as vt
from vantage.commands.main import main
from vantage.environments import making, remaking, sources

FILE = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env):
    """Step right to be paid; the start is random, so that seeds can be told apart."""

    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, pay=1.0):
        self.pay = pay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1)
        return self.at, {}

    def step(self, action):
        self.at = self.at + (1 if action else -1)
        return self.at, self.pay * float(action), bool(abs(self.at[0]) > 4), False, {}


def line(pay=1.0):
    return Line(pay)


an_object = Line(2.0)
spec = gymnasium.envs.registration.EnvSpec("SpecLine-v0", entry_point=Line, max_episode_steps=7)
nonsense = 3
gymnasium.register("RegisteredLine-v0", entry_point=Line)
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "lineworld.py").write_text(FILE)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


def played(env: Any, seed: int = 0, steps: int = 6) -> torch.Tensor:
    """Observations and rewards of fixed actions."""
    seen = [env.reset(seed)]
    for t in range(steps):
        step = env.step(torch.full((env.lanes,), t % 3 % 2))
        seen += [step.observation, step.reward[:, None].to(step.observation)]
    return torch.cat(seen, 1)


def test_every_way_to_name_an_environment_gives_the_same_lanes(module: Path) -> None:
    import lineworld

    given: dict[str, Any] = {
        "id": "RegisteredLine-v0",
        "module:id": "lineworld:RegisteredLine-v0",
        "module:class": "lineworld:Line",
        "module:function": "lineworld:line",
        "file:class": f"{module / 'lineworld.py'}:Line",
        "class": lineworld.Line,
        "function": lineworld.line,
        "lambda": lambda: lineworld.Line(),
        "partial": partial(lineworld.Line, pay=1.0),
        "object": lineworld.Line(),
        "wrapped object": TimeLimit(lineworld.Line(), 100),
        "spec": lineworld.spec,
        "registered spec": gymnasium.spec("RegisteredLine-v0"),
        "vector": SyncVectorEnv(
            [lineworld.Line] * 3, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
        ),
    }
    expected = played(vt.Gymnasium(lineworld.Line, lanes=3))
    for name, what in given.items():
        env = vt.make(what, lanes=3)
        assert torch.equal(played(env), expected), name
        run = vt.train(what, "reinforce", updates=1, batch=3, lanes=3, progress=False)
        assert len(run.history) == 1
    assert played(vt.make("lineworld:an_object", lanes=2)).max() == 2.0  # what is paid there
    assert played(vt.make(lineworld.line, lanes=2, pay=3.0)).max() == 3.0
    assert not torch.equal(played(vt.make("lineworld:Line", lanes=3), seed=5), expected)


def test_an_object_is_copied_as_it_is_and_left_alone() -> None:
    import lineworld

    original = lineworld.Line()
    original.pay = 5.0
    env = vt.Gymnasium(original, lanes=2)
    assert played(env).max() == 5.0
    assert not hasattr(original, "at")
    assert env.sharing(4).lanes == 4
    original.handle = (n for n in range(3))  # cannot be copied, as simulators of C often cannot
    with pytest.raises(vt.InputError, match="give its id or class, or a function"):
        vt.Gymnasium(original, lanes=2)
    with pytest.raises(vt.InputError, match="come too late"):
        vt.Gymnasium(lineworld.Line(), lanes=2, pay=2.0)


def test_wrappers_go_around_every_kind() -> None:
    import lineworld

    limit = "gymnasium.wrappers:TimeLimit(max_episode_steps=2)"
    for what in ("CartPole-v1", lineworld.Line, lineworld.Line()):
        lanes = 9  # from 8, CartPole's own vector environment would be taken
        env = vt.Gymnasium(what, lanes=lanes, wrappers=[limit])
        env.reset(0)
        ends = [env.step(torch.ones(lanes, dtype=torch.long)).truncated.all() for _ in range(2)]
        assert ends == [False, True]
    limited = vt.Gymnasium(lineworld.Line, lanes=1, max_episode_steps=1)
    limited.reset(0)
    assert limited.step(torch.tensor([1])).truncated.all()
    arms = [partial(RescaleAction, min_action=np.float32(-1), max_action=np.float32(1))]
    assert vt.Gymnasium("Pendulum-v1", lanes=2, wrappers=arms).actions.high == 1.0  # type: ignore[attr-defined]
    assert vt.Gymnasium("Blackjack-v1", lanes=2, wrappers=[FlattenObservation]).lanes == 2
    for wrong, why in (
        ("gymnasium.wrappers:NoSuch", "no gymnasium.Wrapper called 'NoSuch'"),
        ("os:system", "no gymnasium.Wrapper called 'system'"),
        ("gymnasium.wrappers:TimeLimit(max_episode_steps=os.getpid())", "setting=value"),
        ("no_such_module:Wrapper", "can be imported from here"),
    ):
        with pytest.raises(vt.InputError, match=why):
            vt.Gymnasium("CartPole-v1", lanes=1, wrappers=[wrong])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (3, "is no environment; give an id"),
        ("CartPole-v9", "out of date; this version of Gymnasium has CartPole-v1"),
        ("Taxi-v3", "Taxi-v3 is out of date; this version of Gymnasium has Taxi-v4"),
        ("LunarLander-v2", "has LunarLander-v3"),
        ("HalfCheetah-v2", "has HalfCheetah-v5"),
        ("CartPoll-v1", "did you mean CartPole-v1"),
        ("ALE/Pong-v5", "pip install ale-py, and write ale_py:ALE/Pong-v5"),
        ("MiniGrid-Empty-8x8-v0", "pip install minigrid"),
        ("lineworld:Lime", "did you mean Line"),
        ("lineworld:RegisteredLine-v7", "has RegisteredLine-v0"),
        ("lineworld:nonsense", "3 is no environment"),
        ("no_such_module:Thing", "can be imported from here"),
        ("no_such_file.py:Thing", "there is no file"),
        (lambda: 3, "gave 3, which is no gymnasium.Env"),
        (vt.Gymnasium, "gave|failed"),
    ],
    ids=lambda given: getattr(given, "__name__", str(given)),
)  # fmt: skip
def test_what_cannot_be_made_gets_one_line_with_the_remedy(given: Any, why: str) -> None:
    with pytest.raises(vt.InputError, match=why) as caught:
        vt.make(given, lanes=2)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(**settings: Any) -> gymnasium.Env:
        raise ModuleNotFoundError("No module named 'simulator'", name="simulator")

    monkeypatch.setitem(
        gymnasium.registry,
        "Lacks-v0",
        gymnasium.envs.registration.EnvSpec("Lacks-v0", entry_point=lacks),
    )
    with pytest.raises(vt.InputError, match="needs the package simulator"):
        vt.make("Lacks-v0", lanes=1)


def test_runs_on_environments_of_ones_own_load_again(tmp_path: Path) -> None:
    import lineworld

    for name, what in (("class", lineworld.Line), ("object", lineworld.Line())):
        vt.train(what, "reinforce", updates=1, lanes=2, progress=False, out=tmp_path / name)
    env, policy, _ = vt.load(tmp_path / "class", trust=True)
    assert env.name == "lineworld:Line"
    assert policy.act(np.zeros(1)) in (0, 1)
    with pytest.raises(vt.InputError, match=r"vantage.load\(path, env=...\)"):
        vt.load(tmp_path / "object")
    env, policy, _ = vt.load(tmp_path / "object", env=lineworld.Line)
    assert env.lanes == 2
    wrapped = vt.Gymnasium("CartPole-v1", lanes=2, wrappers=[lambda env: env])
    assert making.describe(wrapped)["given"]
    json.dumps(making.describe(wrapped))
    named = making.describe(vt.Gymnasium("CartPole-v1", lanes=2, wrappers=[FlattenObservation]))
    assert remaking.remade(named, trust=True).observations == wrapped.observations


def test_a_run_folder_imports_nothing(tmp_path: Path) -> None:
    """The name in a file from a stranger is not a reason to run code."""
    (tmp_path / "stranger.py").write_text("raise AssertionError('this was run')")
    for name in ("stranger:Env", str(tmp_path / "stranger.py") + ":Env"):
        with pytest.raises(vt.InputError, match=r"config\.json would import"):
            remaking.remade({"name": name, "lanes": 1})
    assert "stranger" not in sys.modules


def test_single_lanes_are_those_of_gymnasium_alone() -> None:
    env = vt.make(gymnasium.make("FrozenLake-v1", is_slippery=False), lanes=2)
    assert env.name == "FrozenLake-v1"
    assert isinstance(env.observations, spaces.Discrete)
    lane = sources.lane(sources.source("FrozenLake-v1"), {"is_slippery": False})
    assert lane.spec is not None
    assert lane.spec.kwargs["is_slippery"] is False


def test_the_command_line_takes_environments_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def vantage(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vantage", *arguments])
        main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a command adds the folder that it is given in
    (tmp_path / "hereworld.py").write_text(FILE.replace("RegisteredLine", "HereLine"))
    sizes = ("--lanes", "2", "--updates", "1", "--batch", "2", "--hidden", "4")
    limit = ("--env-set", "pay=2.5", "max_episode_steps=3")
    out = vantage("train", "hereworld:Line", *sizes, *limit)
    assert "runs/hereworld-Line-reinforce_baseline-0" in out
    run = "runs/hereworld-Line-reinforce_baseline-0"
    settings = json.loads((tmp_path / run / "config.json").read_text())["environment"]
    assert (settings["pay"], settings["max_episode_steps"]) == (2.5, 3)
    assert "mean return" in vantage("evaluate", run, "hereworld:Line", "--episodes", "4")
    audit = ("--trajectories", "16", "--batch", "4", "--estimators", "reinforce", "--lanes", "4")
    assert "reinforce" in vantage("audit", "hereworld:Line", "--policy", run, *audit)
    assert "reinforce" in vantage("audit", "hereworld.py:Line", *audit, *limit)
    vantage("train", "CartPole-v1", *sizes, "--env-set",
            "wrappers=gymnasium.wrappers:TimeLimit(max_episode_steps=3)")  # fmt: skip
    text = (tmp_path / "runs/CartPole-v1-reinforce_baseline-0/metrics.jsonl").read_text()
    assert json.loads(text)["length"] == 3
    again, _, _ = vt.load("runs/CartPole-v1-reinforce_baseline-0", trust=True)
    assert again.settings["wrappers"] == "gymnasium.wrappers:TimeLimit(max_episode_steps=3)"
