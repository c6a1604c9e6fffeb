"""A trained policy back from its run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnasium.spaces import Discrete

from vantage.arguments import checked
from vantage.environments import remaking
from vantage.environments.normalise import Normalized
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy
from vantage.runs.checkpoint import load_module, read_tensors
from vantage.runs.retained import checkpoint_at, readable
from vantage.runs.run import CONFIG, read_config
from vantage.runs.stored import naming

MOST_LAYERS = 100  # of a perceptron that a file may ask for
Loaded = tuple[Any, Policy, Any]  # environment, policy, value function or None
# How runs of other kinds are loaded, by a key of their config.json: (folder, checkpoint, config).
LOADERS: dict[str, Callable[[Path, Path, dict[str, object]], Loaded]] = {}


@checked
def load(
    path: str | Path,
    lanes: int | None = None,
    *,
    env: Any = None,
    update: int | None = None,
    best: bool = False,
    trust: bool = False,
) -> Loaded:
    """Build the environment, policy and value function of a run, with the weights it ended with.

    A normalised environment comes back with its statistics, frozen. Of a language model, which has
    a task in place of an environment, policy and value head come back, and None before them.
    Where the latest checkpoint is damaged, the one before it is loaded, as a resumed run would
    take it, and standard error says so.

    Args:
        path: the run folder.
        lanes: the lanes of the environment; those of the run where None.
        env: the environment, where it was an object, a function or a class of your own: as
            `vantage.make` takes it, or made already.
        update: load the checkpoint of this update, which `keep_last` has kept.
        best: load the best checkpoint, which `keep_best` has kept.
        trust: whether the folder may name modules to import and call with arguments of any kind;
            without it, it is data, and a run on an environment of your own code is refused.

    Raises:
        InputError: no run or no such checkpoint there, or one that is damaged, naming the file;
            a folder that asks for code to be run; or the run's networks were not made by
            `env.policy()` and `env.value()`, so that only their owner can build them again.
    """
    folder = Path(path)
    config = read_config(folder)
    source = checkpoint_at(folder, update, best)
    for kind, loader in LOADERS.items():
        if kind in config:
            with naming(folder / CONFIG):
                return loader(folder, source, config)
    refuse_unless(
        "environment" in config,
        f"{folder} holds no run in an environment; if it is of a language model, import "
        "vantage.language before loading it.",
    )
    with naming(folder / CONFIG):
        source = readable(folder, source)
        _refuse_networks_of_others(folder, source, config)
        env = remaking.remade(
            config["environment"], lanes, env, trust=trust, file=str(folder / CONFIG)
        )
        if isinstance(env, Normalized) and config["environment"].get("normalise"):
            load_module(source / "environment.safetensors", env.statistics)
            env = env.frozen()
        return env, *_networks(folder, source, config, env)


def _refuse_networks_of_others(folder: Path, source: Path, config: dict[str, Any]) -> None:
    for role in ("policy", "value"):
        module = config[role]
        if module is not None and module["made"] is None:
            raise InputError(
                f"The {role} of {folder} is a {module['class']} of your own; build it in Python "
                f"and load {source / role}.safetensors into it."
            )


def _networks(folder: Path, source: Path, config: dict[str, Any], env: Any) -> tuple[Policy, Any]:
    """Policy and value function, or None, with their weights."""
    arguments = _arguments(config["policy"]["made"])
    _refuse_unfit(source / "policy.safetensors", env, arguments)
    policy = env.policy(**arguments)
    refuse_unless(
        type(policy).__name__ == config["policy"]["class"],
        f"{folder} holds a {config['policy']['class']}, but {env.name} now asks for a "
        f"{type(policy).__name__}; the environment has changed since.",
    )
    load_module(source / "policy.safetensors", policy)
    if config["value"] is None:
        return policy, None
    arguments = _arguments(config["value"]["made"])
    if not arguments.get("trunk"):  # whose layers are the policy's, and stand in its file
        _refuse_unfit(source / "value.safetensors", env, arguments)
    with_policy = {name: policy for name in ("trunk", "under") if arguments.get(name)}
    value = env.value(**(arguments | with_policy))
    load_module(source / "value.safetensors", value)
    return policy, value


def _refuse_unfit(file: Path, env: Any, arguments: dict[str, Any]) -> None:
    """Refuse layers wider than the weights are, before memory is taken for them.

    Where observations are ids networks are tables, and no hidden layer is made.
    """
    width = max((max(tensor.shape, default=0) for tensor in read_tensors(file).values()), default=0)
    memory = arguments.get("recurrent")
    table = memory is None and isinstance(getattr(env, "observations", None), Discrete)
    asked = [memory, *(() if table else arguments.get("hidden", ()))]
    largest = max((size for size in asked if size), default=0)
    refuse_unless(
        largest <= width and len(asked) <= MOST_LAYERS,
        f"{file} holds no layer of {largest} numbers, or not so many layers, as config.json says; "
        "restore both from one copy.",
    )


def _arguments(arguments: dict[str, object]) -> dict[str, object]:
    """Arguments as they were: JSON has no tuples."""
    return {name: tuple(a) if isinstance(a, list) else a for name, a in arguments.items()}
