"""Vantage: policy gradients you can see.

trajectories  ->  weights      ->  gradient  ->  step
(Batch)           (Estimator)      (scores)      (optimiser)
"""

from vantage import conformance, estimators, exact
from vantage.auditing.audit import audit
from vantage.auditing.draws import gradient_draws
from vantage.auditing.report import Report
from vantage.auditing.vectors import audit_draws, audit_gradients, audit_loss
from vantage.batch import Batch
from vantage.comparing.compare import compare
from vantage.conformance.losses import Examination, verify
from vantage.environments import (
    LQR,
    Acrobot,
    CartPole,
    Environment,
    EnvPool,
    Functional,
    Gymnasium,
    MountainCar,
    MountainCarContinuous,
    Normalized,
    Pendulum,
    PettingZoo,
    Tabular,
    check_environment,
    contract,
    make,
)
from vantage.errors import InputError
from vantage.estimators import (
    Estimator,
    aggregates,
    averages,
    baselines,
    columns,
    penalties,
    ratios,
    returns,
    scales,
)
from vantage.exact.mdp import MDP
from vantage.gradients.weighted import gradient, row_gradients
from vantage.monitor import Monitor
from vantage.policies import (
    Bernoulli,
    Categorical,
    Gaussian,
    MaskedCategorical,
    MultiCategorical,
    Policy,
    Recurrent,
    SoftmaxTable,
    SquashedGaussian,
    Value,
)
from vantage.runs.run import Run, read_run
from vantage.statistics.signal import Signal
from vantage.training import (
    Evaluation,
    RunState,
    algorithms,
    evaluate,
    load,
    record_video,
    schedules,
    train,
    tuned,
    updates,
)
from vantage.training.algorithm import Algorithm
from vantage.version import __version__

__all__ = [
    "LQR",
    "MDP",
    "Acrobot",
    "Algorithm",
    "Batch",
    "Bernoulli",
    "CartPole",
    "Categorical",
    "EnvPool",
    "Environment",
    "Estimator",
    "Evaluation",
    "Examination",
    "Functional",
    "Gaussian",
    "Gymnasium",
    "InputError",
    "MaskedCategorical",
    "Monitor",
    "MountainCar",
    "MountainCarContinuous",
    "MultiCategorical",
    "Normalized",
    "Pendulum",
    "PettingZoo",
    "Policy",
    "Recurrent",
    "Report",
    "Run",
    "RunState",
    "Signal",
    "SoftmaxTable",
    "SquashedGaussian",
    "Tabular",
    "Value",
    "__version__",
    "aggregates",
    "algorithms",
    "audit",
    "audit_draws",
    "audit_gradients",
    "audit_loss",
    "averages",
    "baselines",
    "check_environment",
    "columns",
    "compare",
    "conformance",
    "contract",
    "estimators",
    "evaluate",
    "exact",
    "gradient",
    "gradient_draws",
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
    "tuned",
    "updates",
    "verify",
]
