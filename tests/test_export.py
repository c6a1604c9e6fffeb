"""Exported policies do what `act` does, in every space, from NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_act import ACTIONS, OBSERVATIONS, echo

import vantage as vt
from vantage.policies import export


def inputs(space: Any, observations: list[Any]) -> torch.Tensor:
    if isinstance(space, spaces.Box | spaces.Discrete):
        array = np.stack([np.asarray(each) for each in observations])
        kind = np.int64 if isinstance(space, spaces.Discrete) else array.dtype
        return torch.from_numpy(array.astype(kind))
    flat = [spaces.flatten(space, each) for each in observations]
    return torch.from_numpy(np.stack(flat).astype(np.float32))


@pytest.mark.parametrize("seen", list(OBSERVATIONS))
@pytest.mark.parametrize("done", list(ACTIONS))
def test_torchscript_acts_alike(seen: str, done: str, tmp_path: Path) -> None:
    compared(seen, done, tmp_path / "policy.pt")


@pytest.mark.parametrize(
    ("seen", "done"), [("box", "box"), ("dictionary", "id"), ("picture", "ids"), ("id", "bits")]
)
def test_onnx_acts_alike(seen: str, done: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    compared(seen, done, tmp_path / "policy.onnx")


def compared(seen: str, done: str, path: Path) -> None:
    env: Any = vt.Gymnasium(echo(seen, done), lanes=3)
    if env.reset(0).is_floating_point():
        env = vt.Normalized(env)
        env.reset(0)
        for _ in range(4):
            env.step(env.policy(hidden=(4,)).mode(env.reset(1)))
    policy = env.policy(hidden=(8,))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.7, generator=torch.Generator().manual_seed(3))
    policy.export(path)
    space = OBSERVATIONS[seen]
    space.seed(9)
    observations = [space.sample() for _ in range(5)]
    acted = np.stack([policy.act(each, deterministic=True) for each in observations])
    (action,) = export.run(path, (inputs(space, observations),))
    np.testing.assert_allclose(action.numpy(), acted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", [".pt", ".onnx"])
def test_a_memory_is_handed_on(ending: str, tmp_path: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    env = vt.Gymnasium("Pendulum-v1", lanes=2)
    policy = env.policy(hidden=(8,), recurrent=5, squash=True)
    file = policy.export(tmp_path / f"policy{ending}")
    memory = torch.zeros(2, 5)
    for step in range(4):
        observation = np.full((2, 3), 0.1 * step, np.float32)
        acted = policy.act(observation, deterministic=True, first=step == 0)
        action, memory = export.run(file, (torch.from_numpy(observation), memory))
        np.testing.assert_allclose(action.numpy(), acted, rtol=1e-5, atol=1e-6)


def test_a_run_exports_and_says_what_it_cannot(tmp_path: Path) -> None:
    run = vt.train(
        "Pendulum-v1", "ppo_continuous", updates=1, fragment=64, lanes=2, normalise=True,
        progress=False, out=tmp_path / "run",
    )  # fmt: skip
    run.export(tmp_path / "policy.pt")
    _, policy, _ = vt.load(tmp_path / "run")
    observation = np.array([[0.3, -0.9, 4.0]], np.float32)
    (action,) = export.run(tmp_path / "policy.pt", (torch.from_numpy(observation),))
    np.testing.assert_allclose(
        action.numpy(), policy.act(observation, deterministic=True), rtol=1e-5
    )
    with pytest.raises(vt.InputError, match=r"end it in .onnx"):
        run.export(tmp_path / "policy.zip")
    with pytest.raises(vt.InputError, match="read from its folder"):
        vt.read_run(tmp_path / "run").export(tmp_path / "policy.pt")
    with pytest.raises(vt.InputError, match=r"env\.terms"):
        vt.Categorical(torch.nn.Linear(4, 2)).export(tmp_path / "policy.pt")


def test_a_file_that_acts_otherwise_is_refused(tmp_path: Path) -> None:
    """A network whose trace depends on its example: what the comparison is for."""

    class Fickle(torch.nn.Module):
        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            return observation + 1 if bool(observation.abs().sum() == 0) else observation - 1

    with pytest.raises(vt.InputError, match="acts otherwise than the policy"):
        export.write(Fickle(), (torch.zeros(2, 3),), tmp_path / "fickle.pt")
