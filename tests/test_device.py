"""Devices: tensors go to another one and back to the simulator; one that is not there is named."""

import sys

import gymnasium
import pytest
import torch

import vantage as vt
from vantage.commands import main as console
from vantage.environments.devices import at_once
from vantage.environments.interface import Step


def test_a_device_that_is_not_there_is_named() -> None:
    for make in (vt.make, lambda name, **given: vt.train(name, "ppo", updates=1, **given)):
        for name in ("CartPole-v1", "tensor/CartPole-v1"):
            with pytest.raises(vt.InputError, match=r"device='warp' cannot be used.*there is cpu"):
                make(name, device="warp")


def test_the_command_line_takes_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["vantage", "train", "CartPole-v1", "--device", "warp", "--dry-run"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        console.main()
    assert "device='warp'" in capsys.readouterr().err


def test_steps_go_by_way_of_the_processor_and_stay_the_same() -> None:
    """The road to another device, walked on the one that is there."""
    plain, away = (vt.Gymnasium("CartPole-v1", lanes=3) for _ in range(2))
    away._away = True
    assert torch.equal(plain.reset(seed=0), away.reset(seed=0))
    for number in range(60):
        action = torch.full((3,), number % 2)
        one, other = plain.step(action), away.step(action)
        for name in Step._fields:
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), name
        assert (one.observation is one.final_observation) == (
            other.observation is other.final_observation
        )


def test_a_policy_on_another_device_is_refused() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    policy = env.policy()
    with pytest.raises(vt.InputError, match=r"policy is on meta and CartPole-v1 on cpu.*policy.to"):
        vt.train(env, policy.to("meta"), vt.estimators.rloo(), updates=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gymnasium_environments_train_on_a_gpu() -> None:
    run = vt.train(
        "Pendulum-v1", vt.algorithms.ppo(fragment=64, epochs=2), lanes=4, updates=3,
        normalise=True, device="cuda", evaluate_every=1, evaluation_episodes=4, progress=False,
    )  # fmt: skip
    assert next(run.policy.parameters()).is_cuda
    assert run.policy.act([0.0, 1.0, 0.0]).shape == (1,)


@pytest.mark.parametrize("mode", ["lanes", "next", "same"])
def test_a_step_travels_whole(mode: str) -> None:
    """Nothing of it goes before: torch would refuse to join what lies on two devices."""
    modes = {"next": "NEXT_STEP", "same": "SAME_STEP"}
    settings = {} if mode == "lanes" else {"vectorization_mode": "sync"}
    if mode in modes:
        settings["vector_kwargs"] = {"autoreset_mode": gymnasium.vector.AutoresetMode[modes[mode]]}
    env = vt.Gymnasium("CartPole-v1", lanes=2, **settings)
    env.reset(seed=0)
    env.device, env._away = torch.device("meta"), True
    for _ in range(40):
        step = env.step(torch.zeros(2, dtype=torch.long))
        assert all(each.is_meta for each in step if each is not None)


def test_tensors_of_all_kinds_travel_together() -> None:
    there = torch.device("cpu")
    shown = torch.arange(10.0).reshape(5, 2).t()
    tensors = {
        "flags": torch.tensor([True, False, True]),
        "shown": shown,
        "wide": torch.tensor([1.5, -2.5], dtype=torch.float64),
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
        "none": torch.zeros(3, 0),
        "ids": torch.tensor([[7, 8]]),
        "again": shown,
    }
    moved = at_once(tensors, there)
    assert moved["shown"] is moved["again"]
    for name, tensor in tensors.items():
        assert moved[name].dtype == tensor.dtype
        assert torch.equal(moved[name], tensor), name
    moved["wide"][0] = 0.0
    assert tensors["wide"][0] == 1.5
