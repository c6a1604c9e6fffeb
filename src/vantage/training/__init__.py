"""Training: the loop, update rules, the fit of V, checkpoints, evaluation."""

from vantage.training import algorithms, schedules, updates
from vantage.training.callbacks import RunState
from vantage.training.evaluation import Evaluation, evaluate
from vantage.training.load import load
from vantage.training.loop import train
from vantage.training.tuned import tuned
from vantage.training.video import record_video

__all__ = [
    "Evaluation",
    "RunState",
    "algorithms",
    "evaluate",
    "load",
    "record_video",
    "schedules",
    "train",
    "tuned",
    "updates",
]
