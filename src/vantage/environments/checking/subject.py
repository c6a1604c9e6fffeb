"""What is to be checked: one lane that can be made again, a vector environment, or lanes."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
from gymnasium.vector import SyncVectorEnv, VectorEnv

from vantage.environments.envpool import EnvPool
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment
from vantage.environments.making import ENVPOOL, make
from vantage.environments.normalise import Normalized
from vantage.environments.sources import Source, lane, source
from vantage.errors import InputError, refuse_unless

LANES = 4  # of what is made here by name


class Subject(NamedTuple):
    """An environment in the form in which it is checked; exactly one of three is there.

    Attributes:
        name: for messages.
        single: makes a lane, or hands out the one there is.
        distinct: whether `single` makes a new lane every time.
        vector: a Gymnasium vector environment, given as one.
        lanes: an environment behind the interface that rollouts use.
    """

    name: str
    single: Callable[[], gymnasium.Env] | None = None
    distinct: bool = True
    vector: VectorEnv | None = None
    lanes: Environment | None = None


def opened(env: Any) -> Subject:
    """What is given, in the form in which it is checked.

    Raises:
        InputError: it is no environment, and makes none.
    """
    if isinstance(env, str):
        return _by_name(env)
    if isinstance(env, gymnasium.envs.registration.EnvSpec):
        return _from_source(source(env))
    if isinstance(env, gymnasium.Env):
        return _from_object(env)
    if isinstance(env, VectorEnv):
        return Subject(_called(env), vector=env)
    if isinstance(env, Normalized):
        return opened(env.env)
    if isinstance(env, Gymnasium) and not isinstance(env, EnvPool):
        again = lane_of(env)
        if again is not None:
            return Subject(env.name, again)
        return Subject(env.name, vector=env.vector)
    if isinstance(env, Environment) and not isinstance(env, type):
        return Subject(env.name, lanes=env)
    refuse_unless(
        callable(env),
        f"check_environment({env!r}): give an id such as 'CartPole-v1' or 'module:Id-v0', an "
        "environment, a class, or a function that makes one.",
    )
    return _from_factory(env)


def lane_of(env: Environment) -> Callable[[], gymnasium.Env] | None:
    """A function that makes one lane of a Gymnasium environment again; None where that cannot be.

    Statistics of a `Normalized` are left out: it is the environment inside that is looked at.
    """
    inner = env.env if isinstance(env, Normalized) else env
    if not isinstance(inner, Gymnasium) or isinstance(inner, EnvPool):
        return None
    vector = inner.vector
    if isinstance(vector, SyncVectorEnv):
        return vector.env_fns[0]
    spec = vector.spec
    if isinstance(inner._given, VectorEnv) or spec is None or spec.entry_point is None:
        return None
    ways = ("vectorization_mode", "vector_kwargs")
    settings = {key: value for key, value in inner.settings.items() if key not in ways}
    return partial(lane, source(inner._given), settings)


def _by_name(name: str) -> Subject:
    if name.startswith(("tensor/", ENVPOOL)):
        return Subject(name, lanes=make(name, lanes=LANES))
    env = Gymnasium(name, 1)  # refuses unknown names with near matches
    again = lane_of(env)
    if again is None:
        return Subject(name, vector=Gymnasium(name, LANES).vector)
    env.close()
    return _from_source(source(name))


def _from_source(origin: Source) -> Subject:
    # Gymnasium's passive checker would stop at what is to be reported here
    plain = {"disable_env_checker": True} if origin.id is not None else {}
    return Subject(origin.name, partial(lane, origin, plain))


def _from_object(env: gymnasium.Env) -> Subject:
    name = _called(env)
    try:
        copy.deepcopy(env)
    except Exception:  # whatever keeps it from being copied: windows, processes, simulators
        return Subject(name, lambda: env, distinct=False)
    return Subject(name, lambda: copy.deepcopy(env))


def _from_factory(make_one: Callable[[], Any]) -> Subject:
    name = getattr(make_one, "__name__", type(make_one).__name__)
    try:
        env = make_one()
    except Exception as error:
        raise InputError(
            f"check_environment: {name}() raised {type(error).__name__}: {error}; give a class or "
            "function that makes the environment without arguments, such as lambda: MyEnv(size=5)."
        ) from error
    if isinstance(env, gymnasium.Env):
        env.close()
        return Subject(_called(env) if name == "<lambda>" else name, make_one)
    refuse_unless(
        isinstance(env, VectorEnv | Environment),
        f"check_environment: {name}() made {env!r}, which is no environment; return a "
        "gymnasium.Env or a gymnasium.vector.VectorEnv.",
    )
    return opened(env)


def _called(env: gymnasium.Env | VectorEnv) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
