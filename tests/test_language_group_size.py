"""Claims of the choice of a group size: its signal is the enumerated one, its advice follows."""

from dataclasses import replace

import pytest
import torch
from language_models import enumerable

import vantage as vt
from vantage import language

PROMPTS = [f"w{a} w{b}" for a in range(4) for b in range(4)]


def small():
    return enumerable(max_completion_length=1)


def task(**settings):
    def worth(completions, completion_ids, scale):
        return [s * (not ids) for ids, s in zip(completion_ids, scale, strict=True)]

    rows = [{"prompt": prompt, "scale": 1.0 + n % 4} for n, prompt in enumerate(PROMPTS)]
    return language.Task(rows, worth, held_out=0, **settings)


def exact_parts(own):
    """‖∇J‖², and the variance of one completion's REINFORCE gradient between and within prompts."""
    every = language.enumerated(task(), own)
    reward = (every.reward * every.mask).sum(1)
    ones = every.mask.to(every.log_prob)
    single = vt.row_gradients(own, every, ones).double() * reward[:, None].double()
    weight = every.weight.double()
    mean = (weight[:, None] * single).sum(0)
    second = float((weight * single.square().sum(1)).sum())
    groups = every.group.unique()
    of_prompts = torch.stack(
        [(weight[:, None] * single)[every.group == g].sum(0) * len(groups) for g in groups]
    )
    between = float((of_prompts - mean).square().sum(1).mean())
    norm = float(mean.square().sum())
    return norm, between, second - norm - between


def test_the_noise_scale_of_each_size_is_the_enumerated_one():
    """K·between + within, over ‖∇J‖²: three 95 % intervals, of one fixed seed."""
    own = small()
    norm, between, within = exact_parts(own)
    before = torch.nn.utils.parameters_to_vector(own.parameters()).clone()
    found = language.group_sizes(
        task(), own, [vt.estimators.reinforce()], sizes=(1, 2, 4), trajectories=1024, batch=32,
        progress=False,
    )  # fmt: skip
    assert between > 0.2 * within  # sizes differ, or this would show nothing
    assert [row.num_generations for row in found.rows] == [1, 2, 4]
    for row in found.rows:
        exact = (row.num_generations * between + within) / norm
        assert row.noise_scale.low < exact < row.noise_scale.high, row
        assert row.snr.low < 32 / exact < row.snr.high
        assert row.cost.value > 0
        expected = found.target * row.noise_scale.value * row.cost.value
        assert row.seconds.value == pytest.approx(expected)
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(own.parameters()))
    assert all(p.grad is None for p in own.parameters())


def test_the_least_time_is_advised_and_what_is_like_it_is_named():
    own = small()
    rows = [vt.estimators.rloo(), vt.estimators.grpo(), vt.estimators.ppo(), vt.estimators.remax()]
    found = language.group_sizes(
        task(), own, rows, sizes=(1, 4), trajectories=256, batch=16, value=language.ValueHead(own),
        progress=False,
    )  # fmt: skip
    names = [(row.estimator, row.num_generations) for row in found.rows]
    assert names == [("ppo", 1), ("remax", 1)] + [(row.name, 4) for row in rows]
    assert found.best is not None
    able = [row for row in found.rows if row.estimator in ("rloo", "remax")]
    assert found.best.seconds.value == min(row.seconds.value for row in able)
    assert found.advice.startswith(f"Use {found.best.estimator} with {found.best.num_generations}")
    assert "do not tell it from" in found.advice
    assert "completions" in str(found)
    alone = replace(found, rows=[found.best])
    assert "do not tell it from" not in alone.advice
    assert "Sample more" not in alone.advice
    assert "ample more" in replace(found, best=None).advice


def test_sizes_that_do_not_fit_are_refused():
    own = small()
    with pytest.raises(vt.InputError, match="sizes that divide it"):
        language.group_sizes(task(), own, [vt.estimators.rloo()], sizes=(3,), batch=64)
    with pytest.raises(vt.InputError, match="sizes that divide it"):
        language.group_sizes(task(), own, [vt.estimators.rloo()], sizes=(64,), batch=64)
    with pytest.raises(vt.InputError, match="at least one"):
        language.group_sizes(task(), own, [vt.estimators.rloo()], sizes=())
