"""Tokens, completions, rewards and seconds of a language run, counted from the outside."""

import time
from pathlib import Path
from typing import Any

import pytest
from language_models import policy
from trackers import Heard

import vantage as vt
from vantage import language
from vantage.reporting.facts import facts
from vantage.reporting.subject import Subject

LONGEST = 5
PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w2 w2"]


class Counting:
    """A reward that counts: what it is shown, and the end token where a completion has one."""

    def __init__(self) -> None:
        self.tokens = self.completions = self.length = 0
        self.gained = 0.0

    def __call__(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]]
    ) -> list[float]:
        rewards = [float(sum(ids) % 7) for ids in completion_ids]
        self.completions += len(completions)
        length = sum(min(len(ids) + 1, LONGEST) for ids in completion_ids)
        self.length += length
        self.tokens += sum(len(prompt.split()) for prompt in prompts) + length
        self.gained += sum(rewards)
        return rewards


@pytest.mark.parametrize("settings", [{}, {"epochs": 2, "minibatches": 2}], ids=["one", "several"])
def test_accounts_of_a_language_run_add_up(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Log, tracker, run, report and the resumed run say what the reward has counted."""
    count, heard = Counting(), Heard()
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    task = language.Task(rows, count, num_generations=4, held_out=0)
    asked: dict[str, Any] = {"batch": 8, "out": tmp_path / "run", "progress": False, **settings}

    def train(updates: int, **more: Any) -> vt.Run:
        own = policy("llama", max_completion_length=LONGEST)
        return language.train(task, own, vt.estimators.rloo(), updates=updates, **asked, **more)

    began = time.perf_counter()
    run = train(4, track=[heard])
    elapsed = time.perf_counter() - began
    written = vt.read_run(tmp_path / "run").history
    assert written == run.history
    for history in (run.history, [row for row, _ in heard.rows]):
        assert history[-1]["num_tokens"] == count.tokens
        assert sum(row["batch"] for row in history) == count.completions
        gained = sum(row["return"] * row["batch"] for row in history)
        assert gained == pytest.approx(count.gained)
        assert sum(row["length"] * row["batch"] for row in history) == pytest.approx(count.length)
        paced = sum(row["tokens_per_second"] * row["step_time"] for row in history)
        assert paced == pytest.approx(count.tokens)
        assert sum(row["step_time"] for row in history) <= elapsed
    said = facts(Subject(vt.read_run(tmp_path / "run").config, written))
    assert (said["tokens"], said["updates"]) == (f"{count.tokens:,}", "4")
    assert train(6, resume=True).history[-1]["num_tokens"] == count.tokens
