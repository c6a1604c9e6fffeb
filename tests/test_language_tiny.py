"""Tiny models, their tasks, and the warm-up: reproducible, loadable by path, nothing leaks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from vantage.errors import InputError
from vantage.language import Policy
from vantage.language.model import tiny
from vantage.language.sampling.rollout import greedy_reward
from vantage.language.tasks import tiny_tasks
from vantage.language.tasks.checking import check_reward
from vantage.language.training.supervised import warm_up

SMALL = {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64}


def small(seed: int = 0) -> Policy:
    return tiny.policy(seed, **SMALL)


def weights(policy: Policy) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach()


@pytest.mark.parametrize("chat", [False, True])
def test_text_survives_the_tokenizer(chat: bool) -> None:
    tokens = tiny.tokenizer(chat=chat)
    text = "37+85= abc>*-z: 0"
    ids = tokens(text)["input_ids"]
    assert len(ids) == len(text) + (not chat)
    assert tokens.decode(ids, skip_special_tokens=True) == text
    assert tokens.decode([*ids, tokens.eos_token_id], skip_special_tokens=True) == text
    padded = tokens(["1", "12"], padding=True)["input_ids"]
    assert padded[0][0] == tokens.pad_token_id


def test_characters_beyond_the_alphabet_are_unknown_and_doubled_ones_refused() -> None:
    tokens = tiny.tokenizer("ab")
    assert tokens("a\nB")["input_ids"][1:] == [4, tokens.unk_token_id, tokens.unk_token_id]
    with pytest.raises(InputError, match="every character once"):
        tiny.tokenizer("aba")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_million_parameters_from_a_seed_alone(family: Any) -> None:
    tokens = tiny.tokenizer()
    before = torch.get_rng_state()
    one, two = (tiny.model(tokens, family=family, seed=7) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert 0.95e6 < sum(p.numel() for p in one.parameters()) < 1.05e6
    torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = tiny.model(tokens, family=family, seed=8)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="must be even"):
        tiny.model(tiny.tokenizer(), hidden=30, heads=6)
    with pytest.raises(InputError, match="there are llama, qwen2"):
        tiny.model(tiny.tokenizer(), family="gpt")


def test_transformers_loads_what_was_saved(tmp_path: Path) -> None:
    policy = small()
    tiny.save(policy, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokens("12+34=", return_tensors="pt")["input_ids"]
    assert tokens.padding_side == "left"
    assert tokens.decode(ids[0], skip_special_tokens=True) == "12+34="
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, policy.model(ids).logits)
    again = Policy(tmp_path / "model")
    assert torch.equal(weights(again), weights(policy))
    assert again.end_ids == (tokens.eos_token_id,)


# Tasks.


@pytest.mark.parametrize("name", list(tiny_tasks.TASKS))
def test_gold_answers_are_right_and_wrong_ones_are_not(name: str) -> None:
    task = tiny_tasks.TASKS[name]()
    report = check_reward(task, rows=100)
    assert report.full == 1.0
    assert task.describe() == tiny_tasks.TASKS[name]().describe()
    assert 0.08 < len(task.held_out) / len(task.rows) < 0.12
    known = set("".join(f"{row['prompt']}{row['answer']}" for row in task.rows))
    assert known <= set(tiny.DIGITS + tiny.LETTERS + ">")


def test_sums_are_held_out_in_both_orders() -> None:
    task = tiny_tasks.addition(seed=3)
    held, trained = (
        {frozenset(task.rows[n]["prompt"][:-1].split("+")) for n in rows}
        for rows in (task.held_out, task.train)
    )
    assert len(task.rows) == 8100
    assert not held & trained
    for row in task.rows[::97]:
        a, b = row["prompt"][:-1].split("+")
        assert int(a) + int(b) == int(row["answer"])


def test_string_tasks_do_what_they_say() -> None:
    pairs = {
        "copy": lambda word: word,
        "reverse": lambda word: word[::-1],
        "sort_letters": lambda word: "".join(sorted(word)),
    }
    for name, rule in pairs.items():
        for row in tiny_tasks.TASKS[name](count=50).rows:
            assert row["answer"] == rule(row["prompt"][:-1])
    # all words there are, where more are asked for
    assert len(tiny_tasks.copy(letters=2, lengths=(1, 2), count=99).rows) == 6


# Warm-up.


def test_a_warm_up_learns_and_repeats() -> None:
    task = tiny_tasks.copy(letters=3, lengths=(1, 2), seed=1)
    policies = [small(), small()]
    found = [warm_up(policy, task, 60, seed=4, batch=16, lr=1e-2) for policy in policies]
    assert torch.equal(weights(policies[0]), weights(policies[1]))
    assert found[0]["loss"] == found[1]["loss"] < 0.5
    assert greedy_reward(task, policies[0], task.train).mean() > 0.8
    assert all(p.grad is None for p in policies[0].parameters())


def test_a_warm_up_is_cross_entropy_on_the_answer_and_its_end() -> None:
    """The loss against transformers' own, with the prompt's labels masked out."""
    task = tiny_tasks.addition(held_out=0.0)
    policy = small()
    tokens, row = policy.tokenizer, 1234
    prompt = task.encode(tokens)[row]
    answer = tokens(task.rows[row]["answer"], add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt, *answer, tokens.eos_token_id]])
    labels = torch.where(torch.arange(ids.shape[1]) < len(prompt), -100, ids)
    expected = policy.model(input_ids=ids, labels=labels).loss.item()
    found = warm_up(policy, task, 1, rows=[row], batch=3)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_warm_up_never_sees_what_is_held_out() -> None:
    task = tiny_tasks.addition()
    with pytest.raises(InputError, match="is held out"):
        warm_up(small(), task, 1, rows=[task.held_out[0]])
