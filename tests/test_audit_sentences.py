"""What an audit says in words, held against rows whose numbers are given."""

from dataclasses import fields, replace
from html import escape
from pathlib import Path

import pytest
import torch
from language_models import enumerable

import vantage as vt
from vantage import language
from vantage.auditing.measure import known_factors
from vantage.auditing.planner import plan
from vantage.auditing.record import Row
from vantage.auditing.samples import COMPLETIONS, EPISODES, Sample
from vantage.auditing.summary import listed, summarise
from vantage.language.auditing.audit import audit
from vantage.statistics.estimate import Estimate, known

E = vt.estimators


def about(value: float, width: float) -> Estimate:
    return Estimate(value, value - width, value + width)


def row(name: str, **numbers: Estimate) -> Row:
    given = {f.name: known(1.0) for f in fields(Row) if f.type in (Estimate, "Estimate")}
    given |= {"snr": about(2.0, 0.5), **numbers}
    return Row(name, "none", 1, vt.estimators.named(name).unbiased, **given)


def sample(**numbers: object) -> Sample:
    given = {
        "words": COMPLETIONS, "trajectories": 64, "mean": 0.25, "least": 0.0, "most": 1.0,
        "mean_length": 7.0, "longest": 12, "groups": 8, "dead_groups": 3, "examples": [],
        "alike": False,
    }  # fmt: skip
    return Sample(**given | numbers)  # type: ignore[arg-type]


def said(
    rows: list[Row], looked_at: Sample | None = None, factors: dict[str, float] | None = None
) -> list[str]:
    planned = plan(
        {each.estimator: each.noise_scale for each in rows},
        {each.estimator: each.cost for each in rows},
        4.0,
        {
            each.estimator
            for each in rows
            if vt.estimators.named(each.estimator).bias != "direction"
        },
    )
    table = {each.estimator: vt.estimators.named(each.estimator) for each in rows}
    if factors is None:
        factors = known_factors(list(table.values()), None, 8, 1.0)
    return summarise(rows, planned, 64, looked_at or sample(), table, factors)


def test_what_is_so_of_several_is_said_once() -> None:
    rows = [row(name, bias=known(0.0)) for name in ("reinforce", "rloo", "reward_to_go")]
    first, advice = said(rows)
    assert first.startswith("reinforce, rloo and reward_to_go: unbiased; SNR 2.00")
    assert advice.startswith("Use reinforce")
    assert "rloo and reward_to_go may take as little time" in advice


def test_ties_are_those_whose_intervals_meet() -> None:
    rows = [
        row("reinforce", noise_scale=about(10.0, 1.0)),
        row("rloo", noise_scale=about(11.5, 1.0)),
        row("reward_to_go", noise_scale=about(30.0, 1.0)),
    ]
    assert "rloo may take as little time" in said(rows)[-1]
    rows[1] = row("rloo", noise_scale=about(13.0, 1.0))
    assert "the least time of those measured" in said(rows)[-1]


def test_where_nothing_is_known_to_climb_more_samples_are_no_remedy() -> None:
    tilted = [row("grpo"), row("ppo")]
    assert said(tilted)[-1].startswith("None of these is known to climb J")
    assert not any("Sample more" in sentence for sentence in said(tilted))
    unseen = row("rloo", noise_scale=Estimate(float("nan"), 10.0, float("inf")))
    assert "Sample more trajectories" in said([*tilted, unseen])[-1]


def test_theory_leads_where_it_knows() -> None:
    outside = row("reinforce", bias=about(0.06, 0.02), cosine=about(0.99, 0.005))
    assert "unbiased in theory" in said([outside])[0]
    assert "4.00 to 8.00 %, leaves out 0 is the one time in twenty" in said([outside])[0]
    inside = row("reinforce", bias=Estimate(0.03, 0.0, 0.08))
    assert "unbiased in theory, and no bias is seen here (at most 8.00 %)" in said([inside])[0]
    conditional = row("a2c", bias=about(0.06, 0.02), cosine=about(0.9, 0.05), scale=about(0.9, 0.1))
    assert "one time in twenty" not in said([conditional])[0]


def test_theory_is_silent_where_its_conditions_do_not_hold() -> None:
    """Off policy, or against a biased reference, an interval without 0 is no accident."""
    outside = row("reinforce", bias=about(0.06, 0.02), cosine=about(0.99, 0.005))
    assert "one time in twenty" not in said([outside], factors={})[0]
    assert known_factors([E.reinforce()], E.grpo(), 8, 1.0) == {}
    assert known_factors([E.reinforce(), E.grpo()], E.rloo(), 8, 1.0) == {"reinforce": 1.0}
    mdp = vt.MDP.bandit([[1.0, 0.0, 0.0]])
    policy, behaviour = (vt.SoftmaxTable(mdp.observations, 3) for _ in range(2))
    with torch.no_grad():
        behaviour.logits[0, 0] = 2.0
    stale = vt.audit(
        vt.Tabular(mdp, lanes=64), policy, [E.rloo(), E.dr_grpo()], behaviour=behaviour,
        trajectories=8192, group_size=4, progress=False,
    )  # fmt: skip
    assert stale.row("rloo").bias.low > 0.1
    assert "one time in twenty" not in " ".join(stale.summary)
    assert not stale.row("dr_grpo").scale.exact


def test_what_is_exact_or_penalised_is_not_nothing_to_learn() -> None:
    """Equal returns of all samples say nothing of exact rows, or of a KL in the weights."""
    dead = sample(mean=0.0, least=0.0, most=0.0, alike=True, dead_groups=8)
    assert len(said([row("reinforce", snr=known(0.5), bias=known(0.0))], dead)) == 2
    table = {"mine": E.rloo().replace(kl_in_loss=vt.penalties.k2, name="mine")}
    only = replace(row("rloo"), estimator="mine")
    planned = plan({"mine": only.noise_scale}, {"mine": only.cost}, 4.0, {"mine"})
    assert len(summarise([only], planned, 64, dead, table, {})) == 2


@pytest.mark.parametrize("cosine", [-0.5, -1e-9, 0.0])
def test_a_mean_that_points_away_is_said_so(cosine: float) -> None:
    away = row("grpo", bias=about(1.5, 0.1), cosine=about(cosine, 0.01), scale=about(-0.6, 0.1))
    assert "points away from the reference" in said([away])[0]
    assert "e+" not in said([away])[0]


def test_a_constant_factor_is_a_learning_rate() -> None:
    scaled = row("dr_grpo", bias=known(0.25), scale=known(0.75), cosine=known(1.0))
    assert said([scaled])[0].startswith("dr_grpo: climbs J itself, with 0.750 times its gradient")


def test_nothing_to_learn_is_said_once_with_what_to_do() -> None:
    rows = [row(name) for name in ("rloo", "grpo")]
    dead = sample(mean=0.0, least=0.0, most=0.0, alike=True, dead_groups=8)
    (only,) = said(rows, dead)
    assert only.startswith("Every completion got reward 0: there is nothing to learn from")
    assert "64 completions, 8 of 8 groups dead" in only
    assert "warm the policy up on examples" in only
    assert str(sample()).startswith("64 completions: mean reward 0.250 (0 to 1.00), mean length 7")
    assert "3 of 8 groups have equal rewards" in str(sample())


def test_language_audits_say_what_they_looked_at(tmp_path: Path) -> None:
    """Model, task, law and three completions; and the reason where no completion is ever paid."""
    rows = [{"prompt": prompt} for prompt in ("w1 w2", "w3", "w0 w4 w1", "w2 w2 w2")]

    def nothing(completions: list[str]) -> list[float]:
        return [0.0] * len(completions)

    def length(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        return [float(len(ids)) for ids in completion_ids]

    def audited(reward: object) -> vt.Report:
        task = language.Task(rows, reward, num_generations=4, held_out=0)  # type: ignore[arg-type]
        table = [E.rloo(), E.dr_grpo()]
        return audit(task, enumerable(0), table, trajectories=256, batch=32, progress=False)

    dead, live = audited(nothing), audited(length)
    assert len(dead.summary) == 1
    assert "Every completion got reward 0" in dead.summary[0]
    assert "64 of 64 groups dead" in dead.summary[0]
    assert live.row("dr_grpo").scale == Estimate(0.75, 0.75, 0.75, exact=True)
    assert live.row("dr_grpo").cosine.exact
    assert len(live.examples) == 3
    assert all("-> " in text and ": reward " in text for text in live.examples)
    assert live.sampled.startswith("256 completions: mean reward ")
    assert live.settings["model"]["law"]["temperature"] == 1.0
    assert live.settings["task"]["rewards"] == {"length": 1.0}
    assert live.examples[0] in str(live)
    page = live.save(tmp_path / "audit.html").read_text()
    assert escape(live.examples[0]) in page
    assert escape(live.sampled) in page


def test_words_of_episodes() -> None:
    looked_at = sample(words=EPISODES, groups=0, dead_groups=0)
    assert str(looked_at) == (
        "64 trajectories: mean return 0.250 (0 to 1.00), mean length 7.00 (at most 12)."
    )
    assert listed(["one"]) == "one"
