"""Vantage: policy gradients you can see.

trajectories  ->  weights      ->  gradient  ->  step
(Batch)           (Estimator)      (scores)      (optimiser)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vantage.version import __version__

if TYPE_CHECKING:
    from vantage import conformance, estimators, exact
    from vantage.auditing.audit import audit
    from vantage.auditing.draws import gradient_draws
    from vantage.auditing.report import Report
    from vantage.auditing.vectors import audit_draws, audit_gradients, audit_loss
    from vantage.batch import Batch
    from vantage.comparing.compare import compare
    from vantage.conformance.losses.verdict import Examination
    from vantage.conformance.losses.verify import verify
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
        make,
    )
    from vantage.environments.contract import contract
    from vantage.errors import InputError, NonFiniteError
    from vantage.estimators import (
        Estimator,
        aggregates,
        averages,
        baselines,
        columns,
        importance,
        penalties,
        ratios,
        returns,
        scales,
        selections,
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
    from vantage.reporting.writing import report
    from vantage.runs.run import Run, read_run
    from vantage.statistics.signal import Signal
    from vantage.training import (
        Evaluation,
        RunState,
        algorithms,
        evaluate,
        record_video,
        schedules,
        train,
        updates,
    )
    from vantage.training.algorithm import Algorithm
    from vantage.training.load import load
    from vantage.training.tuned import tuned

# Where each public name lives. Its room is loaded when the name is first asked for (PEP 562), so
# that `import vantage` alone loads neither torch nor anything else. The imports above are what a
# type checker reads; a test holds the two to one another.
HOMES = {
    "vantage": "conformance estimators exact",
    "vantage.auditing.audit": "audit",
    "vantage.auditing.draws": "gradient_draws",
    "vantage.auditing.report": "Report",
    "vantage.auditing.vectors": "audit_draws audit_gradients audit_loss",
    "vantage.batch": "Batch",
    "vantage.comparing.compare": "compare",
    "vantage.conformance.losses.verdict": "Examination",
    "vantage.conformance.losses.verify": "verify",
    "vantage.environments": (
        "LQR Acrobot CartPole Environment EnvPool Functional Gymnasium MountainCar "
        "MountainCarContinuous Normalized Pendulum PettingZoo Tabular check_environment "
        "make"
    ),
    "vantage.environments.contract": "contract",
    "vantage.errors": "InputError NonFiniteError",
    "vantage.estimators": (
        "Estimator aggregates averages baselines columns importance penalties ratios returns "
        "scales selections"
    ),
    "vantage.exact.mdp": "MDP",
    "vantage.gradients.weighted": "gradient row_gradients",
    "vantage.monitor": "Monitor",
    "vantage.policies": (
        "Bernoulli Categorical Gaussian MaskedCategorical MultiCategorical Policy Recurrent "
        "SoftmaxTable SquashedGaussian Value"
    ),
    "vantage.reporting.writing": "report",
    "vantage.runs.run": "Run read_run",
    "vantage.statistics.signal": "Signal",
    "vantage.training": (
        "Evaluation RunState algorithms evaluate record_video schedules train updates"
    ),
    "vantage.training.algorithm": "Algorithm",
    "vantage.training.load": "load",
    "vantage.training.tuned": "tuned",
}

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
    "NonFiniteError",
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
    "importance",
    "load",
    "make",
    "penalties",
    "ratios",
    "read_run",
    "record_video",
    "report",
    "returns",
    "row_gradients",
    "scales",
    "schedules",
    "selections",
    "train",
    "tuned",
    "updates",
    "verify",
]


def _named(name: str) -> Any:
    """A public name or a room, imported when it is first asked for."""
    home = next((module for module, names in HOMES.items() if name in names.split()), "vantage")
    if home != "vantage":
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value
    try:
        return import_module(f"vantage.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"vantage.{name}":
            raise
    raise AttributeError(f"module 'vantage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker would take any name for a public one
    __getattr__ = _named
