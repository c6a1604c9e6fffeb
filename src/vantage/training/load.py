"""A trained policy back from its run folder."""

from pathlib import Path

from vantage.environments.gymnasium import Gymnasium
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value
from vantage.report.run import CHECKPOINT, read_config
from vantage.training.checkpoint import load_module


def load(path: str | Path, lanes: int | None = None) -> tuple[Gymnasium, Policy, Value | None]:
    """Build the environment, policy and value function of a run, with the weights it ended with.

    Args:
        path: the run folder.
        lanes: of the environment; those of the run where None.

    Raises:
        InputError: no run or no checkpoint there; or the run's networks were not made by
            `env.policy()` and `env.value()`, so that only their owner can build them again.
    """
    folder = Path(path)
    config = read_config(folder)
    settings = config["environment"]
    for role in ("policy", "value"):
        made = config[role]
        if made is not None and made["hidden"] is None:
            raise InputError(
                f"The {role} of {folder} is a {made['class']} of your own; build it in Python and "
                f"load {folder / CHECKPOINT / role}.safetensors into it."
            )
    env = Gymnasium(
        settings["name"],
        lanes=lanes or settings["lanes"],
        discount=settings["discount"],
        **settings["settings"],
    )
    policy = env.policy(hidden=tuple(config["policy"]["hidden"]))
    refuse_unless(
        type(policy).__name__ == config["policy"]["class"],
        f"{folder} holds a {config['policy']['class']}, but {env.name} now asks for a "
        f"{type(policy).__name__}; the environment has changed since.",
    )
    load_module(folder / CHECKPOINT / "policy.safetensors", policy)
    value = None
    if config["value"] is not None:
        value = env.value(hidden=tuple(config["value"]["hidden"]))
        load_module(folder / CHECKPOINT / "value.safetensors", value)
    return env, policy, value
