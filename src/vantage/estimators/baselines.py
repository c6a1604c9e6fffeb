"""The baseline column: what is subtracted from the return. Each maps (Batch, returns) to [N, T].

A baseline that does not look at the step's own action leaves the gradient unbiased, because the
score has zero mean ([6]). One that contains the trajectory's own return does look at it. Of each
such mean there are two versions, in-sample and leave-one-out, and only the second is unbiased.

Where no other trajectory shares the key (a group of one, a state visited once) a leave-one-out mean
does not exist; the baseline there is 0, which is unbiased too.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, episode_start, sum_by_episode
from vantage.estimators.averages import (
    average,
    by_group,
    by_group_and_observation,
    by_group_and_position,
    by_observation,
    everywhere,
    mean_of_steps,
    mean_of_trajectories,
)
from vantage.estimators.columns import declares
from vantage.estimators.returns import to_go, total
from vantage.estimators.scores import Scores

Key = Callable[[Batch], Tensor]


@declares()
def none(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """No baseline.

    Equation: b = 0.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return torch.zeros_like(returns)


@declares()
def constant(batch: Batch, returns: Float[Tensor, "N T"], *, level: float) -> Float[Tensor, "N T"]:
    """One number for every step, fixed before the batch is drawn.

    Equation: b = level, in units of return.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return torch.full_like(returns, level)


@declares(needs=("value",))
def value(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """A learned V(s_t), fitted to earlier batches.

    Equation: b(s_t) = V(s_t); A = R_t − V(s_t) in [8].
    Shapes: [N, T].
    Source: Sutton & Barto 2018, section 13.4.
    Unbiased when: always, for a V that was fitted without this batch.
    """
    assert batch.value is not None  # Estimator.advantage refuses a batch without values
    return batch.value


@declares(needs=("value",))
def first_value(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """V of the state or prompt that the trajectory began with, at each of its steps.

    Equation: b = V(s_0).
    Shapes: [N, T].
    Source: Richemond et al. 2024, DRO.
    Unbiased when: always, for a V that was fitted without this batch.
    """
    assert batch.value is not None  # Estimator.advantage refuses a batch without values
    start = episode_start(batch)
    return sum_by_episode(batch, torch.where(start, batch.value, 0))[batch.episode]


@declares(needs=("greedy_return",))
def greedy(
    batch: Batch, returns: Float[Tensor, "N T"], *, greedy_return: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """The return of a rollout that takes the likeliest action at every step.

    Equation: b = R(τ_greedy) from the same start state or prompt.
    Shapes: [N, T]; greedy_return [N, T], at each step that of its trajectory's start.
    Source: Li et al. 2024, ReMax.
    Unbiased when: always.
    """
    return greedy_return


@declares(couples="batch", bias="direction")
def batch_mean(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The mean return of the batch, over all counted steps, the step's own included.

    Equation: b = Σ_{n,t} w_n y_{nt} / Σ_{n,t} w_n, with w the rows' weights and y the returns.
    Shapes: [N, T].
    Source: the common implementation of REINFORCE "with a baseline".
    Unbiased when: never. It contains the step's own return; with total returns and trajectories of
        one length it shrinks the gradient by (m−1)/m for a batch of m.
    """
    return mean_of_steps(batch, returns, everywhere(batch), leave_out=False)


@declares(couples="batch")
def batch_leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"], *, fraction: float = 1.0
) -> Float[Tensor, "N T"]:
    """The mean return of the other trajectories of the batch, groups disregarded, or a part of it.

    Where bad trajectories have the longer scores, the baseline of least variance, [7], lies below
    the mean return.

    Equation: b_i = c Σ_{j≠i} w_j R_j / Σ_{j≠i} w_j over the batch's trajectories, c = fraction.
    Shapes: [N, T].
    Source: Kool, van Hoof & Welling 2019, with c = 1.
    Unbiased when: always.
    """
    return fraction * mean_of_trajectories(batch, returns, everywhere(batch), leave_out=True)


@declares(
    couples="group", bias="scale", needs=("group",), factor=lambda group, shift=0: 1 - 1 / group
)
def group_mean(
    batch: Batch, returns: Float[Tensor, "N T"], *, shift: float = 0.0
) -> Float[Tensor, "N T"]:
    """The mean return of the trajectories of the group, the trajectory's own included.

    Equation: b = (1/G) Σ_{j in group} R_j + δ, δ = shift; below 0 good trajectories weigh more.
    Shapes: [N, T].
    Source: Shao et al. 2024, GRPO; Liu et al. 2025, Dr. GRPO; δ: Arnal et al. 2025, AsymRE.
    Unbiased when: never. With total returns it shrinks the gradient by (G−1)/G, a constant factor
        where all groups have G trajectories.
    """
    mean = mean_of_trajectories(batch, returns, by_group(batch), leave_out=False)
    return mean + shift if shift else mean


@declares(couples="group", needs=("group",))
def leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"], *, fraction: float = 1.0
) -> Float[Tensor, "N T"]:
    """The mean return of the other trajectories of the group, or a part of it.

    Equation: b_i = (c/(G−1)) Σ_{j≠i, same group} R_j, c = fraction.
    Shapes: [N, T].
    Source: Kool, van Hoof & Welling 2019; Ahmadian et al. 2024, RLOO, with c = 1.
    Unbiased when: always.
    """
    return fraction * mean_of_trajectories(batch, returns, by_group(batch), leave_out=True)


@declares(couples="batch", bias="direction")
def state_mean(
    batch: Batch, returns: Float[Tensor, "N T"], *, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """The mean return of the steps of the batch that saw the same observation, own ones included.

    Equation: b(s) = Σ_{n,t: s_nt=s} w_n y_nt / Σ_{n,t: s_nt=s} w_n.
    Shapes: [N, T].
    Source: the state average of the worked example, estimated from the batch.
    Unbiased when: never. It contains the step's own return, more of it in states visited less.
    """
    return mean_of_steps(batch, returns, key(batch), leave_out=False)


@declares(couples="group", bias="direction", needs=("group",))
def group_and_state_mean(
    batch: Batch, returns: Float[Tensor, "N T"], *, omega: float
) -> Float[Tensor, "N T"]:
    """The group's mean return, and the mean of what followed its visits to the state, times ω.

    Equation: b = mean of R over the group + ω mean of R_t over the group's steps in the same state,
        R_t the rewards from a step on, the step's own included. Observations are compared exactly.
    Shapes: [N, T].
    Source: Feng et al. 2025, GiGPO, equations 3 and 7 without standard deviations.
    Unbiased when: never. It contains the step's own return, and shrinks states that are visited
        seldom more than others; where a state is visited once, ω R_t is lost.
    """
    whole = mean_of_trajectories(batch, total(batch), by_group(batch), leave_out=False)
    ahead = mean_of_steps(batch, to_go(batch), by_group_and_observation(batch), leave_out=False)
    return whole + omega * ahead


@declares(couples="batch")
def state_leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"], *, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """The mean return of the other trajectories' steps that saw the same observation.

    Equation: b_i(s) = Σ_{n≠i,t: s_nt=s} w_n y_nt / Σ_{n≠i,t: s_nt=s} w_n.
    Shapes: [N, T].
    Source: `state_mean` without the trajectory's own part.
    Unbiased when: always.
    """
    return mean_of_steps(batch, returns, key(batch), leave_out=True)


@declares(couples="group", bias="direction", needs=("group",))
def length_weighted(batch: Batch, returns: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """The optimal baseline of a prompt if the squared norm of a score sum grew like its length.

    Equation: b = Σ_j l_j R_j / Σ_j l_j over the trajectories of the group, l_j their lengths.
    Shapes: [N, T].
    Source: Hao et al. 2025, OPO.
    Unbiased when: never. It contains the trajectory's own return, weighted by its length.
    """
    return mean_of_steps(batch, returns, by_group(batch), leave_out=False)


@declares(couples="group", needs=("group",))
def length_weighted_leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """`length_weighted` without the trajectory's own part.

    Equation: b_i = Σ_{j≠i} l_j R_j / Σ_{j≠i} l_j over the trajectories of the group.
    Shapes: [N, T].
    Source: Hao et al. 2025, OPO, made unbiased.
    Unbiased when: always.
    """
    return mean_of_steps(batch, returns, by_group(batch), leave_out=True)


@declares(couples="batch", bias="direction", needs=("scores",))
def norm_weighted(
    batch: Batch, returns: Float[Tensor, "N T"], *, scores: Scores, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """[7]: the baseline of least variance for one decision, estimated from the batch.

    Equation: b(s) = Σ ‖s_t‖² y_t / Σ ‖s_t‖² over the steps of the batch with the same key.
    Shapes: [N, T].
    Source: [7]; Greensmith, Bartlett & Baxter 2004; Peters & Schaal 2008.
    Unbiased when: never. It contains the step's own return and tilts the gradient.
    """
    return average(batch, scores.norm * returns, scores.norm, key(batch), leave_out=False)


@declares(couples="batch", needs=("scores",))
def norm_weighted_leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"], *, scores: Scores, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """`norm_weighted` without the trajectory's own part.

    Equation: b_i(s) = Σ_{n≠i} ‖s_nt‖² y_nt / Σ_{n≠i} ‖s_nt‖² over the steps with the same key.
    Shapes: [N, T].
    Source: [7], made unbiased.
    Unbiased when: always.
    """
    return average(batch, scores.norm * returns, scores.norm, key(batch), leave_out=True)


@declares(couples="group", bias="direction", needs=("scores",))
def cumulative_norm_weighted(
    batch: Batch, returns: Float[Tensor, "N T"], *, scores: Scores
) -> Float[Tensor, "N T"]:
    """The optimal token baseline: of each position, weighted by the squared scores up to there.

    Equation: b_t = Σ_j W_jt y_jt / Σ_j W_jt over the trajectories of the group that reach position
        t, W_jt = Σ_{u≤t} ‖s_ju‖²; 0 where only one reaches it.
    Shapes: [N, T].
    Source: Li et al. 2026, the optimal token baseline; verl has the norms of the logits' scores.
    Unbiased when: never. It contains the step's own return.
    """
    key = by_group_and_position(batch)
    energy = torch.where(batch.mask, scores.norm, 0).cumsum(1)
    before = torch.where(episode_start(batch), energy - scores.norm, 0)
    # what a lane held before the episode began, carried along its steps: energies only grow
    energy = energy - before.cummax(1).values
    mean = average(batch, energy * returns, energy, key, leave_out=False)
    one = torch.ones_like(returns)
    return mean * average(batch, one, one, key, leave_out=True)


# The names that both had before; "per decision" is a kind of importance sampling in the field.
per_decision, per_decision_leave_one_out = norm_weighted, norm_weighted_leave_one_out


@declares(couples="batch", bias="direction", needs=("scores",))
def trajectory(
    batch: Batch, returns: Float[Tensor, "N T"], *, scores: Scores, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """The baseline of least variance for a whole trajectory, estimated from the batch.

    Equation: b(s) = Σ s_t·ĝ0 / Σ ‖s_t‖² over the steps of the batch with the same key, ĝ0 the
        un-baselined gradient Σ_t' s_t' y_t' of the step's trajectory.
    Shapes: [N, T].
    Source: the minimum of tr Cov of Σ_t s_t (y_t − b(s_t)); it is [7] where scores at different
        times are orthogonal. Related: Keane & Gao 2022.
    Unbiased when: never. It contains the step's own return and tilts the gradient.
    """
    return average(batch, scores.product, scores.norm, key(batch), leave_out=False)


@declares(couples="batch", needs=("scores",))
def trajectory_leave_one_out(
    batch: Batch, returns: Float[Tensor, "N T"], *, scores: Scores, key: Key = by_observation
) -> Float[Tensor, "N T"]:
    """`trajectory` without the trajectory's own part.

    Equation: b_i(s) = Σ_{n≠i} s_nt·ĝ0_n / Σ_{n≠i} ‖s_nt‖² over the steps with the same key.
    Shapes: [N, T].
    Source: `trajectory`, made unbiased.
    Unbiased when: always.
    """
    return average(batch, scores.product, scores.norm, key(batch), leave_out=True)
