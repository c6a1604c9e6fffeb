"""What reward functions log beside their rewards, and what they are told of training."""

from pathlib import Path
from typing import Any

import pytest
import torch

import vantage as vt
from vantage import language
from vantage.errors import InputError
from vantage.language.model import tiny
from vantage.language.tasks.rewards import RewardError
from vantage.language.transcripts.records import read_transcripts, recorder
from vantage.language.transcripts.view import heading

SMALL = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32}
ROWS = [{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(10, 30)]


def task(*reward: Any, held_out: float = 0.0) -> language.Task:
    return language.Task(ROWS, list(reward), num_generations=2, held_out=held_out)


def policy() -> language.Policy:
    return tiny.policy(0, max_completion_length=3, **SMALL)


def test_calls_are_kept_and_columns_have_a_value_for_each() -> None:
    def half(completions, log_metric, log_extra, **columns):
        log_extra("twice", [text * 2 for text in completions])
        log_metric("shortest", torch.tensor(min(map(len, completions))))
        log_metric("shortest", 7)
        return [0.5 for _ in completions]

    async def later(completions, log_metric=None):
        log_metric("late", len(completions))
        return [None for _ in completions]

    rewards = task(half, later).score([0, 1, 1], ["4", "22", "333"])
    assert rewards.metrics == {"shortest": [1.0, 7.0], "late": [3.0]}
    assert rewards.extra == {"twice": ["44", "2222", "333333"]}
    assert rewards.total.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log_metric, log_extra: log_extra("x", [1]), r"log_extra\('x'\) 1 values for 2"),
        (lambda log_metric, log_extra: log_metric("x", "much"), "it takes a number"),
    ],
)
def test_what_is_no_log_is_refused(call, message) -> None:
    def wrong(completions, log_metric, log_extra):
        call(log_metric, log_extra)
        return [0.0 for _ in completions]

    with pytest.raises(InputError, match=message) as caught:
        task(wrong).score([0, 1], ["4", "22"])
    assert "'wrong'" in str(caught.value)


def test_a_column_of_such_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="a column 'log_extra'"):
        language.Task([{"prompt": "1", "log_extra": 1}], lambda completions: [0.0], held_out=0.0)


def test_metrics_and_columns_reach_the_run(tmp_path: Path) -> None:
    """Each update's metric is the mean over its calls; each record has its own value."""
    seen: list[list[str]] = []

    def counts(completions, log_metric, log_extra):
        seen.append(list(completions))
        log_metric("digits", sum(text.isdigit() for text in completions))
        log_metric("digits", 0)
        log_extra("backwards", [text[::-1] for text in completions])
        return [float(len(text)) for text in completions]

    asked, own = task(counts, held_out=0.2), policy()
    run = language.train(
        asked, own, vt.estimators.rloo(), batch=8, updates=2, evaluate_every=2, out=tmp_path,
        watch=recorder(tmp_path, asked, own.tokenizer), progress=False,
    )  # fmt: skip
    digits = [sum(text.isdigit() for text in texts) / 2 for texts in seen]
    assert [row["digits"] for row in run.history] == digits[:2]
    assert run.history[1]["eval/digits"] == digits[2]
    assert "eval/digits" not in run.history[0]
    records = read_transcripts(tmp_path)
    assert [record["extra/backwards"] for record in records] == [
        text[::-1] for texts in seen[:2] for text in texts
    ]
    assert f", backwards {records[0]['extra/backwards']}" in heading(records[0])


def test_replaced_groups_take_their_columns_with_them(tmp_path: Path) -> None:
    def even(completions, prompts, log_metric, log_extra):
        log_extra("own", [f"{p}{c}" for p, c in zip(prompts, completions, strict=True)])
        log_metric("calls", 1)
        return [float(len(text) % 2) for text in completions]

    asked, own = task(even), policy()
    run = language.train(
        asked, own, vt.estimators.rloo(), batch=8, updates=3, resample_dead_groups=2, out=tmp_path,
        watch=recorder(tmp_path, asked, own.tokenizer), progress=False,
    )  # fmt: skip
    assert any(row["prompts_drawn"] > 4 * row["update"] for row in run.history)
    assert all(row["calls"] == 1 for row in run.history)
    for record in read_transcripts(tmp_path):
        assert record["extra/own"] == record["prompt"] + record["completion"]


def test_a_name_of_the_run_is_refused_before_a_step(tmp_path: Path) -> None:
    for name in ("reward", "step_time", "eval/return", "grad_norm"):

        def same(completions, log_metric, name=name):
            log_metric(name, 1.0)
            return [float(len(text)) for text in completions]

        with pytest.raises(InputError, match=f"log_metric\\('{name}'\\): a run has a metric"):
            language.train(
                task(same), policy(), vt.estimators.rloo(), batch=8, updates=1, progress=False
            )


def test_functions_are_told_how_far_training_is(tmp_path: Path) -> None:
    told: list[Any] = []

    def shaped(completions, trainer_state):
        told.append(trainer_state)
        return [float(len(text)) for text in completions]

    settings: dict[str, Any] = {
        "batch": 8, "epochs": 2, "minibatches": 2, "evaluate_every": 3, "out": tmp_path,
        "progress": False,
    }  # fmt: skip
    asked = task(shaped, held_out=0.2)
    language.train(asked, policy(), vt.estimators.grpo(),
                   updates=2, **settings)  # fmt: skip
    assert [(s.global_step, s.max_steps, s.epoch) for s in told] == [(0, 8, 0), (4, 8, 4 / 16)]
    language.train(asked, policy(), vt.estimators.grpo(), updates=3, resume=True, **settings)
    assert [(s.global_step, s.max_steps, s.epoch) for s in told[2:]] == [
        (8, 12, 8 / 16),
        (12, 12, 12 / 16),  # the evaluation
    ]
    assert [row["update"] for row in told[2].log_history] == [1, 2]


def test_a_function_that_fails_is_named_although_it_is_told_more() -> None:
    def broken(completions, log_metric):
        log_metric("length", len(completions))
        if "" in completions:
            raise ValueError("nothing said")
        return [0.0 for _ in completions]

    with pytest.raises(RewardError, match=r"'broken' raised ValueError.*row 1, completion ''"):
        task(broken).score([0, 1], ["4", ""])
