"""Transcripts: what is written is what was drawn, files are whole or not there, views are safe."""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from vantage import estimators
from vantage.errors import InputError
from vantage.language import Task, rollout, train
from vantage.language.model import tiny
from vantage.language.transcripts import records as module
from vantage.language.transcripts.records import (
    read_transcripts,
    recorder,
    selected,
    transcripts,
    write_transcripts,
)
from vantage.language.transcripts.view import as_html, show, spoken, visible

ROWS = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(8)]


def halves(completions: list[str], answer: list[str]) -> list[float | None]:
    return [None if n == 1 else n / 2 for n in range(len(completions))]


def length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def made() -> tuple[Any, ...]:
    policy = tiny.policy(0, 5, hidden=32, layers=1, heads=2, intermediate=64)
    task = Task(ROWS, [halves, length], weights=[1, 0.5], num_generations=3)
    drawn = rollout(task, policy, [2, 5], torch.Generator().manual_seed(1))
    advantage = torch.randn(drawn.batch.reward.shape, generator=torch.Generator().manual_seed(2))
    return task, policy, drawn, torch.where(drawn.batch.mask, advantage, 0)


def test_what_is_read_is_what_was_drawn(tmp_path: Path) -> None:
    task, policy, drawn, advantage = made()
    records = transcripts(task, policy.tokenizer, drawn, advantage)
    file = write_transcripts(tmp_path, 3, records)
    assert file == tmp_path / "transcripts" / "000003.parquet"
    found = read_transcripts(tmp_path, 3)
    assert [{"update": 3, **record} for record in records] == found
    assert len(found) == 6
    ends = policy.end_ids
    for n, record in enumerate(found):
        mask = drawn.batch.mask[n]
        assert record["token_ids"] == drawn.batch.action[n][mask].tolist()
        assert record["advantage"] == advantage[n][mask].tolist()
        assert record["log_prob"] == drawn.batch.log_prob[n][mask].tolist()
        assert record["prompt"] == task.prompts[record["row"]] == f"{(2, 5)[n // 3]}+1="
        assert record["group"] == n // 3
        assert record["length"] == len(record["tokens"]) == int(mask.sum())
        assert record["truncated"] == (record["token_ids"][-1] not in ends)
        assert record["reward/halves"] == (None if n == 1 else n / 2)
        expected = (0 if n == 1 else n / 2) + 0.5 * len(record["completion"])
        assert record["reward"] == pytest.approx(expected)
        said = [i for i in record["token_ids"] if i not in policy.tokenizer.all_special_ids]
        assert policy.tokenizer.decode(said) == record["completion"]


def test_a_completion_that_cannot_be_scored_is_in_it_without_a_reward() -> None:
    _, policy, drawn, advantage = made()
    alone = Task(ROWS, halves, num_generations=3)
    scored = replace(drawn, scorable=torch.arange(6) != 1, parts={"halves": drawn.parts["halves"]})
    record = transcripts(alone, policy.tokenizer, scored, advantage)[1]
    assert record["reward"] is None
    assert record["reward/halves"] is None
    assert record["length"] > 0


def test_a_kill_leaves_the_whole_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, policy, drawn, advantage = made()
    records = transcripts(task, policy.tokenizer, drawn, advantage)
    write_transcripts(tmp_path, 1, records[:2])

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(module.os, "replace", killed)
    for update in (1, 2):
        with pytest.raises(SystemExit):
            write_transcripts(tmp_path, update, records)
    monkeypatch.undo()
    assert os.replace is module.os.replace
    assert len(read_transcripts(tmp_path)) == 2


def test_training_writes_them_and_reading_names_what_is_there(tmp_path: Path) -> None:
    task, policy, *_ = made()
    watch = recorder(tmp_path, task, policy.tokenizer, every=2)
    train(
        task, policy, estimators.rloo(), updates=5, batch=6, watch=watch, progress=False,
        decompose_every=0,
    )  # fmt: skip
    found = read_transcripts(tmp_path)
    assert sorted({record["update"] for record in found}) == [1, 2, 4]
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record in found:
        groups.setdefault((record["update"], record["group"]), []).append(record)
    for group in groups.values():  # leave-one-out advantages of a group add up to 0
        assert sum(record["advantage"][-1] for record in group) == pytest.approx(0, abs=1e-5)
    with pytest.raises(InputError, match=r"update 3; it has those of 1–2, 4\."):
        read_transcripts(tmp_path, 3)
    with pytest.raises(InputError, match="holds no transcripts"):
        read_transcripts(tmp_path / "elsewhere")


def record(reward: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "prompt": "1+1=",
        "completion": "23",
        "tokens": ["2", "3", "<eos>"],
        "token_ids": [6, 7, 2],
        "advantage": [0.5, 0.5, 0.5],
        "log_prob": [-0.1, -0.2, -0.3],
        "reward": reward,
        "row": 1,
        "group": 0,
        "length": 3,
        "truncated": False,
    } | changes


def test_worst_best_and_first() -> None:
    rewards = [0.3, None, 0.1, 0.9, 0.2]
    records = [record(reward) for reward in rewards]
    assert [r["reward"] for r in selected(records, worst=2)] == [0.1, 0.2]
    assert [r["reward"] for r in selected(records, best=2)] == [0.9, 0.3]
    assert [r["reward"] for r in selected(records, worst=9, best=9)] == [0.1, 0.2, 0.3, 0.9]
    assert [r["reward"] for r in selected(records, first=2)] == [0.3, None]


def printed(records: list[dict[str, Any]], terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=terminal,
        width=100,
        color_system="truecolor" if terminal else None,
    )
    show(records, console)
    return stream.getvalue()


def test_plain_text_where_there_is_no_terminal() -> None:
    text = printed([record(0.5), record(None, advantage=[1.0, -2.0, 0.0])], terminal=False)
    assert "\x1b" not in text
    assert "23\n[advantage +0.5]" in text
    assert "2[+1] 3[-2] <eos>[+0]" in text
    assert "not scorable" in text


def test_colours_follow_the_sign_and_size_of_the_advantage() -> None:
    text = printed([record(0.5, advantage=[2.0, -2.0, 0.0])], terminal=True)
    assert "48;2;46;160;67m2" in text  # full green behind "2"
    assert "48;2;218;54;51m3" in text  # full red behind "3"
    assert "48;2;32;32;32m<eos>" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_a_model_says_acts_on_the_terminal(terminal: bool) -> None:
    evil = "\x1b]0;title\x07[bold red]x[/]\u202e"
    bad = record(1.0, prompt=evil, completion=evil, tokens=[evil, "3", "\r"])
    text = printed([bad], terminal)
    for character in ("\x1b]", "\x07", "\r", "\u202e"):
        assert character not in text
    assert "[bold red]x[/]" in text


def test_html_is_escaped_and_well_formed() -> None:
    from xml.etree import ElementTree

    evil = record(1.0, prompt="<script>", tokens=['<b a="', "&", "\x00"], advantage=[1, -0.5, 0])
    page = as_html([evil, record(None)], title="a < b")
    root = ElementTree.fromstring(page)
    assert len(root.findall("article")) == 2
    spans = root.findall("article")[0].findall(".//span")
    assert [span.text for span in spans] == ['<b a="', "&", "\\x00"]
    assert "rgba(46,160,67,0.60)" in spans[0].get("style", "")
    assert "rgba(218,54,51,0.30)" in spans[1].get("style", "")


def test_prompts_of_messages_are_readable() -> None:
    assert spoken('[{"role": "user", "content": "a"}, {"role": "b", "content": "c"}]') == (
        "user: a\nb: c"
    )
    assert spoken("12") == "12"
    for prompt in ("[1", "[" * 5000, "[1, 2]", '["a"]', "1" * 5000):
        assert spoken(prompt) == prompt
    assert visible("a\tb") == "a\\tb"
