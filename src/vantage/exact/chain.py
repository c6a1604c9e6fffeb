"""The Markov chain that a policy makes of an MDP, and linear equations along it.

Functions of the state carry a leading dimension of layers. A problem without a horizon is
stationary and has one layer; with a horizon H there are H, one per time step, and the linear solves
become recursions over them. The same formula serves both.
"""

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vantage.errors import InputError, refuse_unless
from vantage.exact.kernels import kernel
from vantage.exact.mdp import MDP
from vantage.policies import Categorical

RESIDUAL = 1e-12  # largest accepted residual of an iterative solve, relative to its right-hand side


def action_log_probability(mdp: MDP, policy: nn.Module) -> Float[Tensor, "S A"]:
    """log π(a|s) for every state and action, differentiable, −∞ in terminal states.

    Raises:
        InputError: the policy has no `log_prob`, or not as many actions as the MDP.
    """
    refuse_unless(
        hasattr(policy, "log_prob"),
        f"{type(policy).__name__} is not a policy: it has no log_prob(observation, action). "
        "Wrap a module that gives logits as vantage.Categorical(module).",
    )
    live = (~mdp.terminal).nonzero().squeeze(1)
    observation = mdp.observation[live]
    if isinstance(policy, Categorical):
        table = torch.log_softmax(_logits(policy, mdp, observation), -1)
    else:
        pairs = observation[:, None].expand(len(live), mdp.actions, *observation.shape[1:])
        table = policy.log_prob(pairs, torch.arange(mdp.actions).expand(len(live), -1))  # type: ignore[operator]
    refuse_unless(
        table.shape == (len(live), mdp.actions),
        f"the policy has {table.shape[-1]} actions and the MDP {mdp.actions}; make them equal.",
    )
    empty = torch.full((mdp.states, mdp.actions), -torch.inf, dtype=torch.float64)
    return empty.index_copy(0, live, table.to(torch.float64))


def _logits(policy: Categorical, mdp: MDP, observation: Tensor) -> Tensor:
    try:
        return policy(observation)
    except IndexError as error:
        raise InputError(
            f"the policy has no row for one of the MDP's observations (largest id "
            f"{observation.max().item()}): {error}. Build it as SoftmaxTable(mdp.observations, "
            "mdp.actions)."
        ) from error


@dataclass(frozen=True)
class Chain:
    """P_π of an MDP under a policy.

    Attributes:
        mdp: the process.
        policy: [S, A] π(a|s), zero in terminal states and in those `endless`.
        transition: [S, S] P_π, a tensor, or CSR where the MDP is sparse.
        endless: [S] states from which, without discounting, the episode may never end; none of them
            can be reached from the start, and nothing is computed for them.
    """

    mdp: MDP
    policy: Float[Tensor, "S A"]
    transition: "Float[Tensor, 'S S'] | scipy.sparse.csr_array"
    endless: Bool[Tensor, " S"]

    @property
    def layers(self) -> int:
        """1 for a stationary problem, H for a horizon of H."""
        return self.mdp.horizon or 1

    @property
    def start(self) -> Float[Tensor, "L S 1"]:
        """ρ0 in the first layer, zero in the others."""
        return self._layered(self.mdp.initial[:, None])

    def mean(self, f: Float[Tensor, "*L S A"]) -> Float[Tensor, "*L S 1"]:
        """E_a[f(s,a)] under the policy."""
        return (self.policy * f).sum(-1, keepdim=True)

    def next_layer(self, f: Float[Tensor, "L S K"]) -> Float[Tensor, "L S K"]:
        """f of one step later, as a layer sees it; zero after the last layer of a horizon."""
        if self.mdp.horizon is None:
            return f
        return torch.cat([f[1:], torch.zeros_like(f[:1])])

    def previous_layer(self, f: Float[Tensor, "L S K"]) -> Float[Tensor, "L S K"]:
        """f of one step earlier, as a layer sees it; zero before the first layer of a horizon."""
        if self.mdp.horizon is None:
            return f
        return torch.cat([torch.zeros_like(f[:1]), f[:-1]])

    def backward(self, source: Float[Tensor, "L S K"], factor: float) -> Float[Tensor, "L S K"]:
        """x with x(s) = source(s) + factor · E[x(s') | s]: sums of `source` over the future."""
        if self.mdp.horizon is None:
            return self._solve(source[0], factor, transposed=False)[None]
        x, layers = torch.zeros_like(source[0]), []
        for t in reversed(range(self.layers)):
            x = source[t] + factor * self._step(x, transposed=False)
            layers.append(x)
        return torch.stack(layers[::-1])

    def forward(self, source: Float[Tensor, "L S K"], factor: float) -> Float[Tensor, "L S K"]:
        """x with x(s') = source(s') + factor · Σ_s x(s) P_π(s'|s): what flows into each state."""
        if self.mdp.horizon is None:
            return self._solve(source[0], factor, transposed=True)[None]
        x, layers = torch.zeros_like(source[0]), []
        for t in range(self.layers):
            x = source[t] + factor * self._step(x, transposed=True)
            layers.append(x)
        return torch.stack(layers)

    def dense(self) -> "Chain":
        """The same chain with P_π as a dense table."""
        if isinstance(self.transition, Tensor):
            return self
        table = torch.from_numpy(self.transition.toarray())
        return Chain(self.mdp, self.policy, table, self.endless)

    def _layered(self, first: Tensor) -> Tensor:
        return torch.cat([first[None], first.new_zeros(self.layers - 1, *first.shape)])

    def _step(self, x: Tensor, transposed: bool) -> Tensor:
        if isinstance(self.transition, Tensor):
            return (self.transition.T if transposed else self.transition) @ x
        matrix = self.transition.T if transposed else self.transition
        return torch.from_numpy(matrix @ x.detach().numpy())

    def _solve(self, source: Tensor, factor: float, transposed: bool) -> Tensor:
        if isinstance(self.transition, Tensor):
            matrix = self.transition.T if transposed else self.transition
            system = torch.eye(len(matrix), dtype=matrix.dtype) - factor * matrix
            return torch.linalg.solve(system, source)
        array = self.transition.T if transposed else self.transition
        sparse_system = (scipy.sparse.eye_array(array.shape[0]) - factor * array).tocsr()
        columns = [solve_sparse(sparse_system, column) for column in source.detach().numpy().T]
        return torch.from_numpy(np.stack(columns, 1))


def chain(mdp: MDP, policy: nn.Module, discount: float | None = None) -> Chain:
    """The chain of a policy, checked to end if nothing else makes sums along it finite.

    Args:
        mdp, policy: the process and what acts in it.
        discount: largest factor per step of the sums wanted; default the MDP's γ. At 1 every state
            that can be reached must lead to the end.

    Raises:
        InputError: at γ = 1 without a horizon, the policy may never terminate.
    """
    pi = action_log_probability(mdp, policy).exp()
    endless = torch.zeros(mdp.states, dtype=torch.bool)
    if mdp.horizon is None and (mdp.discount if discount is None else discount) == 1:
        endless = _endless(mdp, pi.detach())
        pi = torch.where(endless[:, None], 0.0, pi)
    return Chain(mdp, pi, _transition(mdp, pi), endless)


def _transition(mdp: MDP, pi: Tensor) -> "Tensor | scipy.sparse.csr_array":
    if not mdp.sparse:
        return kernel(mdp, 0).under(pi)
    edges = mdp.edges
    flow = pi.detach()[edges.state, edges.action] * edges.probability
    place = (edges.state.numpy(), edges.next.numpy())
    return scipy.sparse.coo_array((flow.numpy(), place), shape=(mdp.states, mdp.states)).tocsr()


def _endless(mdp: MDP, pi: Tensor) -> Tensor:
    """States that may run on for ever; refuses if the start can lead to one."""
    S, edges = mdp.states, mdp.edges
    used = pi[edges.state, edges.action] > 0
    source, target = edges.state[used].numpy(), edges.next[used].numpy()
    ends = mdp.terminal.nonzero().squeeze(1).numpy()
    can_end = reached(target, source, ends, S)
    endless = reached(target, source, (~can_end).nonzero()[0], S)
    started = reached(source, target, mdp.initial.nonzero().squeeze(1).numpy(), S)
    stuck = started & ~can_end
    if stuck.any():
        raise InputError(
            f"from state {int(stuck.nonzero()[0][0])}, which the policy reaches, it never "
            "terminates, and nothing discounts the sum: its value is not finite. Give the MDP a "
            "terminal state it can reach, a discount below 1, or a horizon."
        )
    return torch.from_numpy(endless)


def reached(source: np.ndarray, target: np.ndarray, seeds: np.ndarray, states: int) -> np.ndarray:
    """[S] whether a state can be reached from the seeds along the given arrows."""
    # One extra node points at every seed, so that a single search starts from all of them.
    rows = np.concatenate([source, np.full(len(seeds), states)])
    columns = np.concatenate([target, seeds])
    graph = scipy.sparse.coo_array(
        (np.ones(len(rows)), (rows, columns)), shape=(states + 1, states + 1)
    ).tocsr()
    order = scipy.sparse.csgraph.breadth_first_order(graph, states, return_predecessors=False)
    reachable = np.zeros(states + 1, dtype=bool)
    reachable[order] = True
    return reachable[:states]


def solve_sparse(system: "scipy.sparse.csr_array", source: np.ndarray) -> np.ndarray:
    """x with system · x = source to a relative residual of RESIDUAL.

    Stabilised bi-conjugate gradients first, restarted on the residual: they need no more memory
    than the system, and chains that mix or are discounted take tens of steps. A sparse LU
    decomposition if they stall, as on a long chain without discount.

    Raises:
        InputError: neither reached the residual (a chain that hardly ever ends).
    """
    scale = max(np.abs(source).max(), np.finfo(float).tiny)
    # Two terms of the Neumann series: from zero, a uniform source makes the iteration break down.
    solution = 2 * source - system @ source
    left, stalls = scale, 0
    for _ in range(12):
        correction, _ = scipy.sparse.linalg.bicgstab(
            system, source - system @ solution, rtol=1e-6, atol=0.0, maxiter=200
        )
        before, solution = left, solution + correction
        left = residual(system, solution, source)
        if left <= RESIDUAL * scale:
            return solution
        stalls += not left < 0.1 * before
        if stalls == 3:
            break
    solution = scipy.sparse.linalg.splu(system.tocsc()).solve(source)
    left = residual(system, solution, source)
    refuse_unless(
        left <= RESIDUAL * scale,
        f"the linear system of this chain was solved to a residual of {left / scale:.2g} only, "
        f"above {RESIDUAL:g}: the policy hardly ever terminates. Lower the discount or add a "
        "horizon.",
    )
    return solution


def residual(system: "scipy.sparse.csr_array", solution: np.ndarray, source: np.ndarray) -> float:
    """Largest absolute entry of source − system · x; infinite if x is not finite."""
    left = np.abs(source - system @ solution).max()
    return float(left) if np.isfinite(left) else float("inf")
