"""All trajectories of a small MDP, as a weighted Batch, and the exact moments of any estimator.

The weight of an enumerated trajectory is its probability [3], so the estimator code that handles
samples gives the exact expectation when it is handed all of them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb, factorial
from typing import Any

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.exact.chain import action_log_probability, reached
from vantage.exact.mdp import MDP
from vantage.exact.scores import score_table
from vantage.gradients.weighted import policy_inputs
from vantage.policies import Policy

CELLS = 8_000_000  # largest grid of trajectories × steps that is enumerated, about 0.6 GB
BATCHES = 200_000  # most batches that an estimator is evaluated on one by one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Paths:
    """Trajectories as walks along the MDP's edges.

    Attributes:
        edge: [N, T] which edge each step takes, −1 after the end.
        start: [N] first state.
        probability: [N] [3].
    """

    edge: Int[Tensor, "N T"]
    start: Int[Tensor, " N"]
    probability: Float[Tensor, " N"]


@dataclass(frozen=True)
class Expectation:
    """Exact moments of an estimate ĝ made from one batch.

    Attributes:
        mean: [P] E ĝ.
        trace: tr Cov(ĝ), scalar.
        batches: how many different batches were weighed.
    """

    mean: Float[Tensor, " P"]
    trace: Float[Tensor, ""]
    batches: int


Inputs = Callable[[Batch], Mapping[str, object]]


def enumerate(
    mdp: MDP,
    policy: nn.Module,
    horizon: int | None = None,
    value: Float[Tensor, " S"] | None = None,
) -> Batch:
    """Every trajectory that has a chance to occur, one per row; `weight` is its probability.

    `group` is the start state. Where the episode ends (a terminal state, or the MDP's own horizon)
    the discount is 0. Rows cut off by the argument `horizon` keep the discount γ at their boundary
    and bootstrap 0; `unfinished` gives their probability, which is logged too.

    Args:
        mdp, policy: the process and what acts in it.
        horizon: cut trajectories off after this many steps.
        value: [S] if given, fills `Batch.value` with the value of each step's state.

    Raises:
        InputError: trajectories may go on for ever and no horizon is given, or there are too many.
    """
    log_probability = action_log_probability(mdp, policy).detach()
    batch = batch_of_paths(mdp, log_probability, walk(mdp, log_probability.exp(), horizon), value)
    left = unfinished(batch)
    if left > 0:
        logger.warning(
            "at horizon %s a probability of %.3g is still under way: the rewards that follow are "
            "left out",
            horizon,
            left,
        )
    return batch


def unfinished(batch: Batch) -> float:
    """Probability of the enumerated trajectories that were cut off before their episode ended."""
    cut = (batch.boundary & batch.mask & (batch.discount > 0)).any(1)
    return float(batch.weight[cut].sum())


def expectation(
    mdp: MDP,
    policy: Policy,
    estimator: Estimator,
    group_size: int = 1,
    groups: int = 1,
    *,
    horizon: int | None = None,
    value: Float[Tensor, " S"] | None = None,
    behaviour: nn.Module | None = None,
    inputs: Inputs | None = None,
) -> Expectation:
    """Exact mean and covariance trace of an estimator over batches of groups × K trajectories.

    A group is K = `group_size` independent trajectories from one start state, itself drawn from ρ0;
    a batch has `groups` independent groups. The estimator is evaluated on every multiset of K
    trajectories with its multinomial probability. Where it couples rows within groups at most, all
    groups are rows of one Batch; where it couples the batch, each batch is evaluated by itself.

    Args:
        mdp, policy: the process and the policy whose scores are weighed.
        estimator: the rule for the weights.
        group_size, groups: K, and groups per batch.
        horizon: as for `enumerate`.
        value: [S] values of the states, for estimators that need them.
        behaviour: the policy that samples, if it is not `policy`.
        inputs: Batch -> what else the estimator needs, by name (`greedy_return`, say). Scores are
            formed where it needs them.

    Raises:
        InputError: too many trajectories or batches.
    """
    sampler = policy if behaviour is None else behaviour
    log_probability = action_log_probability(mdp, sampler).detach()
    paths = walk(mdp, log_probability.exp(), horizon)
    batch = batch_of_paths(mdp, log_probability, paths, value)
    rows, probability = _groups(mdp, paths, group_size)
    coupled = estimator.couples == "batch"
    if coupled and groups > 1:
        rows, probability = multisets(rows, probability, groups)
    pair = mdp.edges.state * mdp.actions + mdp.edges.action
    places = pair[paths.edge.clamp(min=0)]
    rule = _Rule(policy, estimator, inputs, mdp.states * mdp.actions)
    pushes = (_one_by_one if coupled else _all_at_once)(batch, rule, rows, places)
    estimates = pushes @ torch.cat([score_table(mdp, policy), _entropy_table(mdp, policy)])
    mean = probability @ estimates
    trace = probability @ (estimates - mean).square().sum(1)
    return Expectation(mean, trace if coupled else trace / groups, len(rows))


def _entropy_table(mdp: MDP, policy: Policy) -> Float[Tensor, "pairs P"]:
    """∇H(π(·|s)) = −Σ_a π(a|s) log π(a|s) ψ(s,a), as scores have mean zero; at every pair."""
    log_probability = action_log_probability(mdp, policy).detach().reshape(-1, 1)
    surprise = -torch.special.xlogy(log_probability.exp(), log_probability.exp())
    by_state = (surprise * score_table(mdp, policy)).reshape(mdp.states, mdp.actions, -1).sum(1)
    return by_state.repeat_interleave(mdp.actions, 0)


def walk(mdp: MDP, pi: Float[Tensor, "S A"], horizon: int | None) -> Paths:
    """All walks along edges that the policy uses, from the start to an end or the horizon."""
    edges = mdp.edges
    used = (pi[edges.state, edges.action] > 0).nonzero().squeeze(1)
    last = min((h for h in (mdp.horizon, horizon) if h is not None), default=None)
    if last is None:
        _refuse_cycles(mdp, used)
    chance = (pi[edges.state, edges.action] * edges.probability)[used]
    degree = torch.bincount(edges.state[used], minlength=mdp.states)
    first = degree.cumsum(0) - degree
    state = mdp.initial.nonzero().squeeze(1)
    probability, origin = mdp.initial[state], state
    history = torch.empty(len(state), 0, dtype=torch.int64)
    finished: list[Paths] = []
    rows = 0
    while len(state):
        t = history.shape[1] + 1
        fan = degree[state]
        rows_now = int(fan.sum())
        refuse_unless(
            (rows + rows_now) * t <= CELLS,
            f"enumeration: {rows + rows_now:,} trajectories of up to {t} steps so far, more than "
            f"the limit of {CELLS:,} steps in all. Give a smaller horizon, or use exact.moments, "
            "which needs no enumeration.",
        )
        parent = torch.repeat_interleave(fan)
        offset = torch.arange(rows_now) - (fan.cumsum(0) - fan)[parent]
        step = first[state][parent] + offset
        history = torch.cat([history[parent], used[step][:, None]], 1)
        probability, origin = probability[parent] * chance[step], origin[parent]
        state = edges.next[used[step]]
        over = mdp.terminal[state] if t != last else torch.ones_like(state, dtype=torch.bool)
        finished.append(Paths(history[over], origin[over], probability[over]))
        rows += int(over.sum())
        on = ~over
        history, probability, origin, state = history[on], probability[on], origin[on], state[on]
    longest = history.shape[1]
    grids = [
        torch.nn.functional.pad(p.edge, (0, longest - p.edge.shape[1]), value=-1) for p in finished
    ]
    return Paths(
        torch.cat(grids),
        torch.cat([p.start for p in finished]),
        torch.cat([p.probability for p in finished]),
    )


def _refuse_cycles(mdp: MDP, used: Int[Tensor, " E"]) -> None:
    """Refuse a policy under which a state can be visited twice in one episode."""
    source, target = mdp.edges.state[used].numpy(), mdp.edges.next[used].numpy()
    inner = ~mdp.terminal.numpy()[target]
    graph = scipy.sparse.coo_array(
        (inner[inner].astype(float), (source[inner], target[inner])), shape=(mdp.states,) * 2
    ).tocsr()
    starts = mdp.initial.nonzero().squeeze(1).numpy()
    visited = reached(source[inner], target[inner], starts, mdp.states)
    _, component = scipy.sparse.csgraph.connected_components(graph, connection="strong")
    inside = (component[source] == component[target]) & inner & visited[source]
    refuse_unless(
        not inside.any(),
        "enumeration: a trajectory can return to state "
        f"{int(source[inside][0]) if inside.any() else ''} any number of times, so there are "
        "infinitely many. Pass horizon= to cut them off, or use exact.moments, which needs no "
        "enumeration.",
    )


def batch_of_paths(
    mdp: MDP, log_probability: Float[Tensor, "S A"], paths: Paths, value: Tensor | None
) -> Batch:
    """The Batch of given walks."""
    mask = paths.edge >= 0
    edge = paths.edge.clamp(min=0)
    edges = mdp.edges
    # Padding shows the start state, which every policy can score; the mask leaves it out.
    state = torch.where(mask, edges.state[edge], paths.start[:, None])
    action = torch.where(mask, edges.action[edge], 0)
    steps = mask.sum(1, keepdim=True)
    boundary = torch.arange(edge.shape[1]) == steps - 1
    ended = mdp.terminal[edges.next[edge]]
    if mdp.horizon is not None:
        ended = ended | (torch.arange(edge.shape[1]) == mdp.horizon - 1)
    zero = torch.zeros(edge.shape, dtype=torch.float64)
    return Batch(
        observation=mdp.observation[state],
        action=action,
        reward=torch.where(mask, edges.reward[edge], 0.0),
        discount=torch.where(mask & ~(ended & boundary), mdp.discount, zero),
        boundary=boundary,
        bootstrap=zero,
        log_prob=torch.where(mask, log_probability[state, action], 0.0),
        mask=mask,
        episode=torch.arange(len(edge))[:, None].expand(edge.shape).clone(),
        group=paths.start,
        weight=paths.probability,
        value=None if value is None else torch.where(mask, value[state], 0.0),
    )


def _groups(mdp: MDP, paths: Paths, size: int) -> tuple[Int[Tensor, "M K"], Float[Tensor, " M"]]:
    """Every multiset of `size` trajectories with a common start, and its probability."""
    refuse_unless(size >= 1, f"exact.expectation(group_size={size}): give at least one.")
    rows, chances = [], []
    for start in paths.start.unique():
        of_start = (paths.start == start).nonzero()
        share = mdp.initial[start]
        members, chance = multisets(of_start, paths.probability[of_start[:, 0]] / share, size)
        rows.append(members)
        chances.append(chance * share)
    return torch.cat(rows), torch.cat(chances)


def multisets(
    units: Int[Tensor, "n k"], probability: Float[Tensor, " n"], size: int
) -> tuple[Int[Tensor, "M rows"], Float[Tensor, " M"]]:
    """Multisets of `size` units, their rows side by side, with multinomial probabilities."""
    n = len(units)
    count = comb(n + size - 1, size)
    refuse_unless(
        count * size <= CELLS,
        f"exact.expectation: {count:,} multisets of {size} out of {n:,}, too many to weigh; use a "
        "smaller group, a shorter horizon or fewer actions.",
    )
    if size == 1:
        return units, probability
    members = torch.tensor(list(combinations_with_replacement(range(n), size)))
    # Members are sorted, so m_i! is the product of the positions within each run of equals.
    orders = torch.full((count,), float(factorial(size)), dtype=torch.float64)
    run = torch.ones(count, dtype=torch.float64)
    for j in range(1, size):
        run = torch.where(members[:, j] == members[:, j - 1], run + 1, 1.0)
        orders = orders / run
    return units[members].reshape(count, -1), orders * probability[members].prod(1)


@dataclass(frozen=True)
class _Rule:
    """An estimator with what it needs to weigh a batch."""

    policy: Policy
    estimator: Estimator
    inputs: Inputs | None
    pairs: int

    def weigh(self, batch: Batch) -> Float[Tensor, "N columns"]:
        """Weights of the scores, [N, T], and beside them those of ∇H, [N, T]."""
        given: dict[str, Any] = {} if self.inputs is None else dict(self.inputs(batch))
        given = policy_inputs(self.policy, batch, self.estimator, **given)
        log_prob = self.policy.log_prob(batch.observation, batch.action)
        weights = self.estimator.weights(batch, log_prob.detach(), **given)
        return torch.cat([weights, self.estimator.entropy_weights(batch)], 1)


def _all_at_once(
    batch: Batch, rule: _Rule, rows: Int[Tensor, "M K"], places: Int[Tensor, "N T"]
) -> Float[Tensor, "M both"]:
    """Total weight of each pair of state and action, by group: one Batch holds all groups."""
    units, size = rows.shape
    flat = rows.reshape(-1)
    unit = torch.arange(units).repeat_interleave(size)
    weights = rule.weigh(_stand_alone(batch.select(flat), unit, size))
    return _pushes(weights, unit, places[flat], units, rule.pairs)


def _one_by_one(
    batch: Batch, rule: _Rule, rows: Int[Tensor, "M K"], places: Int[Tensor, "N T"]
) -> Float[Tensor, "M both"]:
    """The same, each batch evaluated by itself."""
    refuse_unless(
        len(rows) <= BATCHES,
        f"exact.expectation: {rule.estimator.name!r} couples the whole batch and {len(rows):,} "
        f"batches are more than {BATCHES:,}; use a smaller group, batch or horizon.",
    )
    # Groups keep their start state; two groups of one start state merge, as in a sampled batch.
    weights = [
        rule.weigh(_stand_alone(batch.select(members), batch.group[members], len(members)))
        for members in rows
    ]
    unit = torch.arange(len(rows)).repeat_interleave(rows.shape[1])
    return _pushes(torch.cat(weights), unit, places[rows.reshape(-1)], len(rows), rule.pairs)


def _stand_alone(batch: Batch, group: Int[Tensor, " N"], size: int) -> Batch:
    """Rows as if sampled: each its own episode with weight 1/size."""
    episode = torch.arange(batch.rows)[:, None].expand_as(batch.episode)
    weight = torch.full_like(batch.weight, 1 / size)
    return replace(batch, group=group, episode=episode.clone(), weight=weight)


def _pushes(
    weights: Float[Tensor, "N columns"],
    unit: Int[Tensor, " N"],
    places: Int[Tensor, "N T"],
    units: int,
    pairs: int,
) -> Float[Tensor, "M both"]:
    """Sum weights by unit and pair: scores in the first half of the columns, ∇H in the second."""
    both = torch.cat([places, places + pairs], 1)
    out = torch.zeros(units * 2 * pairs, dtype=weights.dtype)
    index = unit[:, None] * 2 * pairs + both
    return out.index_add(0, index.reshape(-1), weights.reshape(-1)).reshape(units, -1).double()
