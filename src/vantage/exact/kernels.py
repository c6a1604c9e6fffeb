"""The dynamics as linear maps: expectations over the next state, and their transposes.

For k = 0, 1, 2 the kernel M_k[(s,a), s'] = P(s'|s,a) r(s,a,s')^k keeps reward and next state
joined, so that E[r^k f(s') | s, a] = (M_k f)(s, a). Rows of terminal states are zero:
nothing follows them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.exact.mdp import MDP


@dataclass(frozen=True)
class Dense:
    """A kernel as a table."""

    table: Float[Tensor, "S A S"]

    def ahead(self, f: Float[Tensor, "S K"]) -> Float[Tensor, "S A K"]:
        """E[r^k f(s') | s, a]."""
        return self.table @ f

    def onward(self, w: Float[Tensor, "S A K"]) -> Float[Tensor, "S K"]:
        """Σ_{s,a} w(s,a) M(s,a,s'), by next state."""
        return torch.einsum("sat,sak->tk", self.table, w)

    def ahead_by_state(self, f: Float[Tensor, "S S B"]) -> Float[Tensor, "S A B"]:
        """E[r^k f(s', s) | s, a] for an f that also depends on the state departed from."""
        return torch.einsum("sat,tsb->sab", self.table, f)

    def onward_by_state(
        self, w: Float[Tensor, "S A B"], place: Int[Tensor, " S"], places: int
    ) -> Float[Tensor, "S places B"]:
        """Σ_{s,a} w(s,a) M(s,a,s'), by next state and by the place of the state departed from."""
        by_state = torch.einsum("sat,sab->tsb", self.table, w)
        out = by_state.new_zeros(by_state.shape[0], places, by_state.shape[2])
        return out.index_add(1, place, by_state)

    def under(self, policy: Float[Tensor, "S A"]) -> Float[Tensor, "S S"]:
        """Σ_a π(a|s) M(s,a,s')."""
        return torch.einsum("sa,sat->st", policy, self.table)


@dataclass(frozen=True)
class Listed:
    """A kernel as a list of E entries."""

    state: Int[Tensor, " E"]
    action: Int[Tensor, " E"]
    next: Int[Tensor, " E"]
    entry: Float[Tensor, " E"]
    states: int
    actions: int

    def ahead(self, f: Float[Tensor, "S K"]) -> Float[Tensor, "S A K"]:
        """E[r^k f(s') | s, a]."""
        return self._by_pair(self.entry[:, None] * f[self.next])

    def onward(self, w: Float[Tensor, "S A K"]) -> Float[Tensor, "S K"]:
        """Σ_{s,a} w(s,a) M(s,a,s'), by next state."""
        flow = self.entry[:, None] * w[self.state, self.action]
        return flow.new_zeros(self.states, w.shape[2]).index_add(0, self.next, flow)

    def ahead_by_state(self, f: Float[Tensor, "S S B"]) -> Float[Tensor, "S A B"]:
        """E[r^k f(s', s) | s, a] for an f that also depends on the state departed from."""
        return self._by_pair(self.entry[:, None] * f[self.next, self.state])

    def onward_by_state(
        self, w: Float[Tensor, "S A B"], place: Int[Tensor, " S"], places: int
    ) -> Float[Tensor, "S places B"]:
        """Σ_{s,a} w(s,a) M(s,a,s'), by next state and by the place of the state departed from."""
        flow = self.entry[:, None] * w[self.state, self.action]
        out = flow.new_zeros(self.states * places, w.shape[2])
        out = out.index_add(0, self.next * places + place[self.state], flow)
        return out.reshape(self.states, places, w.shape[2])

    def under(self, policy: Float[Tensor, "S A"]) -> Float[Tensor, "S S"]:
        """Σ_a π(a|s) M(s,a,s'), as a dense table."""
        flow = policy[self.state, self.action] * self.entry
        out = flow.new_zeros(self.states, self.states)
        return out.index_put((self.state, self.next), flow, accumulate=True)

    def _by_pair(self, values: Float[Tensor, "E K"]) -> Float[Tensor, "S A K"]:
        out = values.new_zeros(self.states * self.actions, values.shape[1])
        out = out.index_add(0, self.state * self.actions + self.action, values)
        return out.reshape(self.states, self.actions, values.shape[1])


Kernel = Dense | Listed


def kernel(mdp: MDP, power: int) -> Kernel:
    """M_k for k = `power`."""
    if mdp.sparse:
        edges = mdp.edges
        entry = edges.probability * edges.reward**power
        return Listed(edges.state, edges.action, edges.next, entry, mdp.states, mdp.actions)
    assert isinstance(mdp.transition, Tensor)
    assert isinstance(mdp.reward, Tensor)
    transition = mdp.transition * ~mdp.terminal[:, None, None]
    reward = mdp.reward if mdp.reward.ndim == 3 else mdp.reward[:, :, None]
    return Dense(transition * reward**power)
