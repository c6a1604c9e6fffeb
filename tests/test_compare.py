"""`vantage.compare`: real processes that are killed, fail and carry on; what it then says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vantage as vt
from vantage.comparing import jobs, workers
from vantage.comparing.compare import alone, compare, plan
from vantage.comparing.display import last_row
from vantage.errors import InputError

SMALL = {"steps": 300, "batch": 4, "lanes": 4, "hidden": (8,), "evaluation_episodes": 4}


def small(out: Path, estimators: Any = ("reinforce", "reward_to_go"), seeds: Any = 2, **more: Any):
    settings: dict[str, Any] = {**SMALL, "progress": False, "workers": 2, **more}
    return compare("CartPole-v1", list(estimators) if isinstance(estimators, tuple) else estimators,
                   seeds, out=out, **settings)  # fmt: skip


def histories(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every run's metrics, without times."""
    return {
        file.parent.relative_to(out).as_posix(): [
            {k: v for k, v in json.loads(line).items() if "second" not in k and k != "step_time"}
            for line in file.read_text().splitlines()
        ]
        for file in sorted(out.rglob("metrics.jsonl"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    small(out)
    return out


def test_runs_are_ordinary_run_folders_and_scores_are_what_they_say(whole: Path) -> None:
    found = small(whole)  # everything is there: nothing is trained again
    assert [row.estimator for row in found.rows] == ["reinforce", "reward_to_go"]
    assert sorted(run["folder"] for run in found.runs) == sorted(histories(whole))
    for run in found.runs:
        env, policy, *_ = vt.load(whole / run["folder"])
        seed = jobs.seeds(run["seed"]).evaluation
        assert run["evaluation_return"] == vt.evaluate(env, policy, 4, seed).mean == run["score"]
        rows = vt.read_run(whole / run["folder"]).history
        total = sum(row["return"] * row["batch"] for row in rows)  # fewer than 100 episodes
        assert run["training_return"] == pytest.approx(total / sum(row["batch"] for row in rows))
        assert run["steps"] == rows[-1]["steps"] >= 300
    assert "evaluation episodes" in found.score
    assert {(c.environment, c.estimator) for c in found.curves} == {
        ("CartPole-v1", "reinforce"), ("CartPole-v1", "reward_to_go")}  # fmt: skip
    assert json.loads((whole / "comparison.json").read_text()) == found.to_dict()
    text = str(found)
    for wanted in ("reward_to_go", "IQM", "P(first > second)", "2 runs of an estimator"):
        assert wanted in text
    page = found.save(whole / "page.html").read_text()
    assert "http://" not in page
    assert "<script" not in page


def test_seeds_differ_in_their_first_weights_and_share_them_between_estimators() -> None:
    assert len({*jobs.seeds(0), *jobs.seeds(1)}) == 6
    assert jobs.seeds(0) == jobs.seeds(0)


SCRIPT = """
import sys
import vantage as vt
from vantage.comparing.compare import compare

if __name__ == "__main__":
    compare("CartPole-v1", ["reinforce", "reward_to_go"], 2, steps=int(sys.argv[2]),
            out=sys.argv[1], batch=4, lanes=4, hidden=(8,), evaluation_episodes=4, workers=2,
            checkpoint_seconds=0.0001)
"""
SCRIPT_SETTINGS: dict[str, Any] = {
    "steps": 1500, "batch": 4, "lanes": 4, "hidden": (8,), "evaluation_episodes": 4, "threads": 1,
    "discount": 0.99, "environment_settings": None, "value": None, "normalise": None,
    "target": None,
}  # fmt: skip


def wait_for(what: Callable[[], Any], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def begin(tmp_path: Path, out: Path, steps: int = 1500) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(steps)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # where the tests run in the background, Ctrl-C would be ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="signals as Unix has them")
def test_a_killed_comparison_carries_on_to_the_same_bits(tmp_path: Path) -> None:
    out, other = tmp_path / "killed", tmp_path / "not"
    with begin(tmp_path, out) as process:
        wait_for(lambda: sum(1 for _ in out.glob("*/*/checkpoint/position.json")) >= 2)
        process.kill()  # SIGKILL: nothing is tidied up
    wait_for(lambda: not growing(out))  # the workers have gone with it
    assert any(rows for rows in histories(out).values())
    assert not (out / "comparison.json").exists()
    compare("CartPole-v1", ["reinforce", "reward_to_go"], 2, out=out, workers=1, progress=False,
            checkpoint_seconds=0.0001, **(SMALL | {"steps": 1500}))  # fmt: skip
    study = plan("CartPole-v1", ["reinforce", "reward_to_go"], 2, out=other, **SCRIPT_SETTINGS)
    results = [jobs.run(job) for job in study.jobs]
    assert histories(out) == histories(other)
    runs = json.loads((out / "comparison.json").read_text())["runs"]
    assert [run["score"] for run in runs] == [result["evaluation_return"] for result in results]


# While runs write, folders come and go: a search through all of them would find some gone.
def growing(out: Path) -> bool:
    """Whether anybody still writes there."""
    before = [(f, f.stat().st_size) for f in sorted(out.glob("*/*/metrics.jsonl"))]
    time.sleep(0.7)
    return before != [(f, f.stat().st_size) for f in sorted(out.glob("*/*/metrics.jsonl"))]


@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="signals as Unix has them")
def test_an_interrupt_saves_every_run_at_hand(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with begin(tmp_path, out, steps=500_000) as process:  # not done before it is interrupted
        wait_for(lambda: sum(f.stat().st_size > 0 for f in out.glob("*/*/metrics.jsonl")) >= 2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=240)
    assert process.returncode != 0
    for folder in out.rglob("metrics.jsonl"):
        if (folder.parent / "result.json").exists():
            continue
        rows = folder.read_text().splitlines()
        position = json.loads((folder.parent / "checkpoint/position.json").read_text())
        assert position["updates"] == len(rows)  # nothing that was done is lost


def test_one_that_fails_is_named_and_loses_no_other(tmp_path: Path, whole: Path) -> None:
    three = {"good": "reinforce", "bad": ("reinforce", {"lr": -1.0}), "too": "reward_to_go"}
    found = small(tmp_path, three, workers=1)
    assert [(f.estimator, f.seed) for f in found.failures] == [("bad", 0), ("bad", 1)]
    assert "lr=-1.0" in found.failures[0].error
    assert "bad on CartPole-v1, seed 0" in (found.notes and " ".join(found.notes))
    assert [row.estimator for row in found.rows] == ["good", "too"]
    same = vt.read_run(whole / "reinforce/seed-001").history[-1]["return"]
    assert vt.read_run(tmp_path / "good/seed-001").history[-1]["return"] == same
    with pytest.raises(InputError, match=r"every run failed.*bad.*lr=-1"):
        small(tmp_path / "all", {"bad": ("reinforce", {"lr": -1.0})}, workers=1)


def doomed(job: int) -> int:
    """A job that dies, raises or works."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 2:
        raise ZeroDivisionError("of its own")
    return job * 10


def test_a_worker_that_is_killed_loses_its_job_only() -> None:
    seen: list[int] = []
    outcomes = workers.run_all(doomed, [0, 1, 2, 3], 2, lambda now, done: seen.append(len(done)))
    found = {outcome.job: outcome for outcome in outcomes}
    assert found[0].result == 0
    assert found[3].result == 30
    assert "killed by signal 9" in (found[1].error or "")
    assert found[2].error == "ZeroDivisionError: of its own"
    assert "doomed" in found[2].trace
    assert seen[-1] == 4


def test_estimators_and_seeds_are_added_but_settings_are_not_changed(
    tmp_path: Path, whole: Path
) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("metrics.jsonl")}
    found = small(out, ("reinforce", "reward_to_go"), 3, workers=1)
    assert {row.runs for row in found.rows} == {3}
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    with pytest.raises(InputError, match="steps=300, not 301"):
        small(out, steps=301)
    with pytest.raises(InputError, match="give the new one another name"):
        small(out, batch=8)


def test_two_comparisons_never_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(InputError, match="under way"):
        small(tmp_path)


def make_corridor() -> Any:
    """An environment of one's own, made in the worker."""
    return vt.Gymnasium("CartPole-v1", lanes=2)


def test_several_environments_are_normalised(tmp_path: Path) -> None:
    found = compare(
        ["CartPole-v1", make_corridor], ["reinforce", "reward_to_go"], 2, out=tmp_path,
        normalise={"CartPole-v1": (20, 500), "make_corridor": (0, 500)}, progress=False, workers=1,
        **(SMALL | {"steps": 60}),
    )  # fmt: skip
    assert {row.runs for row in found.rows} == {4}
    run = next(r for r in found.runs if r["environment"] == "CartPole-v1")
    assert run["score"] == pytest.approx((run["evaluation_return"] - 20) / 480)
    assert (tmp_path / "make_corridor/reinforce/seed-001/result.json").exists()
    assert len(found.profiles) == 2
    assert found.profiles[0].fraction[-1] == 0.0
    assert found.rows[0].optimality_gap is not None
    assert "Performance profile" in found.save(tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"estimators": ("reinforc",)}, "did you mean"),
        ({"estimators": ("rloo", "rloo")}, "rloo is given more than once"),
        ({"estimators": ()}, "no estimator"),
        ({"seeds": 1}, "two runs"),
        ({"seeds": [0, 0]}, "more than once"),
        ({"seeds": [-1, 2]}, "negative"),
        ({"steps": 0}, "steps=0"),
        ({"workers": 0}, "workers=0"),
        ({"evaluation_episodes": 1}, "give 0"),
        ({"learning": 1}, "no setting 'learning'"),
        ({"out_of": 1}, "no setting 'out_of'"),
        ({"normalise": {"Pendulum-v1": (0, 1)}}, "Pendulum-v1 is none of"),
        ({"normalise": {"CartPole-v1": (1, 0)}}, "low must be below high"),
        ({"optimizer": lambda parameters: None}, "importable"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small(tmp_path / "out", **changed)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    found = subprocess.run([sys.executable, str(script), str(tmp_path / "out"), "1500"],
                           timeout=300, capture_output=True, text=True)  # fmt: skip
    assert found.returncode != 0
    assert 'put the call under `if __name__ == "__main__":`' in found.stderr


def test_progress_reads_the_last_whole_line(tmp_path: Path) -> None:
    world = jobs.World("CartPole-v1", "CartPole-v1", {})
    contender = jobs.Contender("a", None, {}, False, 4)
    job = jobs.Job(world, contender, 0, tmp_path, 100, (8,), 4, 1)
    assert last_row(job) == {}
    (tmp_path / "metrics.jsonl").write_text('{"steps": 1}\n{"steps": 2}\n{"ste')
    assert last_row(job) == {"steps": 2}
    for line in (b"[" * 5000, b"[1]", b'"\xff"', b"NaN", b"1" * 5000):
        (tmp_path / "metrics.jsonl").write_bytes(line + b"\n")
        assert last_row(job) == {}


def test_algorithms_bring_their_lanes_and_a_name_means_the_algorithm() -> None:
    settings = {k: v for k, v in SCRIPT_SETTINGS.items() if k not in ("batch", "lanes")}
    rows = ["ppo", "rloo", vt.algorithms.ppo_continuous(epochs=2)]
    study = plan("CartPole-v1", rows, 2, out="unused", lanes=None, **settings)
    contenders = [job.contender for job in study.jobs[:3]]
    assert [(c.name, c.lanes, c.value) for c in contenders] == [
        ("ppo", 1, True), ("rloo", 64, False), ("ppo_continuous", 1, True),
    ]  # fmt: skip
    ppo, _, continuous = contenders
    assert ppo.estimator.lr == 3e-4
    assert study.jobs[2].world.build(continuous).normalised["observations"]
    assert study.settings["estimators"]["ppo"]["algorithm"].startswith("ppo: estimator ppo, Epochs")
