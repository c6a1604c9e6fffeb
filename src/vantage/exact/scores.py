"""ActionScores ψ(s,a) = ∇ log π(a|s) of every state and action, and the sums over them in moments.

A softmax table's score is zero outside the block of its own observation. Products then touch A
numbers in place of P = O·A, which is what makes the moments of hundreds of states a matter of a
second. Any other policy has its scores formed as a table [S, A, P].

`by_parameter` chooses what a product of two vectors means: their inner product, [S, 1], or the
products entry by entry, [S, P], for the variance of each parameter.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.exact.chain import Chain, action_log_probability
from vantage.exact.kernels import Kernel
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable

ENTRIES = 200_000_000  # largest table of scores or of vectors by state that is formed, 1.6 GB


class ActionScores:
    """Sums over actions, weighted by the policy; zero in terminal states."""

    def mean(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S P"]:
        """E_a[w ψ]."""
        raise NotImplementedError

    def square(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S K"]:
        """E_a[w ψ·ψ]."""
        raise NotImplementedError

    def product(self, kernel: Kernel, f: Float[Tensor, "S P"]) -> Float[Tensor, "S K"]:
        """E_a[ψ · (M f)(s, a)]."""
        raise NotImplementedError

    def onward(self, kernel: Kernel, w: Float[Tensor, " S"]) -> Float[Tensor, "S P"]:
        """Σ_s w(s) Σ_a π(a|s) ψ(s,a) M(s,a,s'), by next state."""
        raise NotImplementedError


@dataclass(frozen=True)
class TableScores(ActionScores):
    """ActionScores of a softmax table: ψ(s,a)[o,b] = 1[o = o(s)] (1[a = b] − π(b|s))."""

    policy: Float[Tensor, "S A"]
    place: Int[Tensor, " S"]
    places: int
    by_parameter: bool

    @property
    def block(self) -> Float[Tensor, "S A A"]:
        """ψ(s,a) within its block."""
        return torch.eye(self.policy.shape[1], dtype=torch.float64) - self.policy[:, None, :]

    def mean(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S P"]:
        """E_a[w ψ]."""
        by_action = self.policy * (w - (self.policy * w).sum(1, keepdim=True))
        return self._spread(by_action)

    def square(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S K"]:
        """E_a[w ψ·ψ]."""
        return self._reduce(torch.einsum("sa,sab->sb", self.policy * w, self.block.square()))

    def product(self, kernel: Kernel, f: Float[Tensor, "S P"]) -> Float[Tensor, "S K"]:
        """E_a[ψ · (M f)(s, a)]."""
        by_block = f.reshape(len(f), self.places, -1)[:, self.place]
        onward = kernel.ahead_by_state(by_block)
        return self._reduce(torch.einsum("sa,sab,sab->sb", self.policy, self.block, onward))

    def onward(self, kernel: Kernel, w: Float[Tensor, " S"]) -> Float[Tensor, "S P"]:
        """Σ_s w(s) Σ_a π(a|s) ψ(s,a) M(s,a,s'), by next state."""
        flow = (w[:, None] * self.policy)[..., None] * self.block
        return kernel.onward_by_state(flow, self.place, self.places).flatten(1)

    def _spread(self, by_action: Float[Tensor, "S A"]) -> Float[Tensor, "S P"]:
        states, actions = by_action.shape
        out = by_action.new_zeros(states, self.places, actions)
        out[torch.arange(states), self.place] = by_action
        return out.flatten(1)

    def _reduce(self, by_action: Float[Tensor, "S A"]) -> Float[Tensor, "S K"]:
        return self._spread(by_action) if self.by_parameter else by_action.sum(1, keepdim=True)


@dataclass(frozen=True)
class FormedScores(ActionScores):
    """ActionScores of any policy, as a table."""

    policy: Float[Tensor, "S A"]
    table: Float[Tensor, "S A P"]
    by_parameter: bool

    def mean(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S P"]:
        """E_a[w ψ]."""
        return torch.einsum("sa,sap->sp", self.policy * w, self.table)

    def square(self, w: Float[Tensor, "S A"]) -> Float[Tensor, "S K"]:
        """E_a[w ψ·ψ]."""
        return self._reduce(torch.einsum("sa,sap->sp", self.policy * w, self.table.square()))

    def product(self, kernel: Kernel, f: Float[Tensor, "S P"]) -> Float[Tensor, "S K"]:
        """E_a[ψ · (M f)(s, a)]."""
        onward = kernel.ahead(f)
        return self._reduce(torch.einsum("sa,sap,sap->sp", self.policy, self.table, onward))

    def onward(self, kernel: Kernel, w: Float[Tensor, " S"]) -> Float[Tensor, "S P"]:
        """Σ_s w(s) Σ_a π(a|s) ψ(s,a) M(s,a,s'), by next state."""
        return kernel.onward((w[:, None] * self.policy)[..., None] * self.table)

    def _reduce(self, by_parameter: Float[Tensor, "S P"]) -> Float[Tensor, "S K"]:
        return by_parameter if self.by_parameter else by_parameter.sum(1, keepdim=True)


def scores(process: Chain, policy: nn.Module, by_parameter: bool) -> ActionScores:
    """The scores of a policy along a chain.

    Raises:
        InputError: vectors by state would not fit in memory.
    """
    mdp, pi = process.mdp, process.policy.detach()
    count = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    # Exact type: a subclass may have a forward of its own.
    table_of = policy.logits if type(policy) is SoftmaxTable and mdp.observation.ndim == 1 else None
    rows = mdp.states * (mdp.actions if table_of is None else 1)
    entries = process.layers * rows * count
    refuse_unless(
        entries <= ENTRIES,
        f"exact.moments: {mdp.states:,} states, {process.layers} layers and {count:,} parameters "
        f"need tables of {entries:,} numbers, more than {ENTRIES:,}. Alias the states, use a "
        "smaller policy, or measure the variance by sampling (vantage.audit).",
    )
    if table_of is not None:
        place = torch.where(mdp.terminal, 0, mdp.observation).long()
        return TableScores(pi, place, table_of.shape[0], by_parameter)
    table = score_table(mdp, policy).reshape(mdp.states, mdp.actions, -1)
    return FormedScores(pi, table, by_parameter)


def score_table(mdp: MDP, policy: nn.Module) -> Float[Tensor, "pairs P"]:
    """ψ of every state and action, [S·A, P], zero in terminal states and where π(a|s) = 0."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    log_probability = action_log_probability(mdp, policy)
    wanted = log_probability.detach().isfinite().reshape(-1)
    outputs = log_probability.reshape(-1)[wanted]
    rows = [_rows(outputs, parameters, places) for places in torch.arange(len(outputs)).split(256)]
    width = sum(p.numel() for p in parameters)
    table = torch.zeros(len(wanted), width, dtype=torch.float64)
    table[wanted] = torch.cat(rows).to(torch.float64)
    return table


def _rows(
    outputs: Float[Tensor, " n"], parameters: list[nn.Parameter], places: Int[Tensor, " k"]
) -> Float[Tensor, "k P"]:
    """Gradients of some of the outputs over all parameters, in one batched backward pass."""
    seeds = torch.zeros(len(places), len(outputs), dtype=outputs.dtype)
    seeds[torch.arange(len(places)), places] = 1
    pieces = torch.autograd.grad(
        outputs,
        parameters,
        seeds,
        retain_graph=True,
        is_grads_batched=True,
        allow_unused=True,
    )
    filled = [
        torch.zeros(len(places), *p.shape, dtype=outputs.dtype) if piece is None else piece
        for p, piece in zip(parameters, pieces, strict=True)
    ]
    return torch.cat([piece.reshape(len(places), -1).to(outputs.dtype) for piece in filled], 1)
