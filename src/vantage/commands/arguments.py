"""What people type, before a command reads it: lists, names of other libraries, assignments."""

import ast
import re
from typing import Any

from vantage.errors import InputError, refuse_unless

# Options of other libraries, and what they are called here.
HINTS = {
    "--total-timesteps": "--steps",
    "--timesteps": "--steps",
    "--n-timesteps": "--steps",
    "--max-steps": "--steps",
    "--num-envs": "--lanes",
    "--n-envs": "--lanes",
    "--env-num": "--lanes",
    "--num-steps": "--fragment (steps of every lane per update)",
    "--n-steps": "--fragment (steps of every lane per update)",
    "--learning-rate": "--lr",
    "--gamma": "--discount",
    "--gae-lambda": "--set lambda_=0.95",
    "--clip-range": "--set epsilon=0.2",
    "--clip-coef": "--set epsilon=0.2",
    "--ent-coef": "--set entropy=0.01",
    "--vf-coef": "--set value_coefficient=0.5",
    "--n-epochs": "--set epochs=10",
    "--update-epochs": "--set epochs=10",
    "--num-minibatches": "--set minibatches=4",
    "--anneal-lr": "--schedule linear",
    "--norm-obs": "--normalise",
    "--normalize": "--normalise",
    "--total-steps": "--steps",
    "--algo": "--algorithm",
    "--log-dir": "--out",
    "--logdir": "--out",
    "--save-path": "--out",
    "--track": "--wandb PROJECT, --trackio PROJECT or --tensorboard",
    "--torch-threads": "--threads",
}
# Options of TRL's scripts, and what they are called by the commands of language models.
LANGUAGE_HINTS = {
    "--learning-rate": "--lr",
    "--lr-scheduler-type": "--schedule",
    "--warmup-steps": "--warmup",
    "--max-steps": "--updates",
    "--num-train-epochs": "--updates (batches to learn from)",
    "--per-device-train-batch-size": "--batch (completions of an update)",
    "--gradient-accumulation-steps": "--batch and --token-budget",
    "--steps-per-generation": "--minibatches",
    "--model-name-or-path": "--model",
    "--dataset-name": "--data",
    "--reward-funcs": "--reward",
    "--reward-model-name-or-path": "--reward",
    "--reward-weights": "--weights",
    "--use-peft": "--lora RANK",
    "--lora-r": "--lora",
    "--lora-target-modules": "--target-modules",
    "--output-dir": "--out",
    "--resume-from-checkpoint": "--resume",
    "--eval-steps": "--evaluate-every",
    "--report-to": "--wandb PROJECT, --trackio PROJECT or --tensorboard",
    "--optim": "--optimizer",
    "--use-vllm": "--continuous-batching (or in Python an engine of your own)",
    "--loss-type": "--estimator",
}
ASSIGNMENTS = ("--set", "--settings", "--env-set", "--optimizer-set", "--evaluation")
ENVIRONMENT = ("--env-id", "--env", "--env-name", "--environment", "--task")
# Options that take a list, written with spaces or with commas.
LISTS = {
    "--estimators", "--hidden", "--group-sizes", "--set", "--settings", "--low", "--high",
    "--env-set", "--weights", "--reward", "--num-generations", "--target-modules",
    "--optimizer-set", "--evaluation",
}  # fmt: skip


def prepared(arguments: list[str]) -> list[str]:
    """The arguments as commands read them: lists with spaces.

    >>> prepared(["audit", "CartPole-v1", "--estimators", "rloo,grpo", "--hidden=64,64"])
    ['audit', 'CartPole-v1', '--estimators', 'rloo', 'grpo', '--hidden', '64', '64']

    Raises:
        InputError: an option of another library, saying what it is called here.
    """
    result: list[str] = []
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            option = name
            if equals and name in LISTS:
                result += [name, *_pieces(name, value)]
                continue
            result.append(argument)
        elif option in LISTS:
            result += _pieces(option, argument)
        else:
            result.append(argument)
    return result


def refuse_foreign_names(command: str, arguments: list[str], hints: dict[str, str] = HINTS) -> None:
    """Refuse the options of other libraries with what they are called here.

    Args:
        command: that they are given to.
        arguments: as typed.
        hints: what options of others are called.

    Raises:
        InputError: naming the first of them.
    """
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name in ENVIRONMENT and hints is HINTS:
            raise InputError(
                f"{name}: the environment comes first, without an option: vantage {command} "
                "CartPole-v1."
            )
        if name in hints:
            raise InputError(f"{name} is called {hints[name]} here; see vantage {command} --help.")


def _pieces(option: str, text: str) -> list[str]:
    """The items of one word of a list: commas separate them, save within brackets."""
    pieces = [piece for piece in re.split(r",(?![^(\[{]*[)\]}])", text) if piece]
    if option in ASSIGNMENTS and not all("=" in piece for piece in pieces):
        return [text]
    return pieces or [text]


def assignments(option: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE words as a dictionary; a value is a Python literal, or else text.

    >>> assignments("--set", ("epochs=10", "baseline=auto"))
    {'epochs': 10, 'baseline': 'auto'}

    Raises:
        InputError: a word of another form.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        refuse_unless(name and equals, f"{option} {text}: write NAME=VALUE.")
        values[name] = literal(written)
    return values


def literal(text: str) -> Any:
    """A Python literal where the text is one, else the text; `true`, `false`, `none` count too."""
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
