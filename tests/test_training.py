"""Training: ascent, resuming after a kill, run folders, refusals, evaluation."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from console import code_of
from gymnasium.vector import SyncVectorEnv
from lanes import Broken, OneStep
from safetensors.torch import load_file
from scipy import stats
from torch import nn

import vantage as vt
from vantage.environments.rollout import episodes
from vantage.runs.run import open_run, read_config, read_run
from vantage.runs.seeds import seed_of
from vantage.training.ascent import ascend
from vantage.training.value import fit_value

TIMING = {"step_time", "steps_per_second"}


def short_run(out: Path | None, **settings: Any) -> vt.Run:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    arguments: dict[str, Any] = {
        "value": env.value(hidden=(8,)),
        "updates": 6,
        "batch": 8,
        "out": out,
        "progress": False,
        "update": vt.updates.Ascent(fit=vt.updates.Fit(epochs=1)),
    } | settings
    return vt.train(env, env.policy(hidden=(8,)), vt.estimators.reinforce_baseline(), **arguments)


def without_timing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted((folder / "checkpoint").glob("*.safetensors"))
    return {f"{f.stem}.{k}": t for f in files for k, t in load_file(f).items()}


def test_a_step_goes_uphill() -> None:
    """θ ← θ + α ĝ, equation [2], with plain SGD and whatever its sign convention."""
    policy = vt.SoftmaxTable(1, 2)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    norm = ascend(policy, torch.tensor([3.0, -4.0], dtype=torch.float64), optimizer)
    assert norm == 5.0
    torch.testing.assert_close(policy.logits.data, torch.tensor([[0.3, -0.4]]).double())
    ascend(policy, torch.tensor([3.0, -4.0], dtype=torch.float64), optimizer, max_grad_norm=1.0)
    torch.testing.assert_close(policy.logits.data, torch.tensor([[0.36, -0.48]]).double())


def test_it_learns() -> None:
    run = short_run(None, updates=15, batch=32, lr=3e-2)
    assert run.history[-1]["return"] > 2 * run.history[0]["return"]
    assert run.path is None


def test_the_run_folder_says_what_was_asked_and_what_happened(tmp_path: Path) -> None:
    run = short_run(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["environment"]["name"] == "CartPole-v1"
    assert config["estimator"]["baseline"] == "value"
    assert config["batch"] == 8
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert read_run(tmp_path / "run").history == run.history
    assert {"return", "entropy", "grad_norm", "snr", "noise_scale", "steps_per_second"} <= set(
        run.history[0]
    )


def test_same_seed_same_bits(tmp_path: Path) -> None:
    runs = [
        short_run(tmp_path / name, seed=seed) for name, seed in zip("abc", (0, 0, 1), strict=True)
    ]
    assert without_timing(runs[0].history) == without_timing(runs[1].history)
    assert without_timing(runs[0].history) != without_timing(runs[2].history)
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(one[name], two[name]) for name in one)


def words(out: Path, updates: int) -> list[str]:
    """The command of a run of so many updates."""
    return [
        *("train", "CartPole-v1", "--lanes", "4", "--batch", "8", "--hidden", "8"),
        *("--updates", str(updates), "--out", str(out)),
    ]


def start_and_stop(out: Path, number: signal.Signals) -> subprocess.Popen[str]:
    """Start a run that would not end, wait until it has made progress, and send it a signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vantage.commands.main", *words(out, updates=10**6)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = out / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 3:
            break
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Runs that nothing stopped, by their number of updates; each is made once."""

    @functools.cache
    def of(updates: int) -> Path:
        out = tmp_path_factory.mktemp("straight") / "run"
        with pytest.MonkeyPatch.context() as patch:
            assert code_of(patch, *words(out, updates)) == 0
        return out

    return of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_resumes_to_the_same_bits(
    number: signal.Signals,
    straight: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped and resumed by another process, a run ends as it would have ended."""
    stopped = tmp_path / "stopped"
    process = start_and_stop(stopped, number)
    assert process.returncode == (-number if number is signal.SIGKILL else 130)
    before = len((stopped / "metrics.jsonl").read_text().splitlines())
    assert before >= 3
    assert (stopped / "report.html").is_file() == (number is not signal.SIGKILL)
    updates = 12 * ((before + 4) // 12 + 1)  # lengths that cases can share
    assert code_of(monkeypatch, *words(stopped, updates), "--resume") == 0
    whole = straight(updates)
    assert without_timing(read_run(stopped).history) == without_timing(read_run(whole).history)
    one, two = weights(stopped), weights(whole)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_resumed_run_may_be_longer(tmp_path: Path) -> None:
    short_run(tmp_path / "a", updates=3)
    resumed = short_run(tmp_path / "a", updates=6, resume=True)
    assert without_timing(resumed.history) == without_timing(short_run(None).history)


def test_the_settings_on_record_are_those_that_hold_with_what_they_were(tmp_path: Path) -> None:
    short_run(tmp_path / "a", updates=3)
    first = json.loads((tmp_path / "a/config.json").read_text())
    short_run(tmp_path / "a", updates=3, resume=True)  # nothing changes
    assert json.loads((tmp_path / "a/config.json").read_text()) == first
    short_run(tmp_path / "a", updates=4, resume=True)
    short_run(tmp_path / "a", updates=6, keep_last=2, resume=True)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert (config["updates"], config["keep_last"]) == (6, 2)
    assert config["resumed"] == [
        {"updates": 3, "before": {"updates": 3}},
        {"updates": 4, "before": {"keep_last": first["keep_last"], "updates": 4}},
    ]
    assert {k: v for k, v in config.items() if k not in ("updates", "keep_last", "resumed")} == {
        k: v for k, v in first.items() if k not in ("updates", "keep_last")
    }


def test_refusals_come_before_work(tmp_path: Path) -> None:
    short_run(tmp_path / "run", updates=1)
    with pytest.raises(vt.InputError, match=r"already holds a run; choose another folder"):
        short_run(tmp_path / "run")
    with pytest.raises(vt.InputError, match=r"started with batch=8, not 16"):
        short_run(tmp_path / "run", batch=16, resume=True)
    with pytest.raises(vt.InputError, match=r"holds no run to resume"):
        short_run(tmp_path / "nothing", resume=True)
    with pytest.raises(vt.InputError, match=r"batch=0\): must be at least 1"):
        short_run(None, batch=0)
    with pytest.raises(vt.InputError, match=r"batch=-3\): must be at least 1"):
        short_run(None, batch=-3)
    with pytest.raises(vt.InputError, match="needs two trajectories"):
        short_run(None, batch=1)
    with pytest.raises(vt.InputError, match=r"give steps= .* or updates="):
        short_run(None, updates=None)
    with pytest.raises(vt.InputError, match=r"'reinforce_baseline' needs a value function"):
        short_run(None, value=None)


def test_a_fault_in_the_environment_loses_nothing(tmp_path: Path) -> None:
    """NaN in the second update: the first is in the folder, checkpointed.

    It comes later than the check before training looks.
    """

    class Failing(Broken):
        def step(self, action: Any) -> Any:
            self.fault = "reward" if self.served > 310 else ""
            self.served += 1
            return super().step(action)

    Failing.served = 0  # type: ignore[attr-defined]
    env = vt.Gymnasium(SyncVectorEnv([Failing]))
    policy = env.policy(hidden=(4,))
    with pytest.raises(vt.InputError, match="reward that is not finite"):
        vt.train(
            env, policy, vt.estimators.reinforce(), updates=5, batch=60, out=tmp_path / "run",
            progress=False,
        )  # fmt: skip
    assert len(read_run(tmp_path / "run").history) == 1
    saved = load_file(tmp_path / "run/checkpoint/policy.safetensors")
    assert all(torch.equal(saved[k], t) for k, t in policy.state_dict().items())


def test_every_update_draws_anew() -> None:
    """With a policy that hardly moves, updates see different episodes."""
    run = short_run(None, updates=4, optimizer=partial(torch.optim.SGD, lr=1e-12))
    assert len({entry["return"] for entry in run.history}) > 1
    assert (
        len(
            {
                seed_of(seed, update, use)
                for seed in range(4)
                for update in range(4)
                for use in (0, 1)
            }
        )
        == 32
    )


def test_the_fit_of_v_is_scored_before_it_is_made() -> None:
    """Error and explained variance are of the predictions the batch was weighed with."""
    env = vt.Gymnasium("CartPole-v1", lanes=4, max_episode_steps=8)
    value = env.value(hidden=(8,))
    batch = episodes(env, env.policy(hidden=(8,)), 8, seed=0, value=value)
    target = vt.returns.to_go(batch)[batch.mask]
    off = replace(batch, value=torch.where(batch.mask, vt.returns.to_go(batch) + 2.0, 0.0))
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-2)
    scored = fit_value(value, optimizer, off, 1, 64, torch.Generator().manual_seed(0))
    assert scored["value_loss"] == pytest.approx(4.0, rel=1e-4)
    assert scored["explained_variance"] == pytest.approx(1.0, abs=1e-4)
    before = float((target - value(batch.observation[batch.mask])).square().mean().detach())
    fit_value(value, optimizer, batch, 200, 64, torch.Generator().manual_seed(0))
    after = float((target - value(batch.observation[batch.mask])).square().mean().detach())
    assert after < before / 2


def test_any_torch_optimizer_will_do() -> None:
    run = short_run(None, updates=2, optimizer=partial(torch.optim.RMSprop, lr=1e-3))
    assert run.config["optimizer"]["class"] == "RMSprop"


def test_load_gives_back_the_policy_that_was_trained(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = env.policy(hidden=(8,))
    vt.train(
        env, policy, vt.estimators.reinforce(), updates=2, batch=4, out=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    again, loaded, value = vt.load(tmp_path / "run")
    assert (again.name, again.lanes, value) == ("CartPole-v1", 4, None)
    for name, tensor in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    one, two = (vt.evaluate(env, p, episodes=8, seed=3) for p in (policy, loaded))
    assert torch.equal(one.returns, two.returns)


def test_a_network_of_ones_own_is_loaded_by_its_owner(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = vt.Categorical(nn.Linear(4, 2))
    vt.train(
        env, policy, vt.estimators.reinforce(), updates=1, batch=4, out=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    with pytest.raises(vt.InputError, match=r"Categorical of your own.*policy.safetensors"):
        vt.load(tmp_path / "run")


def test_evaluation_interval_covers_the_mean() -> None:
    """Of 400 intervals for N(3, 2²) returns, Bin(400, 0.95) cover: error rate 0.001."""
    env = vt.Gymnasium(SyncVectorEnv([OneStep] * 10))
    policy = env.policy(hidden=())
    results = [vt.evaluate(env, policy, episodes=20, seed=seed) for seed in range(400)]
    covered = sum(r.low <= 3 <= r.high for r in results)
    low, high = stats.binom.ppf([0.0005, 0.9995], 400, 0.95)
    assert low <= covered <= high


def test_evaluation_needs_two_episodes() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    with pytest.raises(vt.InputError, match="at least two episodes"):
        vt.evaluate(env, env.policy(), episodes=1)


def test_settings_that_were_cut_off_leave_a_folder_that_can_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(tmp_path / "run", {"lr": 0.1}, resume=False)
    open_run(tmp_path / "run", {"lr": 0.2}, resume=False)
    assert read_config(tmp_path / "run") == {"lr": 0.2}
