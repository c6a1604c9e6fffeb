"""Moments of the table's rows on a tabular MDP of any length, by equations along its chain.

`vantage.exact.expectation` lists trajectories, and so needs them to be few. Here nothing is listed:
total returns, rewards-to-go, λ-returns and n-step returns, without a baseline or with a number or V
as one, and total returns compared with the others of a group or of the batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.errors import InputError
from vantage.estimators import (
    aggregates,
    baselines,
    importance,
    ratios,
    returns,
    scales,
    selections,
)
from vantage.estimators.columns import function_of, settings_of
from vantage.estimators.estimator import Estimator
from vantage.exact.chain import chain
from vantage.exact.mdp import MDP
from vantage.exact.moments import recursion_for
from vantage.exact.recursion import Recursion
from vantage.exact.scores import scores
from vantage.exact.total import Total
from vantage.exact.values_ahead import LambdaReturns, Steps
from vantage.policies import Policy

AT_ONE = (ratios.unclipped, ratios.ppo, ratios.cispo, ratios.truncated, ratios.dual)


@dataclass(frozen=True)
class RowMoments:
    """Exact moments of an estimator's gradient.

    Attributes:
        mean: [P] E ĝ.
        trace: tr Cov of one trajectory's ĝ; of an estimator that compares trajectories, B times
            that of a batch of B.
        between: tr Cov over start states of E[ĝ|s_0]; None where trajectories are compared.
    """

    mean: Float[Tensor, " P"]
    trace: Float[Tensor, ""]
    between: Float[Tensor, ""] | None


def row_moments(
    mdp: MDP,
    policy: Policy,
    estimator: Estimator,
    *,
    group_size: int,
    batch: int,
    value: Float[Tensor, " S"] | None = None,
) -> RowMoments:
    """Exact moments of an estimator on the policy's own trajectories, without listing them.

    Args:
        mdp, policy: the process and what acts in it.
        estimator: a row.
        group_size: trajectories of one start state in a group, for rows that compare them.
        batch: trajectories in a batch, for rows that compare all of them.
        value: [S] V(s), for rows that need it.

    Source: the page "The eight equations"; for compared returns the variance of a sample
        covariance, K. Pearson, with E ∇ log π = 0.

    Raises:
        InputError: no such equations for these columns; or as in `vantage.exact.moments`.
    """
    factor = _factor(estimator)
    base, settings = function_of(estimator.baseline), settings_of(estimator.baseline)
    worth = None if value is None else torch.where(mdp.terminal, 0, value.double())
    sizes: dict[object, int] = {
        baselines.leave_one_out: group_size,
        baselines.group_mean: group_size,
        baselines.batch_leave_one_out: batch,
    }
    compared = sizes.get(base)
    if compared is not None:
        plain = settings.get("fraction", 1.0) == 1 and settings.get("shift", 0.0) == 0
        if not plain or function_of(estimator.returns) is not returns.total or compared < 2:
            raise _none(estimator)
        if base is baselines.group_mean:
            factor *= 1 - 1 / compared
        estimate = recursion_for(mdp, policy, "total", discounted=True)
        assert isinstance(estimate, Total)
        moments = _compared(estimate, compared, shared=base is not baselines.batch_leave_one_out)
    else:
        levels = _levels(estimator, mdp, worth)
        estimate = _recursion(mdp, policy, estimator, worth)
        mean, second = estimate.moments(levels.expand(estimate.process.layers, -1))
        start = mdp.initial
        G = start @ mean[0]
        moments = RowMoments(
            G, start @ second[0, :, 0] - G @ G, start @ (mean[0] - G).square().sum(1)
        )
    between = None if moments.between is None else factor**2 * moments.between
    return RowMoments(factor * moments.mean, factor**2 * moments.trace, between)


def _factor(estimator: Estimator) -> float:
    """What all weights are multiplied by; refuses columns that do more than that on policy."""
    ratio = function_of(estimator.ratio)
    aggregate = function_of(estimator.aggregate)
    if (
        function_of(estimator.scale) is not scales.none
        or function_of(estimator.selection) is not selections.none
        or estimator.kl_in_reward is not None
        or estimator.kl_in_loss is not None
        or estimator.restraint is not None
        or estimator.entropy
        or estimator.importance is not importance.none
        or ratio not in (ratios.none, ratios.token, ratios.sequence, ratios.trajectory)
        or function_of(estimator.clip) not in AT_ONE
        or aggregate not in (aggregates.per_trajectory, aggregates.constant_length)
    ):
        raise _none(estimator)
    length = settings_of(estimator.aggregate).get("length", 1.0)
    return 1 / float(length) if aggregate is aggregates.constant_length else 1.0


def _levels(
    estimator: Estimator, mdp: MDP, worth: Float[Tensor, " S"] | None
) -> Float[Tensor, " S"]:
    base = function_of(estimator.baseline)
    if base is baselines.none:
        return torch.zeros(mdp.states, dtype=torch.float64)
    if base is baselines.constant:
        level = settings_of(estimator.baseline)["level"]
        return torch.full((mdp.states,), float(level), dtype=torch.float64)
    if base is not baselines.value or worth is None:
        raise _none(estimator)
    return worth


def _recursion(
    mdp: MDP, policy: Policy, estimator: Estimator, worth: Float[Tensor, " S"] | None
) -> Recursion:
    kind, settings = function_of(estimator.returns), settings_of(estimator.returns)
    discounted = function_of(estimator.discounting)
    if discounted not in (aggregates.discounted, aggregates.undiscounted):
        raise _none(estimator)
    inside = discounted is aggregates.discounted
    if kind is returns.total and not inside:
        return recursion_for(mdp, policy, "total", discounted=True)
    if kind is returns.to_go:
        return recursion_for(mdp, policy, "to_go", discounted=inside)
    if kind not in (returns.gae, returns.n_step) or worth is None:
        raise _none(estimator)
    kappa = mdp.discount if inside else 1.0
    with torch.no_grad():
        process = chain(mdp, policy, kappa).dense()
    psi = scores(process, policy, by_parameter=False)
    if kind is returns.gae:
        return LambdaReturns(process, psi, kappa, worth, settings["lambda_"])
    return Steps(process, psi, kappa, worth, settings["n"])


def _compared(estimate: Total, count: int, shared: bool) -> RowMoments:
    """ĝ = (1/(K−1)) Σ_i S_i (R_i − R̄), a sample covariance of scores and returns.

    With E S = 0 and returns minus their mean, K tr Cov = E‖S‖²R² − (K−2)/(K−1) ‖E SR‖² +
    E‖S‖² E R²/(K−1).

    Args:
        estimate: the estimate of total returns.
        count: K trajectories that are compared.
        shared: whether they share their start state; else each start is drawn by itself.
    """
    process, start = estimate.process, estimate.mdp.initial
    vectors, norms = estimate.score_moments()
    u = vectors[0]  # [S, P] E[SR|s]
    square = [norm[0, :, 0] for norm in norms]  # E[‖S‖² R^k|s]
    value = estimate.V[0, :, 0]
    second = process.mean(estimate.Q2)[0, :, 0]
    if not shared:
        u, value, second = (start @ each for each in (u, value, second))
        square = [start @ each for each in square]
    centred = square[2] - 2 * value * square[1] + value.square() * square[0]
    spread = (second - value.square()) * square[0]
    squares = u.square().sum(-1)
    trace = centred - (count - 2) / (count - 1) * squares + spread / (count - 1)
    if not shared:
        return RowMoments(u, trace, None)
    mean = start @ u
    between = start @ (u - mean).square().sum(1)
    return RowMoments(mean, start @ trace + count * between, None)


def _none(estimator: Estimator) -> InputError:
    used = ", ".join(
        f"{k}={v}" for k, v in estimator.columns().items() if v not in ("–", "none", "unclipped")
    )
    return InputError(
        f"exact moments of {estimator.name!r} ({used}) on trajectories that cannot be listed: "
        "there are no equations for these columns; measure it by sampling (vantage.audit)."
    )
