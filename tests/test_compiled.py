"""compile=True: the numbers of compile=False to rounding, and to the bit where it cannot be had.

What is compiled is compiled in processes of their own: the run-time type checks of the tests are no
part of it.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vantage as vt
from vantage.environments import compiled
from vantage.environments.compiled import Compilation, cache_folder
from vantage.environments.lanes_at_once import refuse_unless_compilable

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
needs_a_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"no C++ compiler {COMPILER} here"
)

PRELUDE = """
import sys
from pathlib import Path

import torch
import vantage as vt

TIMES = ("step_time", "steps_per_second", "seconds")
out = Path(sys.argv[1])


def trained(compile, name="tensor/CartPole-v1", updates=4, algorithm=None, **settings):
    algorithm = algorithm or vt.algorithms.ppo(fragment=10, epochs=2, minibatches=2, lr=1e-3)
    return vt.train(name, algorithm, lanes=8, updates=updates, compile=compile, progress=False,
                    **settings)


def rows(run):
    return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in run.history]


def bits(run):
    return rows(run), [p.tolist() for p in run.policy.parameters()]


def alike(one, other):
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        for name, number in mine.items():
            if isinstance(number, (int, float)):
                near = 1e-4 + 1e-3 * abs(number)
                assert abs(number - theirs[name]) < near, (name, number, theirs[name])
    for mine, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
"""

TRAINED = (
    PRELUDE
    + """
import threading

from torch._dynamo.utils import counters

torch.set_num_threads(1)
plain, fast = trained(False), trained(True, out=out / "whole")
alike(plain, fast)
assert bits(plain) != bits(fast), "nothing was compiled"
assert fast.config["compile"] and not plain.config["compile"]
assert fast.env._compiled is None  # as it was

trained(True, updates=2, out=out / "resumed")
resumed = trained(True, out=out / "resumed", resume=True)
assert bits(resumed) == bits(fast), "a resumed run is the run that was interrupted"
try:
    trained(False, updates=5, out=out / "resumed", resume=True)
except vt.InputError as error:
    assert "compile=True, not False" in str(error)
else:
    raise AssertionError("resumed without")
assert counters["stats"]["unique_graphs"] == 1, counters["stats"]

once = vt.algorithms.ppo(fragment=10, epochs=1, minibatches=1, epsilon=1e-12)
(row,) = trained(True, updates=1, algorithm=once).history
assert row["clip_fraction"] == 0 and row["largest_log_prob_change"] == 0
assert counters["stats"]["unique_graphs"] == 1, counters["stats"]

episodes = vt.estimators.reinforce()
mdp = vt.MDP.garnet(5, 2, 3, seed=0, termination=0.3, horizon=4)
tables = [trained(c, mdp, updates=2, algorithm=episodes, batch=8) for c in (False, True)]
alike(*tables)
assert counters["stats"]["unique_graphs"] == 2, counters["stats"]

assert torch.get_num_threads() == 1
# torch asks tqdm for a bar, whose one idle thread ends with the process
threads = {each.name for each in threading.enumerate()} - {"MainThread", "tqdm_monitor"}
assert not threads, threads
children = [each.read_text() for each in Path("/proc/self/task").glob("*/children")]
assert not "".join(children), children
"""
)

WITHOUT = (
    PRELUDE
    + """
torch.set_num_threads(1)
assert bits(trained(False)) == bits(trained(True))
groups = vt.estimators.grpo()
mdp = vt.MDP.garnet(5, 2, 3, seed=0, termination=0.3, horizon=4)
few = dict(updates=2, algorithm=groups, batch=8, group_size=4)
assert bits(trained(False, mdp, **few)) == bits(trained(True, mdp, **few))
"""
)

EVERY = """
import sys

import torch
from torch._dynamo.utils import counters

import vantage as vt
from vantage.environments import LQR, TENSOR, Tabular
from vantage.environments.compiled import Compilation
from vantage.environments.fragments import Fragments
from vantage.gradients.mlp_passes import fastest

torch.set_num_threads(1)
LANES, STEPS = 8, 40


def made(name):
    if name == "tensor/LQR":
        one, half = torch.ones(1, 1), torch.full((1,), 0.5)
        return LQR(vt.exact.LQR(one, one / 2, one, one, half, half, half, horizon=3), LANES)
    if name == "tabular":
        return Tabular(vt.MDP.garnet(5, 2, 3, seed=0, termination=0.2, horizon=7), LANES)
    return TENSOR[name](lanes=LANES)


def collected(name, compilation):
    env = made(name)
    fragments = Fragments(env, fastest(env.policy(), env.value()), compilation, STEPS)
    fragments.restart(0)
    batch, finished = fragments.collect(STEPS, 1)
    return batch.tensors() | {"returns": finished.returns, "lengths": finished.lengths}


before = 0
for name in sys.argv[2:]:
    compilation = Compilation(name)
    plain, fast = collected(name, None), collected(name, compilation)
    assert compilation.works
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == before + 1, (name, graphs)
    before = graphs
    for field, tensor in plain.items():
        torch.testing.assert_close(fast[field], tensor, rtol=2e-4, atol=2e-5, msg=field)
    print(name, len(plain["returns"]))
"""


def done(program: str, folder: Path, *names: str, **settings: str) -> subprocess.CompletedProcess:
    """A process with a cache of its own."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder), *names],
        capture_output=True, text=True, check=False, env=os.environ | cache | settings,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended


@needs_a_compiler
def test_compiled_training_is_the_same_to_rounding(tmp_path: Path) -> None:
    """Fragments and episodes; resumed to the bit; nothing of the compiler stays behind."""
    done(TRAINED, tmp_path)


def test_without_a_compiler_numbers_are_those_of_compile_false(tmp_path: Path) -> None:
    said = done(WITHOUT, tmp_path, CXX="/nonexistent").stderr
    assert said.count("cannot be compiled") == 2  # a line for each of two runs
    assert "Steps of tensor/CartPole-v1 cannot be compiled" in said
    assert len(said.strip().splitlines()) == 2, said


@needs_a_compiler
@pytest.mark.long
def test_every_environment_steps_alike(tmp_path: Path) -> None:
    names = [name for name in vt.environments.TENSOR if name != "tensor/LQR"]
    ends = done(EVERY, tmp_path, *names, "tensor/LQR", "tabular").stdout.splitlines()
    assert [line.split()[0] for line in ends] == [*names, "tensor/LQR", "tabular"]
    assert sum(int(line.split()[1]) > 0 for line in ends) >= 3


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(vt.InputError, match=r"compile=True.*CartPole-v1.*or train on tensor/Cart"):
        vt.train("CartPole-v1", "ppo", updates=1, compile=True)
    with pytest.raises(vt.InputError, match=r"FrozenLake-v1 are not tensor code.*leave compile"):
        vt.compare("FrozenLake-v1", ["ppo"], 2, steps=1, out="nowhere", compile=True)
    assert not Path("nowhere").exists()

    class Aside(vt.CartPole):
        def step(self, action: torch.Tensor) -> Any:
            return super().step(1 - action)

    with pytest.raises(vt.InputError, match="not tensor code"):
        refuse_unless_compilable(vt.Normalized(Aside(lanes=2)))
    refuse_unless_compilable(vt.Normalized(vt.CartPole(lanes=2)))
    away = vt.CartPole(lanes=2)
    away.device = torch.device("meta")
    with pytest.raises(vt.InputError, match=r"is on meta.*CUDA graphs.*leave compile"):
        refuse_unless_compilable(away)
    with pytest.raises(vt.InputError, match=r"compile=True, batch='auto'.*give batch= a number"):
        vt.train("tensor/CartPole-v1", vt.estimators.grpo(), batch="auto", updates=1, compile=True)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    def trained(updates: int, **settings: Any) -> vt.Run:
        return vt.train(
            "tensor/CartPole-v1", vt.algorithms.ppo(fragment=4, minibatches=2), lanes=2,
            updates=updates, out=tmp_path / "run", progress=False, **settings,
        )  # fmt: skip

    trained(1)
    file = tmp_path / "run" / "config.json"
    file.write_text(file.read_text().replace('  "compile": false,\n', ""))
    assert "compile" not in file.read_text()
    with pytest.raises(vt.InputError, match="was started with compile=False, not True"):
        trained(2, resume=True, compile=True)
    assert len(trained(2, resume=True).history) == 2


def test_the_cache_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.CACHE, raising=False)
    folder = cache_folder()
    assert folder == tmp_path / "vantage" / "compiled"
    assert not folder.stat().st_mode & 0o077
    # what torch enters for itself, among temporary files, is nobody's choice
    torchs = tmp_path / "torchinductor_me"
    monkeypatch.setattr(compiled, "_folder_of_torch", lambda: torchs)
    monkeypatch.setenv(compiled.CACHE, str(torchs))
    assert cache_folder() == folder
    assert compiled._options()["cpp_cache_precompile_headers"]
    torchs.chmod(0o770)
    assert not compiled._options()["cpp_cache_precompile_headers"]
    torchs.rmdir()
    torchs.symlink_to(folder)
    assert compiled._options()["cpp_cache_precompile_headers"]
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert not compiled._options()["cpp_cache_precompile_headers"]
    monkeypatch.setattr(os, "getuid", lambda: me)
    monkeypatch.setenv(compiled.CACHE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    (tmp_path / "mine").chmod(0o777)
    with pytest.raises(vt.InputError, match=r"mine belongs to somebody else, or others may write"):
        cache_folder()


def failing(error: Exception, *, stopped: bool = False) -> Any:
    """torch.compile whose compiler fails; `stopped`: as Ctrl-C reaches it."""
    calls: list[object] = []

    def compiling(function: Any, **settings: Any) -> Any:
        def call(*inputs: Any) -> Any:
            calls.append(function)
            if stopped:
                os.kill(os.getpid(), signal.SIGINT)
            raise error

        return call

    compiling.__dict__["calls"] = calls
    return compiling


def test_a_failure_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(compiled.CACHE, str(tmp_path / "cache"))
    fails = failing(RuntimeError("no vector units\nSet TORCHDYNAMO_VERBOSE=1"))
    monkeypatch.setattr(torch, "compile", fails)
    compilation = Compilation("tensor/Sea")
    assert compilation(torch.sin, torch.ones(2)) is None
    assert compilation(torch.cos, torch.ones(2)) is None
    assert not compilation.works
    assert fails.calls == [torch.sin]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Steps of tensor/Sea cannot be compiled: no vector units. The run goes on" in said


def test_ctrl_c_while_the_compiler_runs_is_no_failure_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal stops the compiler, too, and a run that then goes on without would differ."""
    monkeypatch.setenv(compiled.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", failing(RuntimeError("killed"), stopped=True))
    given: dict[str, Any] = {"lanes": 2, "fragment": 4, "out": tmp_path / "run", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        vt.train("tensor/CartPole-v1", "ppo", updates=1, compile=True, **given)
    assert "cannot be compiled" not in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").exists()
