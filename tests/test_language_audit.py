"""Claims of audits on language models: what is known holds, against enumerated values."""

import re
from functools import lru_cache

import pytest
import torch
from language_models import enumerable, policy

import vantage as vt
from vantage import language
from vantage.auditing.page import page
from vantage.language.auditing.audit import audit, audit_footprint
from vantage.language.sampling.rollout import rollout
from vantage.language.scoring.arithmetic import shape_of
from vantage.language.scoring.enumeration import enumerated


def reward(completions, completion_ids):
    return [sum(2.0 ** (i % 3) for i in ids) - len(ids) for ids in completion_ids]


@lru_cache
def small(seed=0):
    return enumerable(seed)


@lru_cache
def task(size=4):
    rows = [{"prompt": prompt} for prompt in ("w1 w2", "w3", "w0 w4 w1", "w2 w2 w2")]
    return language.Task(rows, reward, num_generations=size, held_out=0)


def test_enumerated_weights_are_probabilities_and_the_gradient_is_exact():
    own, batch = small(), enumerated(task(), small()).check()
    assert float(batch.weight.sum()) == pytest.approx(1, abs=1e-5)
    reinforce = vt.estimators.reinforce()
    log_prob = torch.where(batch.mask, own.log_prob(batch.observation, batch.action), 0).sum(1)
    objective = (log_prob.exp() * batch.reward.sum(1)).sum() / len(task().train)
    by_autograd = vt.gradients.flat_gradient(objective, own)
    found = vt.gradient(own, batch, reinforce)
    assert (found - by_autograd).norm() < 1e-4 * by_autograd.norm()


def test_sampled_gradients_are_unbiased_for_the_enumerated_one():
    """2,048 groups of RLOO against the exact ∇J along 5 directions: rejects wrongly in 0.03 %."""
    own = small()
    exact = vt.gradient(own, enumerated(task(), own), vt.estimators.reinforce())
    rows = list(task().train) * 512
    batch = rollout(task(), own, rows, torch.Generator().manual_seed(0)).batch
    weights = len(rows) * vt.estimators.rloo().weights(batch)
    directions = torch.randn(5, len(exact), generator=torch.Generator().manual_seed(1))
    directions[0] = exact
    along = torch.cat(
        [
            vt.row_gradients(own, batch.select(part), weights[part]) @ directions.T
            for part in torch.arange(batch.rows).split(512)
        ]
    )
    units = along.view(len(rows), -1, 5).sum(1)
    # prompts come equally often: the error is that within them
    spread = torch.stack([units[i::4].var(0) for i in range(4)]).mean(0)
    z = (units.mean(0) - directions @ exact) / (spread / len(rows)).sqrt()
    assert z.abs().max() < 4


def test_an_audit_finds_what_theory_says():
    names = ("reinforce", "rloo", "dr_grpo")
    # one draw: each of the 95 % intervals below misses for one seed in twenty
    report = audit(
        task(), small(), [vt.estimators.named(n) for n in names], trajectories=1024, batch=32,
        seed=1, progress=False,
    )  # fmt: skip
    found = {row.estimator: row for row in report.rows}
    assert found["dr_grpo"].scale.value == pytest.approx(3 / 4, abs=1e-4)  # (G − 1)/G
    assert found["dr_grpo"].bias.value == pytest.approx(1 / 4, abs=1e-4)
    assert found["reinforce"].scale.low < 1 < found["reinforce"].scale.high
    exact = vt.gradient(small(), enumerated(task(), small()), vt.estimators.reinforce())
    squared = found["reinforce"].squared_norm
    assert squared.low < float(exact @ exact) < squared.high
    own = found["reinforce"]
    # four completions of a prompt share its part of the noise
    whole = 4 * own.between.value + own.within.value
    assert 0.8 * own.variance.low < whole < 1.2 * own.variance.high
    assert all(row.unit == 4 for row in report.rows)
    assert "rloo" in str(report)


def exact_norm(penalty=0.0, reference=None):
    """‖∇ E[R − β Σ_t log π/π_ref]‖², by automatic differentiation over every completion."""
    own, batch = small(), enumerated(task(), small())
    log_prob = torch.where(batch.mask, own.log_prob(batch.observation, batch.action), 0).sum(1)
    worth = batch.reward.sum(1)
    if reference is not None:
        before = reference.log_prob(batch.observation, batch.action).detach()
        worth = worth - penalty * (log_prob - torch.where(batch.mask, before, 0).sum(1))
    objective = (log_prob.exp() * worth).sum() / len(task().train)
    return float(vt.gradients.flat_gradient(objective, own).square().sum())


def test_a_value_head_changes_the_noise_and_not_the_gradient():
    """V = 0 is no baseline at all; V near the mean reward leaves less noise around the same ∇J."""
    names = ("reinforce_baseline", "reinforce")
    rows = [vt.estimators.named(name) for name in names]
    common = {"trajectories": 1024, "batch": 32, "progress": False}
    value = language.ValueHead(small())

    def found():
        report = audit(task(), small(), rows, value=value, **common)
        return {row.estimator: row for row in report.rows}

    at_zero = found()
    one, other = (at_zero[name] for name in names)
    assert one.variance.value == pytest.approx(other.variance.value, rel=1e-4)
    with torch.no_grad():
        value.linear.bias.fill_(3.0)
    better = found()
    assert better[names[0]].variance.high < better[names[1]].variance.low
    norm = better[names[0]].squared_norm
    assert norm.low < exact_norm() < norm.high


def test_a_kl_to_a_reference_is_part_of_what_is_measured():
    own, reference = small(), small(seed=1)
    row = vt.estimators.rloo(beta=2.0)
    report = audit(
        task(), own, [row], trajectories=2048, batch=32, reference=row,
        reference_policy=reference, progress=False,
    )  # fmt: skip
    norm = report.rows[0].squared_norm
    plain = exact_norm()
    wanted = exact_norm(2.0, reference)
    assert abs(wanted - plain) > norm.high - norm.low, "a KL that could not be told from none"
    assert norm.low < wanted < norm.high


def test_the_greedy_completion_is_a_baseline():
    row = vt.estimators.remax()
    report = audit(task(), small(), [row], trajectories=1024, batch=32, progress=False)
    norm = report.rows[0].squared_norm
    assert norm.low < exact_norm() < norm.high


def test_audits_refuse_what_cannot_work():
    with pytest.raises(vt.InputError, match="groups"):
        audit(task(), small(), [vt.estimators.rloo()], trajectories=64, batch=6, progress=False)
    with pytest.raises(vt.InputError, match="value"):
        audit(task(), small(), [vt.estimators.ppo()], progress=False)
    with pytest.raises(vt.InputError, match="reference_policy="):
        audit(task(), small(), [vt.estimators.rloo(beta=0.1)], progress=False)
    with pytest.raises(vt.InputError, match="can be listed"):
        enumerated(task(), policy(max_completion_length=6))


@pytest.mark.parametrize("parts", [1, 2])
def test_completions_that_cannot_be_scored_are_not_counted_as_0(parts):
    """J over completions of which one is worth None is not known: refused; of two parts, one is."""

    def sometimes(completion_ids, **columns):
        return [None if ids[:1] == [3] else 1.0 for ids in completion_ids]

    def always(completions, **columns):
        return [0.25] * len(completions)

    rows, rewards = [{"prompt": "w1"}], [sometimes, always][:parts]
    own = language.Task(rows, rewards, num_generations=2, held_out=0)
    if parts == 1:
        with pytest.raises(vt.InputError, match="some completions are worth None"):
            enumerated(own, small())
        with pytest.raises(vt.InputError, match="some completions are worth None"):
            language.expectation(own, small(), vt.estimators.rloo())
        return
    batch = enumerated(own, small())
    worth = batch.reward.sum(1)
    begins = batch.action[:, 0] == 3
    assert set(worth[begins].tolist()) == {0.25}
    assert set(worth[~begins].tolist()) == {1.25}


def test_what_limits_the_numbers_is_said_as_for_environments():
    """Every note of an estimate stands among the report's, and so does a sketch."""
    rows = [vt.estimators.rloo(), vt.estimators.grpo()]
    shape = shape_of(small().base, width=4)
    sizes = {"num_generations": 4, "prompt": 4, "completion": 3}
    counts: dict[str, int] = {"trajectories": 64, "batch": 16}
    _, whole = audit_footprint(shape, rows, **sizes, **counts)
    assert whole.sketched is None
    assert sum(whole.held.values()) == 2 * 16 * 4 * shape.parameters  # 16 groups of each
    with pytest.raises(vt.InputError, match="beyond the model it takes") as refused:
        audit(task(), small(), rows, memory=1 << 19, progress=False, **counts)
    enough = int(re.search(r"it takes ([\d,]+)", str(refused.value))[1].replace(",", ""))
    report = audit(task(), small(), rows, memory=enough, progress=False, **counts)
    notes = {
        estimate.note
        for row in report.rows
        for estimate in row.statistics().values()
        if estimate.note and not estimate.exact
    }
    assert notes
    assert all(any(said.startswith(note) for said in report.notes) for note in notes)
    assert any("were sketched to" in said for said in report.notes)
    assert "Note: " in str(report)
    # a language model's audit counts completions; columns keep their names (per_trajectory)
    for text in (str(report), page(report)):
        assert "completions" in text
        text = text.replace('<th scope="row">trajectories</th>', "")  # the argument's name
        spoken = re.findall(r".{30}(?<![_a-z])trajector(?:y|ies)(?![_a-z]).{30}", text)
        assert not spoken
