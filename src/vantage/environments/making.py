"""Environments by name, for the command line, run folders and comparisons.

CartPole-v1            Gymnasium's, natively vectorised where that is faster
tensor/CartPole-v1     the same dynamics as tensor code
envpool/CartPole-v1    EnvPool's
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium

from vantage.arguments import checked
from vantage.environments.acrobot import Acrobot
from vantage.environments.classic import CartPole, MountainCar, MountainCarContinuous, Pendulum
from vantage.environments.envpool import EnvPool
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment
from vantage.environments.lqr import LQR
from vantage.environments.normalise import Normalized
from vantage.environments.tensor import TensorEnvironment
from vantage.errors import InputError, refuse_unless, refuse_unless_within

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
MOST_LANES = 1 << 24  # of tensor environments
MOST_LANES_APART = 1 << 16  # where every lane is an object of its own


@checked
def make(
    name: object,
    lanes: int | None = None,
    discount: float = 0.99,
    normalise: dict[str, object] | bool = False,
    **settings: Any,
) -> Any:
    """The environment of that name, with `.policy()` and `.value()` that fit it.

    Args:
        name: a Gymnasium id; or one with "tensor/" or "envpool/" before it; or anything else that
            `Gymnasium` makes lanes of.
        lanes: copies that step side by side; 64 by default, and all that a vector environment has.
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
    if not isinstance(name, str):
        return normalised(Gymnasium(name, lanes, discount, **settings), normalise)
    lanes = 64 if lanes is None else lanes
    refuse_unless_within(lanes, 1, name, "lanes")
    most = MOST_LANES if name.startswith("tensor/") else MOST_LANES_APART
    refuse_unless(lanes <= most, f"{name}(lanes={lanes}): {most:,} at most.")
    if name in TENSOR:
        _refuse_unfit(name, settings)
        env = TENSOR[name](lanes=lanes, discount=discount, **settings)
    elif name.startswith("tensor/"):
        near = difflib.get_close_matches(name, TENSOR, n=2)
        raise InputError(f"No {name}; {' or '.join(near) or 'there are ' + ', '.join(TENSOR)}.")
    elif name.startswith(ENVPOOL):
        env = EnvPool(name.removeprefix(ENVPOOL), lanes, discount, **settings)
    else:
        env = Gymnasium(name, lanes, discount, **settings)
    return normalised(env, normalise)


def _refuse_unfit(name: str, settings: dict[str, Any]) -> None:
    """Refuse settings that a tensor environment does not take, and the lack of those it needs."""
    signature = inspect.signature(TENSOR[name])
    try:
        signature.bind(lanes=1, discount=1.0, **settings)
    except TypeError as error:
        takes = [key for key in signature.parameters if key not in ("lanes", "discount")]
        raise InputError(
            f"{name} cannot be made: {error}; beside lanes and discount it takes "
            f"{', '.join(takes)}."
        ) from error


def normalised(env: Environment, normalise: dict[str, Any] | bool) -> Any:
    """The environment, behind `Normalized` where that is asked for."""
    if normalise is False:
        return env
    return Normalized(env, **({} if normalise is True else normalise))


def describe(env: Environment) -> dict[str, Any]:
    """What a run folder holds of an environment, for `remaking.remade` to make it again.

    `name` is that of the class where it is none of those that `make` knows. "given" is True where
    no name says what was given: an object, a function without a name.
    """
    inner = env.env if isinstance(env, Normalized) else env
    name = ENVPOOL + inner.name if isinstance(inner, EnvPool) else inner.name
    description: dict[str, object] = {
        "name": name,
        "lanes": env.lanes,
        "discount": env.discount,
        **{key: _plain(value) for key, value in getattr(inner, "settings", {}).items()},
    }
    wrappers = listed(description.get("wrappers"))
    if not getattr(inner, "named", True) or any(":" not in wrapper for wrapper in wrappers):
        description["given"] = True
    if isinstance(env, Normalized):
        description["normalise"] = env.normalised
    return description


def listed(wrappers: Any) -> list[Any]:
    """Wrappers as a list, where one may stand alone or there are none."""
    return [wrappers] if isinstance(wrappers, str) else list(wrappers or ())


def _plain(value: object) -> object:
    """A setting as JSON can hold it: wrappers by their names."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, type) and issubclass(value, gymnasium.Wrapper):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    plain = value is None or isinstance(value, str | int | float | bool)
    return value if plain else getattr(value, "__qualname__", repr(value))
