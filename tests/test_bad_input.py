"""Every bad input that once went wrong: each is refused in one `InputError`, before any work."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import vantage as vt

HUGE = 1 << 70
BAD_NAMES = [
    "a/b/c", "tensor/LQR", "tensor/", "tensor/cartpole-v1", "FrozenLake-v0", "CartPole-v99",
    "Humanoid-v3", "nowhere:Env", "no_module.sub:Env", "../x.py:Env", ":", "a:", "a:b:c", "", "/",
    "envpool/Nope-v1", "envpool/", "phys2d/CartPole-v1", "ALE/Pong-v5", "x\0y",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_no_environment_are_refused(name: str) -> None:
    with pytest.raises(vt.InputError):
        vt.make(name, lanes=2)


def test_what_an_environment_needs_is_said() -> None:
    with pytest.raises(vt.InputError, match=r"tensor/LQR cannot be made: .*'problem'"):
        vt.make("tensor/LQR", lanes=2)
    with pytest.raises(vt.InputError, match=r"it takes device, dtype\."):
        vt.make("tensor/CartPole-v1", lanes=2, slippery=False)


@pytest.mark.parametrize("lanes", [0, -1, True, HUGE, 10**12])
@pytest.mark.parametrize("name", ["CartPole-v1", "FrozenLake-v1", "tensor/CartPole-v1"])
def test_lanes_without_sense_are_refused_at_once(name: str, lanes: Any) -> None:
    begun = time.perf_counter()
    by = "make: " if lanes is True else rf"{name}\("
    with pytest.raises(vt.InputError, match=f"{by}lanes="):
        vt.make(name, lanes=lanes)
    assert time.perf_counter() - begun < 5


BAD_SETTINGS: list[dict[str, Any]] = [
    *({name: HUGE} for name in ("steps", "updates", "fragment", "seed", "batch", "signal_every")),
    *({name: True} for name in ("updates", "steps", "lr")),
    *({name: float("nan")} for name in ("lr", "target_snr", "checkpoint_seconds")),
    *({name: -1} for name in ("updates", "seed", "lr", "keep_last", "checkpoint_seconds")),
    {"lr": float("inf")}, {"threads": 1 << 40}, {"group_size": HUGE}, {"evaluate_every": HUGE},
    {"fragment": 4, "delay": HUGE}, {"fragment": 4, "restart": HUGE}, {"lanes": HUGE},
]  # fmt: skip
OF_ANOTHER_TYPE: list[dict[str, Any]] = [
    *({name: "3"} for name in ("updates", "lr", "seed", "evaluate_every", "checkpoint_seconds")),
    *({name: 1.5} for name in ("updates", "seed", "batch", "keep_last", "threads", "lanes")),
    {"lanes": "2"}, {"updates": 1e400}, {"seed": None}, {"lr": []},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_numbers_that_training_cannot_use_are_refused_before_a_folder_is_made(
    bad: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"updates": 1, "lanes": 2, "progress": False, "out": tmp_path / "run"}
    settings |= {} if "fragment" in bad else {"batch": 2}
    with pytest.raises(vt.InputError, match=list(bad)[-1]):
        vt.train("tensor/CartPole-v1", "reinforce", **settings | bad)
    assert not (tmp_path / "run").exists()


def test_what_is_no_number_is_refused_too(tmp_path: Path) -> None:
    """In a process of its own: the tests' checker of types would refuse it first."""
    script = f"""
import sys
import vantage as vt
for bad in {OF_ANOTHER_TYPE!r}:
    try:
        vt.train('tensor/CartPole-v1', 'reinforce',
                 **dict(updates=1, lanes=2, batch=2, progress=False, out='run') | bad)
        sys.exit(f'{{bad}} was accepted')
    except vt.InputError as error:
        assert list(bad)[0] in str(error), error
"""
    script = script.replace(": inf", ": 1e400")  # as it is written in Python
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_memory_on_few_lanes_ends_or_is_refused() -> None:
    """Rows of a recurrent policy are whole lanes: more minibatches than these cannot be."""
    env = vt.make("FrozenLake-v1", lanes=2)
    policy, value = env.policy(recurrent=4), env.value(recurrent=4)
    with pytest.raises(vt.InputError, match="use fewer minibatches, or more lanes"):
        vt.train(env, policy, "ppo", value=value, fragment=16, updates=1, progress=False)
    run = vt.train(
        env, policy, "ppo", value=value, fragment=16, minibatches=2, updates=1, progress=False
    )
    assert run.history[0]["steps"] >= 32
