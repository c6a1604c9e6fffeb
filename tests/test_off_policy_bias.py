"""The exact bias of every importance under a stated mismatch, and the table that shows it."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import vantage as vt
from vantage import exact

ROOT = Path(__file__).parents[1]


def benchmark() -> Any:
    place = ROOT / "benchmarks" / "off_policy_bias.py"
    spec = importlib.util.spec_from_file_location("off_policy_bias", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bias = benchmark()


@pytest.fixture(scope="module")
def cells() -> dict[float, dict[str, Any]]:
    return {noise: bias.measured(noise) for noise in bias.NOISE}


def test_what_is_unbiased_and_what_is_not(cells: dict[float, dict[str, Any]]) -> None:
    """Only the ratio of whole trajectories, where no bound cuts it, leaves ∇J."""
    for noise, found in cells.items():
        for name, cell in found.items():
            unbounded = name == "truncated(ratio=trajectory)"
            bounded = "ratio=trajectory" in name and not unbounded
            if unbounded:
                assert cell.bias < 1e-10
            elif bounded:
                assert (cell.bias < 1e-10) == (noise < 1)
            else:
                assert cell.bias > 0.04
        # a token's ratio mends part of what no ratio leaves, and none of the states
        assert 0.4 < found["truncated"].bias / found["none"].bias < 0.7
    far = cells[1.0]
    sequence = far["truncated(ratio=trajectory)"]
    bounded = far["truncated(ratio=trajectory, maximum=2.0)"]
    assert bounded.variance < 0.65 * sequence.variance
    assert bounded.error(64) < sequence.error(64)
    assert sequence.error(1024) < bounded.error(1024)


def test_on_policy_every_importance_is_unbiased() -> None:
    for cell in bias.measured(0.0).values():
        assert cell.bias < 1e-10


def test_the_mismatch_is_the_one_that_is_stated() -> None:
    """KL and ESS by a second route, from the probabilities of both policies' trajectories."""
    found = bias.mismatch(0.3)
    under = exact.enumerate(found.mdp, found.policy)
    chance = {tuple(a): float(w) for a, w in zip(_keys(under), under.weight, strict=True)}
    p = torch.tensor([chance[key] for key in _keys(found.every)], dtype=torch.float64)
    mu = found.every.weight
    assert found.kl == pytest.approx(float(mu @ (mu / p).log()), rel=1e-9)
    assert found.ess == pytest.approx(float(1 / (p.square() / mu).sum()), rel=1e-9)


def _keys(every: vt.Batch) -> list[tuple[int, ...]]:
    """What each trajectory saw and did."""
    both = torch.cat([every.observation.flatten(1), every.action.flatten(1)], 1)
    return [tuple(row) for row in both.tolist()]


def test_the_page_shows_these_numbers() -> None:
    """docs/estimators.md, by `python benchmarks/off_policy_bias.py`."""
    page = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    heading, _, *rows = bias.markdown().splitlines()
    for line in (heading, *rows):
        name = line.split(" | ")[0]
        shown = next(
            own
            for own in page.splitlines()
            if own.startswith(name + " | ") and re.search("°|least|ESS", own)
        )
        numbers, want = (
            [float(x) for x in re.findall(r"\d+\.\d+", text.split(" | ", 1)[1])]
            for text in (shown, line)
        )
        assert numbers == pytest.approx(want, abs=0.15), name
