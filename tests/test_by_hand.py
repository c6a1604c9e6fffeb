"""The loops by hand are those of `train`, to the bit."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import vantage as vt
from vantage import language as vl

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_the_loop_by_hand_is_that_of_train() -> None:
    torch.set_num_threads(1)
    by_hand = example("by_hand")["main"](updates=4, seed=3)
    env = vt.Gymnasium("CartPole-v1", lanes=64)
    policy = env.policy(hidden=(32,))
    vt.train(
        env, policy, vt.estimators.reward_to_go(), updates=4, batch=64, lr=1e-2, seed=3,
        progress=False,
    )  # fmt: skip
    assert torch.equal(
        parameters_to_vector(by_hand.parameters()), parameters_to_vector(policy.parameters())
    )


def test_the_language_loop_by_hand_is_that_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    loop = example("language_by_hand")
    by_hand = loop["main"](updates=4, seed=3)
    rows = [{"prompt": letter} for letter in "abcdefghijklmnop"]
    task = vl.Task(rows, loop["even"], num_generations=8, held_out=0)
    policy = vl.tiny.policy(hidden=32, layers=1, heads=2, max_completion_length=1)
    run = vl.train(
        task, policy, vt.estimators.rloo(), updates=4, batch=64, lr=3e-3, max_grad_norm=None,
        signal_every=0, decompose_every=0, seed=3, progress=False,
    )  # fmt: skip
    assert torch.equal(
        parameters_to_vector(by_hand.parameters()), parameters_to_vector(policy.parameters())
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"update {r['update']}: reward {r['reward']:.3f}" for r in run.history]


@pytest.mark.parametrize("name", ["by_hand", "language_by_hand"])
def test_the_loops_by_hand_stay_short(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 60
    assert "train(" not in text
