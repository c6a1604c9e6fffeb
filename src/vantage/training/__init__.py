"""Training: the loop, the fit of V, checkpoints, evaluation."""

from vantage.training.evaluation import Evaluation, evaluate
from vantage.training.load import load
from vantage.training.loop import train

__all__ = ["Evaluation", "evaluate", "load", "train"]
