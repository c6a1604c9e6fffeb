"""The worlds that come with the package: each function returns the arguments of an `MDP`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from vantage.errors import refuse_unless

Arguments = dict[str, Any]
UP, RIGHT, DOWN, LEFT = (-1, 0), (0, 1), (1, 0), (0, -1)


def _empty(states: int, actions: int) -> tuple[Tensor, Tensor]:
    shape = (states, actions, states)
    return torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)


def _mark(states: int, *ids: int) -> Tensor:
    """[S] True at the given states."""
    return torch.zeros(states, dtype=torch.bool).index_fill(0, torch.tensor(ids), True)


def bandit(reward: object, probability: object) -> Arguments:
    """One step from a uniform context; see `MDP.bandit`."""
    reward = torch.as_tensor(reward, dtype=torch.float64)
    if probability is None:
        reward, chance = reward[..., None], torch.ones_like(reward)[..., None]
    else:
        chance = torch.as_tensor(probability, dtype=torch.float64)
    refuse_unless(
        reward.shape == chance.shape and reward.ndim in (2, 3),
        f"MDP.bandit: reward has shape {tuple(reward.shape)}, probability {tuple(chance.shape)}; "
        "give [A] or [contexts, A], with outcomes as one more dimension of both.",
    )
    contexts, actions, outcomes = reward.reshape(-1, *reward.shape[-2:]).shape
    # Outcome k is told apart by the state it leads to; the horizon ends the episode there.
    states = max(contexts, outcomes)
    transition, rewards = _empty(states, actions)
    transition[:contexts, :, :outcomes] = chance.reshape(contexts, actions, outcomes)
    transition[contexts:, :, 0] = 1
    rewards[:contexts, :, :outcomes] = reward.reshape(contexts, actions, outcomes)
    initial = torch.zeros(states, dtype=torch.float64)
    initial[:contexts] = 1 / contexts
    return {
        "transition": transition,
        "reward": rewards,
        "initial": initial,
        "observation": torch.arange(states).clamp(max=contexts - 1),
        "horizon": 1,
    }


def short_corridor() -> Arguments:
    """Sutton & Barto 2018, example 13.1."""
    transition, reward = _empty(4, 2)
    for state, (left, right) in enumerate([(0, 1), (2, 0), (1, 3)]):  # the second is reversed
        transition[state, 0, left] = 1
        transition[state, 1, right] = 1
    reward[:3] = -1
    initial = torch.tensor([1.0, 0, 0, 0])
    observation = torch.zeros(4, dtype=torch.int64)
    return {
        "transition": transition,
        "reward": reward,
        "initial": initial,
        "terminal": _mark(4, 3),
        "observation": observation,
    }


def random_walk(states: int, slip: float | int, discount: float | int) -> Arguments:
    """Sutton & Barto 2018, example 6.2: states 1 .. n between the ends 0 and n + 1."""
    refuse_unless(states >= 1, f"MDP.random_walk(states={states}): give at least one.")
    transition, reward = _empty(states + 2, 2)
    inner = torch.arange(1, states + 1)
    for action, step in enumerate((-1, 1)):
        transition[inner, action, inner + step] += 1 - slip
        transition[inner, action, inner - step] += slip
    reward[:, :, states + 1] = 1
    initial = torch.zeros(states + 2)
    initial[(states + 1) // 2] = 1
    return {
        "transition": transition,
        "reward": reward,
        "initial": initial,
        "discount": discount,
        "terminal": _mark(states + 2, 0, states + 1),
    }


def two_step(first: object, second: object, shared: bool) -> Arguments:
    """Two decisions in a row; see `MDP.two_step`."""
    first = torch.as_tensor(first, dtype=torch.float64)
    second = torch.as_tensor(second, dtype=torch.float64)
    actions = first.numel()
    refuse_unless(
        second.shape == (actions, actions),
        f"MDP.two_step: first has {actions} rewards, second has shape {tuple(second.shape)}; "
        f"give [{actions}, {actions}].",
    )
    states, end = actions + 2, actions + 1
    transition, reward = _empty(states, actions)
    reached = torch.arange(actions)
    transition[0, reached, 1 + reached] = 1
    transition[1:end, :, end] = 1
    reward[0] = first[:, None]
    reward[1:end] = second[:, :, None]
    observation = torch.zeros(states, dtype=torch.int64) if shared else torch.arange(states)
    return {
        "transition": transition,
        "reward": reward,
        "initial": torch.eye(states)[0],
        "terminal": _mark(states, end),
        "observation": observation,
    }


def grid_world(
    rows: int,
    columns: int,
    goals: Iterable[tuple[int, int]],
    walls: Iterable[tuple[int, int]],
    start: tuple[int, int],
    slip: float | int,
    step_reward: float | int,
    goal_reward: float | int,
    discount: float | int,
) -> Arguments:
    """A grid of rows × columns cells, numbered row by row; see `MDP.grid_world`."""
    goals, walls = set(goals), set(walls)
    outside = [c for c in (*goals, *walls, start) if not _inside(c, rows, columns)]
    refuse_unless(
        not outside, f"MDP.grid_world: cells {outside} lie outside the {rows} × {columns} grid."
    )
    transition, reward = _empty(rows * columns, 4)
    moves = (UP, RIGHT, DOWN, LEFT)
    for row in range(rows):
        for column in range(columns):
            state = row * columns + column
            for action in range(4):
                for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
                    down, right = moves[(action + turn) % 4]
                    cell = (row + down, column + right)
                    free = _inside(cell, rows, columns) and cell not in walls
                    target = cell[0] * columns + cell[1] if free else state
                    transition[state, action, target] += chance
    ends = [row * columns + column for row, column in goals]
    reward += step_reward
    reward[:, :, ends] += goal_reward
    initial = torch.zeros(rows * columns)
    initial[start[0] * columns + start[1]] = 1
    return {
        "transition": transition,
        "reward": reward,
        "initial": initial,
        "discount": discount,
        "terminal": _mark(rows * columns, *ends),
    }


def _inside(cell: tuple[int, int], rows: int, columns: int) -> bool:
    return 0 <= cell[0] < rows and 0 <= cell[1] < columns


def garnet(
    states: int,
    actions: int,
    branching: int,
    termination: float | int,
    observations: int | None,
    seed: int | torch.Generator,
) -> Arguments:
    """A random MDP with sparse transitions; see `MDP.garnet`."""
    refuse_unless(
        1 <= branching <= states,
        f"MDP.garnet(branching={branching}): give between 1 and states = {states}.",
    )
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    pairs = states * actions
    following = _distinct(pairs, states, branching, generator)
    cuts = torch.rand(pairs, branching - 1, generator=generator, dtype=torch.float64).sort(1).values
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(pairs, 2)
    chance = torch.cat([ends[:, :1], cuts, ends[:, 1:]], 1).diff(dim=1)
    reward = torch.randn(pairs, branching, generator=generator, dtype=torch.float64)
    if termination > 0:
        chance = torch.cat(
            [chance * (1 - termination), chance.new_full((pairs, 1), termination)], 1
        )
        reward = torch.cat([reward, reward.new_zeros(pairs, 1)], 1)
        following = torch.cat([following, following.new_full((pairs, 1), states)], 1)
    total = states + (termination > 0)
    observation = torch.arange(total)
    if observations is not None:
        observation = torch.randint(observations, (total,), generator=generator)
        observation[:observations] = torch.arange(min(observations, total))
    # Rows of the terminal state, if there is one, are empty.
    pointer = (torch.arange(total * actions + 1).clamp(max=pairs) * following.shape[1]).numpy()
    shape = (total * actions, total)
    initial = torch.zeros(total, dtype=torch.float64)
    initial[:states] = 1 / states
    return {
        "transition": _csr(chance, following, pointer, shape),
        "reward": _csr(reward, following, pointer, shape),
        "initial": initial,
        "terminal": torch.arange(total) >= states,
        "observation": observation,
    }


def _csr(
    data: Tensor, columns: Tensor, pointer: np.ndarray, shape: tuple[int, int]
) -> "scipy.sparse.csr_array":
    array = scipy.sparse.csr_array(
        (data.numpy().ravel(), columns.numpy().ravel(), pointer), shape=shape
    )
    array.sort_indices()
    return array


def _distinct(rows: int, states: int, count: int, generator: torch.Generator) -> Tensor:
    """[rows, count] different states in each row, uniformly, without a [rows, states] table."""
    if rows * states <= 4_000_000:
        return torch.rand(rows, states, generator=generator).topk(count).indices
    drawn = torch.randint(states, (rows, count), generator=generator)
    repeated = _has_repeats(drawn)
    while repeated.any():  # redraw whole rows, which keeps the draw uniform over distinct ones
        fresh = torch.randint(states, (int(repeated.sum()), count), generator=generator)
        drawn[repeated] = fresh
        repeated = _has_repeats(drawn)
    return drawn


def _has_repeats(drawn: Tensor) -> Tensor:
    ordered = drawn.sort(1).values
    return (ordered[:, 1:] == ordered[:, :-1]).any(1)


def dense(world: Arguments) -> Arguments:
    """The same world with dense [S, A, S'] tables."""
    states = len(world["initial"])
    tables = {
        name: torch.from_numpy(world[name].toarray()).reshape(states, -1, states)
        for name in ("transition", "reward")
    }
    return world | tables


def from_gymnasium(name: Any, settings: dict[str, Any]) -> Arguments:
    """The table of a toy-text environment; see `MDP.from_gymnasium`."""
    import gymnasium

    env = gymnasium.make(name, **settings) if isinstance(name, str) else name
    world: Any = env.unwrapped
    refuse_unless(
        hasattr(world, "P") and hasattr(world, "initial_state_distrib"),
        f"MDP.from_gymnasium({name!r}): this environment has no transition table `P`; those that "
        "have one are FrozenLake, CliffWalking and Taxi. Sample it with vantage.Gymnasium instead.",
    )
    table = world.P
    rows = [
        (s, a, int(following), float(p), float(r), bool(done))
        for s in table
        for a in table[s]
        for p, following, r, done in table[s][a]
        if p > 0
    ]
    states, actions = len(table), len(table[0])
    entered_as_end = {row[2] for row in rows if row[5]}
    left_running = {row[2] for row in rows if not row[5] and row[0] not in entered_as_end}
    doubled = sorted(entered_as_end & left_running)
    copy = {s: states + i for i, s in enumerate(doubled)}
    transition, reward = _empty(states + len(doubled), actions)
    for s, a, following, p, r, done in rows:
        target = copy.get(following, following) if done else following
        before = (transition[s, a, target].item(), reward[s, a, target].item())
        refuse_unless(
            before[0] == 0 or before[1] == r,
            f"MDP.from_gymnasium({name!r}): state {s}, action {a} reaches state {target} with "
            f"rewards {before[1]} and {r}; a reward may depend on (s, a, s') only.",
        )
        transition[s, a, target] += p
        reward[s, a, target] = r
    initial = torch.zeros(states + len(doubled), dtype=torch.float64)
    initial[:states] = torch.as_tensor(np.asarray(world.initial_state_distrib))
    ends = [copy.get(s, s) for s in entered_as_end]
    return {
        "transition": transition,
        "reward": reward,
        "initial": initial,
        "terminal": _mark(states + len(doubled), *ends),
        "observation": torch.tensor([*range(states), *doubled]),
    }
