"""An environment again from what a run folder says of it: data, and no reason to run code.

Whoever writes a config.json would otherwise choose what is imported and with which arguments it is
called. Without the reader's word (`trust`) only this is done: an environment that is registered
already, or one of ours, is made with numbers and truth values for parameters that it names.
"""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from vantage.environments.interface import Environment
from vantage.environments.making import ENVPOOL, TENSOR, listed, make, normalised
from vantage.environments.normalise import Normalized
from vantage.environments.plugins import register
from vantage.errors import InputError, refuse_unless

# What is read by this package itself, and by no constructor: the kind of each.
OURS: dict[str, tuple[type, ...]] = {
    "lanes": (int,),
    "discount": (int, float),
    "action_mask": (bool, str, type(None)),
    "max_episode_steps": (int, type(None)),
    "normalise": (bool, dict),
}
LARGEST_LANES = 1 << 16  # that a file may ask for


def remade(
    description: Any,
    lanes: int | None = None,
    given: Any = None,
    *,
    trust: bool = False,
    file: str = "config.json",
) -> Any:
    """The environment that `making.describe` described.

    Args:
        description: what `making.describe` wrote of it.
        lanes: in place of those it had.
        given: the environment itself, where the description is not enough: as `make` takes it, or
            made already.
        trust: whether the description may name modules to import and arguments of any kind.
        file: where the description stands, for errors.

    Raises:
        InputError: it cannot be made again, naming what is wrong; it was an object or a function of
            its owner's; or it asks for more than an unknown file may, saying for what.
    """
    refuse_unless(
        isinstance(description, dict) and isinstance(description.get("name"), str),
        f"{file}: {str(description)[:200]} names no environment; was it edited by hand?",
    )
    settings = dict(description) | ({} if lanes is None else {"lanes": lanes})
    name, ours = settings.pop("name"), settings.pop("given", False)
    if isinstance(given, Environment):
        return (
            given
            if isinstance(given, Normalized)
            else normalised(given, settings.get("normalise", False))
        )
    if given is None:
        refuse_unless(
            not ours,
            f"{file}: the environment {name} was an object or a function of your own; give it too: "
            "vantage.load(path, env=...).",
        )
    if not trust:
        _refuse_code(file, name, settings, given)
        _refuse_foreign(file, name, settings, lanes, given)
    return make(name if given is None else given, **settings)


def _refuse_code(file: str, name: str, settings: dict[str, Any], given: Any) -> None:
    """Refuse names of modules."""
    places = [] if given is not None else [name]
    for text in [*places, *map(str, listed(settings.get("wrappers")))]:
        refuse_unless(
            ":" not in text,
            f"{file} would import {text.partition(':')[0]} and run {text} of it. If the run "
            "is yours, or you have read that code, say so: vantage.load(path, trust=True), or "
            "--trust. Or give the environment: vantage.load(path, env=...).",
        )


def _refuse_foreign(
    file: str, name: str, recorded: dict[str, Any], lanes: int | None, given: Any
) -> None:
    """Refuse settings that are no plain numbers for parameters that the environment names."""
    for key, kinds in OURS.items():
        refuse_unless(
            key not in recorded or isinstance(recorded[key], kinds),
            f"{file}: the environment's {key} is {repr(recorded.get(key))[:100]}, which it cannot "
            "be; restore the file from a copy.",
        )
    count = recorded.get("lanes", 1)
    refuse_unless(
        lanes is not None or 1 <= count <= LARGEST_LANES,
        f"{file} asks for {count:,} lanes; say how many with lanes=.",
    )
    settings = {key: value for key, value in recorded.items() if key not in OURS}
    # constructors of our own read no files and import nothing, whatever they are given
    refused = [key for key, value in settings.items() if name not in TENSOR and not _plain(value)]
    if settings and not refused and given is None:  # what is given, the reader has named
        known = _parameters(name)
        refused = [key for key in settings if key not in known]
    refuse_unless(
        not refused,
        f"{file} would make {name} with "
        f"{', '.join(f'{key}={repr(settings[key])[:100]}' for key in refused)}: more than numbers "
        "for parameters that it names. If the run is yours, say so: vantage.load(path, "
        "trust=True), or --trust.",
    )


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _parameters(name: str) -> set[str]:
    """The parameters that an environment's constructor names; none where nobody can say."""
    constructor: Callable[..., Any] | str | None = TENSOR.get(name)
    if constructor is None and not name.startswith(ENVPOOL):
        register(name)
        spec = gymnasium.registry.get(name)
        constructor = None if spec is None else spec.entry_point
    if isinstance(constructor, str):
        try:
            constructor = load_env_creator(constructor)
        except (ImportError, AttributeError) as error:
            raise InputError(f"Environment {name!r} cannot be made: {error}.") from error
    return set() if constructor is None else set(inspect.signature(constructor).parameters)
