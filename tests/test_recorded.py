"""Work recorded once and replayed does what it did when it ran as it is."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import vantage as vt
from vantage.environments import fragments
from vantage.gradients import mlp_passes
from vantage.gradients.recorded import Recorded, cuda_graph, recorder_for

TIMES = ("seconds", "step_time", "steps_per_second")


class Rerun:
    """A recording that runs the function it was made of, on the inputs it was made with."""

    def __init__(self, function: Any, inputs: list[Tensor]) -> None:
        self.function, self.inputs, self.outputs, self.times = function, inputs, [], 0

    def replay(self) -> None:
        self.outputs[:] = self.function(*self.inputs)
        self.times += 1


def _trained(name: str, device: str = "cpu", schedule: str = "constant") -> vt.Run:
    env = getattr(vt, name)(lanes=32, device=device)
    algorithm = vt.algorithms.ppo(fragment=8, epochs=3, minibatches=4, lr=1e-3)
    return vt.train(
        env, env.policy((16,)), algorithm, value=env.value((16,)), updates=5, progress=False,
        schedule=schedule,
    )  # fmt: skip


def _same(one: vt.Run, other: vt.Run) -> None:
    """To rounding: inputs of a recording may lie otherwise in memory."""
    for mine, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)  # a step of Adam moves 1e-3
    for row, again in zip(one.history, other.history, strict=True):
        numbers = [
            {k: v for k, v in each.items() if k not in TIMES and v is not None}
            for each in (row, again)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_recorded_training_gives_the_same_numbers(
    name: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _trained(name, schedule=schedule)
    made: list[Rerun] = []

    def recorder(function: Any, inputs: list[Tensor]) -> tuple[Rerun, Sequence[Tensor]]:
        made.append(Rerun(function, inputs))
        return made[-1], made[-1].outputs

    for module in (mlp_passes, fragments):
        monkeypatch.setattr(module, "recorder_for", lambda device: recorder)
    _same(plain, _trained(name, schedule=schedule))
    replays = sorted(each.times for each in made)
    # 12 steps an update: first ones apart, the first call of every kind as it is
    expected = [3, 4, 54] if schedule == "constant" else [4, 10, 10, 10, 10, 10]
    assert replays == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_graphs_give_the_same_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = _trained(name, "cuda")
    for module in (mlp_passes, fragments):
        monkeypatch.setattr(module, "recorder_for", lambda device: None)
    _same(recorded, _trained(name, "cuda"))


def test_what_cannot_be_recorded_runs_as_it_is() -> None:
    def refuses(function: Any, inputs: list[Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    recorded = Recorded(refuses)
    for number in range(4):
        (doubled,) = recorded(lambda x: (2 * x,), "doubled", torch.tensor(float(number)))
        assert doubled == 2 * number


def test_other_settings_and_shapes_are_not_replayed() -> None:
    made: list[int] = []

    def recorder(function: Any, inputs: list[Tensor]) -> Any:
        made.append(len(inputs[0]))
        run = Rerun(function, inputs)
        return run, run.outputs

    recorded = Recorded(recorder)
    for factor, size in ((2, 3), (2, 3), (3, 3), (3, 3), (3, 4), (3, 4), (3, 4)):
        x = torch.rand(size, generator=torch.Generator().manual_seed(size))
        (scaled,) = recorded(lambda x, factor=factor: (factor * x,), factor, x)
        assert torch.equal(scaled, factor * x)
    assert made == [3, 3, 4]


def test_outputs_are_the_callers_own() -> None:
    kept = torch.zeros(2)

    class Fixed:
        def replay(self) -> None:
            kept.add_(1)

    recorded = Recorded(lambda function, inputs: (Fixed(), [kept]))
    first, second, third = (recorded(lambda x: (x,), None, torch.ones(2))[0] for _ in range(3))
    assert [float(each.sum()) for each in (first, second, third)] == [2.0, 2.0, 4.0]


def test_only_a_gpu_records() -> None:
    assert recorder_for(torch.device("cpu")) is None
    assert recorder_for(torch.device("cuda")) is cuda_graph
