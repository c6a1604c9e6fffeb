"""What goes wrong in a run's surroundings: saved first, named, and never saved where it is NaN."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sick import Healthy

import vantage as vt
from vantage import language
from vantage.comparing import workers
from vantage.language.model import tiny
from vantage.language.tasks.rewards import RewardError
from vantage.runs import checkpoint
from vantage.runs.limits import Overdue, time_limit


def train(folder: Path, updates: int = 3, **settings: Any) -> vt.Run:
    return vt.train(
        "tensor/CartPole-v1", "reinforce", lanes=2, batch=2, updates=updates, out=folder,
        progress=False, **settings,
    )  # fmt: skip


def spoil(state: Any, row: dict[str, Any]) -> None:
    if row["update"] == 2:
        with torch.no_grad():
            next(state.policy.parameters()).view(-1)[0] = torch.nan


def test_a_checkpoint_never_holds_a_nan(tmp_path: Path) -> None:
    """The one before stays, and the run goes on from there."""
    folder = tmp_path / "run"
    with pytest.raises(vt.InputError, match=r"of the policy is not finite after update 2: it is"):
        train(folder, callbacks=[spoil], checkpoint_seconds=0)
    held = load_file(folder / "checkpoint" / "policy.safetensors")
    assert all(tensor.isfinite().all() for tensor in held.values())
    resumed = train(folder, resume=True)
    plain = train(tmp_path / "plain")
    assert len(resumed.history) == 3
    for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_saved_does_not_hide_what_went_wrong_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, just as a callback fails."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def fail(state: Any, row: dict[str, Any]) -> None:
        monkeypatch.setattr(checkpoint, "save", full)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as raised:
        train(tmp_path / "run", callbacks=[fail])
    notes = " ".join(raised.value.__notes__)
    assert "callback fail of update 1" in notes
    assert "No space left on device" in notes


def test_a_run_on_a_full_disk_goes_on_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file of a checkpoint finds no room, the one before stays."""
    plain = train(tmp_path / "plain")
    for number in range(3):
        folder = tmp_path / str(number)
        train(folder, updates=1)
        written, save_file = 0, checkpoint.save_file

        def filling(*arguments: Any, number: int = number, save_file: Any = save_file) -> None:
            nonlocal written
            written += 1
            if written > number:
                raise OSError(28, "No space left on device")
            save_file(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", filling)
            with pytest.raises(OSError, match="No space left"):
                train(folder, resume=True, checkpoint_seconds=0)
        resumed = train(folder, resume=True)
        for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
            assert torch.equal(one, other)


class Broken(Healthy):
    """Raises, hangs or dies in one step, counted over all lanes of the process."""

    def __init__(self, how: str, at: int = 200) -> None:
        self.how, self.at, self.count = how, at, 0

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count == self.at:
            if self.how == "hang":
                time.sleep(60)
            if self.how == "hang and swallow":
                while True:
                    try:
                        time.sleep(60)
                    except Exception:
                        continue
            if self.how == "die":
                os._exit(7)
            raise RuntimeError("the simulator lost its licence")
        return super().step(action)


def broken(how: str, mode: str = "sync", lanes: int = 2) -> Any:
    return vt.Gymnasium(Broken, lanes=lanes, how=how, vectorization_mode=mode)


@pytest.mark.parametrize("fragment", [None, 16])
@pytest.mark.parametrize("how", ["hang", "hang and swallow"])
def test_an_environment_that_hangs_is_stopped_saved_and_named(
    tmp_path: Path, how: str, fragment: int | None
) -> None:
    size = {"batch": 8} if fragment is None else {"fragment": fragment}
    estimator = "reinforce" if fragment is None else "a2c"
    with pytest.raises(vt.InputError, match=r"not returned from step after 0.3 s") as raised:
        vt.train(
            broken(how), estimator, updates=200, out=tmp_path / "run", progress=False,
            environment_timeout=0.3, **size,
        )  # fmt: skip
    assert "This was in lane" in str(raised.value)
    assert "while the batch of update" in raised.value.__notes__[0]
    assert "seed 0" in raised.value.__notes__[0]
    history = vt.read_run(tmp_path / "run").history
    assert history
    assert history[-1]["update"] == vt.read_run(tmp_path / "run").history[-1]["update"]
    assert (tmp_path / "run" / "checkpoint" / "policy.safetensors").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("hang", r"after 3 s .*No answer from lanes? [01]"),
        ("die", r"lane [01] with exit code 7"),
    ],
)
def test_a_process_of_an_environment_that_hangs_or_dies_is_named(
    tmp_path: Path, how: str, message: str
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(vt.InputError, match=message):
        vt.train(
            broken(how, "async"), "reinforce", batch=8, updates=200, out=folder, progress=False,
            environment_timeout=3,
        )  # fmt: skip
    assert (folder / "checkpoint" / "policy.safetensors").exists()


def test_a_limit_that_is_kept_changes_nothing(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    held = train(tmp_path / "held", environment_timeout=30, skip_non_finite=True)
    for one, other in zip(held.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_limit_holds_again_and_again_and_ends_with_its_block() -> None:
    with time_limit(0.05) as limit:
        for _ in range(3):
            with pytest.raises(Overdue), limit:  # type: ignore[union-attr]
                time.sleep(10)
        with limit:  # type: ignore[union-attr]
            pass
        time.sleep(0.2)  # outside of a block


# ---- rewards -----------------------------------------------------------------------------------


def task(reward: Any, **settings: Any) -> language.Task:
    rows = [{"prompt": f"{number}+1="} for number in range(4)]
    return language.Task(rows, reward, num_generations=2, held_out=0.0, **settings)


def learn(folder: Path, reward: Any, updates: int = 3, **settings: Any) -> vt.Run:
    own = {"reward_timeout": settings.pop("reward_timeout", 600.0)}
    policy = tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2)
    return language.train(
        task(reward, **own), policy, vt.estimators.rloo(), batch=4, updates=updates, out=folder,
        progress=False, **settings,
    )  # fmt: skip


def slow(prompts: list[Any], completions: list[Any]) -> list[float]:
    if any(prompt == "2+1=" for prompt in prompts):
        time.sleep(60)
    return [float(len(text)) for text in completions]


async def slow_judge(prompts: list[Any], completions: list[Any]) -> list[float]:
    import asyncio

    if any(prompt == "2+1=" for prompt in prompts):
        await asyncio.sleep(60)
    return [float(len(text)) for text in completions]


def swallowing(prompts: list[Any], completions: list[Any]) -> list[float]:
    try:
        return slow(prompts, completions)
    except Exception:
        return [0.0] * len(completions)


@pytest.mark.parametrize("reward", [slow, slow_judge, swallowing])
def test_a_reward_that_hangs_is_stopped_saved_and_named(tmp_path: Path, reward: Any) -> None:
    with pytest.raises(RewardError, match=r"had not returned after 0.3 s") as raised:
        learn(tmp_path / "run", reward, updates=9, reward_timeout=0.3)
    assert f"Reward {reward.__name__!r}" in str(raised.value)
    assert "that of row 2" in str(raised.value)
    assert "is saved" in raised.value.__notes__[0]
    assert (tmp_path / "run" / "checkpoint" / "policy.safetensors").exists()


def test_rewards_have_a_limit_unless_told_otherwise() -> None:
    assert task(slow).reward_timeout == 600
    assert task(slow, reward_timeout=None).reward_timeout is None
    with pytest.raises(vt.InputError, match="reward_timeout=0"):
        task(slow, reward_timeout=0)


def lengths(completions: list[Any]) -> list[float]:
    return [float(len(text)) for text in completions]


def test_an_engine_that_fails_saves_first(tmp_path: Path) -> None:
    class Engine(language.Decoding):
        calls = 0

        def generate(self, *arguments: Any, **settings: Any) -> Any:
            Engine.calls += 1
            if Engine.calls == 3:
                raise RuntimeError("out of pages")
            return super().generate(*arguments, **settings)

    with pytest.raises(RuntimeError, match="out of pages") as raised:
        learn(tmp_path / "run", lengths, updates=5, engine=Engine())
    assert "batch of update" in raised.value.__notes__[0]
    resumed = learn(tmp_path / "run", lengths, updates=5, resume=True, engine=Engine())
    assert len(resumed.history) == 5


# ---- what is not finite ------------------------------------------------------------------------


class Spoiling:
    """An update rule whose gradient is infinite at one update."""

    def __init__(self, inner: Any, at: int) -> None:
        self.inner, self.at, self.count = inner, at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def update(self, passes: Any, *arguments: Any, **settings: Any) -> Any:
        self.count += 1
        metrics = self.inner.update(passes, *arguments, **settings)
        if self.count == self.at:
            with torch.no_grad():
                next(passes.policy.parameters()).fill_(torch.inf)
        return metrics


@pytest.mark.parametrize("algorithm", ["reinforce_baseline", "ppo"])
def test_updates_that_are_not_finite_are_undone_and_counted(tmp_path: Path, algorithm: str) -> None:
    """Without being told to go on, the run stops there."""
    from vantage.training.updates import Ascent, Epochs

    def run(at: int, **settings: Any) -> vt.Run:
        rule = Ascent() if algorithm == "reinforce_baseline" else Epochs(minibatches=2)
        size = {"batch": 4} if algorithm == "reinforce_baseline" else {"fragment": 8}
        env = vt.CartPole(lanes=2)
        row = vt.estimators.named("ppo" if "fragment" in size else algorithm)
        return vt.train(
            env, env.policy(seed=1), row, value=env.value(seed=2), update=Spoiling(rule, at),
            updates=4, progress=False, checkpoint_seconds=0, **size, **settings,
        )  # fmt: skip

    with pytest.raises(vt.NonFiniteError, match=r"not finite after update 2"):
        run(2, out=tmp_path / "stopped")
    skipping = run(2, out=tmp_path / "run", skip_non_finite=True)
    assert [row["non_finite_updates"] for row in skipping.history] == [0, 1, 1, 1]
    assert "grad_norm" not in skipping.history[1]
    assert "return" in skipping.history[1]
    held = load_file(tmp_path / "run" / "checkpoint" / "policy.safetensors")
    assert all(tensor.isfinite().all() for tensor in held.values())


def test_a_run_that_meets_nothing_finite_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty in a row are not skipped for ever."""
    from vantage.training import control

    def infinite(*arguments: Any, **settings: Any) -> Any:
        gradient, signal = gradient_and_signal(*arguments, **settings)
        return gradient * torch.inf, signal

    gradient_and_signal = control.gradient_and_signal
    monkeypatch.setattr(control, "gradient_and_signal", infinite)
    with pytest.raises(vt.NonFiniteError, match="20 updates in a row"):
        vt.train(
            "tensor/CartPole-v1", "reinforce", lanes=2, batch=2, updates=60, progress=False,
            skip_non_finite=True,
        )  # fmt: skip


def test_a_language_model_skips_what_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vantage.language.training import ascent

    calls = 0

    def infinite(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        return clip(*arguments) * (float("nan") if calls == 2 else 1.0)

    clip = ascent.clip
    monkeypatch.setattr(ascent, "clip", infinite)
    run = learn(tmp_path / "run", lengths, updates=3, skip_non_finite=True)
    counts = [row["non_finite_updates"] for row in run.history if "non_finite_updates" in row]
    assert counts[-1] == 1
    calls = 0
    with pytest.raises(vt.NonFiniteError, match="gradient is not finite"):
        learn(tmp_path / "other", lengths, updates=3)


# ---- trackers, folders, checkpoints ------------------------------------------------------------


def test_a_tracker_that_cannot_close_hides_nothing(tmp_path: Path) -> None:
    class Tracker:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def log(self, row: dict[str, Any], step: int) -> None:
            if self.fails and row["update"] == 2:
                raise ValueError("of its own")

        def close(self) -> None:
            raise OSError("of its close")

    with pytest.raises(ValueError, match="of its own") as raised:
        train(tmp_path / "one", track=[Tracker(True)])
    notes = " ".join(raised.value.__notes__)
    assert "Tracker.log of update 2" in notes
    assert "of its close" in notes
    with pytest.raises(OSError, match="of its close") as late:
        train(tmp_path / "two", track=[Tracker(False)])
    assert "Tracker.close" in late.value.__notes__[0]
    assert len(train(tmp_path / "two", updates=4, resume=True).history) == 4


def test_an_update_rule_that_fails_is_named(tmp_path: Path) -> None:
    class Failing(Spoiling):
        def update(self, *arguments: Any, **settings: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise ZeroDivisionError("mine")
            return self.inner.update(*arguments, **settings)

    from vantage.training.updates import Ascent

    with pytest.raises(ZeroDivisionError) as raised:
        train(tmp_path / "run", update=Failing(Ascent(), 3), updates=5, checkpoint_seconds=0)
    assert "update 3 was learned from" in raised.value.__notes__[0]
    mended = Failing(Ascent(), 0)
    assert len(train(tmp_path / "run", updates=5, resume=True, update=mended).history) == 5


def test_a_folder_is_moved_between_stop_and_resume(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    train(tmp_path / "here", updates=2)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "elsewhere" / "there")
    resumed = train(tmp_path / "elsewhere" / "there", resume=True)
    for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("file", ["policy.safetensors", "position.json", "checksums.json"])
@pytest.mark.parametrize("damage", ["lost", "changed", "whole"])
def test_where_a_checkpoint_is_damaged_the_one_before_is_used_and_that_is_said(
    tmp_path: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the bits of the run that was never stopped."""
    folder = tmp_path / "run"
    plain = train(tmp_path / "plain", updates=5)
    train(folder, updates=4, checkpoint_seconds=0)
    latest = folder / "checkpoint"
    if damage == "whole":
        shutil.rmtree(latest)
    elif damage == "lost":
        (latest / file).unlink()
    else:
        content = bytearray((latest / file).read_bytes())
        content[len(content) // 2] ^= 1
        (latest / file).write_bytes(content)
    resumed = train(folder, updates=5, resume=True)
    said = capsys.readouterr().err.replace("\n", " ")
    assert str(latest) in said  # or a file of it: which one, checksums say
    assert damage != "lost" or str(latest / file) in said
    assert "the run goes on from" in said
    assert [row["update"] for row in resumed.history] == [1, 2, 3, 4, 5]
    for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def unwritable(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(Path, "mkdir", unwritable)
    with pytest.raises(vt.InputError, match="Cannot write to"):
        train(tmp_path / "run", callbacks=[lambda state, row: collected.append(1)])
    assert not collected


def test_metrics_that_find_no_room_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was cut off by a full disk is not there after a resume, nor is one twice."""
    from vantage.training import keeping

    plain = train(tmp_path / "plain", updates=5)
    append, calls = keeping.append_metrics, 0

    def filling(folder: Path, row: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write('{"update": 3, "ret')
            raise OSError(28, "No space left on device")
        append(folder, row)

    folder = tmp_path / "run"
    monkeypatch.setattr(keeping, "append_metrics", filling)
    with pytest.raises(OSError, match="No space left"):
        train(folder, updates=5, checkpoint_seconds=0)
    monkeypatch.setattr(keeping, "append_metrics", append)
    resumed = train(folder, updates=5, resume=True)
    assert [row["update"] for row in vt.read_run(folder).history] == [1, 2, 3, 4, 5]
    for one, other in zip(resumed.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


# ---- workers of a comparison -------------------------------------------------------------------


def job(number: int) -> int:
    return number


def test_workers_that_are_killed_as_they_start_are_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, start = 0, workers._start

    def doomed(function: Any) -> Any:
        nonlocal started
        started += 1
        worker = start(function)
        if started <= kills:
            worker.process.kill()
            worker.process.join()
        return worker

    monkeypatch.setattr(workers, "_start", doomed)
    kills = 2
    outcomes = workers.run_all(job, [1, 2], 1, lambda now, done: None)
    assert [outcome.result for outcome in outcomes] == [1, 2]
    started, kills = 0, 99
    with pytest.raises(vt.InputError, match=r"3 workers in a row died.*killed by signal 9"):
        workers.run_all(job, [1], 1, lambda now, done: None)
    assert started == 3
