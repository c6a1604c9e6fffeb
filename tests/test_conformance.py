"""Every claim of the table is checked, true and false alike; every rule catches who breaks it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch

import vantage as vt
from vantage import conformance
from vantage.conformance import claims
from vantage.estimators import baselines
from vantage.estimators.averages import by_group, mean_of_steps
from vantage.estimators.columns import declares
from vantage.exact.mdp import MDP

E = vt.estimators
ROWS = list(E.TABLE)


def of_both_signs() -> claims.Problem:
    """Two contexts, with rewards above and below 0."""
    mdp = MDP.bandit(torch.tensor([[1.0, -0.6], [0.3, -1.0]], dtype=torch.float64))
    return replace(claims.bandit(0), name="both signs", mdp=mdp)


def biases(estimator: vt.Estimator) -> Iterator[tuple[float, float]]:
    """(relative error, 1 − cosine) of E ĝ on every problem, and on one with rewards below 0."""
    for problem in (*claims.PROBLEMS, of_both_signs()):
        mean, exact = claims.expected_gradient(estimator, problem)
        error = (mean - exact).norm() / exact.norm()
        yield float(error), 1 - float(torch.cosine_similarity(mean, exact, dim=0))


@pytest.mark.parametrize("name", ROWS)
def test_claims_of_the_table(name: str) -> None:
    """Claims of no bias hold on every problem; claims of bias are shown by one at least."""
    estimator = E.named(name)
    if estimator.bias == "none":
        assert list(conformance.claim_holds(estimator)) == []
        if "undiscounted" in estimator.provided:
            assert any(error > 1e-3 for error, _ in biases(estimator))  # γ < 1 shows the condition
    elif estimator.bias == "scale":
        assert list(conformance.claim_holds(estimator)) == []
        assert all(error > 1e-3 and angle < 1e-12 for error, angle in biases(estimator))
    else:
        assert any(error > 1e-3 and angle > 1e-6 for error, angle in biases(estimator))


@pytest.mark.parametrize("estimator", [E.n_step(n=1), E.actor_critic()], ids=lambda e: e.name)
def test_the_condition_of_a_true_value_is_needed(estimator: vt.Estimator) -> None:
    """The same rows, not told that they may ask for the true value, are biased with another."""
    returns = estimator.returns

    @declares(needs=("value",))
    def careless(batch):
        return returns(batch)

    found = biases(estimator.replace(returns=careless, discounting=E.discounted))
    assert any(error > 1e-3 for error, _ in found)
    broken = list(conformance.claim_holds(estimator.replace(returns=careless)))
    assert len(broken) == 1
    assert "claims E ĝ = ∇J" in broken[0]


def test_the_true_value_does_not_matter_at_lambda_one() -> None:
    estimator = E.actor_critic(lambda_=1.0)
    returns = estimator.returns

    @declares(needs=("value",))
    def monte_carlo(batch):
        return returns(batch)

    conformance.check(estimator.replace(returns=monte_carlo, name="monte carlo"))


@pytest.mark.parametrize("name", ["reinforce", "rloo", "ppo", "trajectory_leave_one_out"])
def test_check_passes_what_is_right(name: str) -> None:
    conformance.check(E.named(name))


def test_check_passes_a_column_of_ones_own() -> None:
    """The example of the documentation."""

    @declares(couples="group", needs=("group",))
    def others(batch, returns):
        return mean_of_steps(batch, returns, by_group(batch), leave_out=True)

    conformance.check(vt.Estimator(baseline=others, name="others"))


# Estimators that break a rule, and the words in which they are told.


@declares()
def own_return(batch, returns):
    return 0.5 * returns


@declares()
def group_mean_in_secret(batch, returns):
    return baselines.leave_one_out(batch, returns)


@declares(couples="group", bias="direction")
def batch_mean_in_secret(batch, returns):
    return baselines.batch_mean(batch, returns)


@declares()
def first_step_of_the_grid(batch, returns):
    return torch.where(returns[:, :1].isnan(), 0, returns[:, :1]).expand_as(
        returns
    ) * 0 + torch.where(batch.mask[:, :1], 0.3, 0.7)


@declares(couples="batch")
def previous_row(batch, returns):
    return torch.where(batch.mask, returns, 0).roll(1, 0).mean(1, keepdim=True).expand_as(returns)


@declares()
def not_finite(batch, returns):
    return returns / (returns - returns)


@declares()
def in_place(batch, returns):
    batch.reward.mul_(2)
    return torch.zeros_like(returns)


@declares()
def of_one_row(batch, returns):
    return torch.zeros_like(returns)[:1, :, None]


@declares()
def doubled_ratio(batch, log_prob):
    return 1 + (log_prob != log_prob.detach().roll(1, 0)) * 0.0 + (batch.rows != 9) * 1.0


@declares()
def off_by_two(batch, log_prob):
    return torch.full_like(log_prob, 2.0) if log_prob is not batch.log_prob else log_prob * 0 + 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"baseline": own_return},
            r"claims E ĝ = ∇J, but on the problem 'bandit 0'.*relative bias",
        ),
        ({"baseline": group_mean_in_secret}, r"couples is 'none'; mark the column @declares"),
        ({"baseline": batch_mean_in_secret}, r"row 0 of another group .*couples='batch'"),
        ({"baseline": first_step_of_the_grid}, r"masked steps are added on the left"),
        ({"baseline": previous_row}, r"order of the rows"),
        ({"baseline": not_finite}, r"the weight at row 0, step 0 is -?(inf|nan); guard divisions"),
        ({"baseline": in_place}, r"changes batch.reward in place"),
        ({"ratio": doubled_ratio}, r"a pass over some rows gets other weights"),
        ({"ratio": off_by_two}, r"a ratio must be 1 where the policy is the one that sampled"),
    ],
)
def test_rules_catch_who_breaks_them(columns: dict, message: str) -> None:
    estimator = vt.Estimator(**columns, name="broken")
    with pytest.raises(conformance.ConformanceError, match=message) as caught:
        conformance.check(estimator)
    assert str(caught.value).startswith("Estimator 'broken' breaks ")


def test_weights_of_the_wrong_shape() -> None:
    class Flat(vt.Estimator):
        def weights(self, batch, *args, **inputs):
            return super().weights(batch, *args, **inputs).flatten()

    broken = list(conformance.weights_are_sound(Flat()))
    assert broken == ["weights have shape (36,), not [N, T] = (9, 4)."]


def test_weights_with_a_graph_or_outside_the_mask() -> None:
    class Careless(vt.Estimator):
        def weights(self, batch, log_prob=None, *args, **inputs):
            return batch.log_prob if log_prob is None else log_prob

    broken = " ".join(conformance.weights_are_sound(Careless()))
    assert "weights carry a graph" in broken
    assert "weights are not 0 where batch.mask is False" in broken


def test_an_undeclared_column_claims_nothing() -> None:
    def mine(batch, returns):
        return 0.5 * returns

    estimator = vt.Estimator(baseline=mine)
    assert estimator.unbiased == "not stated"
    conformance.check(estimator)


def test_expected_gradient_agrees_with_a_closed_form() -> None:
    """Dr. GRPO in groups of three is 2/3 ∇J: the enumeration itself is right."""
    for problem in claims.PROBLEMS:
        mean, exact = claims.expected_gradient(E.dr_grpo(), problem, group_size=3)
        torch.testing.assert_close(mean, 2 / 3 * exact, rtol=1e-10, atol=1e-12)
    level = vt.Estimator(baseline=partial(baselines.constant, level=0.4))
    mean, exact = claims.expected_gradient(level, claims.PROBLEMS[0])
    torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)
