"""A group is trajectories of one start: in training, in stale audits, and in exact factors."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import pytest
import torch

import vantage as vt
from vantage.auditing.stale import audit_stale
from vantage.estimators.columns import declares
from vantage.training.ascent import Ascent

E = vt.estimators
GARNET = vt.MDP.garnet(6, 2, 3, seed=1, termination=0.3, horizon=4)


@dataclass(frozen=True)
class Recorded(Ascent):
    """A policy-gradient step that keeps the batches it was given."""

    def update(self, passes: Any, optimizers: Any, estimator: Any, batch: vt.Batch, *rest: Any,
               **options: Any) -> Any:  # fmt: skip
        BATCHES.append(batch)
        return super().update(passes, optimizers, estimator, batch, *rest, **options)


BATCHES: list[vt.Batch] = []


def batches(env: Any, row: vt.Estimator, **settings: Any) -> list[vt.Batch]:
    BATCHES.clear()
    vt.train(env, env.policy(), row, update=Recorded(), progress=False, **settings)
    return list(BATCHES)


def starts_of(batch: vt.Batch) -> list[int]:
    """How many different first observations each group has."""
    first = batch.observation[:, 0]
    return [len(first[batch.group == g].unique(dim=0)) for g in batch.group.unique()]


@pytest.mark.parametrize("normalise", [False, True])
def test_training_compares_episodes_of_one_start(normalise: bool) -> None:
    """Also where lanes are fewer than the batch, and under a normaliser that goes on learning."""
    env = vt.make("CartPole-v1", lanes=3, normalise=normalise)
    for batch in batches(env, E.rloo(), updates=2, batch=12, group_size=4):
        assert batch.rows == 12
        assert starts_of(batch) == [1, 1, 1]
        assert len(batch.observation[:, 0].unique(dim=0)) == 3
        # they go on independently: no two episodes of a group are the same
        assert len({float(row.sum()) for row in batch.observation[:4]}) == 4
    if normalise:
        assert env.statistics.table[0, 0] > 24


def test_an_estimator_that_compares_no_groups_has_starts_of_its_own() -> None:
    env = vt.make("CartPole-v1", lanes=3)
    (batch,) = batches(env, E.reinforce(), updates=1, batch=12, group_size=4)
    assert len(batch.observation[:, 0].unique(dim=0)) == 12
    assert batch.group.tolist() == list(range(12))


def test_training_refuses_groups_where_lanes_cannot_share_a_start(tmp_path: Any) -> None:
    vector = gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    env = vt.Gymnasium(vector)
    with pytest.raises(vt.InputError, match=r"'rloo' compares episodes of one start.*its id"):
        vt.train(env, env.policy(), E.rloo(), updates=1, batch=16, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stale_audit_takes_its_steps_on_groups_of_one_start(monkeypatch: Any) -> None:
    from vantage.auditing import stale

    sampled = []

    def ascend(policy: Any, gradient: Any, steps: Any) -> None:
        steps.step()

    def gradient(policy: Any, batch: vt.Batch, row: vt.Estimator) -> None:
        sampled.append(batch)

    monkeypatch.setattr(stale, "ascend", ascend)
    monkeypatch.setattr(stale, "gradient", gradient)
    env = vt.Tabular(GARNET, lanes=5)
    audit_stale(env, env.policy(), [E.rloo()], updates=[1], batch=32, group_size=4,
                trajectories=256, progress=False)  # fmt: skip
    assert starts_of(sampled[0]) == [1] * 8


# the shrinkage baseline needs three groups a batch: tests of its own enumerate those
KNOWN = [
    name
    for name in E.TABLE
    if name != "shrinkage_baseline" and vt.estimators.named(name).factor(3, 1.0) is not None
]


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("name", KNOWN)
def test_a_known_factor_is_what_enumeration_gives(name: str, discount: float) -> None:
    """E ĝ = c ∇J to rounding, for every row of the table whose c algebra knows."""
    row = vt.estimators.named(name)
    factor = row.factor(3, discount)
    if factor is None:
        assert discount < 1
        return
    mdp = vt.MDP.garnet(2, 2, 1, seed=2, horizon=2, discount=discount)
    policy = vt.SoftmaxTable(mdp.observations, 2)
    with torch.no_grad():
        policy.logits.copy_(torch.linspace(-1, 1, policy.logits.numel()).view_as(policy.logits))
    value = torch.linspace(0.5, 1, mdp.states, dtype=torch.float64)  # any V: none need be true

    def inputs(batch: vt.Batch) -> dict[str, torch.Tensor]:
        return {"greedy_return": torch.full_like(batch.reward, 0.7)}

    expected = vt.exact.expectation(mdp, policy, row, 3, value=value, inputs=inputs)
    torch.testing.assert_close(
        expected.mean, factor * vt.exact.gradient(mdp, policy), atol=1e-12, rtol=1e-9
    )


def test_where_nothing_is_known_of_the_factor() -> None:
    assert E.dr_grpo().factor(4, 1.0) == pytest.approx(0.75)
    assert E.dr_grpo(length=5.0).factor(4, 1.0) == pytest.approx(0.15)
    assert E.reinforce().factor(4, 0.9) == 1
    assert E.reward_to_go().factor(4, 0.9) is None
    assert E.grpo().factor(4, 1.0) is None
    assert E.reinforce_baseline().factor(4, 1.0) in (1, None)
    assert E.a2c().factor(4, 1.0) is None  # V need not be the policy's own
    penalised = E.rloo().replace(kl_in_reward=vt.penalties.k1)
    assert penalised.factor(4, 1.0) is None

    @declares(bias="scale")
    def silent(batch: vt.Batch) -> torch.Tensor:
        return 2 * vt.aggregates.per_trajectory(batch)

    assert E.reinforce().replace(aggregate=silent).factor(4, 1.0) is None


def test_maxrl_gives_nothing_where_the_mean_is_not_positive() -> None:
    """Its source divides by the mean of a group where that is positive; −1 and −2 gave −0.5 ∇J."""
    mdp = vt.MDP.bandit([[-1.0, -2.0]])
    policy = vt.SoftmaxTable(mdp.observations, 2)
    mean = vt.exact.expectation(mdp, policy, E.maxrl(), group_size=2).mean
    assert torch.equal(mean, torch.zeros_like(mean))
    mixed = vt.MDP.bandit([[3.0, -1.0]])  # means 3, 1 and −1: only the first two count
    mean = vt.exact.expectation(mixed, policy, E.maxrl(), group_size=2).mean
    assert float(mean @ vt.exact.gradient(mixed, policy)) > 0


def test_a_column_of_ones_own_that_couples_groups_is_held_to_whole_groups() -> None:
    """It need not say that it needs them: what it couples is compared."""

    @declares(couples="group")
    def coupled(batch: vt.Batch, returns: torch.Tensor) -> torch.Tensor:
        return vt.baselines.leave_one_out(batch, returns)

    env = vt.make("CartPole-v1", lanes=3)
    mine = E.reinforce().replace(baseline=coupled)
    with pytest.raises(vt.InputError, match="whole groups"):
        vt.train(env, env.policy(), mine, updates=1, batch=10, group_size=4, progress=False)
    with pytest.raises(vt.InputError, match="whole episodes of a group"):
        vt.train(env, env.policy(), mine, updates=1, fragment=8, progress=False)
