"""Environments: adapters behind one interface, and the rollout that turns them into batches."""

from vantage.environments.acrobot import Acrobot
from vantage.environments.checking.check import check_environment
from vantage.environments.checking.record import EnvironmentReport, Finding
from vantage.environments.classic import CartPole, MountainCar, MountainCarContinuous, Pendulum
from vantage.environments.contract import contract
from vantage.environments.envpool import EnvPool
from vantage.environments.functional import Functional
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment, Step
from vantage.environments.lqr import LQR
from vantage.environments.making import TENSOR, make
from vantage.environments.normalise import Normalized
from vantage.environments.pettingzoo import PettingZoo
from vantage.environments.tabular import Tabular
from vantage.environments.tensor import Dynamics, TensorEnvironment

__all__ = [
    "LQR",
    "TENSOR",
    "Acrobot",
    "CartPole",
    "Dynamics",
    "EnvPool",
    "Environment",
    "EnvironmentReport",
    "Finding",
    "Functional",
    "Gymnasium",
    "MountainCar",
    "MountainCarContinuous",
    "Normalized",
    "Pendulum",
    "PettingZoo",
    "Step",
    "Tabular",
    "TensorEnvironment",
    "check_environment",
    "contract",
    "make",
]
