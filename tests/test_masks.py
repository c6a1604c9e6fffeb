"""Masked actions are never taken, and every score and entropy is that of the law sampled."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import vantage as vt
from vantage.environments.rollout import episodes

ACTIONS = 4


class Doors(gymnasium.Env):
    """Four doors, some of them open; walking into a closed one is an error, not a penalty.

    Args:
        where: whether "info" or the "observation" tells which are open.
        seen: what else is shown: a "vector", an "id", a "picture" or a "dict".
    """

    SEEN: ClassVar[dict[str, gymnasium.Space]] = {
        "vector": spaces.Box(-1.0, 1.0, (3,), np.float32),
        "id": spaces.Discrete(5, start=2),
        "picture": spaces.Box(0, 255, (7, 7, 3), np.uint8),
        "dict": spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,), np.float32)}),
    }

    def __init__(self, where: str = "info", seen: str = "vector", first: int = 3):
        self.where, self.bare = where, self.SEEN[seen]
        self.action_space = spaces.Discrete(ACTIONS, start=first)
        self.observation_space = self.bare
        if where == "observation":
            inner = dict(self.bare.spaces) if seen == "dict" else {"observation": self.bare}
            self.observation_space = spaces.Dict(inner | {"action_mask": spaces.MultiBinary(4)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.bare.seed(seed)
        self.time = 0
        return self._shown()

    def step(self, action: Any) -> Any:
        door = int(action) - int(self.action_space.start)
        assert self.open[door], f"door {door} is closed: {self.open}"
        self.time += 1
        observation, info = self._shown()
        return observation, float(door == int(self.open.argmax())), self.time >= 6, False, info

    def _shown(self) -> Any:
        self.open = (self.np_random.random(ACTIONS) < 0.4).astype(np.int8)
        self.open[self.np_random.integers(ACTIONS)] = 1
        bare = self.bare.sample()
        if self.where == "info":
            return bare, {"action_mask": self.open.copy()}
        inner = bare if isinstance(bare, dict) else {"observation": bare}
        return {**inner, "action_mask": self.open.copy()}, {}


@pytest.fixture(params=["vector", "id", "picture", "dict"])
def seen(request: pytest.FixtureRequest) -> str:
    return request.param


def make(where: str, seen: str, lanes: int = 4, **settings: Any) -> vt.Gymnasium:
    asked = True if where == "info" else None
    return vt.Gymnasium(Doors, lanes=lanes, action_mask=asked, where=where, seen=seen, **settings)


@pytest.mark.parametrize("where", ["info", "observation"])
@pytest.mark.parametrize("recurrent", [None, 5])
def test_closed_doors_are_never_taken(where: str, seen: str, recurrent: int | None) -> None:
    """The environment asserts it, in sampling, by the mode, and in a loop of one's own."""
    env = make(where, seen)
    policy = env.policy(hidden=(8,), recurrent=recurrent)
    with torch.no_grad():
        for parameter in policy.parameters():  # far from uniform, so that the mask matters
            parameter.normal_(std=2.0, generator=torch.Generator().manual_seed(1))
    batch = episodes(env, policy, 40, seed=0)
    episodes(env, policy, 10, seed=0, greedy=True)
    torch.testing.assert_close(
        policy.log_prob(batch.observation, batch.action)[batch.mask].detach(),
        batch.log_prob[batch.mask],
    )
    lane = Doors(where, seen)
    observation, info = lane.reset(seed=3)
    for step in range(20):
        mask = info.get("action_mask")
        action = policy.act(observation, first=step == 0, action_mask=mask)
        observation, _, ended, _, info = lane.step(action)
        if ended:
            observation, info = lane.reset()


def test_the_law_is_the_softmax_over_what_is_allowed() -> None:
    """log π, entropy, their gradients and what is drawn, against the definition."""
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)

    class Logits(torch.nn.Module):
        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            return logits.expand(*observation.shape[:-1], ACTIONS)

    policy = vt.MaskedCategorical(Logits(), first=1)
    observation = torch.cat([torch.zeros(1, 1, dtype=torch.float64), mask], 1)
    allowed = [0, 2, 3]
    law = logits[0, allowed].softmax(0)
    for place, action in enumerate(allowed):
        score = policy.log_prob(observation, torch.tensor([action]))
        torch.testing.assert_close(score[0], law[place].log())
        (gradient,) = torch.autograd.grad(score[0], logits, retain_graph=True)
        expected = torch.zeros(4, dtype=torch.float64)
        expected[allowed] = -law.detach()
        expected[action] += 1
        torch.testing.assert_close(gradient[0], expected)
    entropy = policy.entropy(observation)
    torch.testing.assert_close(entropy[0], -(law * law.log()).sum())
    (slope,) = torch.autograd.grad(entropy[0], logits)
    assert slope.isfinite().all()
    assert slope[0, 1] == 0
    many = observation.expand(20_000, -1)
    drawn, _ = policy.sample(many, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    assert share[1] == 0
    # 4.5 standard errors of a share: an error of 1 in 50,000 over the three
    bound = 4.5 * (law * (1 - law) / len(drawn)).sqrt()
    assert ((share[allowed] - law.detach()).abs() < bound.detach()).all()
    # a padded step, all zeros, has a finite score and gradient
    padded = policy.log_prob(torch.zeros(1, 5, dtype=torch.float64), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(padded[0], logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("algorithm", ["ppo", "vpg", "trpo", "natural", "reinforce"])
def test_every_algorithm_trains_and_audits_masked_policies(algorithm: str) -> None:
    env = make("info", "vector")
    run = vt.train(env, algorithm, updates=2, fragment=64, progress=False, seed=1)
    assert all(np.isfinite(row["return"]) for row in run.history if row["return"] is not None)
    assert isinstance(run.policy, vt.MaskedCategorical)
    report = vt.audit(
        env, run.policy, [vt.estimators.reinforce(), vt.estimators.reinforce_baseline()],
        value=run.value or env.value(), trajectories=64, batch=8, progress=False,
    )  # fmt: skip
    assert all(np.isfinite(row.variance.value) for row in report.rows)


def test_normalisers_leave_masks_alone(seen: str) -> None:
    env = vt.Normalized(make("observation", "vector"))
    part = env.mask
    assert part is not None
    for observation in (env.reset(0), *(env.step(env.policy().mode(env.reset(0)))[:1])):
        mask = observation[:, part.first : part.last]
        assert ((mask == 0) | (mask == 1)).all()
        assert (mask.sum(1) > 0).all()


def test_learning_with_a_mask_is_learning() -> None:
    """The first open door pays: 1 a step at best; the uniform policy over open doors has ~0.25.

    Means of 512 episodes whose deviation is 1.1 are compared: a policy that does not learn seems to
    in 1 of 100,000 runs.
    """
    env = make("info", "vector", lanes=8)
    rule = vt.algorithms.ppo(lr=1e-2, fragment=128, epochs=4, minibatches=8)
    run = vt.train(env, rule, updates=8, progress=False, seed=0)
    net = run.policy.net
    assert net[0].rest == Doors.SEEN["vector"]  # the network reads what is beside the mask
    plain = vt.Gymnasium(Doors, lanes=8, where="observation", action_mask=False, first=0)
    assert plain.mask is None
    first, last = (
        np.mean([row["return"] for row in r]) for r in (run.history[:3], run.history[-3:])
    )
    assert last > first + 0.3


def test_a_run_with_masks_loads_again(tmp_path: Path) -> None:
    made = vt.make("Taxi-v4", lanes=4, action_mask=True)
    run = vt.train(made, "ppo", updates=1, progress=False, out=tmp_path / "run")
    env, policy, value = vt.load(tmp_path / "run")
    assert value is not None
    observation = env.reset(0)
    torch.testing.assert_close(policy(observation), run.policy(observation))
    taxi = gymnasium.make("Taxi-v4")
    seen, info = taxi.reset(seed=0)
    assert info["action_mask"][policy.act(seen, action_mask=info["action_mask"])]
    with pytest.raises(vt.InputError, match=r"action_mask=info\['action_mask'\]"):
        policy.act(seen)
    with pytest.raises(vt.InputError, match="knows no mask"):
        vt.make("Taxi-v4", lanes=1).policy().act(seen, action_mask=info["action_mask"])


class Silent(Doors):
    def _shown(self) -> Any:
        observation, _ = super()._shown()
        return observation, {"action_mask": np.zeros(4)} if self.time else {}


def test_masks_that_are_not_there_or_do_not_fit() -> None:
    doors = make("observation", "vector")
    assert len(vt.train(doors, "reinforce", updates=1, progress=False).history) == 1
    plain = vt.Categorical(torch.nn.Linear(7, 4))
    with pytest.raises(vt.InputError, match="tells which actions are allowed"):
        vt.train(doors, plain, "reinforce", updates=1)
    with pytest.raises(vt.InputError, match="info has no 'action_mask' at reset"):
        vt.make("CartPole-v1", lanes=1, action_mask=True).reset(0)
    with pytest.raises(vt.InputError, match="Discrete can be masked"):
        vt.make("Pendulum-v1", lanes=1, action_mask=True)
    vector = gymnasium.vector.SyncVectorEnv([lambda: Doors("observation")])
    with pytest.raises(vt.InputError, match="no entry 'allowed'"):
        vt.Gymnasium(vector, action_mask="allowed")
    silent = vt.Gymnasium(Silent, lanes=1, action_mask=True)
    with pytest.raises(vt.InputError, match="info has no"):
        silent.reset(0)


def test_a_network_of_ones_own_reads_what_is_beside_the_mask() -> None:
    env = make("info", "picture")
    net = torch.nn.Sequential(Scaled(), torch.nn.Flatten(-3), torch.nn.Linear(147, 4))
    policy = env.policy(net=net)
    assert isinstance(policy, vt.MaskedCategorical)
    assert len(vt.train(env, policy, "reinforce", updates=1, progress=False).history) == 1


class Scaled(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        assert picture.shape[-3:] == (7, 7, 3)
        return picture / 255
