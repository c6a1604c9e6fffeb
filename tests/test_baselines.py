"""Every baseline and scale against loops over steps, on lanes, unequal groups and padded rows."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from small import arms, chain, table, tuples
from torch import Tensor

import vantage as vt
from vantage import gradients
from vantage.estimators import averages, baselines, scales
from vantage.estimators.shrinkage import shrinkage

Place = tuple[int, int]


def lanes(seed: int = 0, weights: bool = False) -> vt.Batch:
    """Four groups of unequal size over seven rows; rows hold one or two episodes, and padding."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.tensor(
        [  # 1: goes on, 2: ends, 0: does not count
            [1, 2, 1, 1, 2],
            [2, 1, 1, 2, 0],
            [1, 1, 2, 0, 0],
            [2, 0, 0, 0, 0],
            [0, 1, 1, 1, 2],
            [1, 2, 0, 2, 0],
            [1, 1, 2, 1, 2],
        ]
    )
    policy = table(1)
    mask, boundary = kinds > 0, kinds == 2
    boundary[5, 2] = True  # a dummy reset step
    observation = torch.randint(0, 3, kinds.shape, generator=generator)
    action = torch.randint(0, 2, kinds.shape, generator=generator)
    before = torch.cumsum(kinds == 2, 1) - (kinds == 2).long()
    reward = torch.rand(kinds.shape, generator=generator, dtype=torch.float64)
    weight = 0.2 + torch.rand(7, generator=generator).double()
    return vt.Batch(
        observation=observation,
        action=action,
        reward=torch.where(mask, reward, torch.nan),
        discount=torch.where(boundary, 0.0, 0.9).double(),
        boundary=boundary,
        bootstrap=torch.zeros(kinds.shape).double(),
        log_prob=policy.log_prob(observation, action).detach(),
        mask=mask,
        episode=before + 2 * torch.arange(7)[:, None],
        group=torch.tensor([3, 3, 0, 0, 0, 5, 7]),
        weight=weight if weights else torch.full((7,), 0.1).double(),
        value=torch.rand(kinds.shape, generator=generator, dtype=torch.float64),
    ).check()


def places(batch: vt.Batch) -> list[Place]:
    return [(int(n), int(t)) for n, t in batch.mask.nonzero()]


def trajectory(batch: vt.Batch, place: Place) -> int:
    return int(batch.episode[place])


def first_steps(batch: vt.Batch) -> list[Place]:
    seen: dict[int, Place] = {}
    for place in places(batch):
        seen.setdefault(trajectory(batch, place), place)
    return list(seen.values())


def mean_by_loop(
    batch: vt.Batch,
    x: Tensor,
    d: Tensor,
    among: list[Place],
    same: Callable[[Place, Place], bool],
    leave_out: bool,
) -> Tensor:
    """Σ w x / Σ w d over the steps `among` that are the `same`, own trajectory in or out."""
    out = torch.zeros_like(x)
    for place in places(batch):
        over = under = 0.0
        for other in among:
            own = trajectory(batch, place) == trajectory(batch, other)
            if same(place, other) and not (leave_out and own):
                over += float(batch.weight[other[0]] * x[other])
                under += float(batch.weight[other[0]] * d[other])
        out[place] = over / under if under else 0.0
    return out


def assert_equal(batch: vt.Batch, got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got[batch.mask], want[batch.mask], rtol=1e-12, atol=1e-12)


@pytest.fixture(params=[False, True], ids=["equal", "weighted"])
def batch(request: pytest.FixtureRequest) -> vt.Batch:
    return lanes(weights=request.param)


ANY = {
    "batch": lambda b, p, q: True,
    "group": lambda b, p, q: bool(b.group[p[0]] == b.group[q[0]]),
    "state": lambda b, p, q: bool(b.observation[p] == b.observation[q]),
}


@pytest.mark.parametrize(
    ("baseline", "key", "steps", "leave_out"),
    [
        (baselines.batch_mean, "batch", True, False),
        (baselines.batch_leave_one_out, "batch", False, True),
        (baselines.group_mean, "group", False, False),
        (baselines.leave_one_out, "group", False, True),
        (baselines.length_weighted, "group", True, False),
        (baselines.length_weighted_leave_one_out, "group", True, True),
        (baselines.state_mean, "state", True, False),
        (baselines.state_leave_one_out, "state", True, True),
    ],
)
@pytest.mark.parametrize("returns", [vt.returns.total, vt.returns.to_go])
def test_means(batch, baseline, key, steps, leave_out, returns) -> None:
    """Steps or first steps, of the batch, the group or the state, own trajectory in or out."""
    y = returns(batch)
    among = places(batch) if steps else first_steps(batch)
    want = mean_by_loop(batch, y, torch.ones_like(y), among, partial(ANY[key], batch), leave_out)
    assert_equal(batch, baseline(batch, y), want)


@pytest.mark.parametrize("name", ["leave_one_out", "batch_leave_one_out"])
def test_a_part_of_a_mean_is_that_and_unbiased(batch, name: str) -> None:
    column = partial(getattr(baselines, name), fraction=0.25)
    y, key = vt.returns.total(batch), "group" if name == "leave_one_out" else "batch"
    among = first_steps(batch)
    mean = mean_by_loop(batch, y, torch.ones_like(y), among, partial(ANY[key], batch), True)
    assert_equal(batch, column(batch, y), 0.25 * mean)
    vt.conformance.check(vt.estimators.reinforce().replace(baseline=column))  # raises if biased


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("name", ["norm_weighted", "trajectory"])
def test_optimal_baselines(batch, name: str, leave_out: bool) -> None:
    """[7] and the trajectory optimum as weighted means, with scores formed one at a time."""
    policy = table(1)
    column = getattr(baselines, name + ("_leave_one_out" if leave_out else ""))
    estimator = vt.Estimator(
        returns=vt.returns.to_go, baseline=column, discounting=vt.estimators.discounted
    )
    y, elapsed = vt.returns.to_go(batch), vt.batch.elapsed_discount(batch)
    score = {}
    for place in places(batch):
        policy.zero_grad()
        policy.log_prob(batch.observation[place], batch.action[place]).backward()
        score[place] = elapsed[place] * policy.logits.grad.flatten().clone()
    norm, product = torch.zeros_like(y), torch.zeros_like(y)
    for place in places(batch):
        norm[place] = score[place] @ score[place]
        for other in places(batch):
            if trajectory(batch, place) == trajectory(batch, other):
                product[place] += score[place] @ score[other] * y[other]
    scores = gradients.scores(policy, batch, estimator)
    assert_equal(batch, scores.norm, norm)
    assert_equal(batch, scores.product, product)
    over = norm * y if name == "norm_weighted" else product
    want = mean_by_loop(batch, over, norm, places(batch), partial(ANY["state"], batch), leave_out)
    assert_equal(batch, column(batch, y, scores=scores), want)
    want = torch.where(batch.mask, y - want, 0)
    torch.testing.assert_close(estimator.advantage(batch, scores=scores), want)


def test_keys() -> None:
    batch = lanes()
    position = averages.by_position(batch)
    assert position[batch.mask].tolist() == [
        *(0, 1, 0, 1, 2),
        *(0, 0, 1, 2),
        *(0, 1, 2),
        0,
        *(0, 1, 2, 3),
        *(0, 1, 0),
        *(0, 1, 2, 0, 1),
    ]
    both = averages.by_group_and_position(batch)
    for p in places(batch):
        for q in places(batch):
            same = batch.group[p[0]] == batch.group[q[0]] and position[p] == position[q]
            assert bool(both[p] == both[q]) == bool(same)


def test_vector_observations_are_states_too() -> None:
    batch = lanes()
    vectors = torch.stack([batch.observation * 0.5, batch.observation - 1.0], -1)
    y = vt.returns.to_go(batch)
    got = baselines.state_mean(replace(batch, observation=vectors), y)
    assert_equal(batch, got, baselines.state_mean(batch, y))


def test_trajectory_optimum_is_the_exact_one() -> None:
    """On an enumerated batch the in-sample optima are those of the linear solve."""
    mdp = vt.MDP(**_chain_of_three(discount=0.9))
    policy = table(3, observations=4)
    batch = vt.exact.enumerate(mdp, policy)
    for name in ("norm_weighted", "trajectory"):
        estimator = vt.estimators.named(name)
        y = estimator.worth(batch)
        column = getattr(baselines, name)
        got = column(batch, y, scores=gradients.scores(policy, batch, estimator))
        exact = vt.exact.moments(mdp, policy, baseline=name).baseline
        assert_equal(batch, got, exact[batch.observation])


def _chain_of_three(discount: float) -> dict:
    transition = torch.zeros(4, 2, 4).double()
    transition[0, 0, 1] = transition[1, 0, 2] = 0.8
    transition[0, 0, 3] = transition[1, 0, 3] = 0.2
    transition[0, 1, 2] = transition[1, 1, 3] = 1
    transition[2:, :, 3] = 1
    generator = torch.Generator().manual_seed(4)
    return {
        "transition": transition,
        "reward": torch.rand(4, 2, 4, generator=generator, dtype=torch.float64),
        "initial": torch.tensor([1.0, 0, 0, 0]),
        "terminal": torch.tensor([False, False, False, True]),
        "discount": discount,
    }


def test_variance_grows_with_the_square_of_the_distance_from_the_optimum() -> None:
    """V(b) − V(b*) = Σ_s E[Σ_t 1{s_t=s} ‖s_t‖²] (b(s) − b*(s))², by enumeration."""
    policy, problem = table(0), chain(0, discount=0.8)
    batch = problem.batch(policy)
    estimator = vt.estimators.trajectory()
    scores = gradients.scores(policy, batch, estimator)
    y = vt.returns.to_go(batch)
    best = baselines.trajectory(batch, y, scores=scores)

    def variance(b: Tensor) -> Tensor:
        each = replace(batch, weight=torch.ones_like(batch.weight))
        weights = torch.where(batch.mask, vt.batch.elapsed_discount(batch) * (y - b), 0)
        g = vt.row_gradients(policy, each, weights)
        return batch.weight @ g.square().sum(1) - (batch.weight @ g).square().sum()

    for seed in range(3):
        other = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double()
        moved = other[batch.observation]
        excess = (batch.weight[:, None] * scores.norm * (moved - best) ** 2)[batch.mask].sum()
        torch.testing.assert_close(variance(moved) - variance(best), excess)


def test_a_group_of_one_has_no_leave_one_out_mean() -> None:
    batch = lanes()
    y = vt.returns.total(batch)
    alone = lanes().group == 0
    single = replace(batch, group=torch.where(alone, torch.arange(7), 99))
    got = baselines.leave_one_out(single, y)
    assert (got[batch.mask & alone[:, None]] == 0).all()


def test_enumerated_tuples_have_the_means_of_their_own() -> None:
    """Each tuple is a group with a small weight; the mean is over its rows alone."""
    policy = table(0, 1, 3)
    rewards = torch.tensor([0.1, 0.5, 0.9])
    _, batch = tuples(arms(rewards, policy), 3)
    y = vt.returns.total(batch)
    by_tuple = y.reshape(27, 3)
    mean = by_tuple.mean(1, keepdim=True)
    torch.testing.assert_close(baselines.group_mean(batch, y).reshape(27, 3), mean.expand(27, 3))
    others = (by_tuple.sum(1, keepdim=True) - by_tuple) / 2
    torch.testing.assert_close(baselines.leave_one_out(batch, y).reshape(27, 3), others)
    std = scales.group_std(batch, y, y, epsilon=0.0, correction=1).reshape(27, 3)
    spread = by_tuple.std(1, keepdim=True)
    dead = spread[:, 0] < 1e-9
    torch.testing.assert_close(std[~dead], (by_tuple / spread)[~dead])
    assert (std[dead] == 0).all()
    assert dead.sum() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reward", [0.0, 0.7, 1 / 3, 1e6 + 0.1, -1e-3])
@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo", "reinforce_pp", "ppo"])
def test_equal_rewards_are_no_signal(name: str, reward: float, dtype: torch.dtype) -> None:
    """A group of equal rewards has advantage 0 exactly, not a rounding error over another one."""
    policy = table(0, 1, 3)
    _, batch = tuples(arms(torch.full((3,), reward), policy), 3)
    batch = replace(batch, value=torch.zeros_like(batch.reward))
    batch = batch.map(lambda x: x.to(dtype) if x.is_floating_point() else x)
    assert (vt.estimators.named(name).advantage(batch) == 0).all()


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "maxrl", "opo", "opo_leave_one_out"])
def test_equal_rewards_are_no_signal_without_a_spread_to_divide_by(name: str) -> None:
    policy = table(0, 1, 3)
    _, batch = tuples(arms(torch.full((3,), 0.7), policy), 3)
    assert vt.estimators.named(name).advantage(batch).abs().max() < 1e-15


def test_nearly_equal_rewards_stay_small() -> None:
    """Rewards that differ by 1e-6 give advantages of order 1e-2, not 1; for they are over 1e-4."""
    policy = table(0, 1, 2)
    _, batch = tuples(arms(torch.tensor([0.5, 0.500001]), policy), 2)
    assert 1e-4 < float(vt.estimators.grpo().advantage(batch).abs().max()) < 1e-2


def test_batch_scales(batch) -> None:
    advantage = torch.where(batch.mask, vt.returns.to_go(batch), 0)
    w = (batch.weight[:, None] * batch.mask)[batch.mask]
    a = advantage[batch.mask]
    mean = (w * a).sum() / w.sum()
    std = ((w * (a - mean) ** 2).sum() / w.sum()).sqrt()
    torch.testing.assert_close(
        scales.batch_std(batch, advantage, advantage, epsilon=0.0)[batch.mask], a / std
    )
    standardised = scales.standardised(batch, advantage, advantage, epsilon=0.0)
    torch.testing.assert_close(standardised[batch.mask], (a - mean) / std)


def test_shrinkage_by_loop() -> None:
    """James and Stein, group by group, with the group left out of its own λ."""
    batch = lanes()
    y = vt.returns.total(batch)
    by_group: dict[int, list[tuple[int, float]]] = {}
    for place in first_steps(batch):
        entry = (trajectory(batch, place), float(y[place]))
        by_group.setdefault(int(batch.group[place[0]]), []).append(entry)
    want = torch.zeros_like(y)
    for place in places(batch):
        g = int(batch.group[place[0]])
        rest = [torch.tensor([r for _, r in v]) for h, v in by_group.items() if h != g]
        means = torch.tensor([x.mean() for x in rest])
        within = torch.stack([x.var() for x in rest if len(x) > 1]).mean()
        noise_in_means = torch.stack([within / len(x) for x in rest]).mean()
        spread = (means.var() - noise_in_means).clamp(min=0)
        own = [r for i, r in by_group[g] if i != trajectory(batch, place)]
        noise = within / max(len(own), 1)
        strength = noise / (noise + spread) if own else torch.tensor(1.0)
        mine = sum(own) / max(len(own), 1)
        want[place] = (1 - strength) * mine + strength * means.mean()
    torch.testing.assert_close(
        shrinkage(batch, y)[batch.mask], want[batch.mask], rtol=1e-6, atol=1e-6
    )


def test_shrinkage_towards_nothing_or_everything() -> None:
    """No noise within groups: the group's mean. No spread between them: the others' mean."""
    policy = table(0, 1, 2)
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    every = arms(torch.tensor([0.2, 0.8]), policy).select(rows)
    every = replace(
        every, episode=torch.arange(6)[:, None], weight=torch.full((6,), 1 / 6, dtype=torch.float64)
    )
    sure = replace(every, group=torch.tensor([0, 0, 0, 1, 1, 1]) + torch.tensor([0, 0, 2, 0, 0, 2]))
    y = vt.returns.total(sure)
    # groups 0 and 2 hold 0.2, groups 1 and 3 hold 0.8; 2 and 3 have one trajectory each
    got = shrinkage(sure, y).flatten()
    torch.testing.assert_close(got[:2], torch.tensor([0.2, 0.2]).double())
    mixed = replace(every, group=torch.tensor([0, 1, 2, 0, 1, 2]))
    got = shrinkage(mixed, y).flatten()
    torch.testing.assert_close(got, torch.full((6,), 0.5).double())


def test_shrinkage_refuses_two_groups() -> None:
    batch = replace(lanes(), group=torch.tensor([0, 0, 0, 0, 1, 1, 1]))
    with pytest.raises(vt.InputError, match=r"2 groups .* draw three groups or more"):
        vt.estimators.shrinkage_baseline().advantage(batch)
