"""What `vantage train lm` takes beside the essentials: layers, optimisers, trackers, references."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from console import told
from safetensors.torch import load_file

from vantage import estimators, language
from vantage.commands.optimizers import optimizer_named
from vantage.errors import InputError
from vantage.language.model import tiny
from vantage.runs.run import read_run

SMALL = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32}

LOSS_OF_ROW = {"dapo": "k3_in_loss(beta=0.1)", "reinforce_leave_one_out": "k2_in_loss(beta=0.1)"}


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    tiny.save(tiny.policy(0, **SMALL), tmp_path / "model")
    tiny.save(tiny.policy(1, **SMALL), tmp_path / "other")
    rows = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(10, 30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def lengths(completions):\n    return [float(len(text)) for text in completions]\n"
        "def plain(parameters):\n    return torch.optim.SGD(parameters, lr=1.0)\n"
    )

    def run(*arguments: object, command: str = "train") -> tuple[int, str]:
        line = {
            "--model": tmp_path / "model", "--data": tmp_path / "rows.jsonl",
            "--reward": f"{tmp_path / 'mine.py'}:lengths", "--num-generations": 2,
            "--max-completion-length": 3,
        }  # fmt: skip
        if command == "train":
            line |= {"--batch": 8, "--updates": 3, "--out": tmp_path / "run", "--held-out": 0}
        words = [word for pair in line.items() for word in pair]
        code, text = told(monkeypatch, capsys, command, "lm", *words, *arguments)
        return code, " ".join(text.split())

    return run


def test_layers_optimiser_and_delay_are_as_they_are_named(command: Any, tmp_path: Path) -> None:
    code, text = command(
        "--lora", 2, "--target-modules", "q_proj,v_proj", "--optimizer", "SGD",
        "--optimizer-set", "momentum=0.5,nesterov=True", "--lr", 0.1, "--delay", 1,
    )  # fmt: skip
    assert code == 0, text
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    told = config["optimizer"]
    assert (told["class"], told["momentum"], told["nesterov"], told["lr"]) == (
        "SGD",
        0.5,
        True,
        0.1,
    )
    assert config["delay"] == 1
    adapter = load_file(tmp_path / "run" / "model" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter} == {"q_proj", "v_proj"}
    assert config["policy"]["trained"] == sum(each.numel() for each in adapter.values())
    # its first update is the policy's own, the later ones those of an older one
    assert [row["sampling/ess"] < 0.999999 for row in read_run(tmp_path / "run").history] == [
        False, True, True,
    ]  # fmt: skip


def test_a_dry_run_counts_the_layers_that_are_named(command: Any) -> None:
    for layers, width in ((["q_proj", "v_proj"], 2 * (16 + 16)), (["down_proj"], 32 + 16)):
        code, text = command("--lora", 3, "--target-modules", *layers, "--dry-run")
        assert code == 0, text
        assert f"{3 * width} trained" in text
    code, text = command("--lora", 3, "--dry-run")
    assert f"{3 * (4 * (16 + 16) + 3 * (16 + 32))} trained" in text


def test_a_kl_is_measured_to_the_model_named(command: Any, tmp_path: Path) -> None:
    def first(*arguments: object) -> dict[str, Any]:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        code, text = command("--beta", 0.1, "--out", out, *arguments)
        assert code == 0, text
        return read_run(out).history[0]

    assert first()["kl"] == pytest.approx(0, abs=1e-9)
    found = first("--reference", tmp_path / "other")
    own = language.Policy(tmp_path / "model", max_completion_length=3)
    task = language.Task(
        tmp_path / "rows.jsonl", lambda completions: [float(len(text)) for text in completions],
        num_generations=2, held_out=0, name="rows",
    )  # fmt: skip
    other = language.Policy(tmp_path / "other", max_completion_length=3)
    run = language.train(
        task, own, estimators.rloo(beta=0.1), reference=other, batch=8, updates=1, progress=False
    )
    assert found["kl"] == pytest.approx(run.history[0]["kl"], rel=1e-6)
    assert found["kl"] > 1e-4


def test_runs_are_tracked(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    made: list[tuple[str, object]] = []

    class Kept:
        def __init__(self, project: str, folder: Path):
            made.append((type(self).__name__, project))
            self.steps: list[int] = []

        def log(self, row: dict[str, object], step: int) -> None:
            made.append((type(self).__name__, step))

        def close(self) -> None:
            made.append((type(self).__name__, "closed"))

    for name in ("WandB", "Trackio"):
        monkeypatch.setattr(f"vantage.commands.tracking.{name}", type(name, (Kept,), {}))
    code, text = command("--tensorboard", "--wandb", "sums", "--trackio", "texts")
    assert code == 0, text
    assert [what for name, what in made if name == "WandB"] == ["sums", 1, 2, 3, "closed"]
    assert [what for name, what in made if name == "Trackio"] == ["texts", 1, 2, 3, "closed"]
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_an_audit_measures_its_kl_to_the_model_named(command: Any, tmp_path: Path) -> None:
    line = ("--estimators", "dro", "--trajectories", 16, "--batch", 8)
    code, text = command(*line, command="audit")
    assert code == 2
    code, text = command(*line, "--reference", tmp_path / "other", command="audit")
    assert code == 0, text
    code, text = command(*line, "--beta", 0, command="audit")
    assert code == 0, text
    line = ("--estimators", "dapo", "reinforce", "--beta", 0.1, "--trajectories", 64, *line[4:])
    code, text = command(*line, command="audit")
    assert code == 2
    assert "'dapo' measures a KL to a reference policy" in text
    code, text = command(*line, "--reference", tmp_path / "other", command="audit")
    assert code == 0, text


def test_sets_to_evaluate_are_named(command: Any, tmp_path: Path) -> None:
    for name, first in (("easy", 40), ("hard", 50)):
        rows = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(first, first + 3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    named = [f"{name}={tmp_path / name}.jsonl" for name in ("easy", "hard")]
    code, text = command(
        "--updates", 1, "--evaluate-every", 1, "--patience", 2, "--evaluation", *named, "own=0.2"
    )
    assert code == 0, text
    row = read_run(tmp_path / "run").history[0]
    assert {key for key in row if key.endswith("/return")} == {
        "eval/return", "eval/easy/return", "eval/hard/return", "eval/own/return"
    }  # fmt: skip
    code, text = command("--evaluation", "easy")
    assert code == 2
    assert "--evaluation easy: write NAME=VALUE" in text


@pytest.mark.parametrize("name", ["dapo", "reinforce_leave_one_out"])
def test_any_row_has_its_kl_from_the_command_line(command: Any, tmp_path: Path, name: str) -> None:
    code, text = command("--estimator", name, "--beta", 0.1, "--updates", 1)
    assert code == 0, text
    told = json.loads((tmp_path / "run" / "config.json").read_text())["estimator"]
    assert told["kl_in_loss"] == LOSS_OF_ROW[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-modules", "q_proj"], "--target-modules q_proj: give the adapter's rank"),
        (
            ["--lora", 2, "--target-modules", "q_proj", "qkv"],
            "target_modules names qkv, and LlamaForCausalLM has no such layer; its linear ones end "
            "in q_proj, k_proj",
        ),
        (["--lora", 2, "--target-modules", "norm"], "Policy.lora.: Target module LlamaRMSNorm"),
        (["--optimizer", "Adamw"], "--optimizer Adamw: give FILE.py:FUNCTION, or one of ASGD"),
        (["--optimizer", "LBFGS"], "--optimizer LBFGS: give FILE"),
        (["--optimizer-set", "beta=1"], "--optimizer-set beta: AdamW takes betas, eps"),
        (["--optimizer", "SGD", "--optimizer-set", "lr=1"], "the learning rate is --lr"),
        (["--optimizer", "SGD", "--optimizer-set", "momentum=-1"], "Invalid momentum value"),
        (["--optimizer", "Muon"], "--optimizer Muon: Muon only supports 2D parameters"),
        (["--reference", "model"], "'rloo' measures no KL; give the estimator a coefficient"),
        (["--delay", -1], "delay"),
    ],
)
def test_what_cannot_be_is_one_line(
    command: Any, tmp_path: Path, arguments: list[object], message: str
) -> None:
    words = [tmp_path / "other" if word == "model" else word for word in arguments]
    code, text = command(*words)
    assert code == 2
    assert re.search(message, text), text
    assert not (tmp_path / "run").exists()


def test_a_reference_of_other_tokens_is_refused(command: Any, tmp_path: Path) -> None:
    folder = tmp_path / "other" / "tokenizer.json"
    told = json.loads(folder.read_text())
    told["model"]["vocab"] = dict(
        zip(told["model"]["vocab"], reversed(told["model"]["vocab"].values()), strict=True)
    )
    folder.write_text(json.dumps(told))
    code, text = command("--beta", 0.1, "--reference", tmp_path / "other")
    assert code == 2
    assert "another vocabulary than the policy's" in text


def test_an_optimiser_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def plain(parameters, momentum=0.0):\n"
        "    return torch.optim.SGD(parameters, lr=1.0, momentum=momentum)\n"
        "def nothing(parameters):\n    return 3\n"
    )
    weights = [torch.nn.Parameter(torch.zeros(2))]
    made = optimizer_named(f"{tmp_path / 'mine.py'}:plain", ("momentum=0.5",))(weights)
    assert (type(made).__name__, made.param_groups[0]["momentum"]) == ("SGD", 0.5)
    with pytest.raises(InputError, match="it made 3, no torch optimiser"):
        optimizer_named(f"{tmp_path / 'mine.py'}:nothing", ())(weights)
    # what is not asked for stays as it is in training
    assert optimizer_named("AdamW", ("eps=1e-6",))(weights).param_groups[0]["weight_decay"] == 0


def test_a_dry_run_of_an_audit_says_what_it_would_hold(command: Any, tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").unlink()  # no weights are needed
    line = ("--trajectories", 128, "--batch", 16, "--dry-run")
    code, text = command(*line, command="audit")
    assert code == 0, text
    for said in (
        "128 completions = 8 batches of 8 prompts × 2, of up to 3 tokens",
        "whole, of", "the quickest of loop", "unit gradients", "sampling, in turn",
        "forming gradients, in turn", "of 4.0 GiB", "with the model",
    ):  # fmt: skip
        assert said in text
    code, text = command(*line, "--memory", "1MB", command="audit")
    assert code == 2
    assert "beyond the model it takes" in text
    code, text = command(*line, "--group-sizes", 2, 4, command="audit")
    assert "8 prompts × 2" in text
    assert "4 prompts × 4" in text
