"""How a run is made again, from its settings: the command it was started by, or a call of train."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vantage.reporting.subject import name_in

# Settings that `vantage.train` and `vantage.language.train` take under the same name, by kind.
SETTINGS = (
    "steps", "updates", "fragment", "batch", "group_size", "lr", "schedule", "delay", "warmup",
    "epochs", "minibatches", "max_grad_norm", "baseline", "evaluate_every", "keep_best",
    "keep_last", "stop_at", "patience", "seed", "threads",
    "compile",
)  # fmt: skip


def reproducing(config: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """What to do, in words, and the text to do it with."""
    steps = []
    command = config.get("command")
    if isinstance(command, str):
        steps.append(("It was started by this command.", command))
    else:
        steps.append((
            "It was started from Python. In outline, with the settings that it had "
            "(config.json holds all of them):", _call(config, folder),
        ))  # fmt: skip
    quoted = shlex.quote(str(folder))
    if "environment" in config:
        steps.append(("Evaluate its policy anew, on seeds that it has not seen.",
                      f"vantage evaluate {quoted} --episodes 100"))  # fmt: skip
    else:
        steps.append(("Read what it said in training.", f"vantage transcripts {quoted} --worst 5"))
    steps.append(("Write this page again.", f"vantage report {quoted}"))
    return steps


def _call(config: Mapping[str, Any], folder: Path) -> str:
    """The call of train, as far as settings say it."""
    language = "task" in config
    estimator, algorithm = name_in(config.get("estimator")), config.get("algorithm")
    rule = (
        f"vt.algorithms.{algorithm}()"
        if isinstance(algorithm, str) and algorithm.isidentifier()
        else f"vt.estimators.{estimator}()"
        if estimator.isidentifier()
        else "estimator"
    )
    first = ["task", "policy"] if language else [repr(name_in(config.get("environment")))]
    world = config.get("environment")
    of_world = {"lanes": world.get("lanes"), "discount": world.get("discount")} if isinstance(
        world, Mapping) else {}  # fmt: skip
    given = of_world | {name: config.get(name) for name in SETTINGS}
    settings = [
        f"{name}={value!r}"
        for name, value in given.items()
        if isinstance(value, str | int | float) and value is not False
    ]
    arguments = [*first, rule, *settings, f"out={f'{folder}-again'!r}"]
    return "\n".join(["vt.train(", *(f"    {argument}," for argument in arguments), ")"])
