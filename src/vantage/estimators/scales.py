"""The scale column: what the advantage is divided by. (Batch, returns, advantage) to [N, T].

A standard deviation of numbers that are all equal is not 0 on a computer but a rounding error, and
dividing by it turns no signal into noise of order one. The rule here: where the standard deviation
is below 32 rounding errors of the numbers it is taken over, there is no signal and the advantage is
0; elsewhere `epsilon` is added to it.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.batch import Batch, episode_start, sum_by_episode
from vantage.errors import refuse_unless
from vantage.estimators.averages import (
    average,
    by_group,
    by_group_and_observation,
    count,
    everywhere,
    mean_of_steps,
    mean_of_trajectories,
)
from vantage.estimators.columns import declares
from vantage.estimators.returns import to_go, total


@declares()
def none(
    batch: Batch, returns: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """The advantage as it is.

    Equation: A.
    Shapes: [N, T].
    Source: Williams 1992.
    Unbiased when: always.
    """
    return advantage


@declares(couples="group", bias="direction", needs=("group",))
def group_std(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-4,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Divided by the standard deviation of the returns of the group.

    Equation: A / (σ̂ + ε), σ̂² = (1/(G − correction)) Σ_j (R_j − mean)²; 0 in a group of equal
        returns.
    Shapes: [N, T].
    Source: Shao et al. 2024, GRPO; ε as common implementations have it. TRL and verl divide by
        G − 1, which is `correction` 1: their advantages are √((G−1)/G) of these.
    Unbiased when: never. With 0/1 rewards, one prompt of success probability p, and the group mean
        as the baseline, it multiplies the gradient by c = E[p̂(1−p̂)/(√(p̂(1−p̂)) + ε)]/(p(1−p)),
        p̂ the success rate of the group; the factor differs between prompts, which turns the
        gradient.
    """
    start = episode_start(batch)
    _, deviation, size = _moments(batch, returns, by_group(batch), start, correction)
    return _divided(advantage, deviation, size, epsilon)


@declares(couples="batch", bias="direction", needs=("group", "reward_parts", "reward_weights"))
def decoupled(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    reward_parts: Float[Tensor, "N T K"],
    reward_weights: Float[Tensor, "*weights"],
    epsilon: float = 1e-4,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """In place of the advantage, that of each reward function by itself: first scaled, then summed.

    Equation: (B − B̄) / (σ_B + ε), B_i = Σ_k w_k (R_ik − mean_k) / (σ_k + ε), mean_k and σ_k of the
        returns R_k of the k-th function over the trajectories of the group, B̄ and σ_B over those of
        the batch; σ's divisors less `correction`. A function that could not score a trajectory has
        no part in it, nor the trajectory in that function's moments.
    Shapes: [N, T]; reward_parts [N, T, K] before their weights, NaN where a function could not
        score; reward_weights [K], or of each step.
    Source: Liu et al. 2026, GDPO; TRL's multi_objective_aggregation="normalize_then_sum", which
        divides by G − 1 and B − 1: `correction` 1.
    Unbiased when: never. It is the gradient of no sum of the rewards: how a function counts depends
        on its spread, which differs between prompts and is correlated with the samples.
    """
    start, every = episode_start(batch), torch.zeros_like(returns)
    weights = reward_weights.to(returns.dtype).expand_as(reward_parts)
    for part, weight in zip(reward_parts.unbind(-1), weights.unbind(-1), strict=True):
        unknown = torch.where(batch.mask, part.isnan(), 0).to(returns.dtype)
        known = (sum_by_episode(batch, unknown) == 0)[batch.episode]
        alone = replace(batch, reward=part.to(returns.dtype), bootstrap=torch.zeros_like(returns))
        worth = torch.where(known, total(alone), 0)
        mean, deviation, size = _moments(batch, worth, by_group(batch), start & known, correction)
        scaled = _divided(worth - mean, deviation, size, epsilon)
        every = every + torch.where(known, weight * scaled, 0)
    mean, deviation, size = _moments(batch, every, everywhere(batch), start, correction)
    return _divided(every - mean, deviation, size, epsilon)


@declares(couples="group", bias="direction", needs=("group",))
def group_and_state_std(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    omega: float,
    epsilon: float = 1e-6,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """In place of the advantage, that in the group and that in the state, each by its deviation.

    Equation: (R(τ) − mean)/(σ_G + ε) + ω (R_t − mean_s)/(σ_s + ε), mean and σ_G of the
        trajectories' returns in the group, mean_s and σ_s of R_t over the group's steps in the same
        state, R_t the rewards from a step on; σ's divisors less `correction`. 0 where all are
        equal, as where a state is visited once.
    Shapes: [N, T].
    Source: Feng et al. 2025, GiGPO, equations 3, 7 and 8 with F_norm = σ; ε is of their code, which
        divides by G − 1, `correction` 1.
    Unbiased when: never. Two deviations that are correlated with the samples weigh the two parts,
        and differ between groups and states.
    """
    whole, ahead, start = total(batch), to_go(batch), episode_start(batch)
    in_group = _moments(batch, whole, by_group(batch), start, correction)
    in_state = _moments(batch, ahead, by_group_and_observation(batch), batch.mask, correction)
    episode, step = (
        _divided(worth - mean, deviation, size, epsilon)
        for worth, (mean, deviation, size) in ((whole, in_group), (ahead, in_state))
    )
    return episode + omega * step


@declares(couples="group", bias="direction", needs=("group",))
def group_mean_return(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
) -> Float[Tensor, "N T"]:
    """Divided by the mean return of the group.

    Equation: A / mean_j R_j; 0 in a group whose mean return is not positive: it would turn the
        gradient round.
    Shapes: [N, T].
    Source: Tajwar et al. 2026, MaxRL.
    Unbiased when: never for J. With 0/1 rewards and the group mean as the baseline it multiplies
        the gradient of a prompt of success probability p by (1 − (1−p)^{G−1})/p, which tends to ∇
        log p.
    """
    key = by_group(batch)
    mean = mean_of_trajectories(batch, returns, key, leave_out=False)
    size = mean_of_trajectories(batch, returns**2, key, leave_out=False).sqrt()
    return _divided(advantage, mean, size, 0.0)


@declares(couples="batch", bias="direction")
def batch_std(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-8,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Divided by the standard deviation of the advantage over all counted steps of the batch.

    Equation: A / (σ̂ + ε), σ̂² = (M/(M − correction)) Σ_{n,t} w_n (A_nt − Ā)² / Σ_{n,t} w_n over
        the M counted steps; 0 in a batch of equal advantages.
    Shapes: [N, T].
    Source: the advantage normalisation of common implementations, without its mean.
    Unbiased when: never. The deviation is correlated with the samples it divides.
    """
    key = everywhere(batch)
    mean = mean_of_steps(batch, advantage, key, leave_out=False)
    variance = mean_of_steps(batch, (advantage - mean) ** 2, key, leave_out=False)
    size = mean_of_steps(batch, returns**2, key, leave_out=False).sqrt()
    bessel = batch.steps / max(1, batch.steps - correction)
    return _divided(advantage, (variance * bessel).sqrt(), size, epsilon)


@declares(couples="batch", bias="direction")
def standardised(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    epsilon: float = 1e-8,
    correction: int = 0,
) -> Float[Tensor, "N T"]:
    """Centred and divided by the standard deviation, over all counted steps of the batch.

    Equation: (A − Ā) / (σ̂ + ε), with Ā and σ̂ as in `batch_std`.
    Shapes: [N, T].
    Source: the advantage normalisation of common implementations; Hu et al. 2025, REINFORCE++.
    Unbiased when: never. The mean contains the step's own advantage, the deviation is correlated
        with the samples it divides.
    """
    centred = advantage - mean_of_steps(batch, advantage, everywhere(batch), leave_out=False)
    return batch_std(batch, returns, centred, epsilon=epsilon, correction=correction)


@declares(couples="batch", bias="direction", needs=("group",))
def live_groups(
    batch: Batch, returns: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"]
) -> Float[Tensor, "N T"]:
    """Multiplied by how many trajectories there are for each in a group that has a signal.

    Equation: A · Σ_n w_n / Σ_{n live} w_n, live the groups whose returns are not all equal.
    Shapes: [N, T].
    Source: Chu et al. 2025, GPG, whose α = B/(B − M) this is, M trajectories without a gradient.
    Unbiased when: never. The factor is correlated with the samples; its limit in large batches is a
        constant.
    """
    live, start = _spread(batch, returns)[0] > 0, episode_start(batch)
    weight = torch.where(start, batch.weight[:, None], 0)
    alive = torch.where(live, weight, 0).sum()
    return torch.where(live, advantage * (weight.sum() / alive), 0)


@declares(bias="direction")
def by_sign(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    positive: float = 1.0,
    negative: float = 1.0,
) -> Float[Tensor, "N T"]:
    """Good and bad advantages, each times a factor of its own.

    Equation: λ⁺ A where A > 0, λ⁻ A where A < 0.
    Shapes: [N, T].
    Source: Zhu et al. 2025, weighted REINFORCE, with λ⁺ = 0.1 and λ⁻ = 1 on rewards of ±1.
    Unbiased when: never but for λ⁺ = λ⁻ = 1: it is the gradient of another reward, whose good and
        bad parts weigh differently.
    """
    return torch.where(advantage > 0, positive, negative) * advantage


@declares(couples="group", bias="direction", needs=("group",))
def best_of(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    advantage: Float[Tensor, "N T"],
    *,
    k: int,
    normalise: bool = True,
) -> Float[Tensor, "N T"]:
    """In place of the advantage, that of the best of k: pass@k, where rewards are 0 and 1.

    Equation: (S_i − S̄)/σ, S̄ the mean over all sets of k trajectories of the group of the largest
        return in the set, S_i the same over the sets that contain i, σ² the variance over all sets;
        without `normalise` S_i − S̄. 0 where all sets are equally good.
    Shapes: [N, T].
    Source: Chen et al. 2025, pass@k training, equations 14 and 15; S_i: Walder & Karkhanis 2025.
    Unbiased when: never for J. Without `normalise` it is (1 − k/G)/k times the gradient of the
        expected best of k.

    Raises:
        InputError: a group of fewer than k trajectories.
    """
    first, slot, count = _by_group(batch, returns)
    refuse_unless(
        int(count.min()) >= k,
        f"best_of(k={k}): a group has {int(count.min())} trajectories; draw {k} or more of each "
        "prompt or start state.",
    )
    size, longest = first.shape[1], int(count.max())
    value, order = first.sort(1)
    value = torch.where(value.isfinite(), value, 0)
    choose = torch.tensor(
        [[math.comb(n, j) for j in range(k + 1)] for n in range(longest + 1)], dtype=value.dtype
    ).to(value.device)
    # ranks from 1 among the group's own; what pads a smaller group has ranks below that
    rank = torch.arange(1, size + 1, device=value.device) - (size - count)[:, None]
    best = torch.where(rank >= 1, choose[(rank - 1).clamp(min=0), k - 1], 0)
    pair = choose[(rank - 2).clamp(min=0), k - 2] if k > 1 else torch.zeros_like(best)
    above = torch.where(rank >= 2, pair, 0) * value
    later = above.flip(1).cumsum(1).flip(1) - above
    total, with_it = choose[count, k][:, None], choose[count - 1, k - 1][:, None]
    mean = (best * value).sum(1, keepdim=True) / total
    spread = ((best * (value - mean) ** 2).sum(1, keepdim=True) / total).sqrt()
    gain = (best * value + later) / with_it - mean
    noise = 32 * torch.finfo(returns.dtype).eps * value.abs().amax(1, keepdim=True)
    gain = torch.where(spread > noise, gain / spread if normalise else gain, 0)
    return gain.gather(1, order.argsort(1)).flatten()[slot].to(returns.dtype)


def _by_group(
    batch: Batch, returns: Float[Tensor, "N T"]
) -> tuple[Float[Tensor, "P G"], Int[Tensor, "N T"], Int[Tensor, " P"]]:
    """First returns of each group's trajectories, −∞ where it has fewer; where a step's own is."""
    start = episode_start(batch)
    group = batch.group.unique(return_inverse=True)[1][:, None].expand_as(start)[start]
    episode = batch.episode[start]
    order = group.argsort(stable=True)
    count = group.bincount()
    place = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group[order]]
    widest = int(count.max())
    cell = group[order] * widest + place
    first = returns.new_full((len(count) * widest,), -math.inf, dtype=torch.float64)
    first[cell] = returns[start][order].double()
    slot = torch.zeros(int(batch.episode.max()) + 1, dtype=torch.long, device=group.device)
    slot[episode[order]] = cell
    return first.view(len(count), widest), slot[batch.episode], count


def _spread(
    batch: Batch, returns: Float[Tensor, "N T"]
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Standard deviation, 0 where it is no more than rounding, and root mean square of a group."""
    key = by_group(batch)
    mean = mean_of_trajectories(batch, returns, key, leave_out=False)
    variance = mean_of_trajectories(batch, (returns - mean) ** 2, key, leave_out=False)
    size = mean_of_trajectories(batch, returns**2, key, leave_out=False).sqrt()
    spread = variance.sqrt()
    return torch.where(spread > 32 * torch.finfo(returns.dtype).eps * size, spread, 0), size


def _moments(
    batch: Batch,
    returns: Float[Tensor, "N T"],
    key: Int[Tensor, "N T"],
    first: Bool[Tensor, "N T"],
    correction: int,
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Mean, standard deviation and root mean square over the trajectories with a common key.

    Args:
        first: the first steps of those that take part.
        correction: what the divisor of the variance is less than their number.
    """
    counted = first.to(returns.dtype)
    at_first = partial(average, batch, denominator=counted, key=key, leave_out=False)
    mean = at_first(torch.where(first, returns, 0))
    variance = at_first(torch.where(first, (returns - mean) ** 2, 0))
    size = at_first(torch.where(first, returns**2, 0)).sqrt()
    number = count(first, key)
    bessel = (number / (number - correction).clamp(min=1)).to(returns.dtype)
    return mean, (variance * bessel).sqrt(), size


def _divided(
    advantage: Float[Tensor, "N T"],
    spread: Float[Tensor, "N T"],
    size: Float[Tensor, "N T"],
    epsilon: float,
) -> Float[Tensor, "N T"]:
    """advantage / (spread + epsilon), 0 where `spread` is no more than a rounding error of numbers
    of `size`."""
    noise = 32 * torch.finfo(advantage.dtype).eps * size
    return torch.where(spread > noise, advantage / (spread + epsilon), 0)
