"""Audits of gradients from elsewhere: functions, iterables, arrays, folders, losses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vantage as vt
from vantage import language as vl

ROOT = Path(__file__).parents[1]

MEAN = torch.tensor([1.0, 2.0, 0.0, 0.0, 1.0])
TILT = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0])


def drawn(mean, offset=0):
    def draw(seed):
        noise = torch.randn(5, generator=torch.Generator().manual_seed(seed + offset))
        return mean + noise

    return draw


def test_a_tilt_of_known_angle_is_measured():
    sources = {"straight": drawn(MEAN), "tilted": drawn(MEAN + TILT)}
    report = vt.audit_draws(sources, draws=600, reference=MEAN, progress=False)
    cosine = report.row("tilted").cosine
    assert cosine.low < float(6 / (6 * 10) ** 0.5) < cosine.high  # G·(G + t) = 6, ‖G + t‖² = 10
    assert cosine.high < 0.85
    assert report.row("straight").cosine.high == 1
    snr = report.row("straight").snr
    assert snr.low < 6 / 5 < snr.high
    assert report.plan.cheapest == "straight"
    assert "0.77" in report.summary[1]


def test_every_kind_of_source_gives_the_same_report(tmp_path: Path):
    draw = drawn(MEAN)
    whole = torch.stack([draw(n) for n in range(16)])
    for name in ("one", "many", "safe"):
        (tmp_path / name).mkdir()
    for n, row in enumerate(whole):
        np.save(tmp_path / "one" / f"{n:02d}.npy", row.numpy())
        save_file({"b": row[2:], "a": row[:2]}, tmp_path / "safe" / f"{n:02d}.safetensors")
    np.save(tmp_path / "many" / "all.npy", whole.numpy())
    sources = {
        "function": draw,
        "iterator": iter(whole),
        "array": whole.numpy(),
        "files": tmp_path / "one",
        "file": str(tmp_path / "many"),
        "safetensors": tmp_path / "safe",
    }
    report = vt.audit_draws(sources, draws=16, progress=False)
    assert len({row.snr.value for row in report.rows}) == 1
    assert vt.audit_gradients(whole, progress=False).rows[0].snr == report.rows[0].snr


def test_draws_of_several_trajectories_count_trajectories(tmp_path: Path):
    sources = {"one": drawn(MEAN)}
    draws = vt.audit_draws(sources, draws=32, progress=False).rows[0]
    report = vt.audit_draws(sources, draws=32, batch=16, progress=False)
    row = report.rows[0]
    assert row.snr.value == pytest.approx(draws.snr.value)
    assert row.variance.value == pytest.approx(16 * draws.variance.value)
    assert row.noise_scale.value == pytest.approx(16 * draws.noise_scale.value)
    assert "Without a reference" in report.summary[-1]
    page = report.save(tmp_path / "report.html").read_text("utf-8")
    assert "Audit of gradient draws" in page


def test_longer_vectors_are_sketched_within_memory():
    def draw(seed):
        return torch.ones(20_000) + torch.randn(
            20_000, generator=torch.Generator().manual_seed(seed)
        )

    exact = torch.ones(20_000)
    report = vt.audit_draws(
        {"long": draw}, draws=16, reference=exact, memory="400KB", progress=False
    )
    assert any("sketched" in note for note in report.notes)
    assert report.rows[0].scale.value == pytest.approx(1, abs=0.2)
    assert report.rows[0].cosine.value == pytest.approx(1, abs=0.1)


def test_losses_on_the_same_units():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    units = list(torch.randn(64, 3))

    def loss(model, unit):
        return (model(unit) - unit[0] - 1).square().sum()

    before = [p.detach().clone() for p in model.parameters()]
    report = vt.audit_loss(
        {"right": loss, "half": lambda m, u: 0.5 * loss(m, u), "up": lambda m, u: -loss(m, u)},
        model,
        units,
        reference="right",
        progress=False,
    )
    assert report.row("half").scale.value == pytest.approx(0.5)
    assert report.row("half").cosine.value == pytest.approx(1)
    assert report.row("up").cosine.high < 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    gradient = torch.autograd.grad(sum(loss(model, u) for u in units) / 64, model.parameters())
    own = -torch.cat([g.flatten() for g in gradient])
    whole = vt.audit_loss(loss, model, units, reference=own, progress=False)
    assert whole.rows[0].scale.value == pytest.approx(1, abs=0.3)
    assert whole.rows[0].scale.value > 0


def test_an_estimator_of_ours_as_draws():
    mdp = vt.MDP.article()
    env = vt.Tabular(mdp, lanes=16)
    policy = env.policy()
    exact = vt.exact.gradient(mdp, policy)
    source = vt.gradient_draws(env, policy, "reward_to_go", batch=16)
    report = vt.audit_draws({"ours": source}, draws=64, reference=exact, batch=16, progress=False)
    assert report.rows[0].scale.low < 1 < report.rows[0].scale.high
    assert torch.equal(source(3), source(3))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda seed: torch.full((5,), float("nan")), "not finite"),
        (iter([MEAN] * 9), "ended after 9"),
        (lambda seed: torch.zeros(seed + 3), "all sources differentiate the same"),
        (lambda seed: torch.zeros(2, 2), "flat vector"),
        (7, "is int"),
        ("no/such/folder", "no folder"),
    ],
)
def test_sources_that_cannot_be_audited(source, words):
    with pytest.raises(vt.InputError, match=words):
        vt.audit_draws({"it": source}, draws=16, progress=False)


def test_a_pickled_array_is_not_opened(tmp_path: Path):
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(vt.InputError, match="cannot be read"):
        vt.audit_draws({"it": tmp_path}, draws=16, progress=False)


def test_the_committed_measurement_of_trl_holds_what_the_rows_predict():
    """Exact cosines with ∇J, enumerated anew, lie in the intervals of TRL's own gradients."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from trl_draws import ROWS, SIZE, small_world

    committed = json.loads((ROOT / "benchmarks/results/trl_draws.json").read_text("utf-8"))
    page = (ROOT / "docs/audit.md").read_text("utf-8")
    task, policy, gradient = small_world()
    for name, case in committed["cases"].items():
        exact = vl.expectation(task, policy, ROWS[name], SIZE)
        cosine = torch.nn.functional.cosine_similarity(exact.mean, gradient, dim=0)
        assert float(cosine) == pytest.approx(case["row_cosine"], abs=1e-6)
        value, low, high = case["cosine"]
        assert low <= float(cosine) <= high + 1e-9
        snr = float(exact.mean @ exact.mean / exact.trace)
        assert case["snr"][1] < snr < case["snr"][2]
        assert case["squared_distance_from_row_over_error"] < 2
        assert f"| {value:.3f} [{low:.3f}, " in page
    assert committed["cases"]["default"]["cosine"][2] < 0.7
