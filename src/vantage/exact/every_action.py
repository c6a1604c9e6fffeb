"""Sums over all actions of the states that were visited, as a batch: where Q(s, ·) is known."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, elapsed_discount
from vantage.errors import refuse_unless
from vantage.policies import Policy


@torch.no_grad()
def every_action(
    policy: Policy, batch: Batch, action_value: Float[Tensor, "N T A"], *, discounted: bool = True
) -> Batch:
    """Every action of every counted step, each a trajectory of one step with Q as its reward.

    Its weight is that of the row, times γ^t, times the action's probability. Without a comparison
    any row of the table then gives Σ_n w_n Σ_t γ^t Σ_a π(a|s_nt) Q(s_nt, a) ∇ log π(a|s_nt): the
    sum over actions that a sampled action estimates. A baseline of the state changes nothing.

    Equation: ĝ = (1/m) Σ_i Σ_t γ^t Σ_a ∇π(a|s_it) Q(s_it, a).
    Shapes: rows R of one step, R the counted steps times A, less the actions that cannot be taken;
        `group` numbers the steps, so that the actions of one step are a group; `value` as it was.
    Source: Sutton et al. 2000; Ciosek & Whiteson 2020, expected policy gradients; Allen et al.
        2017, mean actor-critic.
    Unbiased when: always, on policy, where Q is that of the policy; else the bias is E Σ_t γ^t Σ_a
        ∇π(a|s_t) (Q̂ − Q)(s_t, a). What varies is which states were visited, not what was done in
        them.

    Args:
        policy: one with finitely many actions, numbered from 0.
        batch: states that it visited.
        action_value: [N, T, A] Q(s_nt, ·); of a table `exact.value(mdp, policy).Q[observation]`.
        discounted: False leaves γ^t out.

    Raises:
        InputError: actions that are not single whole numbers; an action without its value.
    """
    count = action_value.shape[-1]
    _refuse_unlisted(batch, count)
    share = batch.weight[:, None].expand_as(batch.reward)
    share = share * elapsed_discount(batch) if discounted else share
    steps = int(batch.mask.sum())

    def repeated(of_steps: Tensor) -> Tensor:
        return of_steps[batch.mask].repeat_interleave(count, 0)[:, None]

    observation = repeated(batch.observation)
    action = torch.arange(count, device=batch.mask.device).repeat(steps)[:, None]
    log_prob = policy.log_prob(observation, action)
    worth = action_value[batch.mask].flatten()[:, None].to(log_prob)
    ones = torch.ones_like(log_prob, dtype=torch.bool)
    number = torch.arange(len(action), device=batch.mask.device)
    every = Batch(
        observation=observation,
        action=action,
        reward=worth,
        discount=torch.zeros_like(worth),
        boundary=ones,
        bootstrap=torch.zeros_like(worth),
        log_prob=log_prob,
        mask=ones,
        episode=number[:, None],
        group=number // count,
        weight=(repeated(share).to(log_prob) * log_prob.exp())[:, 0],
        value=None if batch.value is None else repeated(batch.value),
    )
    possible = every.select(every.weight > 0)
    return replace(possible, episode=number[: possible.rows, None])


def _refuse_unlisted(batch: Batch, count: int) -> None:
    refuse_unless(
        batch.action.ndim == 2 and not batch.action.is_floating_point(),
        "every_action: actions must be single whole numbers, which can be listed; [N, T].",
    )
    taken = batch.action[batch.mask]
    highest = int(taken.max()) if len(taken) else 0
    refuse_unless(
        highest < count,
        f"every_action: the batch has action {highest}, and action_value has values of {count}; "
        "give [N, T, A].",
    )
