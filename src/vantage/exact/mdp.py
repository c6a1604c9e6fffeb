"""Tabular Markov decision processes: small worlds in which everything has an exact value.

States, actions and observations are numbered from 0. A state's observation is what the policy sees
of it; where two states share one, they are aliased. Entering a terminal state ends the episode.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import InputError, refuse_unless
from vantage.exact import problems
from vantage.runs import notebook

TOLERANCE = 1e-9  # on the sum of a row of probabilities given in float64


class Edges(NamedTuple):
    """Every possible transition out of a state that is not terminal, one per entry, E of them.

    Sorted by state, then action, then next state.
    """

    state: Int[Tensor, " E"]
    action: Int[Tensor, " E"]
    next: Int[Tensor, " E"]
    probability: Float[Tensor, " E"]
    reward: Float[Tensor, " E"]


@checked
@dataclass(frozen=True, eq=False)
class MDP:
    """A tabular MDP (S, A, P, r, ρ0, γ), checked when it is built.

    Tensors, arrays and nested lists are accepted and kept as float64 tensors; scipy sparse arrays
    are kept as CSR with one row per pair of state and action, row s·A + a.

    Attributes:
        transition: [S, A, S'] P(s'|s,a), or CSR [S·A, S']. Rows of terminal states are ignored.
        reward: [S, A, S'] reward of each transition, or [S, A], or CSR [S·A, S'].
        initial: [S] ρ0(s), zero on terminal states.
        discount: γ in [0, 1].
        terminal: [S] True where entering the state ends the episode; default nowhere.
        observation: [S] observation ids, or [S, ...] features; default the state itself.
        horizon: the episode ends after this many steps if it has not before; None for no limit. It
            is the problem's own end, so nothing is worth anything after it.

    Raises:
        InputError: a shape that does not fit, probabilities that are negative or do not sum to one
            (naming the row and the sum), a discount, horizon or start that is not possible.

    >>> mdp = MDP.short_corridor()
    >>> mdp.states, mdp.actions, mdp.observations
    (4, 2, 1)
    """

    # What is given is converted and checked below, with messages that name the thing.
    transition: Any
    reward: Any
    initial: Any
    discount: float | int = 1.0
    terminal: Any = None
    observation: Any = None
    horizon: int | None = None

    def __repr__(self) -> str:
        ends = "" if self.horizon is None else f", horizon={self.horizon}"
        return (
            f"MDP({self.states} states, {self.actions} actions, {self.observations} observations, "
            f"discount={float(self.discount):g}{ends})"
        )

    def _repr_html_(self) -> str:
        names = ("states", "actions", "observations", "discount", "horizon")
        return notebook.facts("MDP", {name: getattr(self, name) for name in names})

    def __post_init__(self) -> None:
        initial = _table(self.initial)
        states = initial.numel()
        default = {
            "terminal": torch.zeros(states, dtype=torch.bool),
            "observation": torch.arange(states),
        }
        given = {name: getattr(self, name) for name in default}
        fixed: dict[str, object] = {
            name: default[name] if value is None else torch.as_tensor(value)
            for name, value in given.items()
        }
        fixed |= {
            "initial": initial,
            "transition": _table(self.transition),
            "reward": _table(self.reward),
            "discount": float(self.discount),
        }
        for name, value in fixed.items():
            object.__setattr__(self, name, value)
        _check_shapes(self)
        _check_numbers(self)
        _check_rows(self, 1e-6 if _single(self.transition) else TOLERANCE)

    @property
    def states(self) -> int:
        """S, terminal states included."""
        return self.initial.numel()

    @property
    def actions(self) -> int:
        """A."""
        if isinstance(self.transition, Tensor):
            return self.transition.shape[1]
        return self.transition.shape[0] // self.states

    @property
    def observations(self) -> int:
        """How many observation ids there are; a softmax table has a row for each."""
        refuse_unless(
            self.observation.ndim == 1 and not self.observation.is_floating_point(),
            "MDP.observation holds features, not ids: there is no table over them. "
            "Use Categorical(net) with a net over the features.",
        )
        return int(self.observation.max()) + 1

    @property
    def sparse(self) -> bool:
        """Whether transitions are kept as a sparse array."""
        return not isinstance(self.transition, Tensor)

    @cached_property
    def edges(self) -> Edges:
        """The possible transitions as a list."""
        return _edges(self)

    @classmethod
    def article(cls) -> "MDP":
        """The worked example: two states, two actions, one step; rewards 12, 7 and 2, 5."""
        return cls(**problems.bandit([[12.0, 7.0], [2.0, 5.0]], None))

    @classmethod
    def bandit(cls, reward: object, probability: object = None) -> "MDP":
        """One step, then the end.

        Args:
            reward: [A], or [contexts, A]; with `probability` [A, K] or [contexts, A, K] outcomes.
            probability: chance of each outcome, of the shape of `reward`; None: rewards certain.
        """
        return cls(**problems.bandit(reward, probability))

    @classmethod
    def short_corridor(cls) -> "MDP":
        """Sutton & Barto 2018, example 13.1: three states that look the same, one of them reversed.

        Actions: 0 left, 1 right. Reward −1 a step. The best p(right) is 2 − √2 ≈ 0.586, J ≈ −11.66.
        """
        return cls(**problems.short_corridor())

    @classmethod
    def random_walk(
        cls, states: int = 5, slip: float | int = 0.0, discount: float | int = 1.0
    ) -> "MDP":
        """A chain of `states` with an end on either side; reward 1 at the right end.

        Sutton & Barto 2018, example 6.2, where the policy is uniform. Actions: 0 left, 1 right;
        with probability `slip` the step goes the other way. The start is the middle state.
        """
        return cls(**problems.random_walk(states, slip, discount))

    @classmethod
    def two_step(
        cls,
        first: object = (0.0, 0.0),
        second: object = ((1.0, 0.0), (0.0, 1.0)),
        shared: bool = True,
    ) -> "MDP":
        """Two decisions; the first leads to the state in which the second is taken.

        Args:
            first: [A] reward of the first action, which leads to state 1 + a.
            second: [A, A] reward of the second action in that state.
            shared: whether all states look the same, so that both decisions share parameters.
        """
        return cls(**problems.two_step(first, second, shared))

    @classmethod
    def grid_world(
        cls,
        rows: int = 4,
        columns: int = 4,
        goals: Any = None,
        walls: Any = (),
        start: tuple[int, int] = (0, 0),
        slip: float | int = 0.0,
        step_reward: float | int = -1.0,
        goal_reward: float | int = 0.0,
        discount: float | int = 1.0,
    ) -> "MDP":
        """A grid; actions 0 up, 1 right, 2 down, 3 left; a move into a wall or the edge stays.

        Args:
            rows, columns: size.
            goals: cells (row, column) that end the episode; default the corner far from (0, 0).
            walls: cells that cannot be entered.
            start: cell of the start.
            slip: probability that the move turns to the left or right, half each.
            step_reward: reward of every step.
            goal_reward: added on entering a goal.
            discount: γ.
        """
        goals = [(rows - 1, columns - 1)] if goals is None else goals
        return cls(
            **problems.grid_world(
                rows, columns, goals, walls, start, slip, step_reward, goal_reward, discount
            )
        )

    @classmethod
    def garnet(
        cls,
        states: int,
        actions: int,
        branching: int,
        *,
        discount: float | int = 0.95,
        termination: float | int = 0.0,
        horizon: int | None = None,
        observations: int | None = None,
        sparse: bool = False,
        seed: int | torch.Generator = 0,
    ) -> "MDP":
        """Garnet(S, A, b): a random MDP (Archibald, McKinnon & Thomas 1995).

        Each pair of state and action leads to b different states, with probabilities cut from
        [0, 1] by b − 1 uniform points and standard normal rewards; the start is uniform.

        Args:
            states, actions, branching: S, A and b ≤ S.
            discount: γ.
            termination: probability that a step ends the episode instead (reward 0); adds a
                terminal state, number S.
            horizon: as for `MDP`.
            observations: if given, states are aliased at random onto that many observations.
            sparse: keep transitions as a sparse array.
            seed: seed or generator of the randomness.
        """
        world = problems.garnet(states, actions, branching, termination, observations, seed)
        mdp = world if sparse else problems.dense(world)
        return cls(**mdp, discount=discount, horizon=horizon)

    @classmethod
    def from_gymnasium(
        cls,
        name: object,
        discount: float | int = 1.0,
        horizon: int | None = None,
        **settings: object,
    ) -> "MDP":
        """The MDP of a Gymnasium environment with a transition table `P` (toy text).

        A time limit of the environment is not part of its table: pass `horizon` for one. A state
        that the table enters both as an end and not is doubled, the end last.

        Args:
            name: environment id such as "FrozenLake-v1", or an environment.
            discount: γ.
            horizon: as for `MDP`.
            **settings: passed on to `gymnasium.make`.

        Raises:
            InputError: the environment has no table.
        """
        return cls(**problems.from_gymnasium(name, settings), discount=discount, horizon=horizon)


def _table(value: object) -> Any:
    # nothing is sparse where nobody has loaded `scipy.sparse` before, which takes a second
    if "scipy.sparse" in sys.modules and scipy.sparse.issparse(value):
        array: Any = value
        array = scipy.sparse.csr_array(array, dtype=np.float64)
        array.sum_duplicates()
        return array
    return torch.as_tensor(value).to(torch.float64)


def _single(value: object) -> bool:
    return str(getattr(value, "dtype", "")).endswith("float32")


def _check_shapes(mdp: MDP) -> None:
    S = mdp.states
    refuse_unless(mdp.initial.ndim == 1 and S > 0, "MDP(initial): give one probability per state.")
    shape = tuple(mdp.transition.shape)
    if mdp.sparse:
        fits = shape[1] == S and shape[0] % S == 0 and shape[0] > 0
        expected = f"[S·A, S] with S = {S}"
    else:
        fits = len(shape) == 3 and shape[0] == shape[2] == S and shape[1] > 0
        expected = f"[S, A, S] with S = {S}"
    refuse_unless(fits, f"MDP(transition) has shape {shape}; initial asks for {expected}.")
    rewards = tuple(mdp.reward.shape)
    refuse_unless(
        rewards in (shape, (S, mdp.actions)),
        f"MDP(reward) has shape {rewards}; give one per transition, {shape}, or one per state and "
        f"action, {(S, mdp.actions)}.",
    )
    refuse_unless(
        mdp.sparse or isinstance(mdp.reward, Tensor),
        "MDP(reward) is sparse and transition is dense; make both sparse or both dense.",
    )
    for name in ("terminal", "observation"):
        tensor = getattr(mdp, name)
        refuse_unless(
            tensor.shape[:1] == (S,),
            f"MDP({name}) has shape {tuple(tensor.shape)}; its first dimension must be S = {S}.",
        )


def _check_numbers(mdp: MDP) -> None:
    refuse_unless(
        mdp.terminal.dtype == torch.bool and mdp.terminal.ndim == 1,
        f"MDP(terminal) has dtype {mdp.terminal.dtype}; give one bool per state.",
    )
    refuse_unless(
        0 <= mdp.discount <= 1, f"MDP(discount={mdp.discount}): the discount lies in [0, 1]."
    )
    refuse_unless(
        mdp.horizon is None or mdp.horizon >= 1,
        f"MDP(horizon={mdp.horizon}): give at least one step, or None for no limit.",
    )
    rewards = mdp.reward if isinstance(mdp.reward, Tensor) else torch.from_numpy(mdp.reward.data)
    refuse_unless(rewards.isfinite().all(), "MDP(reward): rewards must be finite.")


def _check_rows(mdp: MDP, tolerance: float) -> None:
    if isinstance(mdp.transition, Tensor):
        lowest = mdp.transition.amin(2)
        total = mdp.transition.sum(2)
    else:
        lowest = torch.as_tensor(mdp.transition.min(axis=1).todense()).reshape(mdp.states, -1)
        total = torch.as_tensor(mdp.transition.sum(axis=1)).reshape(mdp.states, -1)
    bad = ((lowest < 0) | ~((total - 1).abs() <= tolerance)) & ~mdp.terminal[:, None]
    if bad.any():
        s, a = (int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"MDP(transition): row (state {s}, action {a}) sums to {total[s, a].item():.10g} with "
            f"smallest entry {lowest[s, a].item():.4g}; probabilities are ≥ 0 and sum to one."
        )
    start = mdp.initial
    refuse_unless(
        (start >= 0).all() and abs(start.sum().item() - 1) <= max(tolerance, 1e-6),
        f"MDP(initial) sums to {start.sum().item():.10g} with smallest entry "
        f"{start.min().item():.4g}; probabilities are ≥ 0 and sum to one.",
    )
    ended = (start > 0) & mdp.terminal
    if ended.any():
        s = int(ended.nonzero()[0])
        raise InputError(
            f"MDP(initial)[{s}] is {start[s].item():.4g}, but state {s} is terminal: an episode "
            "that starts there would have no step. Start elsewhere, or make it not terminal."
        )


def _edges(mdp: MDP) -> Edges:
    A = mdp.actions
    if isinstance(mdp.transition, Tensor):
        live = mdp.transition * ~mdp.terminal[:, None, None]
        state, action, following = live.nonzero(as_tuple=True)
        probability = mdp.transition[state, action, following]
    else:
        coo = mdp.transition.tocoo()
        row, column = (torch.from_numpy(index.astype(np.int64)) for index in coo.coords)
        data = torch.from_numpy(coo.data)
        keep = (data > 0) & ~mdp.terminal[row // A]
        state, action, following = row[keep] // A, row[keep] % A, column[keep]
        probability = data[keep]
    return Edges(state, action, following, probability, _rewards(mdp, state, action, following))


def _rewards(mdp: MDP, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    if isinstance(mdp.reward, Tensor):
        if mdp.reward.ndim == 2:
            return mdp.reward[state, action]
        return mdp.reward[state, action, following]
    # Look each transition up among the stored rewards; one that is not stored is zero.
    S, stored = mdp.states, mdp.reward.tocoo()
    keys = stored.coords[0].astype(np.int64) * S + stored.coords[1]
    wanted = ((state * mdp.actions + action) * S + following).numpy()
    if keys.size == 0:
        return torch.zeros(len(wanted), dtype=torch.float64)
    place = np.searchsorted(keys, wanted).clip(max=keys.size - 1)
    return torch.from_numpy(np.where(keys[place] == wanted, stored.data[place], 0.0))
