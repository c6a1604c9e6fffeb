"""Environments: adapters behind one interface, and the rollout that turns them into batches."""

from collections.abc import Callable

from vantage.environments.acrobot import Acrobot
from vantage.environments.classic import CartPole, MountainCar, MountainCarContinuous, Pendulum
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment, Step
from vantage.environments.lqr import LQR
from vantage.environments.tabular import Tabular
from vantage.environments.tensor import Dynamics, TensorEnvironment

# By the names that run folders hold: TENSOR[name](lanes=..., discount=..., **settings).
TENSOR: dict[str, Callable[..., TensorEnvironment]] = {
    "tensor/Acrobot-v1": Acrobot,
    "tensor/CartPole-v1": CartPole,
    "tensor/LQR": LQR,
    "tensor/MountainCar-v0": MountainCar,
    "tensor/MountainCarContinuous-v0": MountainCarContinuous,
    "tensor/Pendulum-v1": Pendulum,
}

__all__ = [
    "LQR",
    "TENSOR",
    "Acrobot",
    "CartPole",
    "Dynamics",
    "Environment",
    "Gymnasium",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum",
    "Step",
    "Tabular",
    "TensorEnvironment",
]
