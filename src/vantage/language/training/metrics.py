"""Metrics of an update of a language model, under the names that its users know."""

import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vantage.errors import refuse_unless
from vantage.estimators import ratios
from vantage.estimators.penalties import k3
from vantage.language.sampling.rollout import Rollout
from vantage.language.training.ascent import Step, Weighed
from vantage.language.training.inputs import PROXIMAL
from vantage.training.value import value_metrics

# what the loop adds to every update
TAKEN = {"update", "learning_rate", "step_time", "tokens_per_second"}


def group_rewards(drawn: Rollout) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """Mean and standard deviation of the rewards that count in every group."""
    counted = drawn.batch.mask.any(1).double()
    groups = int(drawn.batch.group.max()) + 1
    zeros = torch.zeros(groups, dtype=torch.float64)
    reward = drawn.reward.double()
    count = zeros.index_add(0, drawn.batch.group, counted).clamp(min=1)
    mean = zeros.index_add(0, drawn.batch.group, counted * reward) / count
    apart = counted * (reward - mean[drawn.batch.group]).square()
    spread = zeros.index_add(0, drawn.batch.group, apart) / (count - 1).clamp(min=1)
    return mean, spread.sqrt()


def reward_metrics(drawn: Rollout) -> dict[str, Any]:
    """Rewards and lengths of what was drawn.

    `return` and `length` are what they are in every run: means over episodes, which are completions
    here, those that do not count in the gradient included. `reward` and `completions/mean_length`
    are the same numbers under the names of TRL.
    """
    counted, scored = drawn.batch.mask.any(1), drawn.scorable
    length, ended = drawn.sequences.sampled.sum(1).double(), ~drawn.sequences.truncated
    mean, spread = group_rewards(drawn)
    grouped = len(mean) < len(drawn.reward)
    rewards = drawn.reward[scored].double()
    none = math.nan
    mean_reward = float(rewards.mean()) if len(rewards) else none
    mean_length = float(length.mean())
    return {
        "return": mean_reward,
        "length": mean_length,
        "reward": mean_reward,
        "reward_std": float(spread.mean()) if grouped else float(rewards.std()),
        "reward_std/between_prompts": float(mean.std()) if len(mean) > 1 else none,
        "frac_reward_zero_std": float((spread == 0).double().mean()) if grouped else 0.0,
        **{f"rewards/{name}": float(each.nanmean()) for name, each in drawn.parts.items()},
        "scorable": float(scored.double().mean()),
        "completions": int(counted.sum()),
        "completions/mean_length": mean_length,
        "completions/max_length": float(length.max()),
        "completions/mean_terminated_length": float(length[ended].mean()) if ended.any() else None,
        "completions/clipped_ratio": float(drawn.sequences.truncated.double().mean()),
    }


def logged_metrics(drawn: Rollout, row: dict[str, Any]) -> dict[str, float]:
    """The means of what reward functions logged by `log_metric`.

    Args:
        drawn: completions, as they were scored.
        row: the other metrics of the update.

    Raises:
        InputError: a name that the update has already.
    """
    for name in drawn.metrics:
        refuse_unless(
            name not in row and name not in TAKEN and not name.startswith("eval/"),
            f"log_metric({name!r}): a run has a metric of that name; choose another in the reward "
            "function.",
        )
    return {name: fmean(values) for name, values in drawn.metrics.items()}


def step_metrics(steps: list[Step], weighed: Weighed) -> dict[str, Any]:
    """What the passes before each step saw of the policy, of V and of the reference policy.

    Entropy and clipping are means over the counted steps of all epochs; the gradient's norm is the
    mean over optimiser steps, before clipping, as it is in every run.
    """
    batch = weighed.batch
    first = steps[0]
    in_all = max(1, sum(int(batch.mask[step.rows].sum()) for step in steps))
    clipped = [_clipped(step, weighed) for step in steps[1:]]
    sampler, counts = _to_sampler(first, weighed)
    apart = sampler[counts].double().abs()
    row: dict[str, Any] = {
        "entropy": sum(float(step.entropy.double().sum()) for step in steps) / in_all,
        "grad_norm": sum(step.norm for step in steps) / len(steps),
        "optimizer_steps": len(steps),
        "clip_ratio/low": sum(low for low, _ in clipped) / in_all,
        "clip_ratio/high": sum(high for _, high in clipped) / in_all,
        "sampling/log_prob_difference_mean": float(apart.mean()) if len(apart) else 0.0,
        "sampling/log_prob_difference_max": float(apart.max()) if len(apart) else 0.0,
        # of KL(μ‖π₀), never negative, from actions of μ
        "sampling/k3": float(k3(-sampler[counts].double(), beta=1.0).mean()) if len(apart) else 0.0,
    }
    if bool(counts.any()):
        row["sampling/ess"] = effective_sample_size(sampler.sum(1)[counts.any(1)])
    last_epoch = [step for step in steps if step.epoch == steps[-1].epoch]
    log_weight = torch.cat([_log_ratio(step, weighed).sum(1) for step in last_epoch])
    counted = torch.cat([batch.mask[step.rows].any(1) for step in last_epoch])
    if bool(counted.any()):
        row["ess"] = effective_sample_size(log_weight[counted])
    if weighed.target is not None and batch.value is not None:
        row |= value_metrics(batch.value[batch.mask], weighed.target[batch.mask])
    if "reference_log_prob" in weighed.inputs:
        log_ratio = batch.log_prob - weighed.inputs["reference_log_prob"]
        kl = torch.where(batch.mask, k3(log_ratio, beta=1.0), 0)
        row["kl"] = float(kl.sum()) / batch.steps
    return row


def effective_sample_size(log_weight: Float[Tensor, " N"]) -> float:
    """(Σ w)²/(N Σ w²) of the sequences' importance weights w = Π_t ρ_t: 1 on policy."""
    weight = (log_weight - log_weight.max()).double().exp()
    return float(weight.sum().square() / weight.square().sum() / len(weight))


def _to_sampler(first: Step, weighed: Weighed) -> tuple[Float[Tensor, "n T"], Bool[Tensor, "n T"]]:
    """log π₀/μ, π₀ the policy that the update began with, and where it counts.

    Of the whole batch where that was scored, else of the first step's minibatch.
    """
    batch = weighed.batch
    if PROXIMAL in weighed.inputs:
        log_ratio = weighed.inputs[PROXIMAL] - batch.log_prob
        return torch.where(batch.mask, log_ratio, 0), batch.mask
    return _log_ratio(first, weighed), batch.mask[first.rows]


def _log_ratio(step: Step, weighed: Weighed) -> Float[Tensor, "n T"]:
    """log π/π_old at the steps that count, 0 elsewhere."""
    batch = weighed.batch
    return torch.where(batch.mask[step.rows], step.log_prob - batch.log_prob[step.rows], 0)


def _clipped(step: Step, weighed: Weighed) -> tuple[int, int]:
    """How many ratios below and above 1 the estimator's clip changed."""
    estimator, batch = weighed.estimator, weighed.batch.select(step.rows)
    if estimator.ratio is ratios.none:
        return 0, 0
    advantage = weighed.advantage[step.rows]
    inputs = {name: grid[step.rows] for name, grid in weighed.inputs.items() if name == PROXIMAL}
    free = replace(estimator, clip=ratios.unclipped)
    factor, ratio = (
        rule.multiplier(batch, step.log_prob, advantage, **inputs) for rule in (estimator, free)
    )
    anchor = inputs.get(PROXIMAL, step.log_prob if estimator.reweighs else batch.log_prob)
    rises = step.log_prob > anchor
    clipped = (factor != ratio) & batch.mask
    return int((clipped & ~rises).sum()), int((clipped & rises).sum())
