"""An MDP as an environment one can sample from, all lanes in one batch of tensors."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.environments.tensor import Dynamics, TensorEnvironment
from vantage.exact.mdp import MDP
from vantage.policies import Policy, SoftmaxTable


@checked
class Tabular(TensorEnvironment):
    """Lanes of a tabular MDP. A lane starts anew, from ρ0, on the step that ends its episode.

    Observations are the MDP's. Both a terminal state and the MDP's horizon end an episode for good
    (`terminated`): the horizon is part of the problem, so nothing is worth anything after it.

    Args:
        mdp: what to sample.
        lanes: how many copies step side by side.
        name: how messages and run folders call it.
        device: where states and tables live.

    Raises:
        InputError: fewer than one lane, or an action that does not exist.

    >>> import vantage as vt
    >>> env = Tabular(vt.MDP.short_corridor(), lanes=3)
    >>> env.reset(seed=0)
    tensor([0, 0, 0])
    >>> env.step(torch.tensor([0, 1, 1])).reward
    tensor([-1., -1., -1.], dtype=torch.float64)
    """

    def __init__(
        self,
        mdp: MDP,
        lanes: int = 64,
        name: str = "tabular",
        device: torch.device | str = "cpu",
    ):
        self.mdp = mdp
        self.dynamics = _dynamics(mdp, name, torch.device(device))
        super().__init__(lanes, mdp.discount, device, torch.float64)
        self.settings = {}

    def policy(
        self, hidden: tuple[int, ...] = (64, 64), seed: int = 0, **choices: object
    ) -> Policy:
        """The uniform softmax table over the MDP's observations, or what `choices` ask for."""
        if isinstance(self.observations, Discrete) and not choices:
            table = SoftmaxTable(self.mdp.observations, self.mdp.actions)
            table.terms = self.terms
            return table.to(self.device)
        return super().policy(hidden, seed, **choices)


def _dynamics(mdp: MDP, name: str, device: torch.device) -> Dynamics:
    edges = mdp.edges
    threshold, first, last = (table.to(device) for table in _intervals(mdp))
    following, reward, terminal, observation = (
        table.to(device) for table in (edges.next, edges.reward, mdp.terminal, mdp.observation)
    )
    running = mdp.initial.cumsum(0)
    beginning = (running / running[-1]).to(device)

    def initial(uniform: Float[Tensor, "1 n"]) -> Int[Tensor, " n"]:
        return torch.searchsorted(beginning, uniform[0], right=True)

    def transition(
        state: Int[Tensor, " lanes"],
        action: Int[Tensor, " lanes"],
        noise: Float[Tensor, "1 lanes"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        pair = state * mdp.actions + action
        edge = torch.searchsorted(threshold, pair + noise[0], right=True)
        # Rounding at the edges of an interval must not lead into another pair's transitions.
        edge = edge.clamp(min=first[pair], max=last[pair])
        return following[edge], reward[edge], terminal[following[edge]]

    return Dynamics(
        name=name,
        initial=initial,
        transition=transition,
        observe=lambda state: observation[state],
        observations=_space(mdp),
        actions=Discrete(mdp.actions),
        starts=1,
        noises=1,
        horizon=mdp.horizon,
        final=True,
    )


def _intervals(mdp: MDP) -> tuple[Tensor, Tensor, Tensor]:
    """Where each edge's interval ends, and each pair's first and last edge.

    One running sum over all pairs: pair i owns the interval (i, i + 1], so a single search of i + u
    among E numbers draws a transition in every lane.
    """
    edges = mdp.edges
    pair = edges.state * mdp.actions + edges.action
    count = torch.bincount(pair, minlength=mdp.states * mdp.actions)
    first = count.cumsum(0) - count
    running = edges.probability.cumsum(0)
    before = torch.cat([running.new_zeros(1), running])[first][pair]
    whole = torch.zeros(len(count), dtype=torch.float64).index_add(0, pair, edges.probability)
    threshold = pair + ((running - before) / whole[pair]).clamp(max=1.0)
    return threshold, first, first + count - 1


def _space(mdp: MDP) -> Box | Discrete:
    features = mdp.observation.ndim > 1 or mdp.observation.is_floating_point()
    if features:
        return Box(-np.inf, np.inf, tuple(mdp.observation.shape[1:]), np.float32)
    return Discrete(mdp.observations)
