"""Agents of a parallel environment as lanes of one policy."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from lanes import Scripted

import vantage as vt


class Team:
    """Three agents that each play `Scripted` by themselves: they end at different times."""

    metadata: ClassVar[dict[str, Any]] = {"name": "team_v0"}
    possible_agents: ClassVar[list[str]] = ["red", "green", "blue"]

    def __init__(self) -> None:
        self.each = {agent: Scripted() for agent in self.possible_agents}
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return Scripted.observation_space

    def action_space(self, agent: str) -> spaces.Space:
        return Scripted.action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = list(self.possible_agents)
        returned = {
            agent: env.reset(seed=None if seed is None else seed + i)
            for i, (agent, env) in enumerate(self.each.items())
        }
        return {a: r[0] for a, r in returned.items()}, {a: r[1] for a, r in returned.items()}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        returned = {agent: self.each[agent].step(actions[agent]) for agent in self.agents}
        columns: list[dict[str, Any]] = [
            {agent: one[i] for agent, one in returned.items()} for i in range(5)
        ]
        self.agents = [a for a in self.agents if not (columns[2][a] or columns[3][a])]
        return tuple(columns)

    def close(self) -> None:
        pass


class Tall(Team):
    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(4 if agent == "blue" else 3)


class Late(Team):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        shown, info = super().reset(seed)
        del shown["green"]
        return shown, info


class Vanishes(Team):
    def step(self, actions: dict[str, Any]) -> Any:
        columns = super().step(actions)
        columns[2].pop("green", None)
        return columns


@pytest.mark.parametrize("normalised", [False, True])
def test_every_agent_returns_what_it_returns_alone(normalised: bool) -> None:
    env: Any = vt.PettingZoo(Team)
    env = vt.Normalized(env) if normalised else env
    report = vt.contract(env, Scripted, steps=80, tolerance=1e-4 if normalised else 1e-6)
    assert report.ok, str(report)
    assert "reference" in report.passed


def test_agents_wait_in_dummy_steps_until_all_are_done() -> None:
    env = vt.PettingZoo(Team, copies=2)
    assert env.lanes == 6
    env.reset(seed=0)
    idle = 0
    for _ in range(60):
        step = env.step(torch.zeros(6, dtype=torch.long))
        assert step.idle is not None
        assert not (step.idle & step.real).any()
        assert (step.observation[step.idle, 1] > 0).all()  # the time in an episode: its last
        assert (step.observation[~step.idle & ~step.real, 1] == 0).all()  # the first of the next
        for copied in (slice(0, 3), slice(3, 6)):
            assert step.real[copied].any()  # somebody plays in every copy
        idle += int(step.idle.sum())
    assert idle > 20


def test_statistics_do_not_count_what_is_shown_again() -> None:
    env = vt.Normalized(vt.PettingZoo(Team))
    env.reset(seed=0)
    shown = 3
    for _ in range(40):
        step = env.step(torch.zeros(3, dtype=torch.long))
        assert step.idle is not None
        ended = step.terminated | step.truncated
        anew = ended & (step.observation != step.final_observation).any(1)
        shown += int((~step.idle).sum()) + int(anew.sum())
        assert env.statistics.table[0, 0] == shown


def test_a_shared_policy_is_trained_and_evaluated() -> None:
    env = vt.PettingZoo(Team, copies=2)
    policy = env.policy(hidden=(8,))
    with pytest.raises(vt.InputError, match=r"'rloo' compares episodes of one start"):
        vt.train(env, policy, vt.estimators.rloo(), batch=24, updates=1, progress=False)
    row = vt.estimators.reinforce_leave_one_out()
    run = vt.train(env, policy, row, batch=24, updates=2, progress=False)
    assert len(run.history) == 2
    assert len(vt.evaluate(env, run.policy, 12).returns) == 12
    ppo = vt.train(env, vt.algorithms.ppo(), steps=600, fragment=64, progress=False)
    assert ppo.history[-1]["steps"] >= 600


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Tall, "blue has Discrete"),
        (Late, r"\['green'\] are not there from the start"),
        (Vanishes, "green is gone without having ended"),
        (object, "possible_agents"),
    ],
)
def test_what_cannot_be_lanes_is_refused(make: Any, message: str) -> None:
    def play() -> None:
        env = vt.PettingZoo(make)
        env.reset(seed=0)
        env.step(torch.zeros(3, dtype=torch.long))

    with pytest.raises(vt.InputError, match=message):
        play()
    with pytest.raises(vt.InputError, match="agents of one environment"):
        vt.PettingZoo(Team).sharing(4)


def test_an_environment_of_pettingzoo_itself() -> None:
    """Rock, paper, scissors: two agents that end together, by truncation."""
    pytest.importorskip("pettingzoo")
    classic = pytest.importorskip("pettingzoo.classic.rps_v2")
    env = vt.PettingZoo(lambda: classic.parallel_env(max_cycles=7), copies=2)
    report = vt.contract(env, steps=40)
    assert report.ok, str(report)
    env.reset(seed=0)
    steps = [env.step(torch.randint(3, (4,))) for _ in range(7)]
    gains = np.stack([step.reward for step in steps]).reshape(7, 2, 2).sum(-1)
    assert not gains.any()  # what one wins the other loses
    assert all(step.real.all() for step in steps)
    assert steps[-1].truncated.all()
