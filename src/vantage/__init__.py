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
from vantage.comparing.compare import compare
from vantage.environments import (
    LQR,
    Acrobot,
    CartPole,
    Environment,
    EnvPool,
    Gymnasium,
    MountainCar,
    MountainCarContinuous,
    Normalized,
    Pendulum,
    Tabular,
    make,
)
from vantage.errors import InputError
from vantage.estimators import Estimator
from vantage.gradients import gradient, row_gradients
from vantage.mdp import MDP
from vantage.policies import (
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    Policy,
    Recurrent,
    SoftmaxTable,
    SquashedGaussian,
    Value,
)
from vantage.report.run import Run, read_run
from vantage.signal import Signal
from vantage.training import Evaluation, evaluate, load, record_video, schedules, train, updates

__all__ = [
    "LQR",
    "MDP",
    "Acrobot",
    "Batch",
    "Bernoulli",
    "CartPole",
    "Categorical",
    "EnvPool",
    "Environment",
    "Estimator",
    "Evaluation",
    "Gaussian",
    "Gymnasium",
    "InputError",
    "MountainCar",
    "MountainCarContinuous",
    "MultiCategorical",
    "Normalized",
    "Pendulum",
    "Policy",
    "Recurrent",
    "Report",
    "Run",
    "Signal",
    "SoftmaxTable",
    "SquashedGaussian",
    "Tabular",
    "Value",
    "aggregates",
    "algorithms",
    "audit",
    "baselines",
    "compare",
    "conformance",
    "estimators",
    "evaluate",
    "exact",
    "gradient",
    "load",
    "make",
    "penalties",
    "ratios",
    "read_run",
    "record_video",
    "returns",
    "row_gradients",
    "scales",
    "schedules",
    "train",
    "updates",
]
