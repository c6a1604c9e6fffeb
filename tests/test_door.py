"""What people give to `train`, `audit` and `evaluate`: it works, or they are told what to write."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import vantage as vt

E = vt.estimators


def train(*arguments: Any, **settings: Any) -> vt.Run:
    return vt.train(*arguments, **{"updates": 1, "progress": False} | settings)


def test_a_run_from_nothing() -> None:
    """Environment, policy and value function are made, and returned with the run."""
    run = train("CartPole-v1", vt.algorithms.ppo(), seed=3)
    assert run.config["environment"]["lanes"] == 1
    assert (run.config["fragment"], run.config["lr"], run.config["schedule"]) == (
        2048, 3e-4, "constant",
    )  # fmt: skip
    assert isinstance(run.policy, vt.Categorical)
    assert isinstance(run.value, vt.Value)
    assert run.policy.act(np.zeros(4, np.float32)) in (0, 1)
    again = train("CartPole-v1", "ppo", seed=3)
    other = train("CartPole-v1", "ppo", seed=4)
    weights = [nn.utils.parameters_to_vector(r.policy.parameters()) for r in (run, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "given",
    ["reinforce", "rloo", E.reinforce(), vt.algorithms.vpg(fragment=64)],
    ids=["algorithm's name", "estimator's name", "estimator", "algorithm"],
)
def test_estimators_and_algorithms_are_taken_alike(given: Any) -> None:
    assert len(train("CartPole-v1", given).history) == 1


def test_what_is_given_goes_before_what_the_algorithm_says() -> None:
    run = train(
        "CartPole-v1", vt.algorithms.ppo(), lanes=2, fragment=64, lr=1e-2, schedule="linear",
        discount=0.9, normalise=True,
    )  # fmt: skip
    config = run.config
    assert config["environment"]["lanes"] == 2
    assert config["environment"]["discount"] == 0.9
    assert config["environment"]["normalise"]["observations"]
    assert (config["fragment"], config["lr"], config["schedule"]) == (64, 1e-2, "linear")


def test_an_algorithm_trains_the_networks_that_it_is_given() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy, value = env.policy(), env.value()
    before = nn.utils.parameters_to_vector(policy.parameters()).clone()
    run = train(env, policy, vt.algorithms.a2c(), value=value)
    assert run.policy is policy
    assert run.value is value
    assert not torch.equal(before, nn.utils.parameters_to_vector(policy.parameters()))


def test_an_mdp_is_sampled() -> None:
    mdp = vt.MDP.article()
    assert len(train(mdp, E.rloo()).history) == 1
    policy = vt.SoftmaxTable(2, 2)
    report = vt.audit(mdp, policy, ["reinforce"], trajectories=64, batch=8, progress=False)
    assert report.row("reinforce").variance.exact
    assert len(vt.evaluate(mdp, policy, 10).returns) == 10


def test_a_policy_of_ones_own_can_act_after_training() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = vt.Categorical(nn.Linear(4, 2))
    train(env, policy, E.reinforce(), batch=4)
    assert policy.act(np.zeros(4, np.float32)) in (0, 1)


class Silent(nn.Module):
    """Sees nothing."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.zeros(3)


ENV = vt.Gymnasium("CartPole-v1", lanes=2)
PENDULUM = vt.Gymnasium("Pendulum-v1", lanes=2)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((ENV, ENV.policy(), E.rloo), {}, r"write vt\.estimators\.rloo\(\)"),
        ((ENV, vt.algorithms.ppo), {}, r"write vt\.algorithms\.ppo\(\)"),
        ((ENV, ENV.policy, E.rloo()), {}, r"env\.policy\(\), with parentheses"),
        ((ENV, ENV.policy(), E.ppo()), {"value": ENV.value}, r"write env\.value\(\)"),
        ((ENV, ENV.policy(), {"lr": 1}), {}, "a dict was given|A dict was given"),
        ((ENV, ENV.policy(), "rlo"), {}, "did you mean rloo"),
        ((ENV, ENV.policy(), 3), {}, "3 is no estimator"),
        ((ENV, nn.Linear(4, 2), E.rloo()), {}, r"wrap it: vt\.Categorical\(net\)"),
        ((PENDULUM, nn.Linear(3, 1), E.rloo()), {}, r"wrap it: vt\.Gaussian"),
        ((ENV, 7, E.rloo()), {}, r"7 is no policy; use env\.policy"),
        ((PENDULUM, vt.Categorical(nn.Linear(3, 2)), E.rloo()), {}, "use Gaussian"),
        ((ENV, vt.Gaussian(nn.Linear(4, 1), 1), E.rloo()), {}, "use Categorical"),
        ((ENV, PENDULUM.policy(), E.rloo()), {}, "Gaussian cannot act in CartPole-v1"),
        ((ENV, vt.Categorical(nn.Linear(3, 2)), E.rloo()), {}, r"cannot read.*sees as \(4,\)"),
        ((ENV, vt.Categorical(nn.Linear(4, 3)), E.rloo()), {}, "3 logits; CartPole-v1 has 2"),
        ((PENDULUM, vt.Gaussian(nn.Linear(3, 2), 2), E.rloo()), {}, "2 numbers.*have 1"),
        ((ENV, ENV.policy(), E.ppo()), {"value": vt.Value(nn.Linear(3, 1))}, "cannot read"),
        ((ENV, ENV.policy(), E.ppo()), {"value": nn.Linear(4, 2)}, r"wrap.*vt\.Value\(net\)"),
        ((ENV, ENV.policy(), E.ppo()), {"value": Silent()}, r"gives shape \(3,\)"),
        (
            (ENV, ENV.policy(recurrent=5), E.ppo()),
            {"value": ENV.value()},
            r"env\.value\(recurrent=5\)",
        ),
        ((ENV, ENV.policy(), E.rloo()), {"schedule": "linaer"}, "did you mean linear"),
        ((ENV, ENV.policy(), E.rloo()), {"lanes": 4}, "is made already, with 2 lanes"),
        (("CartPole-v9", E.rloo()), {}, "CartPole"),
        ((ENV, ENV.policy(), E.ppo()), {}, r"env\.value\(\)"),
        ((ENV,), {}, "no estimator"),
    ],
)
def test_what_cannot_be_used_is_told_what_to_write(
    arguments: tuple[Any, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(vt.InputError, match=message):
        train(*arguments, **settings)


def test_looking_at_a_policy_changes_no_random_stream() -> None:
    """The door looks at an observation of the space; the environment draws what it would have."""
    space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    space.seed(5)
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    env.observations = space
    policy = vt.Categorical(nn.Linear(2, 2))
    from vantage.training.door import check_policy

    expected = space.np_random.bit_generator.state
    check_policy(env, policy)
    assert space.np_random.bit_generator.state == expected


def test_a_name_nearly_right_is_answered_once() -> None:
    """PPO is an algorithm and an estimator; it is one name all the same."""
    with pytest.raises(vt.InputError, match=r"called 'pppo'; did you mean ppo or dppo or \w+\?"):
        vt.train("CartPole-v1", "pppo")
