"""What `vantage train --dry-run` prints: the settings in effect, and what follows from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from vantage.pages.numbers import counted
from vantage.pages.settings import named, value_text
from vantage.runs.progress import terminal
from vantage.training.ascent import WHOLE_BATCH

ABSENT = ("none", "–", None)
OF_OPTIMISER = ("lr", "eps")  # defaults of a rule, which the optimiser has taken or replaced


def print_plan(config: dict[str, Any], folder: Path) -> None:
    """Print a run's plan.

    Args:
        config: what would be written to config.json.
        folder: where it would be written.
    """
    world, estimator, update = config["environment"], config["estimator"], config["update"]
    optimizer = config["optimizer"]
    skipped = ("class", *OF_OPTIMISER, *(() if config["value"] else ("fit",)))
    lines = {
        "environment": f"{world['name']}, {counted(world['lanes'], 'lane')}, "
        f"γ = {world['discount']}{', normalised' if world.get('normalise') else ''}",
        "algorithm": config["algorithm"] or "none by name",
        "estimator": f"{estimator['name']}: {listed(estimator, 'name')}",
        "policy": network(config["policy"]),
        "value": "none" if config["value"] is None else network(config["value"]),
        "optimiser": "none, steps of a given KL"
        if optimizer is None
        else f"{optimizer['class']}, lr {optimizer['lr']:g}, schedule {config['schedule']}",
        "update rule": ": ".join(filter(None, (update["class"], listed(update, *skipped)))),
        "each update": size(config),
        **({"compiled": "steps, before the first"} if config.get("compile") else {}),
        "until": goals(config),
        "run folder": str(folder),
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, line in lines.items():
        grid.add_row(name, line)
    terminal.print(grid)


def listed(settings: Mapping[str, Any], *skip: str) -> str:
    """Settings that are set, by name."""
    return ", ".join(
        f"{named(name)} {written(value)}"
        for name, value in settings.items()
        if name not in skip and value not in ABSENT
    )


def written(value: Any) -> str:
    """A setting as a reader takes it in; nested ones in parentheses."""
    if isinstance(value, Mapping):
        return f"({listed(value)})"
    return "the whole batch" if value == WHOLE_BATCH else value_text(value)


def network(module: Mapping[str, Any]) -> str:
    """A network's class and size."""
    hidden = module["hidden"]
    layers = f", hidden layers {'-'.join(map(str, hidden))}" if hidden else ""
    return f"{module['class']}{layers}, {counted(module['parameters'], 'parameter')}"


def size(config: Mapping[str, Any]) -> str:
    """What one update takes in, and in how many steps it is learnt from."""
    lanes, fragment, batch = config["environment"]["lanes"], config["fragment"], config["batch"]
    rule = config["update"]
    passes, minibatches = rule.get("epochs", 1), rule.get("minibatches", 1)
    steps = counted(passes * minibatches, "gradient step")
    if "ratio" in rule:
        steps += f", and {rule['ratio']:g} in the mean on batches from memory"
    if fragment is None:
        if batch == "auto":
            return f"as many whole episodes as hold the SNR; {steps}"
        least, most = batch // lanes, -(-batch // lanes)
        each = f"{least}" if least == most else f"{least} to {most}"
        return f"{counted(batch, 'whole episode')}, {each} a lane; {steps}"
    whole = fragment * lanes
    total = f" = {counted(whole, 'step')}" if lanes > 1 else ""
    minibatch = f" on minibatches of {whole // minibatches:,}" if minibatches > 1 else ""
    return f"{counted(fragment, 'step')} of {counted(lanes, 'lane')}{total}; {steps}{minibatch}"


def goals(config: Mapping[str, Any]) -> str:
    """When the run ends."""
    steps, updates = config["steps"], config["updates"]
    ends = [counted(steps, "step")] if steps else []
    return " or ".join(ends + ([counted(updates, "update")] if updates else []))
