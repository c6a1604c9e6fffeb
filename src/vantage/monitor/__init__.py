"""How good the gradient of any PyTorch loop is, while it runs, from the pieces of its steps."""

from vantage.monitor.callback import TrainerCallback
from vantage.monitor.monitor import Monitor

__all__ = ["Monitor", "TrainerCallback"]
