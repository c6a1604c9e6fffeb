"""Rewards: TRL's convention, what None, exceptions and bad values do; verifiers; check_reward."""

import asyncio
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage.errors import InputError
from vantage.language.tasks import verifiers
from vantage.language.tasks.checking import check_reward
from vantage.language.tasks.rewards import RewardError, load_reward
from vantage.language.tasks.task import Task

ROWS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n), "kind": "sum"} for n in range(4)]


def task(*reward: Any, **settings: Any) -> Task:
    return Task(ROWS, list(reward), held_out=0.0, **settings)


def test_a_function_gets_what_its_signature_asks_for() -> None:
    seen: dict[str, Any] = {}

    def few(completions: list[str], answer: list[str]) -> list[float]:
        seen["few"] = (completions, answer)
        return [0.0] * len(completions)

    def all_of_it(completions: list[str], **columns: Any) -> list[float]:
        seen["all"] = columns
        return [0.0] * len(completions)

    task(few, all_of_it).score([2, 2, 0], ["a", "b", "c"], [[7], [8, 9], []])
    assert seen["few"] == (["a", "b", "c"], ["4", "4", "0"])
    offered = {name: seen["all"].pop(name) for name in ("log_metric", "log_extra")}
    assert all(callable(each) for each in offered.values())
    assert seen["all"].pop("trainer_state").global_step == 0
    assert seen["all"] == {
        "prompts": ["2+2=", "2+2=", "0+0="],
        "completion_ids": [[7], [8, 9], []],
        "answer": ["4", "4", "0"],
        "kind": ["sum"] * 3,
    }


def test_conversations_get_messages() -> None:
    messages = [{"role": "user", "content": "2+2="}]
    seen = []

    def look(completions: Any, prompts: Any) -> list[float]:
        seen.append((completions, prompts))
        return [1.0]

    Task([{"prompt": messages}], look, held_out=0.0).score([0], ["4"])
    assert seen == [([[{"role": "assistant", "content": "4"}]], [messages])]


def test_weights_and_none() -> None:
    """Σ of weight × reward over the functions that scored; none that did: not scorable, not 0."""

    def one(completions: list[str]) -> list[float | None]:
        return [1.0, None, None]

    def two(completions: list[str]) -> list[float | None]:
        return [10.0, 20.0, None]

    rewards = task(one, two, weights=[0.5, -1]).score([0, 1, 2], ["", "", ""])
    assert rewards.total.tolist() == [0.5 - 10, -20, 0]
    assert rewards.scorable.tolist() == [True, True, False]
    assert rewards.parts["one"].isnan().tolist() == [False, True, True]
    assert rewards.parts["two"][:2].tolist() == [10, 20]


def test_asynchronous_functions_run_at_the_same_time() -> None:
    async def slow(completions: list[str]) -> list[float]:
        await asyncio.sleep(0.2)
        return [1.0] * len(completions)

    scoring = task(slow, slow, slow, slow, slow)
    started = time.monotonic()
    rewards = scoring.score([0, 1], ["", ""])
    assert time.monotonic() - started < 0.8  # one after the other: 1.0
    assert rewards.total.tolist() == [5.0, 5.0]
    assert list(rewards.parts) == ["slow", "slow#2", "slow#3", "slow#4", "slow#5"]


def test_asynchronous_functions_work_where_an_event_loop_runs() -> None:
    async def fine(completions: list[str]) -> list[float]:
        return [3.0]

    async def notebook() -> list[float]:
        return task(fine).score([0], [""]).total.tolist()

    assert asyncio.run(notebook()) == [3.0]


@pytest.mark.parametrize("waits", [False, True])
def test_an_exception_names_function_row_and_completion(waits: bool) -> None:
    def strict(completions: list[str]) -> list[float]:
        return [float(text) for text in completions]

    async def strict_later(completions: list[str]) -> list[float]:
        return strict(completions)

    function = strict_later if waits else strict
    message = rf"{function.__name__}.*could not convert.*row 3, completion 'four'"
    with pytest.raises(RewardError, match=message) as caught:
        task(function).score([1, 3, 2], ["1", "four", "x"])
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_exception_beside_an_asynchronous_function_leaves_nothing_running() -> None:
    async def fine(completions: list[str]) -> list[float]:
        return [3.0]

    def broken(completions: list[str]) -> list[float]:
        raise KeyError("gold")

    with pytest.raises(RewardError, match="broken"):
        task(fine, broken).score([0], [""])


def test_a_failure_of_the_whole_batch_is_told_apart() -> None:
    def only_one(completions: list[str]) -> list[float]:
        assert len(completions) == 1
        return [0.0]

    with pytest.raises(RewardError, match="none of them alone"):
        task(only_one).score([0, 1], ["", ""])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], "1 rewards for 2 completions"),
        ([1.0, float("nan")], "nan at row 2, completion 'no'"),
        ([float("inf"), 1.0], "inf at row 1, completion 'yes'"),
        ([1.0, "1"], "'1' at row 2"),
        ([1.0, 1j], "1j.* at row 2"),
        (1.0, "a list with one number per completion"),
        (None, "a list with one number per completion"),
    ],
)
def test_bad_values_are_refused(result: Any, message: str) -> None:
    def bad(completions: list[str]) -> Any:
        return result

    with pytest.raises(RewardError, match=message):
        task(bad).score([1, 2], ["yes", "no"])


@pytest.mark.parametrize("result", [torch.tensor([1.0, 0.0]), [True, False], (1, torch.tensor(0))])
def test_tensors_and_booleans_are_numbers(result: Any) -> None:
    def score(completions: list[str]) -> Any:
        return result

    assert task(score).score([0, 1], ["", ""]).total.tolist() == [1.0, 0.0]


def test_a_function_cannot_change_what_the_next_one_sees() -> None:
    def greedy(completions: list[str], answer: list[str]) -> list[float]:
        completions.clear()
        answer.clear()
        return [0.0]

    assert task(greedy, verifiers.exact_match()).score([1], ["2"]).total.tolist() == [1.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda completions, anser: [], "'anser', which is no column.*did you mean answer"),
        (lambda completions, /: [], "'completions'"),
        ([], "at least one reward"),
    ],
)
def test_functions_that_cannot_be_called_are_refused_at_once(reward: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Task(ROWS, reward)


def test_a_weight_for_each_function() -> None:
    with pytest.raises(InputError, match="1 reward functions"):
        task(verifiers.exact_match(), weights=[1.0, 2.0])


def test_rewards_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my_rewards.py"
    file.write_text("def score(completions, **columns):\n    return [2.0] * len(completions)\n")
    assert task(load_reward(f"{file}:score")).score([0], [""]).total.tolist() == [2.0]
    with pytest.raises(InputError, match="no function scor; did you mean score"):
        load_reward(f"{file}:scor")
    with pytest.raises(InputError, match=r"FILE\.py:FUNCTION"):
        load_reward(str(file))
    with pytest.raises(InputError, match="no file"):
        load_reward("nowhere.py:score")
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(InputError, match="nothing_of_that_name"):
        load_reward(f"{file}:score")


# Verifiers.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.50 dollars", 1234.5),
        ("5-3", 3),
        ("x=-3", -3),
        ("−7", -7),
        ("it costs -$5", -5),
        ("1,2,3", 3),
        ("so 2 / 4.", 0.5),
        (r"\boxed{-\frac{1}{2}}", -0.5),
        (".5", 0.5),
        ("2.5e-1", 0.25),
        ("version v1.2.3", None),
        ("1/0", None),
        ("1e999999999", None),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text: str, value: float | None) -> None:
    found = verifiers.last_number(text)
    assert found is None if value is None else found == value


@given(st.fractions(max_denominator=10**6), st.text(alphabet="ab ,.!\n", max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_number_is_read_back(value: Any, around: str) -> None:
    assert verifiers.last_number(f"7 {around} {value} {around}".replace(". ", " ")) == value


@given(st.integers(-(10**9), 10**9))
@settings(max_examples=50, deadline=None)
def test_commas_do_not_matter(value: int) -> None:
    assert verifiers.number()([f"= {value:,}"], answer=[value]) == [1.0]


def test_tolerance_is_relative_to_large_numbers() -> None:
    near = verifiers.number(tolerance=0.01)
    assert near(["100.9", "101.1", "0.009", "0.011"], answer=["100", "100", "0", "0"]) == [
        1.0, 0.0, 1.0, 0.0,
    ]  # fmt: skip


def test_verifiers_take_both_forms_and_leave_rows_without_gold_unscored() -> None:
    message = [{"role": "assistant", "content": "4"}]
    assert verifiers.exact_match()([message, "4"], answer=["4", None]) == [1.0, None]
    assert verifiers.number()([message, "4"], answer=["4", None]) == [1.0, None]


def test_a_verifier_of_a_column_that_is_not_there_names_it() -> None:
    with pytest.raises(InputError, match="'exact_match' reads the column 'gold'"):
        task(verifiers.exact_match(answer="gold"))
    with pytest.raises(InputError, match="no such column"):
        verifiers.exact_match(answer="gold")([""], answer=["4"])


def test_regular_expressions_are_checked_at_once() -> None:
    with pytest.raises(InputError, match="not a regular expression"):
        verifiers.regular_expression("(")
    tags = verifiers.format()
    good = "<think>\n4\n</think>\n<answer>4</answer>\n"
    assert tags([good, f"well {good}", "<answer>4</answer>"]) == [1.0, 0.0, 0.0]


def test_length_falls_from_the_target_to_the_end_of_the_slack() -> None:
    ids = [[0] * n for n in (1, 4, 5, 6, 9)]
    assert verifiers.length(4, 2)([""] * 5, completion_ids=ids) == [1.0, 1.0, 0.5, 0.0, 0.0]
    with pytest.raises(InputError, match="takes completion_ids"):
        task(verifiers.length(4)).score([0], [""])


# check_reward.


def test_a_good_reward_passes_and_prints_a_table() -> None:
    report = check_reward(task(verifiers.exact_match()))
    assert report.rows == 4
    assert report.full == 1.0
    assert "gold" in str(report)
    assert report.rewards["of other rows"].tolist() == [0.0] * 12


def noise(completions: list[str]) -> list[float]:
    return [random.random() for _ in completions]


def of_the_batch(completions: list[str]) -> list[float]:
    return [float(n) for n in range(len(completions))]


def lenient(completions: list[str], answer: list[str]) -> list[float]:
    return [float(bool(text)) for text in completions]


def anything(completions: list[str]) -> list[float]:
    return [1.0] * len(completions)


def wrong_at_row_two(completions: list[str], answer: list[str]) -> list[float]:
    return [float(x == y and y != "4") for x, y in zip(completions, answer, strict=True)]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (noise, "depend on nothing but"),
        (of_the_batch, "depend on nothing but"),
        (lenient, "wrong answer .* at row 0 gets 1"),
        (anything, "wrong answer"),
        (wrong_at_row_two, "gold answer '4' at row 2 gets 0"),
    ],
)
def test_a_bad_reward_is_caught(reward: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        check_reward(task(reward))


def test_answers_can_be_put_into_a_form() -> None:
    form = task(verifiers.format(r"<a>\d+</a>"), verifiers.number(), weights=[0.5, 1])
    with pytest.raises(RewardError, match=r"gets 1, not the full reward of 1.5"):
        check_reward(form, full=1.5)
    report = check_reward(form, completion=lambda row: f"<a>{row['answer']}</a>")
    assert report.full == 1.5


def test_partial_functions_keep_their_names() -> None:
    def score(completions: list[str], factor: float) -> list[float]:
        return [factor] * len(completions)

    assert list(task(partial(score, factor=2.0)).score([0], [""]).parts) == ["score"]
