"""Environments: adapters behind one interface, and the rollout that turns them into batches."""

from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment, Step
from vantage.environments.tabular import Tabular

__all__ = ["Environment", "Gymnasium", "Step", "Tabular"]
