"""The table: clipped surrogates against autograd, what is refused, and what is printed."""

import inspect
import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small import arms, chain, table, tuples
from test_baselines import lanes
from torch import Tensor

import vantage as vt
from vantage.estimators import (
    aggregates,
    averages,
    baselines,
    columns,
    importance,
    listing,
    penalties,
    ratios,
    returns,
    scales,
    selections,
)
from vantage.estimators.estimator import MODULES
from vantage.estimators.shrinkage import shrinkage

E = vt.estimators
TARGETS = (returns.vtrace_target, returns.retrace_target)  # what V and Q are fitted to
ROWS = list(E.TABLE)


def off_policy(seed: int = 0) -> tuple[vt.SoftmaxTable, vt.Batch]:
    """Lanes that an older policy sampled, and a policy that has moved far enough to be clipped."""
    batch, policy = lanes(seed), table(1)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)).double()
    policy.logits.data += 0.8 * noise
    return policy, batch


def autograd(policy: vt.SoftmaxTable, batch: vt.Batch, objective: Callable) -> Tensor:
    """∇ of an objective of the current log-probabilities [N, T] (0 where nothing counts)."""
    log_prob = policy.log_prob(batch.observation, batch.action)
    value = objective(torch.where(batch.mask, log_prob, 0))
    return torch.autograd.grad(value, policy.logits)[0].flatten()


def length(batch: vt.Batch) -> Tensor:
    """[N, T] steps of each trajectory."""
    count = torch.bincount(batch.episode[batch.mask], minlength=int(batch.episode.max()) + 1)
    return count[batch.episode].double()


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


# Weights on scores are the gradients of the published objectives.


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("low", "high"), [(0.2, None), (0.2, 0.28), (0.05, 0.4)])
def test_ppo_weight_is_the_gradient_of_the_clipped_surrogate(seed, low, high) -> None:
    policy, batch = off_policy(seed)
    estimator = E.ppo(epsilon=low, epsilon_high=high)
    advantage = estimator.advantage(batch)
    share = torch.where(batch.mask, batch.weight[:, None], 0)
    share = share / share.sum()

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        return (share * clipped(ratio, advantage, low, high or low)).sum()

    want = autograd(policy, batch, objective)
    torch.testing.assert_close(vt.gradient(policy, batch, estimator), want)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    weights = estimator.weights(batch, log_prob)
    counted = weights[batch.mask & (advantage != 0)]
    assert 0 < (counted == 0).sum() < counted.numel()  # some are clipped and some are not


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
def test_group_surrogates(name: str, seed: int) -> None:
    """GRPO: mean of the means over each completion; Dr. GRPO: of sums; DAPO: over all tokens."""
    policy, batch = off_policy(seed)
    estimator = E.named(name)
    advantage = estimator.advantage(batch)
    high = 0.28 if name == "dapo" else 0.2

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        each = torch.where(batch.mask, clipped(ratio, advantage, 0.2, high), 0)
        if name == "grpo":
            each = each / length(batch)
        total = (batch.weight[:, None] * each).sum()
        return total / (batch.weight @ batch.mask.double().sum(1)) if name == "dapo" else total

    want = autograd(policy, batch, objective)
    torch.testing.assert_close(vt.gradient(policy, batch, estimator), want)


@pytest.mark.parametrize("seed", range(3))
def test_gspo_weight_is_the_gradient_of_the_sequence_surrogate(seed: int) -> None:
    """(1/G) Σ_i min(s_i A_i, clip(s_i) A_i), one term a completion, s_i a geometric mean."""
    policy, batch = off_policy(seed)
    estimator = E.gspo(epsilon=0.05, epsilon_high=0.06)
    advantage = estimator.advantage(batch)

    def objective(log_prob: Tensor) -> Tensor:
        total = torch.zeros(()).double()
        for episode in batch.episode[batch.mask].unique():
            own = batch.mask & (batch.episode == episode)
            sequence = (log_prob - batch.log_prob)[own].mean().exp()
            weight = batch.weight[own.any(1)][0]
            total = total + weight * clipped(sequence, advantage[own][0], 0.05, 0.06)
        return total

    want = autograd(policy, batch, objective)
    assert (want != 0).any()
    torch.testing.assert_close(vt.gradient(policy, batch, estimator), want)


@pytest.mark.parametrize("seed", range(3))
def test_cispo_detaches_a_bounded_ratio(seed: int) -> None:
    policy, batch = off_policy(seed)
    estimator = E.cispo(epsilon_high=0.1)
    advantage = estimator.advantage(batch)
    steps = batch.weight @ batch.mask.double().sum(1)

    def objective(log_prob: Tensor) -> Tensor:
        ratio = (log_prob - torch.where(batch.mask, batch.log_prob, 0)).exp()
        bounded = ratio.clamp(max=1.1).detach()
        each = batch.weight[:, None] * bounded * advantage * log_prob
        return torch.where(batch.mask, each, 0).sum() / steps

    torch.testing.assert_close(
        vt.gradient(policy, batch, estimator), autograd(policy, batch, objective)
    )


def test_cispo_lower_bound() -> None:
    ratio = torch.tensor([[0.1, 1.0, 9.0]])
    got = ratios.cispo(ratio, ratio, epsilon_high=1.0, epsilon=0.5)
    assert got.tolist() == [[0.5, 1.0, 2.0]]


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_in_the_loss_is_the_derivative_of_the_estimate(name: str) -> None:
    """The weight of the KL term is what autograd of −β k(l) gives, off policy too."""
    policy, batch = off_policy()
    reference = table(7).log_prob(batch.observation, batch.action).detach()
    column = partial(getattr(penalties, f"{name}_in_loss"), beta=0.3)
    estimator = vt.Estimator(kl_in_loss=column)

    def objective(log_prob: Tensor) -> Tensor:
        penalty = getattr(penalties, name)(log_prob - reference, beta=0.3)
        return -(batch.weight[:, None] * torch.where(batch.mask, penalty, 0)).sum()

    got = vt.gradient(policy, batch, estimator, reference_log_prob=reference)
    plain = vt.gradient(policy, batch, vt.Estimator())
    torch.testing.assert_close(got - plain, autograd(policy, batch, objective))


def test_importance_weighted_actor_critic() -> None:
    """IMPALA: min(ρ̄, ρ_t) (r_t + γ v_{t+1} − V_t), the target recomputed for the current policy."""
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    target = returns.vtrace_target(batch, log_prob=log_prob)
    for n, t in batch.mask.nonzero().tolist():
        ends = bool(batch.boundary[n, t])
        following = 0.0 if ends else float(target[n, t + 1])
        q = float(batch.reward[n, t]) + float(batch.discount[n, t]) * following
        rho = min(1.0, float((log_prob - batch.log_prob)[n, t].exp()))
        want = float(batch.weight[n]) * rho * (q - float(batch.value[n, t]))
        got = float(E.vtrace().weights(batch, log_prob)[n, t])
        assert got == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(
    "name", ["ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce_pp"]
)
def test_first_pass_is_the_plain_policy_gradient(name: str) -> None:
    """On policy the ratio is exactly 1: the clipped row is its advantage, clipped nowhere."""
    batch = lanes()
    estimator = E.named(name)
    plain = estimator.replace(ratio=ratios.none, clip=ratios.unclipped)
    weights = estimator.weights(batch, batch.log_prob)
    assert torch.equal(weights, plain.weights(batch))
    assert torch.equal(weights, estimator.weights(batch))
    everything = torch.where(batch.mask, estimator.share(batch) * estimator.advantage(batch), 0)
    assert torch.equal(weights, everything)


# Several passes.


@pytest.mark.parametrize("name", ["ppo", "dapo", "grpo", "gspo", "reinforce_pp"])
def test_minibatches_of_a_later_epoch_add_up_to_the_whole(name: str) -> None:
    policy, batch = off_policy()
    estimator = E.named(name)
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    whole = estimator.weights(batch, log_prob)
    advantage, share = estimator.advantage(batch), estimator.share(batch)
    for rows in torch.arange(batch.rows).split(3):
        part = estimator.weights(batch.select(rows), log_prob[rows], advantage[rows], share[rows])
        torch.testing.assert_close(part, whole[rows])


def test_advantage_without_its_share_is_refused_where_it_matters() -> None:
    batch = lanes()
    advantage = E.dapo().advantage(batch)
    with pytest.raises(vt.InputError, match=r"share=estimator.share\(batch\)"):
        E.dapo().weights(batch.select(slice(0, 3)), None, advantage[:3])
    E.grpo().weights(batch.select(slice(0, 3)), None, advantage[:3])  # its share is the row's own


def test_weights_have_no_graph_and_keep_their_precision() -> None:
    policy, batch = off_policy()
    log_prob = policy.log_prob(batch.observation, batch.action)
    assert log_prob.requires_grad
    assert not E.ppo().weights(batch, log_prob).requires_grad
    single = batch.map(lambda x: x.float() if x.is_floating_point() else x)
    for name in ROWS:
        estimator = E.named(name)
        if "group" not in estimator.needs and estimator.needs <= {"value"}:
            assert estimator.weights(single).dtype == torch.float32


def test_a_scale_sees_no_garbage_of_the_padding() -> None:
    """A careless scale of one's own may look at the whole grid: what does not count is 0 there."""
    batch = lanes()
    batch = replace(batch, value=torch.where(batch.mask, batch.value, torch.nan))

    def by_largest(batch: vt.Batch, returns: Tensor, advantage: Tensor) -> Tensor:
        return advantage / advantage.abs().max()

    estimator = vt.Estimator(
        returns=returns.to_go, baseline=baselines.value, scale=by_largest, name="by largest"
    )
    assert estimator.advantage(batch).abs().max() == 1


# What is refused, and with which words.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rloo", "'rloo' needs groups of at least two trajectories.*num_generations"),
        ("grpo", "groups of at least two"),
        ("reinforce_baseline", r"'reinforce_baseline' needs a value function.*env.value\(\)"),
        ("ppo", "needs a value function"),
        ("remax", "return of the greedy rollout.*greedy_return"),
        ("trajectory", "scores.*gradients.scores"),
    ],
)
def test_missing_inputs_are_refused_with_the_remedy(name: str, message: str) -> None:
    batch, policy = chain(0).batch(table(0)), table(0)
    batch = replace(batch, group=torch.arange(batch.rows))
    with pytest.raises(vt.InputError, match=message):
        E.named(name).weights(batch)
    if name != "trajectory":
        with pytest.raises(vt.InputError, match=message):
            vt.gradient(policy, batch, E.named(name))


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr_grpo", "remax", "reinforce_pp"])
def test_kl_without_a_reference_is_refused(name: str) -> None:
    estimator = E.named(name, beta=0.1)
    assert "reference_log_prob" in estimator.needs
    batch = lanes()
    given = {"greedy_return": torch.zeros_like(batch.reward)} if name == "remax" else {}
    with pytest.raises(vt.InputError, match="needs a reference policy: pass reference_log_prob="):
        estimator.weights(batch, **given)
    with pytest.raises(vt.InputError, match="needs a reference policy"):
        vt.gradient(table(1), batch, estimator, **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"returns": returns.total, "discounting": E.discounted}, "second γ"),
        ({"clip": ratios.ppo}, "a ratio that is always 1 is never clipped; give ratio=token"),
    ],
)
def test_senseless_compositions_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(vt.InputError, match=message):
        vt.Estimator(**settings)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("baseline", 3.0, "baseline=3.0.*vantage.baselines"),
        ("scale", None, "scale=None.*vantage.scales"),
        ("clip", "ppo", "clip='ppo'.*vantage.ratios"),
    ],
)
def test_what_is_no_function_is_no_column(field: str, value: object, message: str) -> None:
    estimator = vt.Estimator()
    object.__setattr__(estimator, field, value)  # past the type checker that tests run under
    with pytest.raises(vt.InputError, match=message):
        estimator.__post_init__()


def test_names_are_forgiven_with_a_suggestion() -> None:
    with pytest.raises(vt.InputError, match=r"'gpro'; did you mean .*grpo"):
        E.named("gpro")
    with pytest.raises(vt.InputError, match="there are reinforce, reinforce_mean"):
        E.named("zzz")
    with pytest.raises(vt.InputError, match="no setting 'epsilom'; it has epsilon"):
        E.named("grpo", epsilom=0.1)
    with pytest.raises(vt.InputError, match="no column 'baselin'; did you mean baseline"):
        E.rloo().replace(baselin=baselines.none)
    with pytest.raises(vt.InputError, match="beta=-1"):
        E.rloo(beta=-1.0)


def test_a_row_of_ones_own() -> None:
    """Three lines, and it has a name everywhere; a name can be given once."""
    try:

        @E.row
        def mine(level: float = 0.5) -> vt.Estimator:
            return vt.Estimator(baseline=partial(vt.baselines.constant, level=level))

        estimator = E.named("mine", level=0.25)
        assert (estimator.name, estimator.unbiased, estimator.couples) == ("mine", "always", "none")
        assert any(cells[0] == "mine" for cells in listing.rows())
        assert "constant(level=0.5)" in printed(listing.explain("mine"))
        with pytest.raises(vt.InputError, match="a row 'mine' already"):
            E.row(mine)
    finally:
        del E.TABLE["mine"]


def test_replace_names_what_it_replaced() -> None:
    estimator = E.ppo().replace(baseline=baselines.none)
    assert estimator.name == "ppo(baseline=none)"
    assert E.ppo().replace(name="mine", scale=scales.none).name == "mine"
    assert E.rloo().replace(baseline=baselines.leave_one_out) == E.rloo()


def test_claims_follow_the_columns() -> None:
    assert E.rloo().unbiased == "always"
    assert E.rloo().replace(baseline=baselines.group_mean).bias == "scale"
    assert E.ppo().bias == "direction"
    assert E.actor_critic().provided == {"undiscounted", "true_value"}
    assert E.reinforce().provided == frozenset()  # the total return has its discount in it

    def mine(batch, returns):
        return torch.zeros_like(returns)

    assert vt.Estimator(baseline=mine).unbiased == "not stated"


def test_optimal_baselines_of_a_group_couple_the_group() -> None:
    assert E.trajectory_leave_one_out().couples == "batch"
    assert E.trajectory_by_position().couples == "group"


# What is printed.


def printed(renderable) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


COLUMNS = [
    column
    for module in (
        returns,
        baselines,
        scales,
        selections,
        ratios,
        importance,
        aggregates,
        penalties,
    )
    for name, column in inspect.getmembers(module, inspect.isfunction)
    if column.__module__ == module.__name__ and not name.startswith("_") and name != "recursion"
] + [shrinkage]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_every_column_says_what_it_is(column) -> None:
    """Four fixed parts, in order; and the claim in words agrees with the one that is checked."""
    said = columns.parts(column)
    assert list(said) == ["Summary", *columns.PARTS]
    assert all(said.values())
    never = said["Unbiased when"].startswith("never")
    assert columns.bias(column) is not None
    assert never == (columns.bias(column) != "none")
    if not never:
        conditional = bool(columns.provided(column)) or column in TARGETS
        assert said["Unbiased when"].startswith("always") != conditional


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_explained(name: str) -> None:
    """Equation, source and a BibTeX entry for every key that is cited."""
    estimator = E.named(name)
    assert estimator.name == name
    said = columns.parts(E.TABLE[name])
    assert said["Equation"].startswith(("ĝ =", "as "))
    text = printed(listing.explain(name))
    for part in (estimator.unbiased.splitlines()[0], "Equation", "Source"):
        assert part in text
    keys = re.findall(r"\[([a-z]+\d{4})\]", estimator.source)
    assert keys
    for key in keys:
        assert f"{{{key}," in listing.bibtex(estimator.source)
        assert f"{{{key}," in text


def test_every_citation_is_used() -> None:
    text = Path(vt.__file__).with_name("citations.bib").read_text()
    algorithms = (vt.algorithms.named(name) for name in vt.algorithms.TABLE)
    sources = " ".join(each.source for each in (*map(E.named, ROWS), *algorithms))
    for key in re.findall(r"^@\w+\{(\w+),", text, flags=re.MULTILINE):
        assert f"[{key}]" in sources, key


def test_the_table_is_printed() -> None:
    text = printed(listing.table())
    for name in ROWS:
        assert name in text


def test_the_page_shows_the_table_of_the_code() -> None:
    """docs/estimators.md and columns.md: regenerate with `python docs/estimator_page.py`."""
    docs = Path(__file__).parents[1] / "docs"
    assert listing.markdown() in (docs / "estimators.md").read_text()
    assert listing.columns_markdown() in (docs / "columns.md").read_text()


def test_every_column_is_explained_with_its_equation_source_and_claim() -> None:
    """Whatever a row chooses stands in the catalogue, and every entry says all that it must."""
    catalogue = listing.catalogue()
    chosen = {
        columns.function_of(column)
        for name in ROWS
        for field in MODULES
        if (column := getattr(E.named(name), field)) is not None
    }
    assert chosen <= set(catalogue.values())
    for name, column in catalogue.items():
        assert set(columns.PARTS) < set(columns.parts(column)), name
        shown = printed(listing.explain(name))
        assert " ".join(columns.parts(column)["Equation"].split()[:3]) in shown, name


def test_a_row_of_ones_own_is_among_those_that_have_its_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "row_of_my_own" not in printed(listing.explain("returns.gae"))
    monkeypatch.setitem(E.TABLE, "row_of_my_own", E.actor_critic)
    assert "row_of_my_own" in printed(listing.explain("returns.gae"))


def test_rows_and_columns_are_explained_by_the_names_that_people_know() -> None:
    assert "returns.gae" in printed(listing.explain("gae"))
    assert "Generalised advantage estimation" in printed(listing.explain("returns.gae"))
    ppo = printed(listing.explain("ppo"))
    assert "ratios.ppo" in ppo
    assert ppo.startswith("ppo")
    assert "per_decision is its former name" in printed(listing.explain("per_decision"))
    assert E.named("per_decision").name == E.per_decision().name == "norm_weighted"
    with pytest.raises(vt.InputError, match=r"mentioned by gspo, gmpo, ratios\.sequence"):
        listing.explain("geometric mean")
    with pytest.raises(vt.InputError, match="did you mean gae"):
        listing.explain("gea")


def test_columns_of_the_table_are_found_where_messages_say() -> None:
    for name in ROWS:
        estimator = E.named(name)
        for field, module in MODULES.items():
            column = getattr(estimator, field)
            if column is not None and columns.function_of(column) is not shrinkage:
                function = columns.function_of(column)
                assert getattr(getattr(vt, module), function.__name__) is function


def test_keys_are_functions_of_a_batch() -> None:
    batch = lanes()
    for key in (averages.everywhere, averages.by_group, averages.by_observation):
        assert key(batch).shape == batch.mask.shape


def test_enumerated_batches_need_groups_of_their_own() -> None:
    """An enumeration is one group of all trajectories: its in-sample mean is V(s0) itself."""
    policy = table(0, 1, 3)
    every = arms(torch.tensor([0.2, 0.5, 0.9]), policy)
    y = returns.total(every)
    value = (every.weight @ y).expand_as(y)
    torch.testing.assert_close(baselines.group_mean(every, y), value)
    _, batch = tuples(every, 2)
    assert float(batch.weight.sum()) == pytest.approx(1.0)
