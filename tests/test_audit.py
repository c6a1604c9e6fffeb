"""Audits against exact values: of small MDPs, of the planner's predictions, of stale batches."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vantage as vt
from vantage.auditing import exactly
from vantage.auditing.measure import undetermined
from vantage.auditing.planner import best_group_size, predicted_snr, predicted_variance
from vantage.auditing.stale import audit_stale
from vantage.auditing.starts import decompositions
from vantage.auditing.units import plan_units
from vantage.estimators.columns import declares
from vantage.statistics.estimate import Estimate

E = vt.estimators


class Table(nn.Module):
    """V(s) from a table."""

    def __init__(self, values: Tensor):
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, observation: Tensor) -> Tensor:
        return self.values[observation]


def quiet(env: Any, policy: vt.Policy, rows: list[vt.Estimator], **settings: Any) -> vt.Report:
    return vt.audit(env, policy, rows, progress=False, **settings)


def test_the_worked_example_is_audited_exactly() -> None:
    """Traces 427/16 and 17/16, ‖∇J‖² = 17/16: from the article, by hand."""
    mdp = vt.MDP.article()
    value = Table(torch.tensor([9.5, 3.5, 0.0][: mdp.states]).double())
    report = quiet(
        vt.Tabular(mdp, lanes=8), vt.SoftmaxTable(mdp.observations, 2),
        [E.reinforce(), E.reinforce_baseline()], value=value, trajectories=640,
    )  # fmt: skip
    raw, advantage = report.rows
    assert raw.variance.exact
    assert raw.variance.value == pytest.approx(427 / 16)
    assert advantage.variance.value == pytest.approx(17 / 16)
    for row in report.rows:
        assert row.bias.value == pytest.approx(0, abs=1e-12)
        assert row.squared_norm.value == pytest.approx(17 / 16)
        assert row.snr.value == pytest.approx(64 * row.squared_norm.value / row.variance.value)
        assert row.scale.value == pytest.approx(1)
        exact = vt.exact.moments(
            mdp, vt.SoftmaxTable(mdp.observations, 2),
            "none" if row is raw else "value", "total",
        )  # fmt: skip
        assert row.between.value == pytest.approx(exact.state.item())
        assert row.within.value == pytest.approx((exact.action + exact.rest).item())
    assert "unbiased" in report.summary[0]
    assert report.plan.cheapest == "reinforce_baseline"
    assert report.plan.trajectories["reinforce_baseline"].value == pytest.approx(4)


def without_exact_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits of tabular environments sample, as all others do: their intervals are to be seen."""
    monkeypatch.setattr(exactly, "rows", lambda *given: ({}, {}))


def test_sampled_intervals_hold_the_exact_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corridor, sampled, and checked against the moments.

    Of 16 intervals of 95 %, 12 or fewer hold the truth with probability 0.001 if they were
    independent; they are not quite, and at most 4 misses allow for that.
    """
    without_exact_rows(monkeypatch)
    mdp = vt.MDP.short_corridor()
    policy = vt.SoftmaxTable(mdp.observations, 2)
    report = quiet(
        vt.Tabular(mdp, lanes=256), policy, [E.reinforce(), E.reward_to_go()],
        trajectories=8192, batch=32, seed=1,
    )  # fmt: skip
    true = vt.exact.gradient(mdp, policy)
    held = []
    for row, returns in zip(report.rows, ("total", "to_go"), strict=True):
        exact = vt.exact.moments(mdp, policy, returns=returns)
        trace, norm = exact.trace.item(), true.square().sum().item()
        assert not row.variance.exact
        for estimate, truth in (
            (row.variance, trace),
            (row.squared_norm, norm),
            (row.snr, 32 * norm / trace),
            (row.noise_scale, trace / norm),
            (row.batch_cosine, (1 + trace / norm / 32) ** -0.5),
            (row.pairwise_cosine, 1 / (1 + trace / norm / 32)),
            (row.scale, 1.0),
            (row.bias, 0.0),
        ):
            held.append(estimate.low <= truth <= estimate.high)
            # and none is far off: within five standard errors, as the interval tells them
            error = (estimate.high - estimate.low) / 3.92
            assert abs(estimate.value - truth) < 5 * error
    assert sum(held) >= 12


@pytest.mark.parametrize("rewards", [[[0.0, 10.0], [0.0, -10.0]], [[3.0, 1.0]]])
def test_the_sampled_decomposition_holds_the_exact_one(rewards: list[list[float]]) -> None:
    """Two starts of very different worth, and one; within five standard errors of the truth."""
    mdp = vt.MDP.bandit(rewards)
    policy = vt.SoftmaxTable(mdp.observations, 2)
    found = decompositions(
        vt.Tabular(mdp, lanes=8), policy, [E.reinforce(), E.rloo()], 0, None, None,
        "vmap", None, 1 << 30, undetermined,
    )  # fmt: skip
    between, within = found["reinforce"]
    exact = vt.exact.moments(mdp, policy, returns="total")
    for estimate, truth in ((between, exact.state), (within, exact.action + exact.rest)):
        error = (estimate.high - estimate.low) / 3.92
        assert abs(estimate.value - truth.item()) < 5 * error
    one_start = len(rewards) == 1
    assert between.low <= 0 <= between.high if one_start else between.low > 0
    assert "compares trajectories" in found["rloo"][0].note


def test_bias_is_found_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """GRPO's scale and a per-step mean are seen; leave-one-out is not accused."""
    without_exact_rows(monkeypatch)
    mdp = vt.MDP.bandit([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    policy = vt.SoftmaxTable(mdp.observations, 3)

    @declares(couples="group", bias="scale", needs=("group",))
    def undeclared(batch: vt.Batch, returns: Tensor) -> Tensor:
        """A group mean that does not say by what it multiplies the gradient: it is measured."""
        return vt.baselines.group_mean(batch, returns)

    measured = E.dr_grpo().replace(baseline=undeclared, name="measured")
    rows = [E.rloo(), E.grpo(), E.dr_grpo(), measured]
    report = quiet(
        vt.Tabular(mdp, lanes=64), policy, rows, trajectories=8192, batch=64, group_size=4
    )
    # by four standard errors, as the intervals tell them: error rates below 1e-4
    unbiased = report.row("rloo").scale
    assert abs(unbiased.value - 1) < 4 * (unbiased.high - unbiased.low) / 3.92
    assert report.row("rloo").bias.value < 0.15 < report.row("measured").bias.low
    # the group mean holds the trajectory's own return: (K − 1)/K = 3/4, exactly
    shrunk = report.row("measured").scale
    assert abs(shrunk.value - 0.75) < 4 * (shrunk.high - shrunk.low) / 3.92
    assert shrunk.high < 1
    by_algebra = report.row("dr_grpo")
    assert by_algebra.scale == Estimate(0.75, 0.75, 0.75, exact=True)
    assert by_algebra.cosine.exact
    assert by_algebra.cosine.value == 1
    assert by_algebra.bias.exact
    assert by_algebra.bias.value == 0.25
    assert not by_algebra.variance.exact
    assert report.row("grpo").scale.low > 1
    assert report.row("grpo").unit >= 4


def cartpole() -> tuple[vt.Gymnasium, vt.Policy, vt.Value]:
    """Episodes of 20 steps at the most: lengths without a tail, which few samples determine."""
    env = vt.Gymnasium("CartPole-v1", lanes=32, max_episode_steps=20)
    return env, env.policy(hidden=(8,)), env.value(hidden=(8,))


def test_one_set_of_samples_gives_each_estimator_what_it_gets_alone() -> None:
    env, policy, value = cartpole()
    rows = [E.reinforce(), E.reward_to_go(), E.a2c(), E.reinforce_mean()]
    together = quiet(env, policy, rows, value=value, trajectories=512, batch=32)
    for row in rows:
        alone = quiet(env, policy, [row], value=value, trajectories=512, batch=32).rows[0]
        both = together.row(row.name)
        assert both.variance.value == pytest.approx(alone.variance.value, rel=1e-3)
        assert both.snr.value == pytest.approx(alone.snr.value, rel=1e-3)
        # a scale that 16 batches do not determine is undetermined both times
        assert both.scale.value == pytest.approx(alone.scale.value, rel=1e-3, nan_ok=True)


def test_same_seed_same_numbers() -> None:
    env, policy, value = cartpole()
    rows = [E.reward_to_go(), E.rloo()]
    first, again, other = (
        quiet(env, policy, rows, value=value, trajectories=256, batch=16, seed=seed)
        for seed in (3, 3, 4)
    )
    for name in ("variance", "snr", "bias", "scale"):
        one, two = getattr(first.rows[1], name), getattr(again.rows[1], name)
        assert (one.value, one.low, one.high) == (two.value, two.low, two.high)
    assert first.rows[1].snr.value != other.rows[1].snr.value


def test_pooled_units_keep_the_variance_of_a_trajectory() -> None:
    """More trajectories than units are kept: averaged in eights, the statistics still count one."""
    env, policy, _ = cartpole()
    report = quiet(env, policy, [E.reward_to_go()], trajectories=2048, batch=32)
    assert report.settings["pool"] == 8
    few = quiet(env, policy, [E.reward_to_go()], trajectories=256, batch=32)
    assert few.settings["pool"] == 1
    pooled, single = report.rows[0].variance, few.rows[0].variance
    assert pooled.low <= single.high
    assert single.low <= pooled.high


def test_a_sketch_stays_within_memory_and_near_the_whole() -> None:
    env, _, _ = cartpole()
    policy = env.policy(hidden=(64, 64))
    rows = [E.reward_to_go()]
    whole = quiet(env, policy, rows, trajectories=128, batch=16)
    small = quiet(env, policy, rows, trajectories=128, batch=16, memory=2 * 128 * 2048 * 4)
    assert any("sketched to 2,048" in note for note in small.notes)
    one, two = whole.rows[0].variance.value, small.rows[0].variance.value
    assert two == pytest.approx(one, rel=4 * (2 / 2048) ** 0.5)
    with pytest.raises(vt.InputError, match=r"fewer than 1024; give 1,048,576 bytes"):
        quiet(env, policy, rows, trajectories=128, batch=16, memory=1000)


def test_the_planner_predicts_what_a_fresh_measurement_finds() -> None:
    """SNR at other batches, predicted at 32 and measured anew with another seed."""
    env, policy, _ = cartpole()
    rows = [E.reinforce(), E.reward_to_go()]
    planned = quiet(env, policy, rows, trajectories=4096, batch=32, seed=0)
    for batch in (8, 128):
        fresh = quiet(env, policy, rows, trajectories=4096, batch=batch, seed=9)
        for row in planned.rows:
            predicted = predicted_snr(row.noise_scale, batch)
            measured = fresh.row(row.estimator).snr
            # two 95 % intervals of independent samples: their overlap fails far below 1 in 20
            assert predicted.low <= measured.high
            assert measured.low <= predicted.high
    plan = planned.plan
    needed = plan.trajectories["reward_to_go"]
    assert needed.value == pytest.approx(4 * planned.row("reward_to_go").noise_scale.value)


def test_two_level_planner_against_brute_force() -> None:
    between, within, prompt, completion = 2.0, 9.0, 3.0, 0.5
    best = best_group_size(between, within, prompt, completion)

    def variance_for_a_budget(size: float, budget: float = 1e6) -> float:
        starts = budget / (prompt + completion * size)
        return between / starts + within / (starts * size)

    costs = {k / 100: variance_for_a_budget(k / 100) for k in range(100, 3000)}
    assert best == pytest.approx(min(costs, key=lambda k: costs[k]), abs=0.02)
    assert predicted_variance(between, within, 4, 3) == pytest.approx(2 / 4 + 9 / 12)


def test_a_stale_batch_biases_what_has_no_ratio() -> None:
    """Ten updates after sampling, importance ratios keep the gradient; without them it is off."""
    mdp = vt.MDP.bandit([[1.0, 0.0], [0.0, 2.0]])
    policy = vt.SoftmaxTable(mdp.observations, 2)
    plain = E.reinforce()
    corrected = plain.replace(ratio=vt.ratios.token, name="corrected")
    reports = audit_stale(
        vt.Tabular(mdp, lanes=32), policy, [plain, corrected], updates=(0, 10), batch=32, lr=0.1,
        trajectories=1024, progress=False,
    )  # fmt: skip
    assert reports[0].row("reinforce").bias.value == pytest.approx(0, abs=1e-9)
    assert reports[10].row("corrected").bias.value == pytest.approx(0, abs=1e-9)
    assert reports[10].row("reinforce").bias.value > 0.1
    assert all(row.bias.exact for report in reports.values() for row in report.rows)


def test_a_stale_reference_is_sampled_from_the_policy_itself() -> None:
    env, policy, _ = cartpole()
    moved = env.policy(hidden=(8,), seed=5)
    report = quiet(env, moved, [E.reward_to_go()], behaviour=policy, trajectories=256, batch=16)
    assert "trajectories of the policy itself" in report.reference
    assert not report.rows[0].bias.exact


def test_what_few_samples_do_not_determine_is_not_printed_as_a_number() -> None:
    """Eight batches of four episodes, compared within a batch: so few units leave it open."""
    env = vt.Gymnasium("CartPole-v1", lanes=32)
    report = quiet(env, env.policy(), [E.reinforce_leave_one_out()], trajectories=32, batch=4)
    row = report.rows[0]
    assert math.isnan(row.variance.value)
    assert row.variance.note.startswith("undetermined")
    assert "undetermined" in str(report)
    assert any(note.startswith("undetermined") for note in report.notes)


def test_a_report_prints_and_saves(tmp_path: Path) -> None:
    env, policy, _ = cartpole()
    report = quiet(env, policy, [E.reward_to_go()], trajectories=256, batch=16)
    text = str(report)
    assert "reward_to_go" in text
    assert "95 % intervals" in text
    saved = json.loads(report.save(tmp_path / "audit.json").read_text())
    assert saved["rows"][0]["variance"]["value"] == report.rows[0].variance.value
    assert saved["settings"]["trajectories"] == 256
    assert report.save(tmp_path / "audit.html").stat().st_size > 1000
    with pytest.raises(vt.InputError, match="must end in"):
        report.save(tmp_path / "audit.txt")
    with pytest.raises(vt.InputError, match="was not audited"):
        report.row("rloo")


def test_what_cannot_be_audited_is_refused_before_sampling() -> None:
    env, policy, _ = cartpole()
    with pytest.raises(vt.InputError, match="needs a value function"):
        quiet(env, policy, [E.a2c()])
    with pytest.raises(vt.InputError, match="give at least one"):
        quiet(env, policy, [])
    with pytest.raises(vt.InputError, match="two estimators are called"):
        quiet(env, policy, [E.reinforce(), E.reinforce()])
    with pytest.raises(vt.InputError, match=r"take a batch of 48"):
        quiet(env, policy, [E.rloo()], batch=50, group_size=8)
    with pytest.raises(vt.InputError, match=r"4 independent units of 64.*Draw 512"):
        quiet(env, policy, [E.reinforce_mean()], trajectories=256, batch=64)


@pytest.mark.parametrize("trajectories", [64, 640, 4096, 10_000])
@pytest.mark.parametrize(
    "names", [["reinforce"], ["reinforce", "rloo"], ["rloo", "reinforce_mean"]]
)
def test_units_nest(trajectories: int, names: list[str]) -> None:
    """Units of every estimator divide the trajectories, and coarser ones are made of finer ones."""
    rows = [E.named(name) for name in names]
    design = plan_units(rows, trajectories, batch=8, group=4)
    assert trajectories - 8 * 20 < design.trajectories <= trajectories
    sizes = sorted(design.unit(row) for row in rows)
    assert all(design.trajectories % size == 0 for size in sizes)
    assert all(large % small == 0 for small, large in pairwise(sizes))
    assert design.trajectories / sizes[0] <= 256 or math.isclose(sizes[0], 1)


def test_a_group_is_one_start_state() -> None:
    """Group estimators on the worked example against sums over all groups of one start.

    Neighbouring episodes of different starts had given another variance, and hidden GRPO's tilt.
    Four intervals; all hold the truth, each with a chance of 95 %, at the first seed tried.
    """
    mdp = vt.MDP.article()
    policy = vt.SoftmaxTable(mdp.observations, 2)
    report = quiet(
        vt.Tabular(mdp, lanes=16), policy, [E.rloo(), E.grpo(), E.reinforce()],
        trajectories=16384, batch=64, group_size=8,
    )  # fmt: skip
    mean, variance = group_moments(mdp, E.rloo(), 8)
    tilted, _ = group_moments(mdp, E.grpo(), 8)
    star = vt.exact.gradient(mdp, policy)
    torch.testing.assert_close(mean, star)
    cosine = float(tilted @ star / (tilted.norm() * star.norm()))
    assert (variance, cosine) == (pytest.approx(9.107, abs=1e-3), pytest.approx(0.9701, abs=1e-4))
    rloo, grpo = report.row("rloo"), report.row("grpo")
    for estimate, truth in (
        (rloo.variance, variance),
        (rloo.snr, 64 * float(star @ star) / variance),
        (grpo.cosine, cosine),
        (grpo.scale, float(tilted @ star / (star @ star))),
    ):
        assert estimate.low <= truth <= estimate.high
    assert grpo.cosine.high < 0.99
    # an estimator that compares nothing keeps the variance of independent starts
    assert report.row("reinforce").variance.value == pytest.approx(427 / 16)


def group_moments(mdp: vt.MDP, estimator: vt.Estimator, size: int) -> tuple[torch.Tensor, float]:
    """Mean, and size × the variance of a group's gradient, over all counts of both actions."""
    means, second = [], 0.0
    for start in range(2):
        expected = torch.zeros(4, dtype=torch.float64)
        for first in range(size + 1):
            chance = math.comb(size, first) * 0.5**size
            action = (torch.arange(size) >= first).long()
            batch = vt.Batch(
                observation=torch.full((size, 1), start),
                action=action[:, None],
                reward=mdp.reward[start, action, 0][:, None],
                discount=torch.zeros(size, 1, dtype=torch.float64),
                boundary=torch.ones(size, 1, dtype=torch.bool),
                bootstrap=torch.zeros(size, 1, dtype=torch.float64),
                log_prob=torch.full((size, 1), math.log(0.5), dtype=torch.float64),
                mask=torch.ones(size, 1, dtype=torch.bool),
                episode=torch.arange(size)[:, None],
                group=torch.zeros(size, dtype=torch.long),
                weight=torch.full((size,), 1 / size, dtype=torch.float64),
            )
            gradient = vt.gradient(vt.SoftmaxTable(2, 2), batch, estimator).double()
            expected += chance * gradient
            second += 0.5 * chance * float(gradient @ gradient)
        means.append(expected)
    mean = (means[0] + means[1]) / 2
    return mean, size * (second - float(mean @ mean))


def test_groups_are_refused_where_lanes_cannot_share_a_start() -> None:
    import gymnasium

    vector = gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    env = vt.Gymnasium(vector)
    with pytest.raises(vt.InputError, match=r"'rloo' compares trajectories of one start.*its id"):
        quiet(env, env.policy(), [E.rloo()], trajectories=512, batch=16)
