"""A trained policy back from its run folder."""

from pathlib import Path
from typing import Any

from vantage.environments import making
from vantage.environments.normalise import Normalized
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value
from vantage.runs.checkpoint import load_module
from vantage.runs.run import CHECKPOINT, read_config


def load(path: str | Path, lanes: int | None = None) -> tuple[Any, Policy, Value | None]:
    """Build the environment, policy and value function of a run, with the weights it ended with.

    A normalised environment comes back with its statistics, frozen.

    Args:
        path: the run folder.
        lanes: of the environment; those of the run where None.

    Raises:
        InputError: no run or no checkpoint there; or the run's networks were not made by
            `env.policy()` and `env.value()`, so that only their owner can build them again.
    """
    folder = Path(path)
    config = read_config(folder)
    for role in ("policy", "value"):
        module = config[role]
        if module is not None and module["made"] is None:
            raise InputError(
                f"The {role} of {folder} is a {module['class']} of your own; build it in Python "
                f"and load {folder / CHECKPOINT / role}.safetensors into it."
            )
    env = making.remade(config["environment"], lanes)
    if isinstance(env, Normalized):
        load_module(folder / CHECKPOINT / "environment.safetensors", env.statistics)
        env = env.frozen()
    policy = env.policy(**config["policy"]["made"])
    refuse_unless(
        type(policy).__name__ == config["policy"]["class"],
        f"{folder} holds a {config['policy']['class']}, but {env.name} now asks for a "
        f"{type(policy).__name__}; the environment has changed since.",
    )
    load_module(folder / CHECKPOINT / "policy.safetensors", policy)
    value = None
    if config["value"] is not None:
        value = env.value(**config["value"]["made"])
        load_module(folder / CHECKPOINT / "value.safetensors", value)
    return env, policy, value
