"""Moments of rows by the chain's equations, beside the same by listing all trajectories."""

from functools import partial

import pytest
import torch

import vantage as vt
from vantage import Estimator
from vantage.errors import InputError
from vantage.exact.row_moments import row_moments

E = vt.estimators
K = 3


def world(horizon: int | None, seed: int = 0, starts: int = 2) -> vt.MDP:
    """Three states and an end, random rewards and returns to earlier states; two starts."""
    generator = torch.Generator().manual_seed(seed)
    transition = torch.rand(4, 2, 4, generator=generator, dtype=torch.float64)
    transition[:, :, 0] = 0  # fewer trajectories to list
    reward = torch.randn(4, 2, 4, generator=generator, dtype=torch.float64)
    initial = torch.tensor([0.3, 0.7, 0.0, 0.0] if starts == 2 else [1.0, 0.0, 0.0, 0.0])
    return vt.MDP(
        transition / transition.sum(2, keepdim=True), reward, initial.double(), discount=0.8,
        terminal=torch.tensor([False, False, False, True]), horizon=horizon,
    )  # fmt: skip


def policy_of(mdp: vt.MDP) -> vt.SoftmaxTable:
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    with torch.no_grad():
        policy.logits.copy_(
            torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(3))
        )
    return policy


WORTH = torch.tensor([0.7, -1.1, 0.4, 5.0]).double()  # V of an end must not count
ROWS = [
    E.reinforce(),
    E.reward_to_go(),
    E.reinforce_baseline(),
    Estimator(baseline=partial(vt.baselines.constant, level=0.6), name="constant"),
    Estimator(baseline=vt.baselines.value, name="total minus V"),
    E.actor_critic(lambda_=0.6),
    E.actor_critic(lambda_=0.0),
    Estimator(
        returns=partial(vt.returns.gae, lambda_=0.9),
        baseline=partial(vt.baselines.constant, level=-0.5),
        discounting=E.discounted,
        aggregate=partial(E.constant_length, length=4.0),
        name="λ-return minus a number, discounted",
    ),
    *(E.n_step(n=n) for n in (1, 2, 3, 9)),
]
GROUPED = [
    E.rloo(),
    E.dr_grpo(),
    E.dr_grpo(length=5.0),
    E.cispo().replace(aggregate=E.per_trajectory, scale=vt.scales.none, name="cispo's clip"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_without_comparison_agree_with_all_trajectories_listed(row: Estimator) -> None:
    mdp = world(horizon=3)
    policy = policy_of(mdp)
    found = row_moments(mdp, policy, row, group_size=K, batch=K, value=WORTH)
    listed = vt.exact.expectation(mdp, policy, row, value=WORTH)
    torch.testing.assert_close(found.mean, listed.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.trace, listed.trace, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", GROUPED, ids=lambda row: row.name)
def test_rows_that_compare_a_group_agree_with_all_groups_listed(row: Estimator) -> None:
    mdp = world(horizon=2)
    policy = policy_of(mdp)
    found = row_moments(mdp, policy, row, group_size=K, batch=5 * K)
    listed = vt.exact.expectation(mdp, policy, row, group_size=K)
    torch.testing.assert_close(found.mean, listed.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.trace, K * listed.trace, rtol=1e-10, atol=1e-12)
    assert found.between is None


def test_a_comparison_of_the_batch_agrees_with_all_batches_listed() -> None:
    """Starts drawn one by one: a batch of two groups of one."""
    mdp = world(horizon=2)
    policy, row = policy_of(mdp), E.reinforce_leave_one_out()
    found = row_moments(mdp, policy, row, group_size=4, batch=2)
    listed = vt.exact.expectation(mdp, policy, row, groups=2)
    torch.testing.assert_close(found.mean, listed.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.trace, 2 * listed.trace, rtol=1e-10, atol=1e-12)


def test_every_row_of_the_table_is_exact_or_refused() -> None:
    """What the equations give for a row is what listing gives, whichever columns it has."""
    mdp = world(horizon=2)
    policy, answered = policy_of(mdp), set()
    for name in E.TABLE:
        row = E.named(name)
        try:
            found = row_moments(mdp, policy, row, group_size=2, batch=2, value=WORTH)
        except InputError as error:
            assert name in str(error)  # noqa: PT017 - it is one of two outcomes
            continue
        answered.add(name)
        groups = 2 if row.couples == "batch" else 1
        listed = vt.exact.expectation(
            mdp, policy, row, value=WORTH, groups=groups,
            group_size=2 if row.couples == "group" else 1,
        )  # fmt: skip
        torch.testing.assert_close(found.mean, listed.mean, rtol=1e-10, atol=1e-12)
        size = 1 if row.couples == "none" else 2
        torch.testing.assert_close(found.trace, size * listed.trace, rtol=1e-10, atol=1e-12)
    assert answered >= {
        "reinforce", "reward_to_go", "reinforce_baseline", "reinforce_leave_one_out", "n_step",
        "actor_critic", "rloo", "dr_grpo",
    }  # fmt: skip


def test_without_a_horizon_the_moments_are_the_limit_of_long_ones() -> None:
    endless, long = world(horizon=None), world(horizon=90)
    policy = policy_of(endless)
    for row in [*ROWS, *GROUPED, E.reinforce_leave_one_out()]:
        one, other = (
            row_moments(mdp, policy, row, group_size=K, batch=8, value=WORTH)
            for mdp in (endless, long)
        )
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one.trace, other.trace, rtol=1e-9, atol=1e-11)


def test_frozen_lake_is_audited_exactly_groups_included() -> None:
    """Infinitely many trajectories; only what is a matter of time or of steps is measured."""
    env = vt.Tabular(vt.MDP.from_gymnasium("FrozenLake-v1", discount=0.99), lanes=16)
    policy, value = env.policy(), env.value(hidden=(4,))
    rows = ["reinforce", "reward_to_go", "reinforce_baseline", "actor_critic", "rloo", "dr_grpo"]
    report = vt.audit(env, policy, rows, trajectories=128, batch=16, value=value, progress=False)
    for row in report.rows:
        grouped = row.estimator in ("rloo", "dr_grpo")
        for name in ("bias", "scale", "cosine", "squared_norm", "variance", "snr", "noise_scale"):
            assert getattr(row, name).exact, (row.estimator, name)
        assert row.between.exact is row.within.exact is not grouped
    moments = vt.exact.moments(env.mdp, policy, returns="total")
    assert report.row("reinforce").variance.value == pytest.approx(moments.trace.item())
    assert report.row("reinforce").between.value == pytest.approx(moments.state.item(), abs=1e-15)
    rloo, shrunk = report.row("rloo"), report.row("dr_grpo")
    assert rloo.bias.value == pytest.approx(0, abs=1e-10)
    assert shrunk.variance.value == pytest.approx(rloo.variance.value * (7 / 8) ** 2)
    assert "unbiased" in report.summary[0]


def test_what_has_no_equations_stays_sampled_and_says_so() -> None:
    env = vt.Tabular(vt.MDP.from_gymnasium("FrozenLake-v1", discount=0.99), lanes=16)
    report = vt.audit(
        env, env.policy(), ["grpo", "rloo"], trajectories=128, batch=16, progress=False
    )
    assert not report.row("grpo").variance.exact
    assert report.row("rloo").variance.exact
    assert any("grpo" in note and "no equations" in note for note in report.notes)
