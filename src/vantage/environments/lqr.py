"""The linear-quadratic problem as an environment: what is sampled here has exact values.

`vantage.exact.LQR` states the problem and solves it; this steps it.
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.environments.tensor import Dynamics, TensorEnvironment, normal
from vantage.exact import gaussian
from vantage.policies import Gaussian, Policy
from vantage.policies.networks import unfilled


@checked
class LQR(TensorEnvironment):
    """Lanes of x' = A x + B u + w with reward −(xᵀ state_cost x + uᵀ action_cost u).

    The observation is x, the action u is unbounded, and the horizon ends an episode for good
    (`terminated`): nothing is worth anything after it.

    Args:
        problem: a `vantage.exact.LQR`, or a dict of its fields with lists for tensors.
        discount: γ, in place of the problem's own.
        lanes, device, dtype: as for every `TensorEnvironment`.

    Attributes:
        problem: what is sampled, with the discount in use.

    >>> import vantage as vt
    >>> one, half = torch.ones(1, 1), torch.full((1,), 0.5)
    >>> env = LQR(vt.exact.LQR(one, one, one, one, half, half, half, horizon=3), lanes=2)
    >>> env.reset(seed=0).shape, env.policy().net
    (torch.Size([2, 1]), Linear(in_features=1, out_features=1, bias=False))
    """

    def __init__(
        self,
        problem: gaussian.LQR | dict[str, object],
        lanes: int = 64,
        discount: float | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float64,
    ):
        stated = problem if isinstance(problem, gaussian.LQR) else _from_lists(problem)
        self.problem = stated if discount is None else replace(stated, discount=discount)
        kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.dynamics = _dynamics(self.problem, torch.device(device), kind)
        super().__init__(lanes, self.problem.discount, device, dtype)
        self.settings["problem"] = {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in asdict(self.problem).items()
        }

    def policy(self, hidden: tuple[int, ...] = (), seed: int = 0, **choices: object) -> Policy:
        """u = W x + σ ε, W starting at 0, whose exact values `env.problem` gives.

        With hidden layers or choices, what those ask for instead, whose values it does not.
        """
        if hidden or choices:
            return super().policy(hidden, seed, **choices)
        n, m = self.problem.B.shape
        linear = unfilled(nn.Linear, n, m, bias=False)
        nn.init.zeros_(linear.weight)
        policy = Gaussian(linear, m).to(self.device, self.dtype)
        policy.hidden, policy.terms = (), self.terms
        return policy


def _dynamics(problem: gaussian.LQR, device: torch.device, dtype: torch.dtype) -> Dynamics:
    n, m = problem.B.shape
    parts = (problem.A, problem.B, problem.state_cost, problem.action_cost)
    A, B, state_cost, action_cost = (matrix.to(device, dtype) for matrix in parts)
    scales = (problem.noise, problem.start_mean, problem.start_std)
    spread, mean, std = (scale.to(device, dtype)[:, None] for scale in scales)

    def initial(uniform: Float[Tensor, "n lanes"]) -> Float[Tensor, "n lanes"]:
        return mean + std * normal(uniform)

    def transition(
        x: Float[Tensor, "n lanes"],
        action: Float[Tensor, "lanes m"],
        noise: Float[Tensor, "n lanes"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        u = action.to(dtype).T
        cost = (x * (state_cost @ x)).sum(0) + (u * (action_cost @ u)).sum(0)
        following = A @ x + B @ u + spread * normal(noise)
        return following, -cost, torch.zeros_like(cost, dtype=torch.bool)

    return Dynamics(
        name="tensor/LQR",
        initial=initial,
        transition=transition,
        observe=lambda x: x.T,
        observations=Box(-np.inf, np.inf, (n,), np.float32),
        actions=Box(-np.inf, np.inf, (m,), np.float32),
        starts=n,
        noises=n,
        horizon=problem.horizon,
        final=True,
    )


def _from_lists(fields: dict[str, object]) -> gaussian.LQR:
    tensors: dict[str, Any] = {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for name, value in fields.items()
    }
    return gaussian.LQR(**tensors)
