"""Rows that look at each reward function by itself: GDPO."""

from typing import Any

import pytest
import torch
from test_baselines import lanes
from test_estimators import autograd, off_policy
from torch import Tensor

import vantage as vt
from vantage import language as vl
from vantage.conformance import claims

E = vt.estimators
WEIGHTS = torch.tensor([1.0, 0.25, -0.5]).double()


def three_functions(batch: vt.Batch, seed: int = 0, missing: bool = False) -> Tensor:
    """[N, T, 3] rewards of three functions; the second may be silent of a trajectory."""
    generator = torch.Generator().manual_seed(70 + seed)
    parts = torch.rand(*batch.reward.shape, 3, generator=generator).double()
    parts[..., 0] = batch.reward
    parts[..., 2] = (parts[..., 2] > 0.5).double()
    if missing:
        parts[4, 2, 1] = torch.nan  # of a group of four trajectories
    return parts


def by_hand(batch: vt.Batch, parts: Tensor, correction: int) -> Tensor:
    """[N, T], trajectory by trajectory: scaled within groups, summed, scaled over the batch."""
    numbers = [int(e) for e in batch.episode[batch.mask].unique()]
    places = {e: batch.mask & (batch.episode == e) for e in numbers}
    group = {e: int(batch.group[places[e].any(1)][0]) for e in numbers}
    worth: dict[int, Tensor] = {}
    for e in numbers:
        steps = parts[places[e]]
        worth[e] = (0.9 ** torch.arange(len(steps)).double()) @ steps
    summed = {}
    for e in numbers:
        summed[e] = torch.zeros(()).double()
        for k, weight in enumerate(WEIGHTS):
            peers = torch.stack([worth[o][k] for o in numbers if group[o] == group[e]])
            peers = peers[~peers.isnan()]
            if worth[e][k].isnan() or len(peers) < 2:
                continue
            deviation = peers.std(correction=correction)
            summed[e] += weight * (worth[e][k] - peers.mean()) / (deviation + 1e-4)
    every = torch.stack(list(summed.values()))
    out = torch.zeros_like(batch.reward)
    for e in numbers:
        deviation = every.std(correction=correction)
        out[places[e]] = (summed[e] - every.mean()) / (deviation + 1e-4)
    return out


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("correction", [0, 1])
def test_each_function_is_scaled_by_itself(correction: int, missing: bool) -> None:
    policy, batch = off_policy()
    parts = three_functions(batch, missing=missing)
    given = {"reward_parts": parts, "reward_weights": WEIGHTS}
    row = E.gdpo(correction=correction)
    want = by_hand(batch, parts, correction)
    torch.testing.assert_close(row.advantage(batch, **given)[batch.mask], want[batch.mask])
    share = E.grpo().share(batch)

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        terms = torch.minimum(ratio * want, ratio.clamp(0.8, 1.2) * want)
        return torch.where(batch.mask, share * terms, 0).sum()

    got = vt.gradient(policy, batch, row, **given)
    torch.testing.assert_close(got, autograd(policy, batch, objective), rtol=1e-7, atol=1e-9)


def test_what_a_sum_hides_is_told_apart() -> None:
    """Rewards (0, 1) and (1, 0) of equal sum but functions of unequal spread; a scale is none."""
    batch = lanes()
    parts = three_functions(batch)
    given = {"reward_parts": parts, "reward_weights": WEIGHTS}
    row = E.gdpo()
    plain = row.advantage(batch, **given)
    larger = row.advantage(batch, reward_parts=parts * torch.tensor([1.0, 1e3, 1.0]).double(),
                           reward_weights=WEIGHTS)  # fmt: skip
    torch.testing.assert_close(larger[batch.mask], plain[batch.mask], rtol=1e-2, atol=1e-2)
    without = row.advantage(batch, reward_parts=parts[..., :1], reward_weights=WEIGHTS[:1])
    assert not torch.allclose(plain[batch.mask], without[batch.mask], atol=0.1)
    equal = torch.zeros_like(parts)
    assert row.advantage(batch, reward_parts=equal, reward_weights=WEIGHTS).eq(0).all()


def test_without_its_parts_the_row_is_refused() -> None:
    with pytest.raises(vt.InputError, match=r"'gdpo' needs the rewards of each reward function"):
        E.gdpo().advantage(lanes())
    world = vt.make("CartPole-v1", lanes=4)
    with pytest.raises(vt.InputError, match=r"'gdpo' needs the rewards of each reward function"):
        vt.audit(world, world.policy(), ["gdpo"], progress=False)


def test_it_is_biased_even_where_the_functions_add_up_to_the_reward() -> None:
    """By enumeration, of one decision with rewards by two functions; the sum alone is not."""
    problem = claims.PROBLEMS[0]
    row = E.gdpo().replace(aggregate=E.per_trajectory)
    assert row.unbiased.startswith("never (decoupled(correction=0)")
    for estimator, biased in ((row, True), (E.rloo(), False)):
        mean, true = claims.expected_gradient(estimator, problem, groups=2)
        apart = 1 - float(torch.cosine_similarity(mean, true, 0))
        assert apart > 1e-4 if biased else apart < 1e-12, estimator.name


def task() -> vl.Task:
    rows = [{"prompt": f"{a}>", "answer": str(a)} for a in range(4)]

    def digits(completions: list[str]) -> list[float]:
        return [sum(c in "01234" for c in text) for text in completions]

    def short(completions: list[str]) -> list[float | None]:
        return [None if text.startswith("7") else -0.3 * len(text) for text in completions]

    return vl.Task(rows, [digits, short], weights=[1.0, 0.5], num_generations=8, held_out=0)


def test_language_training_and_audits_hand_the_parts_over() -> None:
    """The advantages of a run from the rewards of its rollouts; and audits of both kinds."""
    learning = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
    seen: list[tuple[Any, Tensor]] = []

    def watch(update: int, drawn: Any, advantage: Tensor) -> None:
        seen.append((drawn, advantage))

    vl.train(task(), learning, E.gdpo(), batch=32, updates=2, lr=1e-2, progress=False, watch=watch)
    for drawn, got in seen:
        each = torch.stack([drawn.parts["digits"], drawn.parts["short"]], -1).view(-1, 8, 2)
        summed = torch.zeros(each.shape[:2]).double()
        for k, weight in enumerate((1.0, 0.5)):
            one = each[..., k]
            known = ~one.isnan()
            mean = torch.nanmean(one, 1, keepdim=True)
            spread = torch.nanmean((one - mean) ** 2, 1, keepdim=True).sqrt()
            summed += torch.where(known, weight * (one - mean) / (spread + 1e-4), 0)
        want = (summed - summed.mean()) / (summed.std(correction=0) + 1e-4)
        want = want.flatten()[:, None].expand_as(got)
        mask = drawn.batch.mask
        torch.testing.assert_close(got[mask].double(), want[mask], rtol=1e-3, atol=1e-3)
    report = vl.audit(task(), learning, [E.gdpo(), E.grpo()], trajectories=256, batch=32,
                      progress=False)  # fmt: skip
    assert [row.estimator for row in report.rows] == ["gdpo", "grpo"]
