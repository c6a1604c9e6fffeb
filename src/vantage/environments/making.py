"""Environments by name, for the command line, run folders and comparisons.

CartPole-v1            Gymnasium's, natively vectorised where that is faster
tensor/CartPole-v1     the same dynamics as tensor code
envpool/CartPole-v1    EnvPool's
"""

import difflib
from collections.abc import Callable
from typing import Any

from vantage.environments.acrobot import Acrobot
from vantage.environments.classic import CartPole, MountainCar, MountainCarContinuous, Pendulum
from vantage.environments.envpool import EnvPool
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment
from vantage.environments.lqr import LQR
from vantage.environments.normalise import Normalized
from vantage.environments.tensor import TensorEnvironment
from vantage.errors import InputError, refuse_unless

# By the names that run folders hold: TENSOR[name](lanes=..., discount=..., **settings).
TENSOR: dict[str, Callable[..., TensorEnvironment]] = {
    "tensor/Acrobot-v1": Acrobot,
    "tensor/CartPole-v1": CartPole,
    "tensor/LQR": LQR,
    "tensor/MountainCar-v0": MountainCar,
    "tensor/MountainCarContinuous-v0": MountainCarContinuous,
    "tensor/Pendulum-v1": Pendulum,
}
ENVPOOL = "envpool/"


def make(
    name: str,
    lanes: int = 64,
    discount: float = 0.99,
    normalise: dict[str, Any] | bool = False,
    **settings: Any,
) -> Any:
    """The environment of that name, with `.policy()` and `.value()` that fit it.

    Args:
        name: a Gymnasium id; or one with "tensor/" or "envpool/" before it.
        lanes: copies that step side by side.
        discount: γ of the objective.
        normalise: True, or the arguments of `Normalized`, for running statistics of observations
            and rewards.
        **settings: of the environment.

    Raises:
        InputError: no such environment, with near matches.

    >>> make("tensor/Pendulum-v1", lanes=2).name
    'tensor/Pendulum-v1'
    """
    env: Environment
    if name in TENSOR:
        env = TENSOR[name](lanes=lanes, discount=discount, **settings)
    elif name.startswith("tensor/"):
        near = difflib.get_close_matches(name, TENSOR, n=2)
        raise InputError(f"No {name}; {' or '.join(near) or 'there are ' + ', '.join(TENSOR)}.")
    elif name.startswith(ENVPOOL):
        env = EnvPool(name.removeprefix(ENVPOOL), lanes, discount, **settings)
    else:
        env = Gymnasium(name, lanes, discount, **settings)
    if normalise is False:
        return env
    return Normalized(env, **({} if normalise is True else normalise))


def describe(env: Environment) -> dict[str, Any]:
    """What a run folder holds of an environment: `make(**describe(env))` makes it again.

    `name` is that of the class where it is none of those that `make` knows.
    """
    inner = env.env if isinstance(env, Normalized) else env
    name = ENVPOOL + inner.name if isinstance(inner, EnvPool) else inner.name
    description: dict[str, Any] = {
        "name": name,
        "lanes": env.lanes,
        "discount": env.discount,
        **getattr(inner, "settings", {}),
    }
    if isinstance(env, Normalized):
        description["normalise"] = env.normalised
    return description


def remade(description: dict[str, Any], lanes: int | None = None) -> Any:
    """The environment that `describe` described.

    Raises:
        InputError: its settings cannot be made again, naming it.
    """
    own = dict(description) | ({} if lanes is None else {"lanes": lanes})
    refuse_unless("name" in own, f"{description} names no environment; was it edited by hand?")
    return make(**own)
