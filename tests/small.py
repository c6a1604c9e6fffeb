"""Small problems enumerated by recursion over trajectories: a second route beside vantage.exact.

A problem is a list of decisions. State s and action a lead to state `NEXT[s][a]` (None: the end)
with reward `reward[s][a]`; all but the policy is certain, so that a trajectory is its actions.
"""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

import vantage as vt

NEXT = ((1, None), (2, None), (None, None))  # a chain of three decisions with two ways out


@dataclass(frozen=True)
class Chain:
    """Start in state 0; `reward` [3, 2]; `cut` is a step after which episodes are truncated."""

    reward: Tensor
    discount: float = 1.0
    cut: int | None = None

    def paths(self) -> list[list[tuple[int, int]]]:
        """Every trajectory as (state, action) pairs, up to its end or the cut."""
        finished, open_ = [], [((), 0)]
        while open_:
            path, state = open_.pop()
            for action in range(2):
                longer, following = (*path, (state, action)), NEXT[state][action]
                if following is None or len(longer) == self.cut:
                    finished.append(list(longer))
                else:
                    open_.append((longer, following))
        return sorted(finished)

    def value(self, policy: vt.SoftmaxTable) -> Tensor:
        """V [3], by recursion from the last state; differentiable."""
        probability = torch.softmax(policy.logits, -1)
        values: dict[int | None, Tensor] = {None: torch.zeros(()).double()}
        for state in (2, 1, 0):
            worth = [
                self.reward[state, a] + self.discount * values[NEXT[state][a]] for a in range(2)
            ]
            values[state] = (probability[state] * torch.stack(worth)).sum()
        return torch.stack([values[s] for s in range(3)])

    def gradient(self, policy: vt.SoftmaxTable) -> Tensor:
        """∇J by autograd through the recursion, flat."""
        return torch.autograd.grad(self.value(policy)[0], policy.logits)[0].flatten()

    def batch(self, policy: vt.SoftmaxTable, value: Tensor | None = None) -> vt.Batch:
        """Every trajectory, weighted by its probability; `value` [3] also bootstraps at the cut."""
        paths = self.paths()
        steps = max(len(path) for path in paths)
        shape = (len(paths), steps)
        kind = {"observation": torch.int64, "action": torch.int64, "mask": torch.bool}
        grid = {
            name: torch.zeros(shape, dtype=kind.get(name, torch.float64))
            for name in ("observation", "action", "mask", "reward", "discount", "bootstrap")
        }
        boundary = torch.zeros(shape, dtype=torch.bool)
        for n, path in enumerate(paths):
            for t, (state, action) in enumerate(path):
                following = NEXT[state][action]
                grid["observation"][n, t], grid["action"][n, t] = state, action
                grid["reward"][n, t], grid["mask"][n, t] = self.reward[state, action], True
                grid["discount"][n, t] = 0 if following is None else self.discount
                if t == len(path) - 1:
                    boundary[n, t] = True
                    if following is not None and value is not None:
                        grid["bootstrap"][n, t] = value[following].detach()
        log_prob = policy.log_prob(grid["observation"], grid["action"]).detach()
        return vt.Batch(
            **grid,
            boundary=boundary,
            log_prob=log_prob,
            episode=torch.arange(len(paths))[:, None].expand(shape).clone(),
            group=torch.zeros(len(paths), dtype=torch.int64),
            weight=torch.where(grid["mask"], log_prob, 0).sum(1).exp(),
            value=None if value is None else value.detach()[grid["observation"]],
        ).check()


def chain(seed: int, discount: float = 1.0, cut: int | None = None) -> Chain:
    """Random rewards in [0.2, 1.2]."""
    generator = torch.Generator().manual_seed(seed)
    reward = 0.2 + torch.rand(3, 2, generator=generator, dtype=torch.float64)
    return Chain(reward, discount, cut)


def table(seed: int, observations: int = 3, actions: int = 2) -> vt.SoftmaxTable:
    """A softmax table with random logits."""
    policy = vt.SoftmaxTable(observations, actions)
    generator = torch.Generator().manual_seed(seed)
    policy.logits.data = torch.randn(observations, actions, generator=generator).double()
    return policy


def arms(rewards: Tensor, policy: vt.SoftmaxTable) -> vt.Batch:
    """One step in state 0: one row per action, weighted by its probability."""
    count = len(rewards)
    action = torch.arange(count)[:, None]
    observation = torch.zeros_like(action)
    log_prob = policy.log_prob(observation, action).detach()
    return vt.Batch(
        observation=observation,
        action=action,
        reward=rewards[:, None].double(),
        discount=torch.zeros(count, 1).double(),
        boundary=torch.ones(count, 1, dtype=torch.bool),
        bootstrap=torch.zeros(count, 1).double(),
        log_prob=log_prob,
        mask=torch.ones(count, 1, dtype=torch.bool),
        episode=torch.arange(count)[:, None],
        group=torch.zeros(count, dtype=torch.int64),
        weight=log_prob[:, 0].exp(),
    )


def tuples(every: vt.Batch, size: int) -> tuple[Tensor, vt.Batch]:
    """All ordered tuples of `size` trajectories: their probabilities and one Batch of all of them.

    Each tuple is a group of its own whose rows have equal weights, and the weights of a tuple add
    up to its probability: the gradient of the Batch is the exact expectation over groups.
    """
    members = torch.tensor(list(product(range(every.rows), repeat=size)))
    probability = every.weight[members].prod(1)
    flat = members.flatten()
    n, steps = len(flat), every.reward.shape[1]
    batch = replace(
        every.select(flat),
        episode=torch.arange(n)[:, None].expand(n, steps).clone(),
        group=torch.arange(len(members)).repeat_interleave(size),
        weight=(probability / size).repeat_interleave(size),
    )
    return probability, batch


def mean_of_batches(
    every: vt.Batch, size: int, policy: vt.SoftmaxTable, estimator: vt.Estimator
) -> Tensor:
    """E ĝ over all batches of `size` trajectories, each evaluated by itself."""
    members = list(product(range(every.rows), repeat=size))
    total = torch.zeros(policy.logits.numel()).double()
    for rows in members:
        batch = replace(
            every.select(torch.tensor(rows)),
            episode=torch.arange(size)[:, None].expand(size, every.reward.shape[1]).clone(),
            group=torch.arange(size),
            weight=torch.full((size,), 1 / size, dtype=torch.float64),
        )
        total += every.weight[list(rows)].prod() * vt.gradient(policy, batch, estimator)
    return total
