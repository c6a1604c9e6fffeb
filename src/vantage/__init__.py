"""Vantage: policy gradients you can see.

trajectories  ->  weights      ->  gradient  ->  step
(Batch)           (Estimator)      (scores)      (optimiser)
"""

__version__ = "0.1.0"

from vantage import (
    aggregates,
    algorithms,
    baselines,
    conformance,
    estimators,
    exact,
    penalties,
    ratios,
    returns,
    scales,
)
from vantage.auditing.audit import audit
from vantage.auditing.record import Report
from vantage.batch import Batch
from vantage.environments import Environment, Gymnasium, Tabular
from vantage.errors import InputError
from vantage.estimators import Estimator
from vantage.gradients import gradient, row_gradients
from vantage.mdp import MDP
from vantage.policies import Categorical, Gaussian, Policy, SoftmaxTable, Value
from vantage.report.run import Run, read_run
from vantage.signal import Signal
from vantage.training import Evaluation, evaluate, load, schedules, train, updates

__all__ = [
    "MDP",
    "Batch",
    "Categorical",
    "Environment",
    "Estimator",
    "Evaluation",
    "Gaussian",
    "Gymnasium",
    "InputError",
    "Policy",
    "Report",
    "Run",
    "Signal",
    "SoftmaxTable",
    "Tabular",
    "Value",
    "aggregates",
    "algorithms",
    "audit",
    "baselines",
    "conformance",
    "estimators",
    "evaluate",
    "exact",
    "gradient",
    "load",
    "penalties",
    "ratios",
    "read_run",
    "returns",
    "row_gradients",
    "scales",
    "schedules",
    "train",
    "updates",
]
