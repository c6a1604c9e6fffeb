"""The optimiser that a command line names."""

import inspect
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from vantage.commands.arguments import assignments
from vantage.errors import InputError, refuse_unless
from vantage.runs.files import named_in_file
from vantage.training.interface import OptimizerFactory

# they ask for the loss several times a step, or for sparse gradients
UNFIT = {"LBFGS", "SparseAdam", "Optimizer"}
DEFAULT: dict[str, dict[str, Any]] = {"AdamW": {"weight_decay": 0.0}}  # of `vantage.language.train`


def optimizer_named(name: str, settings: tuple[str, ...]) -> OptimizerFactory:
    """The optimiser of torch of that name, or what FILE.py:FUNCTION makes of parameters.

    Args:
        name: a class of torch.optim, such as SGD, or FILE.py:FUNCTION. The file is run.
        settings: NAME=VALUE, its keyword arguments.

    Raises:
        InputError: no such optimiser or setting, or, once it is made, what it does not take.
    """
    given = assignments("--optimizer-set", settings)
    if ":" in name:
        make: Any = named_in_file(name, "Optimiser", "my_optimizers.py:make")
        refuse_unless(callable(make), f"--optimizer {name}: it is {make!r}, which is no function.")
    else:
        known = _classes()
        refuse_unless(
            name in known,
            f"--optimizer {name}: give FILE.py:FUNCTION, or one of {', '.join(sorted(known))}.",
        )
        make, given = known[name], DEFAULT.get(name, {}) | given
    parameters = inspect.signature(make).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    taken = [each for each in list(parameters)[1:] if each != "lr"]
    for each in given:
        refuse_unless(
            each != "lr" and (anything or each in taken),
            f"--optimizer-set {each}: {name} takes {', '.join(taken) or 'no settings'}; the "
            "learning rate is --lr.",
        )
    return partial(_built, make, f"--optimizer {name}", given)


def _built(make: Any, option: str, settings: dict[str, Any], parameters: Any) -> Optimizer:
    try:
        optimizer = make(parameters, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{option}: {' '.join(str(error).split())}.") from error
    refuse_unless(
        isinstance(optimizer, Optimizer), f"{option}: it made {optimizer!r}, no torch optimiser."
    )
    return optimizer


def _classes() -> dict[str, type[Optimizer]]:
    every = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type)}
    return {n: c for n, c in every.items() if issubclass(c, Optimizer) and n not in UNFIT}
