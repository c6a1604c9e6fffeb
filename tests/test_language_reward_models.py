"""Reward models: their score is that of the model by itself, whatever stands beside it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

import vantage as vt
from vantage import language
from vantage.errors import InputError
from vantage.language.model import tiny

SMALL = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32}


def saved(folder: Path, labels: int = 1, seed: int = 0) -> Path:
    """A classifier with random weights, and a tokenizer with a chat template."""
    tokens = tiny.tokenizer(chat=True)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_labels=labels, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def alone(folder: Path, text: str) -> float:
    """What the model says of one text."""
    tokens = tiny.tokenizer(chat=True)
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    ids = tokens(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=ids).logits[0, 0])


def test_a_text_is_scored_as_by_itself(tmp_path: Path) -> None:
    judge = language.reward_model(saved(tmp_path / "judge"), rows=2)
    prompts, said = ["1+1=", "12+12=", "3+3="], ["2", "24 24 24", ""]
    found = judge(prompts=prompts, completions=said)
    expected = [alone(tmp_path / "judge", p + c) for p, c in zip(prompts, said, strict=True)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found)) == 3


def test_a_conversation_goes_through_the_chat_template(tmp_path: Path) -> None:
    judge = language.reward_model(saved(tmp_path / "judge"))
    prompt = [{"role": "user", "content": "1+1="}]
    said = [{"role": "assistant", "content": "2"}]
    text = tiny.tokenizer(chat=True).apply_chat_template(prompt + said, tokenize=False)
    found = judge(prompts=[prompt], completions=[said])
    assert found == pytest.approx([alone(tmp_path / "judge", text)], abs=1e-6)
    rows = [{"prompt": prompt}, {"prompt": [{"role": "user", "content": "2+2="}]}]
    task = language.Task(rows, judge, num_generations=2, held_out=0)
    assert task.score([0], ["2"]).total.tolist() == pytest.approx(found)
    assert list(task.score([0], ["2"]).parts) == ["judge"]


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    tiny.save(tiny.policy(0, **SMALL), tmp_path / "model")
    with pytest.raises(InputError, match=r"files lack score\.weight, which would be random"):
        language.reward_model(tmp_path / "model")
    with pytest.raises(InputError, match="'two' has 2 labels, and a reward is one number"):
        language.reward_model(saved(tmp_path / "two", labels=2))
    with pytest.raises(InputError, match="no such folder"):
        language.reward_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="transformers cannot load it"):
        language.reward_model(tmp_path / "empty")
    tokens = tmp_path / "judge" / "chat_template.jinja"
    saved(tmp_path / "judge")
    tokens.unlink()
    judge = language.reward_model(tmp_path / "judge")
    task = language.Task([{"prompt": [{"role": "user", "content": "1"}]}], judge, held_out=0)
    with pytest.raises(language.RewardError, match="its tokenizer has no chat template"):
        task.score([0], ["2"])


def test_training_on_a_reward_model_raises_its_score(tmp_path: Path) -> None:
    judge = language.reward_model(saved(tmp_path / "judge"))
    rows = [{"prompt": f"{n}+{n}="} for n in range(10, 30)]
    task = language.Task(rows, judge, num_generations=4, held_out=0)
    policy = tiny.policy(0, max_completion_length=3, **SMALL)
    run = language.train(
        task, policy, vt.estimators.rloo(), batch=64, updates=40, lr=3e-2, progress=False
    )
    reward = [row["rewards/judge"] for row in run.history]
    spread = run.history[0]["reward_std"]
    # a mean of 64 has a standard error of an eighth of that
    assert sum(reward[-3:]) / 3 > reward[0] + spread


def test_the_command_takes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from vantage.commands import main as cli
    from vantage.runs.run import read_run

    tiny.save(tiny.policy(0, **SMALL), tmp_path / "model")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n}+{n}="}) + "\n" for n in range(10, 30)))
    line = [
        "vantage", "train", "lm", "--model", tmp_path / "model", "--data", file, "--reward",
        saved(tmp_path / "judge"), "--num-generations", 2, "--batch", 4, "--updates", 1,
        "--max-completion-length", 3, "--out", tmp_path / "run",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", [str(word) for word in line])
    cli.main()
    assert "rewards/judge" in read_run(tmp_path / "run").history[0]
