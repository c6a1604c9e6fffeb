"""The language-model commands and the arithmetic they print."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from console import told
from transformers import AutoModelForCausalLM

import vantage as vt
from vantage import language
from vantage.language import Policy
from vantage.language.model import tiny
from vantage.language.scoring.arithmetic import Workload, shape_of
from vantage.language.tasks import tiny_tasks
from vantage.language.tasks.rewards import load_reward
from vantage.language.transcripts.records import read_transcripts
from vantage.runs.run import read_run
from vantage.runs.transcripts import updates_of

SMALL = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(told, monkeypatch, capsys)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.save(tiny.policy(0, **SMALL), tmp_path / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(10, 50)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_model_is_trained_read_and_carried_on(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "my_rewards.py"
    rewards.write_text(
        "def short(completions, completion_ids, answer):\n"
        "    return [1.0 - 0.1 * len(ids) for ids in completion_ids]\n"
    )
    out = tmp_path / "run"
    line = (
        "train", "lm", "--model", model, "--data", data, "--reward", f"{rewards}:short", "number",
        "--num-generations", 4, "--batch", 8, "--updates", 3, "--max-completion-length", 4,
        "--lr", 1e-3, "--out", out,
    )  # fmt: skip
    code, text = command(*line)
    assert code == 0, text
    assert "Held out, greedy" in text
    history = read_run(out).history
    assert len(history) == 3
    assert {"rewards/short", "rewards/number", "reward", "grad_norm"} <= set(history[-1])
    AutoModelForCausalLM.from_pretrained(out / "model")
    records = read_transcripts(out, 3)
    assert len(records) == 8
    assert all(
        r["reward"] == pytest.approx(r["reward/short"] + r["reward/number"]) for r in records
    )
    code, text = command("transcripts", out, "--worst", 2, "--update", 2)
    assert code == 0
    assert "update 2: 2 of 8 completions" in text
    code, text = command(*line)
    assert code == 2
    assert "already holds a run" in text
    longer = [3 if word == "--updates" else word for word in line]
    longer[longer.index(3)] = "--updates"
    longer[longer.index("--updates") + 1] = 4
    code, text = command(*longer, "--resume")
    assert code == 0, text
    assert updates_of(out) == [1, 2, 3, 4]
    assert read_run(out).history[:3] == history


def test_a_reward_that_raises_stops_the_run_with_one_line_and_loses_nothing(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "my_rewards.py"
    rewards.write_text(
        "calls = 0\n"
        "def moody(completions):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 2:\n"
        "        raise RuntimeError('the judge is asleep')\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    code, text = command(
        "train", "lm", "--model", model, "--data", data, "--reward", f"{rewards}:moody",
        "--num-generations", 4, "--batch", 8, "--updates", 5, "--max-completion-length", 4,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 2
    last = text.strip().splitlines()[-1]
    assert last.startswith("vantage: Reward 'moody' raised RuntimeError('the judge is asleep')")
    assert "row " in last
    assert len(read_run(tmp_path / "run").history) == 2
    assert (tmp_path / "run" / "checkpoint" / "policy.safetensors").exists()


def test_the_engine_is_chosen_and_remembered(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    line = (
        "train", "lm", "--model", model, "--data", data, "--reward", "number", "--batch", 8,
        "--updates", 1, "--max-completion-length", 3, "--out", out,
    )  # fmt: skip
    code, text = command(*line, "--continuous-batching")
    assert code == 0, text
    assert json.loads((out / "config.json").read_text())["engine"] == "ContinuousBatching"
    code, text = command(*line, "--resume")
    assert code != 0
    assert "engine" in text


def test_long_prompts_are_refused_or_dropped(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    with data.open("a") as file:
        file.write(json.dumps({"prompt": "1" * 300, "answer": "1"}) + "\n")
    line = (
        "train", "lm", "--model", model, "--data", data, "--reward", "number", "--batch", 8,
        "--updates", 1, "--max-completion-length", 3, "--held-out", 0, "--out", tmp_path / "run",
    )  # fmt: skip
    code, text = command(*line)
    assert code == 2
    assert "prompt of row 40 has 301 tokens" in " ".join(text.split())
    code, text = command(*line, "--drop-long-prompts")
    assert code == 0, text
    assert "1 of 41 rows" in text


def test_a_dry_run_prints_and_writes_nothing(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, text = command(
        "train", "lm", "--model", model, "--data", data, "--reward", "exact_match", "--batch", 32,
        "--updates", 9, "--max-completion-length", 4, "--out", out, "--dry-run",
    )  # fmt: skip
    assert code == 0, text
    assert "32 completions = 4 prompts × 8 completions" in text
    assert "36 prompts drawn = 1.00 epochs" in text
    assert "prompts 7 to 7, median 7" in text
    assert not out.exists()
    code, text = command("train", "addition", "--dry-run")
    assert code == 0
    assert "7,286 prompts to train on, 814 held out" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "nowhere"}, "no such folder.*nothing is downloaded"),
        ({"--data": "nowhere.jsonl"}, "no such file"),
        ({"--reward": "likes"}, "--reward likes: give FILE.py:FUNCTION, or one of exact_match"),
        ({"--batch": 12}, "--batch 12: a batch holds whole groups"),
        ({"--estimator": "rlo"}, "did you mean rloo"),
        ({"--max-completion-length": 300}, "longest prompt has 7 tokens.*256 positions"),
        ({"--prompt": "question"}, "no column 'question'; they have prompt, answer"),
    ],
)
def test_bad_input_is_one_line(
    command: Any, model: Path, data: Path, change: dict[str, Any], message: str
) -> None:
    import re

    line = {"--model": model, "--data": data, "--reward": "number", "--batch": 16} | change
    code, text = command("train", "lm", *(word for pair in line.items() for word in pair),
                         "--dry-run")  # fmt: skip
    assert code == 2
    assert re.search(message, text.replace("\n", " "))


def test_addition_from_nothing(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command on sums of single digits, cut short: it takes minutes to learn."""
    single = partial(tiny_tasks.addition, digits=1)
    monkeypatch.setitem(tiny_tasks.TASKS, "addition", single)
    out = tmp_path / "run"
    code, text = command(
        "train", "addition", "--warm-up-steps", 2, "--updates", 2, "--batch", 8,
        "--evaluate-every", 2, "--transcripts-every", 2, "--out", out,
    )  # fmt: skip
    assert code == 0, text
    assert "Warm-up: 2 steps" in text
    assert "Policy gradient: 2 updates" in text
    assert "eval/return" in read_run(out).history[-1]
    assert Policy(out / "model").tokenizer is not None


def test_an_environment_is_still_an_environment(command: Any) -> None:
    code, text = command("train", "CartPole-v1", "--updates", 1, "--dry-run")
    assert code == 0
    assert "64 lanes" in text


# The arithmetic.


def plan(**changes: Any) -> Workload:
    policy = tiny.policy(0, **SMALL)
    base: dict[str, Any] = {
        "shape": shape_of(policy.base, 4),
        "lengths": [10, 20, 30],
        "rows": 100,
        "held_out": 10,
        "batch": 64,
        "num_generations": 8,
        "num_iterations": 2,
        "minibatches": 4,
        "updates": 50,
        "max_completion_length": 16,
    }
    return Workload(**(base | changes))


def test_counts() -> None:
    assert plan().prompts == 8
    assert plan().steps == 50 * 2 * 4
    assert plan().epochs == 50 * 8 / 100
    assert plan(token_budget=1).passes == 64 // (8 // (-(-8 // plan().together)))  # one row each


def test_what_backward_keeps_is_about_what_is_estimated() -> None:
    """Saved tensors of a forward pass, counted by storage, within 40 % of the estimate."""
    policy = tiny.policy(0, hidden=64, layers=3, heads=2, intermediate=192)
    rows, length = 16, 48
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    keep = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: keep.append(t) or pack(t), lambda t: t):
        policy.states(torch.zeros(rows, length, dtype=torch.long)).sum()
    measured = sum(size for place, size in held.items() if place not in own)
    found = plan(
        shape=shape_of(policy.base, 4), lengths=[length - 16], batch=rows, num_generations=1,
        minibatches=1,
    )  # fmt: skip
    assert found.memory()["activations of a pass"] == pytest.approx(measured, rel=0.4)


def test_the_cache_is_what_generation_holds() -> None:
    """Keys and values of every layer, of rows of full length."""
    found = plan(lengths=[20], batch=8, num_generations=8, minibatches=1)
    assert found.memory()["cache of generation"] == 2 * 2 * 32 * 8 * 36 * 4


def test_tiny_tasks_know_their_longest_answer() -> None:
    assert tiny_tasks.longest_answer(tiny_tasks.addition()) == 3


def test_an_audit_says_what_the_function_says(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "my_rewards.py"
    rewards.write_text(
        "def short(completions, completion_ids):\n"
        "    return [1.0 - 0.1 * len(ids) for ids in completion_ids]\n"
    )
    line = (
        "audit", "lm", "--model", model, "--data", data, "--reward", f"{rewards}:short",
        "--max-completion-length", 3, "--trajectories", 128, "--batch", 16, "--seed", 5,
    )  # fmt: skip
    one, other = tmp_path / "audit.json", tmp_path / "audit.html"
    code, text = command(
        *line, "--estimators", "rloo,grpo,ppo", "--num-generations", 4, "--json", one,
        "--html", other,
    )  # fmt: skip
    assert code == 0, text
    assert "SNR" in text
    assert f"Written: {other}" in text.replace("\n", " ")
    policy = Policy(model, max_completion_length=3)
    task = language.Task(
        data, load_reward(f"{rewards}:short"), num_generations=4, seed=5, name="rows"
    )
    named = [vt.estimators.named(name) for name in ("rloo", "grpo", "ppo")]
    expected = language.audit(
        task, policy, named, trajectories=128, batch=16, seed=5, value=language.ValueHead(policy),
        progress=False,
    )  # fmt: skip
    found = {row["estimator"]: row for row in json.loads(one.read_text())["rows"]}
    for row in expected.rows:
        assert found[row.estimator]["snr"]["value"] == pytest.approx(row.snr.value, rel=1e-4)
    sizes = tmp_path / "sizes.json"
    code, text = command(
        *line, "--estimators", "reinforce,rloo", "--group-sizes", 1, 4, "--json", sizes
    )
    assert code == 0, text
    rows = json.loads(sizes.read_text())["rows"]
    assert [(row["estimator"], row["num_generations"]) for row in rows] == [
        ("reinforce", 1),
        ("reinforce", 4),
        ("rloo", 4),
    ]
    code, text = command(*line, "--group-sizes", 4, "--html", other)
    assert code == 2
    assert "written as --json only" in text
    code, text = command(*line, "--json", "report.txt")
    assert code == 2
    assert "end it in .json" in text
