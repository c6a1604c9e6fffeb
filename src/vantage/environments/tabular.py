"""An MDP as an environment one can sample from, all lanes in one batch of tensors."""

import torch
from jaxtyping import Int
from torch import Tensor

from vantage.environments.interface import Step
from vantage.errors import refuse_unless
from vantage.mdp import MDP
from vantage.policies import SoftmaxTable


class Tabular:
    """Lanes of a tabular MDP. A lane starts anew, from ρ0, on the step that ends its episode.

    Observations are the MDP's. Both a terminal state and the MDP's horizon end an episode for good
    (`terminated`): the horizon is part of the problem, so nothing is worth anything after it.

    Args:
        mdp: what to sample.
        lanes: how many copies step side by side.
        name: how messages and run folders call it.

    Raises:
        InputError: fewer than one lane, or an action that does not exist.

    >>> import vantage as vt
    >>> env = Tabular(vt.MDP.short_corridor(), lanes=3)
    >>> env.reset(seed=0)
    tensor([0, 0, 0])
    >>> env.step(torch.tensor([0, 1, 1])).reward
    tensor([-1., -1., -1.], dtype=torch.float64)
    """

    def __init__(self, mdp: MDP, lanes: int = 64, name: str = "tabular"):
        refuse_unless(lanes >= 1, f"Tabular(lanes={lanes}): give at least one.")
        self.mdp, self.lanes, self.name = mdp, lanes, name
        self.discount = mdp.discount
        edges = mdp.edges
        pair = edges.state * mdp.actions + edges.action
        # One running sum over all pairs: pair i owns the interval (i, i + 1], so a single search
        # of i + u among E numbers draws a transition in every lane.
        count = torch.bincount(pair, minlength=mdp.states * mdp.actions)
        first = count.cumsum(0) - count
        running = edges.probability.cumsum(0)
        before = torch.cat([running.new_zeros(1), running])[first][pair]
        whole = torch.zeros(len(count), dtype=torch.float64).index_add(0, pair, edges.probability)
        self._threshold = pair + ((running - before) / whole[pair]).clamp(max=1.0)
        self._last = first + count - 1
        self._first = first
        self._generator = torch.Generator()

    def policy(self) -> SoftmaxTable:
        """The uniform softmax table over the MDP's observations."""
        return SoftmaxTable(self.mdp.observations, self.mdp.actions)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each.
        """
        self._generator = torch.Generator().manual_seed(seed)
        self.state = self._starts()[torch.arange(self.lanes) // shared * shared]
        self._steps = torch.zeros(self.lanes, dtype=torch.int64)
        return self.mdp.observation[self.state]

    def sharing(self, lanes: int) -> "Tabular":
        """This MDP with another number of lanes."""
        return Tabular(self.mdp, lanes, self.name)

    def step(self, action: Int[Tensor, " lanes"]) -> Step:
        """Act in every lane, [lanes]."""
        mdp = self.mdp
        refuse_unless(
            action.shape == (self.lanes,) and action.min() >= 0 and action.max() < mdp.actions,
            f"Tabular.step: actions are ids from 0 to {mdp.actions - 1}, one for each of "
            f"{self.lanes} lanes; got {action}.",
        )
        edge = self._draw(self.state * mdp.actions + action)
        following = mdp.edges.next[edge]
        self._steps = self._steps + 1
        ended = mdp.terminal[following]
        if mdp.horizon is not None:
            ended = ended | (self._steps == mdp.horizon)
        self._steps = torch.where(ended, 0, self._steps)
        self.state = torch.where(ended, self._starts(), following)
        return Step(
            observation=mdp.observation[self.state],
            reward=mdp.edges.reward[edge],
            terminated=ended,
            truncated=torch.zeros_like(ended),
            final_observation=mdp.observation[following],
            real=torch.ones_like(ended),
        )

    def _starts(self) -> Int[Tensor, " lanes"]:
        return torch.multinomial(
            self.mdp.initial, self.lanes, replacement=True, generator=self._generator
        )

    def _draw(self, pair: Int[Tensor, " lanes"]) -> Int[Tensor, " lanes"]:
        u = torch.rand(self.lanes, dtype=torch.float64, generator=self._generator)
        found = torch.searchsorted(self._threshold, pair + u, right=True)
        # Rounding at the edges of an interval must not lead into another pair's transitions.
        return found.clamp(min=self._first[pair], max=self._last[pair])
