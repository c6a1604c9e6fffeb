"""Objective, values, occupancy and gradient of a policy by linear solves, without sampling.

v = (I − γ P_π)⁻¹ r_π      d = (I − γ P_πᵀ)⁻¹ ρ0      ∇J = Σ_s d(s) Σ_a ∇π(a|s) Q(s,a)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.errors import refuse_unless
from vantage.exact.chain import Chain, action_log_probability, chain
from vantage.exact.enumeration import enumerate
from vantage.exact.kernels import kernel
from vantage.exact.mdp import MDP
from vantage.gradients.weighted import flat_gradient


@dataclass(frozen=True)
class Values:
    """What states and actions are worth.

    Attributes:
        V: [S] E[G | s], 0 in terminal states, NaN where it is not finite (unreachable states of an
            undiscounted problem from which the episode may never end).
        Q: [S, A] E[G | s, a].
        A: [S, A] Q − V.
    """

    V: Float[Tensor, " S"]
    Q: Float[Tensor, "S A"]
    A: Float[Tensor, "S A"]


def objective(mdp: MDP, policy: nn.Module) -> Float[Tensor, ""]:
    """[1] J(θ) = E[Σ_t γ^t r_t] = ρ0 · v, a scalar, differentiable.

    For a dense MDP every derivative is available, by autograd through the solve; for a sparse one
    the first, by the adjoint (the occupancy).

    Raises:
        InputError: at γ = 1 without a horizon, a policy that may never terminate.
    """
    process = chain(mdp, policy)
    if mdp.sparse:
        with torch.no_grad():
            V = state_values(process)
        worth = _occupied_worth(process, discounted=True, V=V)
        return mdp.initial @ V[0, :, 0] + worth - worth.detach()
    return mdp.initial @ state_values(process)[0, :, 0]


def value(mdp: MDP, policy: nn.Module, steps: int | None = None) -> Values:
    """V, Q and A of every state, [S], [S, A] and [S, A].

    Args:
        mdp, policy: the process and what acts in it.
        steps: with a horizon, values with this many steps to go; default all of it.
    """
    process = chain(mdp, policy)
    H = process.layers
    refuse_unless(
        steps is None or (mdp.horizon is not None and 1 <= steps <= H),
        f"exact.value(steps={steps}): the MDP's horizon is {mdp.horizon}; give 1 to the horizon.",
    )
    layer = 0 if steps is None else H - steps
    V = state_values(process).detach()
    Q = action_values(process, V)[layer]
    lost = process.endless
    V = torch.where(lost, torch.nan, V[layer, :, 0])
    Q = torch.where(lost[:, None], torch.nan, Q)
    return Values(V, Q, (Q - V[:, None]) * ~mdp.terminal[:, None])


def occupancy(mdp: MDP, policy: nn.Module, discounted: bool = True) -> Float[Tensor, " S"]:
    """d(s) = Σ_t γ^t P(s_t = s), [S]: discounted visits of each state, terminal ones not counted.

    Args:
        mdp, policy: the process and what acts in it.
        discounted: False for Σ_t P(s_t = s), the expected number of visits.
    """
    process = chain(mdp, policy, None if discounted else 1.0)
    d = process.forward(process.start, mdp.discount if discounted else 1.0)[..., 0]
    return (d.sum(0) * ~mdp.terminal).detach()


def gradient(
    mdp: MDP, policy: nn.Module, route: str = "occupancy", discounted: bool = True
) -> Float[Tensor, " P"]:
    """∇J(θ), flat, in the order of `torch.nn.utils.parameters_to_vector`.

    Args:
        mdp, policy: the process and what acts in it.
        route: "occupancy": Σ_s d(s) Σ_a ∇π(a|s) Q(s,a) by two linear solves (the default, the only
            one for large sparse problems); "autograd": back through the solve for J; "enumeration":
            [4] over all trajectories. They agree to rounding.
        discounted: False drops the factor γ^t from every term, as most libraries do (Nota & Thomas
            2020); that is not the gradient of J unless γ = 1. Route "occupancy" only.

    Raises:
        InputError: a policy that may never terminate where nothing discounts; a route that cannot.
    """
    routes: dict[str, Callable[[], Tensor]] = {
        "occupancy": lambda: _occupied_worth(
            chain(mdp, policy, None if discounted else 1.0), discounted
        ),
        "autograd": lambda: objective(mdp, policy),
        "enumeration": lambda: _enumerated_worth(mdp, policy),
    }
    refuse_unless(
        route in routes, f"exact.gradient(route={route!r}): choose one of {', '.join(routes)}."
    )
    refuse_unless(
        discounted or route == "occupancy",
        f"exact.gradient(route={route!r}, discounted=False): only route='occupancy' can drop γ^t.",
    )
    return flat_gradient(routes[route](), policy)


def discounting_angle(mdp: MDP, policy: nn.Module) -> float:
    """Angle in degrees between ∇J and the same sum without its factors γ^t."""
    true = gradient(mdp, policy)
    common = gradient(mdp, policy, discounted=False)
    cosine = true @ common / (true.norm() * common.norm())
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


def state_values(process: Chain) -> Float[Tensor, "L S 1"]:
    """V by layer."""
    expected = kernel(process.mdp, 1).ahead(torch.ones(process.mdp.states, 1, dtype=torch.float64))
    source = process.mean(expected[..., 0]).expand(process.layers, -1, -1)
    return process.backward(source, process.mdp.discount)


def action_values(process: Chain, V: Float[Tensor, "L S 1"]) -> Float[Tensor, "L S A"]:
    """Q(s,a) = E[r | s,a] + γ E[V(s') | s,a] by layer."""
    mdp = process.mdp
    rewards = kernel(mdp, 1).ahead(torch.ones(mdp.states, 1, dtype=torch.float64))[..., 0]
    step = kernel(mdp, 0)
    onward = torch.stack([step.ahead(v)[..., 0] for v in process.next_layer(V)])
    return rewards + mdp.discount * onward


def _occupied_worth(
    process: Chain, discounted: bool, V: Float[Tensor, "L S 1"] | None = None
) -> Float[Tensor, ""]:
    """Σ_s d(s) Σ_a π(a|s) Q(s,a) with d and Q held fixed: its gradient is the policy gradient."""
    factor = process.mdp.discount if discounted else 1.0
    with torch.no_grad():
        d = process.forward(process.start, factor)
        Q = action_values(process, state_values(process) if V is None else V)
    return (d[..., 0] * process.mean(Q)[..., 0]).sum()


def _enumerated_worth(mdp: MDP, policy: nn.Module) -> Float[Tensor, ""]:
    """Σ_τ P(τ) R(τ) Σ_t log π(a_t|s_t) with P and R held fixed, R by its definition in [1]."""
    batch = enumerate(mdp, policy)
    power = mdp.discount ** torch.arange(batch.reward.shape[1], dtype=torch.float64)
    R = (power * batch.reward * batch.mask).sum(1)
    log_prob = policy.log_prob(batch.observation, batch.action)  # type: ignore[operator]
    return (batch.weight * R * torch.where(batch.mask, log_prob, 0.0).sum(1)).sum()


__all__ = [
    "Values",
    "action_log_probability",
    "discounting_angle",
    "gradient",
    "objective",
    "occupancy",
    "value",
]
