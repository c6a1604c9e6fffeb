"""While it trains: evaluation, kept checkpoints, stopping, callbacks; none changes a bit."""

import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from lanes import OneStep
from safetensors.torch import load_file
from torch.nn.utils import parameters_to_vector

import vantage as vt
from vantage import language as vl
from vantage.commands.main import main
from vantage.runs import retained
from vantage.runs.lock import locked
from vantage.runs.run import read_metrics, read_run

TIMING = {"step_time", "steps_per_second", "tokens_per_second", "generation_time"}
Trained = tuple[vt.Run, Any]


def episodes(**settings: Any) -> Trained:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = env.policy(hidden=(8,))
    given = {"updates": 6, "batch": 8, "evaluation_episodes": 4, "progress": False} | settings
    return vt.train(env, policy, vt.estimators.reward_to_go(), **given), policy


def fragments(env: Any = None, **settings: Any) -> Trained:
    env = env or vt.Normalized(vt.Gymnasium("CartPole-v1", lanes=3))
    policy, value = env.policy(hidden=(8,)), env.value(hidden=(8,))
    given = {"updates": 6, "evaluation_episodes": 4, "progress": False, "restart": 40} | settings
    rule = vt.algorithms.impala(fragment=16, delay=2)
    return vt.train(env, policy, rule, value=value, **given), policy


def parity(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def language(reward: Callable[..., list[float]] = parity, **settings: Any) -> Trained:
    rows = [{"prompt": letter} for letter in "abcdefghijklmnop"]
    task = vl.Task(rows, reward, num_generations=2, held_out=0.25, name="letters")
    policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
    given = {"updates": 6, "batch": 8, "lr": 1e-2, "progress": False} | settings
    return vl.train(task, policy, vt.estimators.rloo(), **given), policy


ALL = pytest.mark.parametrize("train", [episodes, fragments, language])


def flat(policy: Any) -> torch.Tensor:
    return parameters_to_vector([p for p in policy.parameters() if p.requires_grad]).detach()


def plain(rows: list[dict[str, Any]], *without: str) -> list[dict[str, Any]]:
    drop = TIMING | set(without)
    return [{k: v for k, v in row.items() if k not in drop} for row in rows]


EVALUATION = ("eval/return", "eval/return_low", "eval/return_high")


@ALL
def test_nothing_beside_learning_changes_a_bit(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    bare, policy = train()
    rich, other = train(
        out=tmp_path, evaluate_every=2, keep_best=True, keep_last=2, stop_at=1e9,
        checkpoint_seconds=0.0, callbacks=[lambda state, row: {"drawn": float(torch.rand(()))}],
    )  # fmt: skip
    assert torch.equal(flat(policy), flat(other))
    assert plain(rich.history, *EVALUATION, "drawn") == plain(bare.history)
    evaluated = [row["update"] for row in rich.history if "eval/return" in row]
    assert evaluated == [2, 4, 6]
    assert all(r["eval/return_low"] <= r["eval/return"] for r in rich.history[1::2])


@ALL
def test_the_last_checkpoints_are_kept_and_load(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    held = {}

    def note(state: vt.RunState, row: dict[str, Any]) -> None:
        held[state.update] = flat(state.policy).clone()

    run, _ = train(out=tmp_path, updates=7, evaluate_every=2, keep_last=3, callbacks=[note])
    assert list(retained.kept_updates(tmp_path)) == [4, 6, 7]  # evaluated ones, and the end
    for update in (4, 6, 7):
        _, policy, _ = vt.load(tmp_path, update=update)
        assert torch.equal(flat(policy), held[update])
    with pytest.raises(vt.InputError, match="no checkpoint of update 2; there are those of 4, 6"):
        vt.load(tmp_path, update=2)
    with pytest.raises(vt.InputError, match="keep_best=True"):
        vt.load(tmp_path, best=True)
    with pytest.raises(vt.InputError, match="ask for one"):
        vt.load(tmp_path, update=4, best=True)
    assert len(run.history) == 7


@ALL
@pytest.mark.parametrize("evaluate_every", [0, 2])
def test_the_best_is_that_of_the_largest_return(
    train: Callable[..., Trained], evaluate_every: int, tmp_path: Path
) -> None:
    held = {}

    def note(state: vt.RunState, row: dict[str, Any]) -> None:
        held[state.update] = flat(state.policy).clone()

    settings = {"evaluate_every": evaluate_every, "keep_best": True, "callbacks": [note]}
    run, _ = train(out=tmp_path, **settings)
    if evaluate_every:
        scores = {row["update"]: row["eval/return"] for row in run.history[1::2]}
    elif "return_100" in run.history[-1]:
        scores = {row["update"]: row["return_100"] for row in run.history}
    else:
        returns = [row["return"] for row in run.history]
        scores = {n + 1: sum(returns[max(0, n - 4) : n + 1]) / min(5, n + 1) for n in range(6)}
    best = max((n for n in scores if scores[n] is not None), key=lambda n: (scores[n], -n))
    assert torch.equal(flat(run.best), held[best])
    assert torch.equal(flat(vt.load(tmp_path, best=True)[1]), held[best])
    in_memory, _ = train(**settings)
    assert torch.equal(flat(in_memory.best), held[best])


def test_a_run_without_a_best_says_how_to_get_one(tmp_path: Path) -> None:
    run, _ = episodes(updates=1, out=tmp_path)
    for each in (run, read_run(tmp_path)):
        with pytest.raises(vt.InputError, match="keep_best=True"):
            _ = each.best


def test_the_best_of_a_normalised_run_acts_with_the_statistics_of_its_time() -> None:
    """On every observation it acts as the policy did right after its update."""
    acts = {}
    observation = torch.linspace(-0.2, 0.2, 40).view(10, 4)

    def note(state: vt.RunState, row: dict[str, Any]) -> None:
        acts[state.update] = state.policy.act(observation, deterministic=True)

    run, policy = fragments(keep_best=True, evaluate_every=1, callbacks=[note], updates=12)
    scores = [row["eval/return"] for row in run.history]
    best = scores.index(max(scores)) + 1
    assert torch.equal(
        torch.as_tensor(run.best.act(observation, deterministic=True)), torch.as_tensor(acts[best])
    )
    assert policy.terms is not run.best.terms


@ALL
def test_a_run_stops_at_a_return_and_goes_on_when_asked_for_more(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    whole, policy = train(evaluate_every=1)
    scores = [row["eval/return"] for row in whole.history]
    goal = max(scores[:4])
    first = scores.index(goal) + 1
    settings = {"evaluate_every": 1, "out": tmp_path}
    run, _ = train(stop_at=goal, **settings)
    assert len(run.history) == first
    assert run.stopped is not None
    assert f"at update {first}" in run.stopped
    again, _ = train(stop_at=goal, resume=True, **settings)
    assert len(again.history) == first  # it has reached its goal already
    more, other = train(resume=True, **settings)
    assert more.stopped is None
    assert plain(more.history) == plain(whole.history)
    assert torch.equal(flat(policy), flat(other))


@ALL
def test_a_run_stops_where_evaluations_no_longer_improve(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    """So many evaluations after the best; the same, bit for bit, where it was interrupted."""
    settings: dict[str, Any] = {"updates": 16, "evaluate_every": 2, "seed": 1}
    whole, _ = train(**settings)
    scores = [row["eval/return"] for row in whole.history if "eval/return" in row]
    best, since, last = float("-inf"), 0, len(scores)
    for number, score in enumerate(scores, 1):
        best, since = (score, 0) if score > best else (best, since + 1)
        if since == 2:
            last = number
            break
    assert last < len(scores), "take another seed: it improves to the end"
    run, policy = train(patience=2, **settings)
    assert len(run.history) == 2 * last
    assert run.stopped == (
        f"no return of the last 2 evaluations was above {best:.6g}, of update "
        f"{2 * (last - 2)} (patience=2)"
    )
    assert plain(run.history) == plain(whole.history[: 2 * last])
    train(patience=2, out=tmp_path, **settings | {"updates": 2 * last - 1})
    again, other = train(patience=2, out=tmp_path, resume=True, **settings)
    assert (plain(again.history), again.stopped) == (plain(run.history), run.stopped)
    assert torch.equal(flat(policy), flat(other))
    more, _ = train(patience=100, out=tmp_path, resume=True, **settings)
    assert plain(more.history) == plain(whole.history)


def test_sets_are_evaluated_each_by_itself(tmp_path: Path) -> None:
    """Metrics by the name of the set, as `evaluate` gives them; the run itself is as it was."""
    rows = [{"prompt": letter} for letter in "abcdefghijklmnop"]

    def trained(held_out: Any, **settings: Any) -> tuple[vt.Run, vl.Task, vl.Policy]:
        task = vl.Task(rows[:10], parity, num_generations=2, held_out=held_out, name="letters")
        policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
        given = {"updates": 3, "batch": 8, "lr": 1e-2, "progress": False} | settings
        return vl.train(task, policy, vt.estimators.rloo(), **given), task, policy

    sets = {"easy": rows[10:12], "hard": rows[12:]}
    run, task, policy = trained(sets, evaluate_every=3, keep_best=True, out=tmp_path)
    row = run.history[-1]
    for name, numbers in task.held_out_sets.items():
        own = vl.evaluate(task, policy, numbers)
        assert row[f"eval/{name}/return"] == pytest.approx(own.mean)
        assert row[f"eval/{name}/return_low"] == pytest.approx(own.low)
        assert row[f"eval/{name}/return_high"] == pytest.approx(own.high)
    both = vl.evaluate(task, policy)
    assert len(both.rewards) == 6
    assert row["eval/return"] == pytest.approx(both.mean)
    assert row["eval/return_low"] == pytest.approx(both.low)
    joined, _, _ = trained(rows[10:], evaluate_every=3)
    apart = {key: x for key, x in row.items() if not key.startswith("eval/")}
    assert plain([apart]) == plain([
        {key: x for key, x in joined.history[-1].items() if not key.startswith("eval/")}
    ])  # fmt: skip
    with pytest.raises(vt.InputError, match="1 prompts are held out as 'one'"):
        trained({"one": rows[10:11], "more": rows[11:]}, evaluate_every=1)


def test_without_evaluations_a_run_stops_at_the_return_of_100_episodes() -> None:
    run, _ = episodes(updates=40, batch=16, stop_at=1.0)
    assert sum(row["episodes"] for row in run.history) == 112  # the first multiple of 16 from 100
    assert "stop_at=1" in (run.stopped or "")


@ALL
def test_callbacks_add_metrics_and_stop(train: Callable[..., Trained], tmp_path: Path) -> None:
    def double(state: vt.RunState, row: dict[str, Any]) -> dict[str, Any]:
        assert state.history[-1] is row
        return {"mine/double": 2 * row["update"], "mine/eval": state.update}

    def enough(state: vt.RunState, row: dict[str, Any]) -> bool:
        row["mine/written"] = row["mine/double"] + 1
        return row["update"] == 3

    run, _ = train(out=tmp_path, callbacks=[double, enough])
    assert [row["mine/written"] for row in run.history] == [3, 5, 7]
    assert [row["mine/double"] for row in read_metrics(tmp_path)] == [2, 4, 6]
    assert run.stopped == "the callback enough ended the run"
    by_method, _ = train(callbacks=[lambda state, row: state.stop("I have seen enough")])
    assert (len(by_method.history), by_method.stopped) == (1, "I have seen enough")
    with pytest.raises(vt.InputError, match="returned 3; return None, metrics"):
        train(callbacks=[lambda state, row: 3])


class BrokenError(Exception):
    pass


class Failing:
    """A tracker that fails at an update."""

    def log(self, row: dict[str, Any], step: int) -> None:
        if row["update"] == 3:
            raise BrokenError

    def close(self) -> None:
        pass


def fails_at_three(state: vt.RunState, row: dict[str, Any]) -> None:
    if row["update"] == 3:
        raise BrokenError


@ALL
@pytest.mark.parametrize(
    ("culprit", "name"),
    [
        ({"callbacks": [fails_at_three]}, "callback fails_at_three"),
        ({"track": [Failing()]}, "Failing.log"),
    ],
)
def test_what_fails_beside_learning_is_named_and_loses_nothing(
    train: Callable[..., Trained], culprit: dict[str, Any], name: str, tmp_path: Path
) -> None:
    whole, policy = train()
    with pytest.raises(BrokenError) as caught:
        train(out=tmp_path, checkpoint_seconds=1e9, **culprit)
    (note,) = caught.value.__notes__
    assert name in note
    assert "of update 3" in note
    assert "with 3 updates" in note
    assert len(read_metrics(tmp_path)) == 3
    resumed, other = train(out=tmp_path, resume=True)
    assert plain(resumed.history) == plain(whole.history)
    assert torch.equal(flat(policy), flat(other))


class Breaking(vt.CartPole):
    """Fails in the middle of a fragment, once."""

    left = 10**9

    def step(self, action: torch.Tensor) -> Any:
        Breaking.left -= 1
        if Breaking.left == 0:
            raise BrokenError
        return super().step(action)


@pytest.mark.parametrize("normalised", [False, True])
def test_an_environment_that_fails_half_way_loses_nothing(normalised: bool, tmp_path: Path) -> None:
    """Lanes, normaliser and the delayed policies are saved as they were before the batch."""

    def world(left: int = 10**9) -> Any:
        Breaking.left = left
        env = Breaking(lanes=3)
        return vt.Normalized(env) if normalised else env

    whole, policy = fragments(world())
    # in the fourth update, whose lanes start afresh; then, 48 steps being acted again, in the next
    for left, resume in ((16 * 3 + 7, False), (16 * 3 + 16 + 5, True)):
        with pytest.raises(BrokenError) as caught:
            fragments(world(left), out=tmp_path, checkpoint_seconds=1e9, resume=resume)
        assert "while the batch of update" in caught.value.__notes__[0]
    resumed, other = fragments(world(), out=tmp_path, resume=True)
    assert plain(resumed.history) == plain(whole.history)
    assert torch.equal(flat(policy), flat(other))


def test_a_reward_that_fails_is_named_and_loses_nothing(tmp_path: Path) -> None:
    calls = []

    def failing(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise BrokenError
        return parity(completions, completion_ids)

    failing.__name__ = "parity"
    whole, policy = language()
    with pytest.raises(vl.RewardError, match="parity") as caught:
        language(failing, out=tmp_path, checkpoint_seconds=1e9)
    assert "batch of update 3" in caught.value.__notes__[0]
    resumed, other = language(out=tmp_path, resume=True)
    assert plain(resumed.history) == plain(whole.history)
    assert torch.equal(flat(policy), flat(other))


# What the test below has on, and a process that would go on with it for long.
ALL_ON: dict[str, Any] = {
    "evaluate_every": 2, "keep_best": True, "keep_last": 3, "checkpoint_seconds": 0.0,
    "callbacks": [lambda state, row: {"twice": 2 * row["update"]}],
}  # fmt: skip
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_while_training as here
getattr(here, {train!r})(out=Path({out!r}), updates=10**6, **here.ALL_ON)
"""


@ALL
def test_killed_with_all_of_it_on_a_run_resumes_to_the_same_bits(
    train: Callable[..., Trained], tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = SCRIPT.format(tests=str(Path(__file__).parent), train=train.__name__, out=str(killed))
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    metrics = killed / "metrics.jsonl"
    for _ in range(6000):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 5:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    updates = len(metrics.read_text().splitlines()) + 3
    train(out=killed, updates=updates, resume=True, **ALL_ON)
    train(out=whole, updates=updates, **ALL_ON)
    assert plain(read_metrics(killed)) == plain(read_metrics(whole))
    assert list(retained.kept_updates(killed)) == list(retained.kept_updates(whole))
    for file in sorted(whole.rglob("*.safetensors")):
        assert file.read_bytes() == (killed / file.relative_to(whole)).read_bytes(), file


def test_lanes_that_cannot_be_made_again_are_refused_or_given() -> None:
    env = vt.Gymnasium(SyncVectorEnv([OneStep] * 2))
    settings: dict[str, Any] = {"updates": 2, "batch": 4, "progress": False, "evaluate_every": 1}
    with pytest.raises(vt.InputError, match="give evaluation_env="):
        vt.train(env, env.policy(hidden=()), vt.estimators.reinforce(), **settings)
    apart = vt.Gymnasium(SyncVectorEnv([OneStep] * 2))
    run = vt.train(
        env, env.policy(hidden=()), vt.estimators.reinforce(), evaluation_env=apart, **settings
    )
    assert "eval/return" in run.history[-1]


def test_settings_that_cannot_work_are_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for settings, message in (
        ({"evaluate_every": -1}, "evaluate_every=-1"),
        ({"keep_last": -1}, "keep_last=-1"),
        ({"stop_at": float("nan")}, "stop_at=nan"),
        ({"patience": 2}, "patience=2.: it counts evaluations; give evaluate_every="),
        ({"patience": 0, "evaluate_every": 1}, "patience=0"),
        ({"evaluate_every": 1, "evaluation_episodes": 1}, "at least two episodes"),
        ({"seed": -1}, "seed=-1"),
        ({"threads": 0}, "threads=0"),
        ({"schedule": "liner"}, "liner"),
        ({"lr": float("nan")}, "lr=nan"),
    ):
        with pytest.raises(vt.InputError, match=message):
            episodes(out=out, **settings)
        assert not out.exists()
    with pytest.raises(vt.InputError, match="give out="):
        episodes(keep_last=2)
    task = vl.Task([{"prompt": "a"}] * 4, parity, num_generations=2, held_out=0)
    policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
    with pytest.raises(vt.InputError, match="held out"):
        vl.train(task, policy, vt.estimators.rloo(), updates=1, batch=4, evaluate_every=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algorithm", "ppo", "--set", "epsilon=nan"), "epsilon='nan' must be a number"),
        (("--algorithm", "ppo", "--set", "epsilon=1e999"), "must be a number, finite"),
        (("--algorithm", "ppo", "--set", "epochs=2.5"), "epochs=2.5 must be a whole number"),
        (("--estimator", "ppo", "--set", "lambda_=nan"), "lambda_='nan' must be a number"),
        (("--seed", "-1"), "seed=-1"),
        (("--algorithm", "trpo", "--lr", "0.1"), "no learning rate"),
    ],
)
def test_a_command_that_is_refused_takes_no_folder(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    command = ["vantage", "train", "tensor/CartPole-v1", *arguments, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--updates", "1"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


# Two processes, and files that were changed.


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock names its owner; a file left by a killed process locks nothing."""
    episodes(out=tmp_path, updates=1)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom vantage.runs.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(vt.InputError, match=f"in use by process {other.pid}"):
            episodes(out=tmp_path, updates=2, resume=True)
        other.kill()
    assert (tmp_path / "lock").read_text() == f"{other.pid}\n"
    run, _ = episodes(out=tmp_path, updates=2, resume=True)
    assert len(run.history) == 2
    with locked(tmp_path), pytest.raises(vt.InputError, match=f"process {os.getpid()}"):
        episodes(out=tmp_path, updates=3, resume=True)


@pytest.mark.parametrize("lines", [None, 0, 2])
def test_metrics_that_were_lost_are_refused(lines: int | None, tmp_path: Path) -> None:
    episodes(out=tmp_path, updates=4)
    metrics = tmp_path / "metrics.jsonl"
    if lines is None:
        metrics.unlink()
    else:
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:lines]))
    with pytest.raises(vt.InputError, match=rf"holds {lines or 0} updates, .* of update 4"):
        episodes(out=tmp_path, updates=6, resume=True)


FILES = ("policy.safetensors", "position.json", "checksums.json")
WAYS = ("changed", "cut", "missing")


@pytest.mark.parametrize(
    ("file", "how"),
    [pytest.param(file, how, marks=() if i == j else pytest.mark.long)
     for i, file in enumerate(FILES) for j, how in enumerate(WAYS)],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    file: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "checkpoint" / file

    def damage() -> None:
        content = damaged.read_bytes()
        damaged.unlink()  # kept checkpoints share its contents
        if how == "changed":
            damaged.write_bytes(content[:-3] + bytes(byte ^ 1 for byte in content[-3:]))
        elif how == "cut":
            damaged.write_bytes(content[: len(content) // 2])

    whole, policy = episodes(updates=5)
    episodes(out=tmp_path, updates=3)
    damage()
    with pytest.raises(vt.InputError, match=r"No checkpoint of .* can be used"):
        episodes(out=tmp_path, updates=5, resume=True)
    other = tmp_path / "other"
    episodes(out=other, updates=4, evaluate_every=3, keep_last=2)
    damaged = other / "checkpoint" / file
    damage()
    (other / "checkpoints" / "update-4" / file).unlink()
    resumed, again = episodes(out=other, updates=5, resume=True)
    said = capsys.readouterr().err
    assert str(damaged) in said
    assert "goes on from" in said
    assert f"{other / 'checkpoint.old'}" in said
    assert plain(resumed.history, *EVALUATION) == plain(whole.history)
    assert torch.equal(flat(policy), flat(again))


@pytest.mark.parametrize("file", ["policy.safetensors", "environment.safetensors", None])
def test_a_damaged_checkpoint_is_loaded_from_the_one_before_it(
    file: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all of it is gone, a kill fell between two renames."""
    fragments(out=tmp_path, updates=3, checkpoint_seconds=0.0, keep_last=1, evaluate_every=3)
    latest, before = tmp_path / "checkpoint", tmp_path / "checkpoint.old"
    if file is None:
        shutil.rmtree(latest)
    else:
        content = (latest / file).read_bytes()
        for folder in (latest, tmp_path / "checkpoints" / "update-3"):
            (folder / file).unlink()  # kept checkpoints share its contents
            (folder / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    env, policy, value = vt.load(tmp_path)
    said = capsys.readouterr().err
    assert f"{latest if file is None else latest / file}" in said
    assert f"what is loaded is {before}" in said
    for name, module in (("policy", policy), ("value", value), ("environment", env.statistics)):
        held = load_file(before / f"{name}.safetensors")
        assert all(torch.equal(held[key], t) for key, t in module.state_dict().items())
    if file is not None:
        with pytest.raises(vt.InputError, match=rf"update-3 cannot be used: .*{file} is damaged"):
            vt.load(tmp_path, update=3)
        (before / file).unlink()
        with pytest.raises(vt.InputError, match=rf"No checkpoint of .* can be used: .*{file}"):
            vt.load(tmp_path)


def test_a_damaged_value_head_is_refused(tmp_path: Path) -> None:
    """The one before it belongs to another model."""
    policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
    task = vl.Task([{"prompt": letter} for letter in "abcd"], parity, num_generations=2)
    vl.train(task, policy, vt.estimators.reinforce_baseline(), value=vl.ValueHead(policy),
             updates=2, batch=4, out=tmp_path, checkpoint_seconds=0.0, progress=False)  # fmt: skip
    file = tmp_path / "checkpoint" / "value.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(vt.InputError, match=rf"{file} is damaged"):
        vt.load(tmp_path)


def test_a_kill_between_saving_and_keeping_is_made_good(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"evaluate_every": 2, "keep_best": True, "keep_last": 2}
    episodes(out=tmp_path, updates=4, **settings)
    best = json.loads((tmp_path / "best" / "position.json").read_text())["updates"]
    shutil.rmtree(tmp_path / "checkpoints" / "update-4")
    if best == 4:
        shutil.rmtree(tmp_path / "best")
    episodes(out=tmp_path, updates=4, resume=True, **settings)
    assert list(retained.kept_updates(tmp_path)) == [2, 4]
    assert json.loads((tmp_path / "best" / "position.json").read_text())["updates"] == best


def test_the_page_on_training_prints_what_it_says() -> None:
    page = Path(__file__).parents[1] / "docs" / "training.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0
    assert tried > 5


def test_all_of_it_is_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vantage", *arguments])
        main()
        return capsys.readouterr().out

    out = tmp_path / "run"
    said = command(
        *("train", "tensor/CartPole-v1", "--estimator", "reinforce", "--lanes", "4"),
        *("--batch", "8", "--hidden", "8", "--updates", "9", "--out", str(out)),
        *("--evaluate-every", "2", "--evaluation-episodes", "2", "--keep-best"),
        *("--keep-last", "2", "--stop-at", "7.5"),
    )
    # no episode of CartPole is over within 7 steps
    assert "Ended early: return" in said
    assert "reached stop_at=7.5 at update 2." in said
    assert list(retained.kept_updates(out)) == [2]
    for choice in (("--best",), ("--update", "2")):
        assert "mean return" in command("evaluate", str(out), "--episodes", "2", *choice)
    with pytest.raises(SystemExit) as refused:
        command("evaluate", str(out), "--update", "1")
    assert refused.value.code == 2
    assert "there are those of 2." in capsys.readouterr().err
