"""What people call an environment, as a function that makes one lane of it.

An id, `module:Name`, a class, a function, an `EnvSpec` and an environment that exists already all
say how a lane comes about. Whether the words of a run folder are enough to make it again is told
too: what a person wrote in Python is never looked up and run because a file names it.
"""

import ast
import copy
import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec, find_highest_version, parse_env_id
from gymnasium.wrappers import TimeLimit

from vantage.environments.masks import with_mask
from vantage.environments.plugins import register
from vantage.errors import InputError, refuse_unless

# Environments that come with packages of their own: how ids begin, what to install and to import.
PACKAGES = (
    (("ALE/", "Pong", "Breakout", "SpaceInvaders", "Seaquest", "Qbert"), "ale-py", "ale_py"),
    (("MiniGrid-", "BabyAI-"), "minigrid", "minigrid"),
    (("Fetch", "HandReach", "AntMaze", "PointMaze", "Adroit", "FrankaKitchen"),
     "gymnasium-robotics", "gymnasium_robotics"),
    (("highway-", "merge-", "roundabout-", "parking-"), "highway-env", "highway_env"),
    (("MinAtar/",), "minatar", "minatar"),
)  # fmt: skip


class Source(NamedTuple):
    """Where lanes come from.

    Attributes:
        name: how messages and run folders call it.
        lane: settings -> one lane.
        id: the registered id, where that is all there is to it; else None.
        named: whether `name` is enough to make it again in another process.
    """

    name: str
    lane: Callable[..., gymnasium.Env]
    id: str | None = None
    named: bool = True


def source(given: object) -> Source:
    """Where the lanes of what was given come from.

    Args:
        given: an id; "module:Name" or "file.py:Name", a registered id or a class, function,
            EnvSpec or environment of that module; or one of these four itself.

    Raises:
        InputError: none of these; a module that cannot be imported or has no such name.
    """
    if isinstance(given, str):
        register(given)
        return _from_module(given) if ":" in given else Source(given, partial(built, given), given)
    if isinstance(given, EnvSpec):
        plain = gymnasium.registry.get(given.id) == given
        return Source(given.id, partial(built, given), given.id if plain else None, plain)
    if isinstance(given, gymnasium.Env):
        name = given.spec.id if given.spec is not None else type(given.unwrapped).__name__
        return Source(name, partial(_copied, given, name), named=False)
    if callable(given):
        function = given.func if isinstance(given, partial) else given
        name = getattr(function, "__qualname__", type(function).__name__)
        module = getattr(function, "__module__", "")
        named = function is given and "<" not in name and "." not in name
        return Source(f"{module}:{name}" if named else name, partial(_called, given), None, named)
    hint = ""
    if type(given).__module__.split(".")[0] == "gym":
        hint = " This one is of gym, which Gymnasium replaced; make it with gymnasium."
    raise InputError(
        f"{repr(given)[:120]} is no environment; give an id such as 'CartPole-v1', 'module:Name', "
        f"a gymnasium.Env (class, function that makes one, object, EnvSpec) or a VectorEnv.{hint}"
    )


def lane(origin: Source, settings: dict[str, Any]) -> gymnasium.Env:
    """One lane, in its wrappers.

    Args:
        origin: where it comes from.
        settings: `wrappers`, functions from an environment to an environment, or strings as
            `wrapper` reads them, in the order in which they are put on; `max_episode_steps`;
            `action_mask`, see `masks.with_mask`; the rest is for what makes the environment.
    """
    rest = dict(settings)
    wrappers, asked = rest.pop("wrappers", None) or (), rest.pop("action_mask", None)
    env = origin.lane(**rest)
    if isinstance(wrappers, str):
        wrappers = (wrappers,)
    for each in wrappers:
        env = (wrapper(each) if isinstance(each, str) else each)(env)
    return with_mask(env, asked)


def wrapper(text: str) -> Callable[[gymnasium.Env], gymnasium.Env]:
    """A wrapper that a string names: "module:Name", or "module:Name(setting=number)".

    Raises:
        InputError: no such thing, or one that is not derived from `gymnasium.Wrapper`.

    >>> wrapper("gymnasium.wrappers:TimeLimit(max_episode_steps=5)").keywords
    {'max_episode_steps': 5}
    """
    module_name, _, call = text.partition(":")
    name, bracket, _ = call.partition("(")
    settings: dict[str, Any] = {}
    if bracket:
        try:
            keywords = ast.parse(call, mode="eval").body.keywords  # type: ignore[attr-defined]
            settings = {each.arg: ast.literal_eval(each.value) for each in keywords}
        except (SyntaxError, ValueError, AttributeError) as error:
            raise InputError(f"{text}: write module:Name(setting=value, ...).") from error
    kind = getattr(_module(module_name, text), name, None)
    if not (isinstance(kind, type) and issubclass(kind, gymnasium.Wrapper)):
        raise InputError(f"{text}: {module_name} has no gymnasium.Wrapper called {name!r}.")
    return partial(kind, **settings)


def built(what: str | EnvSpec, **settings: Any) -> gymnasium.Env:
    """`gymnasium.make`, whose errors end in one line with the remedy.

    Raises:
        InputError: an id that is unknown or out of date; a package that is missing.
    """
    # What Gymnasium says on the way to an error is said better by the error.
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            env = gymnasium.make(what, **settings)
        except (gymnasium.error.Error, ImportError) as error:
            raise remedy(what if isinstance(what, str) else what.id, error) from error
    for each in heard:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return env


def remedy(name: str, error: Exception) -> InputError:
    """What to do about an environment that Gymnasium cannot make."""
    newest = _newest(name)
    if newest is not None and newest != name:
        return InputError(f"{name} is out of date; this version of Gymnasium has {newest}.")
    for beginnings, package, module in PACKAGES:
        if name.startswith(beginnings) and name not in gymnasium.registry:
            return InputError(
                f"{name} comes with the package {package}: pip install {package}, and write "
                f"{module}:{name}."
            )
    if isinstance(error, gymnasium.error.UnregisteredEnv):
        near = difflib.get_close_matches(name, gymnasium.registry.keys(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see gymnasium.pprint_registry()."
        return InputError(f"Unknown environment {name!r}; {hint}")
    if isinstance(error, ModuleNotFoundError):
        return InputError(
            f"Environment {name!r} needs the package {error.name}, which is not installed: pip "
            f"install {error.name}."
        )
    reason = str(error).replace("\n", " ")
    if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
        return InputError(f"Environment {name!r} needs a package: {reason}")
    return InputError(f"Environment {name!r} cannot be made: {reason}")


def _newest(name: str) -> str | None:
    """The id with the highest version, where there is another than the one asked for."""
    try:
        namespace, stem, version = parse_env_id(name)
    except gymnasium.error.Error:
        return None
    highest = find_highest_version(namespace, stem)
    if highest is None or version is None or highest == version:
        return None
    return f"{namespace}/{stem}-v{highest}" if namespace else f"{stem}-v{highest}"


def _called(make: Callable[..., Any], **settings: Any) -> gymnasium.Env:
    """A lane from a class or a function; `max_episode_steps` puts a time limit around it."""
    limit = settings.pop("max_episode_steps", None)
    name = getattr(make, "__name__", repr(make))
    try:
        env = make(**settings)
    except TypeError as error:
        raise InputError(
            f"{name}({', '.join(f'{k}={v!r}' for k, v in settings.items())}) failed: {error}."
        ) from error
    refuse_unless(
        isinstance(env, gymnasium.Env),
        f"{name}() gave {repr(env)[:80]}, which is no gymnasium.Env; derive it from gymnasium.Env, "
        "or let the function return one.",
    )
    return env if limit is None else TimeLimit(env, limit)


def _copied(env: gymnasium.Env, name: str, **settings: object) -> gymnasium.Env:
    """A lane that is a copy of an environment; the original is left alone."""

    def copied() -> gymnasium.Env:
        try:
            return copy.deepcopy(env)
        except Exception as error:  # whatever its parts raise
            raise InputError(
                f"{name} was given as an object, which cannot be copied into lanes ({error}); give "
                "its id or class, or a function that makes one."
            ) from error

    refuse_unless(
        settings.keys() <= {"max_episode_steps"},
        f"{name} was given as an object: {', '.join(settings)} come too late; give its class.",
    )
    return _called(copied, **settings)


def _from_module(text: str) -> Source:
    """The source that "module:Name" or "file.py:Name" names."""
    module_name, _, name = text.partition(":")
    module = _module(module_name, text)
    if name in gymnasium.registry or not hasattr(module, name):
        refuse_unless(
            name in gymnasium.registry or _newest(name) is not None,
            f"{text}: {module_name} has no {name!r} and registers none; {_nearest(name, module)}.",
        )
        return Source(text, partial(built, name), name if name in gymnasium.registry else None)
    return source(getattr(module, name))._replace(name=text, named=True)


def _module(name: str, text: str) -> ModuleType:
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except (ModuleNotFoundError, ValueError) as error:
            missing = getattr(error, "name", name)
            raise InputError(
                f"{text}: no module {missing!r} can be imported from here; run from the folder "
                "that holds it, or install it."
            ) from error
    file = Path(name)
    refuse_unless(file.exists(), f"{text}: there is no file {file}.")
    if file.stem in sys.modules:
        return sys.modules[file.stem]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _nearest(name: str, module: ModuleType) -> str:
    public = [each for each in vars(module) if not each.startswith("_")]
    near = difflib.get_close_matches(name, public, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "give the name of a class or an id"
