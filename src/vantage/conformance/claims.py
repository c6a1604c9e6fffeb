"""What an estimator's gradient is on average, exactly: over all batches of small problems."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement, groupby
from math import factorial, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vantage import exact
from vantage.batch import Batch
from vantage.estimators.estimator import Estimator
from vantage.exact.mdp import MDP
from vantage.gradients.weighted import step_scores, weighted_products
from vantage.policies import SoftmaxTable


@dataclass(frozen=True, eq=False)
class Problem:
    """A process small enough that every batch of a few trajectories can be listed."""

    name: str
    mdp: MDP
    policy: SoftmaxTable


def bandit(seed: int) -> Problem:
    """Two contexts, two actions, one step, random rewards in [0.2, 1.2]."""
    generator = torch.Generator().manual_seed(seed)
    reward = 0.2 + torch.rand(2, 2, generator=generator, dtype=torch.float64)
    return _problem(f"bandit {seed}", MDP.bandit(reward), generator)


def fork(seed: int, discount: float = 1.0, chance: float = 0.0) -> Problem:
    """Two states, one or two steps, random rewards in [0.2, 1.2].

    From state 0, where it starts, action 1 leads to the end and action 0 to state 1, or with
    probability `chance` to the end as well; state 1 leads to the end.
    """
    generator = torch.Generator().manual_seed(seed)
    transition = torch.zeros(3, 2, 3, dtype=torch.float64)
    transition[0, 0, 1], transition[0, 0, 2] = 1 - chance, chance
    transition[0, 1, 2] = transition[1, 0, 2] = transition[1, 1, 2] = 1.0
    mdp = MDP(
        transition=transition,
        reward=0.2 + torch.rand(3, 2, 3, generator=generator, dtype=torch.float64),
        initial=torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64),
        discount=discount,
        terminal=torch.tensor([False, False, True]),
    )
    return _problem(f"fork {seed}, γ = {discount:g}", mdp, generator)


def _problem(name: str, mdp: MDP, generator: torch.Generator) -> Problem:
    policy = SoftmaxTable(mdp.observations, mdp.actions)
    policy.logits.data = torch.randn(policy.logits.shape, generator=generator).double()
    return Problem(name, mdp, policy)


PROBLEMS = (bandit(0), bandit(1), fork(2, chance=0.4), fork(3, discount=0.8))


def expected_gradient(
    estimator: Estimator, problem: Problem, group_size: int = 2, groups: int = 3
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """E ĝ over all batches of groups × group_size trajectories, and ∇J.

    Each group has a start state of its own, drawn from ρ0. An estimator that couples no more than a
    group is evaluated on one group, one that needs no groups on `groups` trajectories. The values
    it is given are the true ones where it asks for that, else arbitrary; so are greedy returns.
    """
    grouped = "group" in estimator.needs
    size = group_size if grouped or estimator.couples == "group" else 1
    count = groups if estimator.couples == "batch" else 1
    every = _trajectories(problem, "true_value" in estimator.provided)
    steps = step_scores(problem.policy, every)
    mean = torch.zeros_like(problem.policy.logits).flatten()
    for probability, rows, group in _batches(every, size, count):
        batch = _drawn(every, rows, group)
        inputs: dict[str, Any] = {}
        if "greedy_return" in estimator.needs:
            # any function of the start state will do
            start = 0.2 + 0.3 * batch.observation[:, :1].to(batch.reward.dtype)
            inputs["greedy_return"] = start.expand_as(batch.reward)
        if "reward_parts" in estimator.needs:
            inputs |= parts_by_action(batch)
        if "entropy" in estimator.needs:
            inputs["entropy"] = problem.policy.entropy(batch.observation).detach()
        if "scores" in estimator.needs:
            inputs["scores"] = weighted_products(steps[rows], batch, estimator, **inputs)
        weights = estimator.weights(batch, **inputs)
        mean += probability * torch.einsum("nt,ntp->p", weights, steps[rows])
    return mean, exact.gradient(problem.mdp, problem.policy).detach()


@cache
def _trajectories(problem: Problem, true_value: bool) -> Batch:
    value = exact.value(problem.mdp, problem.policy).V.detach()
    if not true_value:
        value = value + torch.linspace(-0.4, 0.6, len(value), dtype=value.dtype)
    return exact.enumerate(problem.mdp, problem.policy, value=value)


def _batches(every: Batch, size: int, count: int) -> list[tuple[float, Tensor, Tensor]]:
    """(probability, rows, group of each row) of every batch, up to the order of rows and groups."""
    group_of_start: list[tuple[float, tuple[int, ...]]] = []
    for start in every.group.unique().tolist():
        members = [int(n) for n in (every.group == start).nonzero().flatten()]
        chance = float(every.weight[members].sum())
        for rows in combinations_with_replacement(members, size):
            given = [float(every.weight[n]) / chance for n in rows]
            group_of_start.append((chance * _orders(rows) * prod(given), rows))
    out = []
    for choice in combinations_with_replacement(range(len(group_of_start)), count):
        probability = _orders(choice) * prod(group_of_start[i][0] for i in choice)
        flat = [n for i in choice for n in group_of_start[i][1]]
        group = torch.arange(count).repeat_interleave(size)
        out.append((probability, torch.tensor(flat), group))
    return out


def _orders(choice: tuple[int, ...]) -> float:
    """In how many orders a multiset, sorted, can be drawn."""
    runs = [len(list(run)) for _, run in groupby(choice)]
    return factorial(len(choice)) / prod(factorial(n) for n in runs)


def parts_by_action(batch: Batch) -> dict[str, Tensor]:
    """The rewards as two functions of them, one for each kind of action, that weigh alike."""
    even = (batch.action % 2 == 0)[..., None]
    parts = torch.where(torch.cat([even, ~even], -1), batch.reward[..., None], 0)
    return {"reward_parts": parts, "reward_weights": torch.ones_like(parts)}


def _drawn(every: Batch, rows: Tensor, group: Tensor) -> Batch:
    """The rows as a sampled batch would hold them."""
    n = len(rows)
    return replace(
        every.select(rows),
        episode=torch.arange(n)[:, None].expand(n, every.reward.shape[1]).clone(),
        group=group,
        weight=torch.full((n,), 1 / n, dtype=every.weight.dtype),
    )
