"""Tasks: rows from every source, prompts, splits and the order of prompts."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage.errors import InputError
from vantage.language.model import tiny
from vantage.language.tasks.prompts import Prompt, encode_prompts
from vantage.language.tasks.rows import read_rows
from vantage.language.tasks.task import Task, split
from vantage.language.tasks.verifiers import exact_match

ROWS = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(30)]
TOKENS = tiny.tokenizer()
CHAT = tiny.tokenizer(chat=True)


def test_every_source_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0].keys())
        writer.writeheader()
        writer.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    sources = [ROWS, datasets.Dataset.from_list(ROWS), pyarrow.Table.from_pylist(ROWS)]
    sources += [pandas.DataFrame(ROWS), pandas.DataFrame(ROWS, index=range(7, 7 + len(ROWS)))]
    sources += [tmp_path / f"rows.{ending}" for ending in ("jsonl", "csv", "parquet")]
    for source in [*sources, str(tmp_path / "rows.csv"), tuple(ROWS)]:
        assert read_rows(source) == ROWS


def test_what_a_table_lacks_is_none() -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b"}]
    for kind in (list, pandas.DataFrame, datasets.Dataset.from_list):
        assert read_rows(kind(rows))[1] == {"prompt": "b", "answer": None}


def test_what_a_line_of_json_may_hold(tmp_path: Path) -> None:
    """A line separator of Unicode inside a string does not end the line."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False) + "\n")
    assert read_rows(file) == [{"prompt": "a\u2028b"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2 is not JSON"),
        ("rows.jsonl", "[" * 5000, "line 1 is not JSON"),
        ("rows.jsonl", '{"prompt": ' + "1" * 5000 + "}", "line 1 is not JSON"),
        ("rows.jsonl", "[1]\n", "line 1 is .*a JSON object"),
        ("rows.jsonl", "\n", "no rows"),
        ("rows.csv", "prompt,answer\na,1\nb,2,3\n", "line 3 has not as many fields"),
        ("rows.csv", "prompt,answer\na\n", "line 2 has not as many fields"),
        ("rows.csv", 'prompt\n"a"b\n', "after line 1, is not CSV"),
        ("rows.csv", "prompt,answer\n", "no rows"),
        ("rows.txt", "a", "files that end in"),
        ("rows.parquet", "a", "not a Parquet file"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jsonl", "no such file"),
        ([], "no rows"),
        ([{"prompt": "a"}, "b"], "Row 1 is 'b'"),
        ({"prompt": "a"}, "rows is a dict"),
        (7, "rows is a int"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "one of them"),
    ],
)
def test_bad_sources_are_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(source)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"question": "a"}], {}, "no column 'prompt'; they have question"),
        ([{"prompt": "a"}, {"prompt": ""}], {}, "row 1: the prompt is ''"),
        ([{"prompt": "a"}, {"prompt": None}], {}, "row 1: the prompt is None"),
        ([{"prompt": [{"role": "user"}]}], {}, "row 0: the prompt"),
        ([{"prompt": []}], {}, "row 0: the prompt"),
        ([{"prompt": "a"}, {"prompt": [{"role": "user", "content": "b"}]}], {}, "in one form"),
        ([{"prompt": "a", "completions": 1}], {}, "'completions'.*rename"),
        (ROWS, {"num_generations": 0}, "num_generations=0"),
        (ROWS, {"held_out": 1.0}, "held_out=1.0"),
        (ROWS, {"held_out": [ROWS[3]]}, "1 prompts are trained on and held out.*held-out row 0"),
        (ROWS, {"held_out": [{"prompt": "b"}]}, "held-out row 0 has no answer"),
        (ROWS, {"held_out": {"x": ROWS[3:5]}}, "2 prompts are trained.*held-out row 0 of 'x'"),
        (ROWS, {"held_out": {"a": 0.1, "b": 0.1}}, "one may be a share"),
        (ROWS, {"held_out": {"a": 1.5}}, "held_out=1.5. of 'a': a share lies in"),
        (ROWS, {"held_out": {}}, "several sets by name"),
        (ROWS, {"held_out": {"a/b": 0.1}}, "a set is called 'a/b'"),
        (ROWS, {"held_out": {3: 0.1}}, "a set is called 3"),
        (
            ROWS[:9],
            {"held_out": {"a": ROWS[9:12], "b": [{"prompt": "b"}]}},
            "held-out row 0 of 'b' has no answer",
        ),
    ],
)
def test_bad_tasks_are_refused(rows: Any, settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Task(rows, exact_match(), **settings)


# Prompts.


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    return encode_prompts(tokenizer, [prompt])[0]


def test_plain_prompts_start_and_do_not_end() -> None:
    assert encode_prompt(TOKENS, "1+2=") == TOKENS.convert_tokens_to_ids(["<bos>", *"1+2="])


def test_an_end_token_that_a_tokenizer_adds_is_taken_off() -> None:
    from tokenizers import processors

    closing = tiny.tokenizer()
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    assert closing("1")["input_ids"][-1] == closing.eos_token_id
    assert encode_prompt(closing, "1") == encode_prompt(TOKENS, "1")


def test_conversations_go_through_the_chat_template() -> None:
    task = Task([{"prompt": "1+2=", "answer": "3"}], exact_match(), held_out=0.0, system="add")
    text = CHAT.decode(task.encode(CHAT)[0])
    assert text == "<bos><system>add<user>1+2=<assistant>"
    half = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert CHAT.decode(encode_prompt(CHAT, half)) == "<bos><user>a<assistant>b"
    with pytest.raises(InputError, match="no chat template; set tokenizer"):
        task.encode(TOKENS)


def test_a_second_system_message_is_refused() -> None:
    rows = [{"prompt": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}]
    with pytest.raises(InputError, match="system message of its own"):
        Task(rows, exact_match(), system="c", held_out=0.0)


# Splits and order.


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), st.floats(0, 0.9))
@settings(deadline=None, max_examples=100)
def test_a_split_is_one_and_never_tears_equal_keys(keys: list[str], share: float) -> None:
    train, held = split(keys, share, seed=1)
    assert sorted(train + held) == list(range(len(keys)))
    assert not {keys[n] for n in train} & {keys[n] for n in held}
    assert (train, held) == split(keys, share, seed=1)


def test_equal_prompts_fall_on_one_side() -> None:
    task = Task([*ROWS, *ROWS], exact_match(), held_out=0.3)
    held = Counter(str(task.prompts[row]) for row in task.held_out)
    assert set(held.values()) == {2}
    assert len(held) == 9


def test_held_out_rows_of_their_own() -> None:
    task = Task(ROWS[:20], exact_match(), held_out=ROWS[20:])
    assert task.train == list(range(20))
    assert [task.rows[row] for row in task.held_out] == ROWS[20:]
    assert task.label(21) == "held-out row 1"
    assert task.held_out_sets == {}


def test_several_sets_are_held_out_by_name() -> None:
    """Each in its rows, a share of the training rows beside them; in the order of the rows."""
    task = Task(
        ROWS[:10], exact_match(), held_out={"own": 0.2, "easy": ROWS[10:12], "hard": ROWS[12:15]}
    )
    sets = task.held_out_sets
    assert {name: len(rows) for name, rows in sets.items()} == {"own": 2, "easy": 2, "hard": 3}
    assert [task.rows[row] for row in sets["hard"]] == ROWS[12:15]
    assert task.held_out == sorted(row for rows in sets.values() for row in rows)
    assert set(task.train) == set(range(10)) - set(sets["own"])
    labels = [task.label(row) for row in (sets["own"][0], sets["easy"][1], sets["hard"][0])]
    assert labels == [
        f"row {sets['own'][0]}",
        "held-out row 1 of 'easy'",
        "held-out row 0 of 'hard'",
    ]
    assert task.describe()["held_out_sets"] == {"easy": 2, "hard": 3, "own": 2}
    alone = Task(ROWS[:10], exact_match(), held_out={"own": 0.2})
    assert alone.train == Task(ROWS[:10], exact_match(), held_out=0.2).train


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_every_epoch_is_a_permutation(prompts: int, epoch: int, seed: int) -> None:
    task = Task(ROWS, exact_match(), held_out=0.2)
    size = len(task)
    drawn = [row for update in range(240) for row in task.draw(update, prompts, seed)]
    assert len(drawn) == 240 * prompts
    if len(drawn) >= (epoch + 1) * size:
        assert sorted(drawn[epoch * size : (epoch + 1) * size]) == task.train


def test_epochs_and_seeds_differ_and_updates_repeat() -> None:
    task = Task(ROWS, exact_match(), held_out=0.0)
    assert task.draw(0, 30) != task.draw(1, 30)
    assert task.draw(0, 30, seed=1) != task.draw(0, 30, seed=2)
    assert task.draw(5, 7) == task.draw(5, 7) == task.stream(35, 7)


def test_a_description_tells_rows_apart() -> None:
    same, other = Task(ROWS, exact_match()), Task(ROWS[1:], exact_match())
    assert Task(ROWS, exact_match()).describe() == same.describe()
    assert other.describe()["rows_sha256"] != same.describe()["rows_sha256"]
    json.dumps(same.describe())


def test_ids_are_scored_as_text() -> None:
    task = Task(ROWS, exact_match(), held_out=0.0)
    ids = TOKENS(["2", "3"], add_special_tokens=False)["input_ids"]
    ids[0].append(TOKENS.eos_token_id)
    assert task.score_ids([1, 1], ids, TOKENS).total.tolist() == [1.0, 0.0]
