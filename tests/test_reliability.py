"""Killed twenty times at random moments, every run ends as the one that never was.

`benchmarks/reliability.py` does the same two hundred times, for every kind of run.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def reliability() -> Iterator[Any]:
    if torch.get_num_threads() > 1:
        pytest.skip("runs are forked, and a process that computed with several threads cannot be")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        import reliability

        reliability.preload()
        yield reliability


@pytest.mark.parametrize(
    "name",
    ["whole_episodes", "v_trace_with_delay", "ppg", "acer", "kronecker", "gru", "language_model"],
)
def test_killed_five_times_a_run_ends_as_the_one_that_never_was(
    reliability: Any, tmp_path: Path, name: str
) -> None:
    kind = reliability.KINDS[name]
    whole = reliability.measured(kind, tmp_path / "whole")
    kills = 0
    for number in range(5):
        found = reliability.tried(kind, tmp_path / str(number), whole, random.Random(number))
        assert found["differs"] == []
        kills += found["by_time"] + found["by_file"]
        if kills >= 5:
            break
    assert kills >= 5


def test_a_run_that_differs_is_told(reliability: Any, tmp_path: Path) -> None:
    """A line that is there twice, and one number of weights."""
    folder = tmp_path / "run"
    reliability.whole_episodes(folder, False)
    before = reliability.trace_of(folder)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines, lines[-1]]))
    weights = folder / "checkpoint" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    after = reliability.trace_of(folder)
    differs = {name for name in before if before[name] != after[name]}
    assert differs == {"metrics.jsonl", "checkpoint/policy.safetensors"}
    timed = json.loads(lines[0]) | {"step_time": 99.0}
    metrics.write_text("".join([json.dumps(timed) + "\n", *lines[1:]]))
    assert reliability.trace_of(folder)["metrics.jsonl"] == before["metrics.jsonl"]
