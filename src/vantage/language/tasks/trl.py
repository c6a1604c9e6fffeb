"""What a trainer of TRL asks, as a `Task` takes it."""

from typing import Any

from torch import nn

from vantage.conformance.losses.trl import is_trl_trainer
from vantage.errors import refuse_unless
from vantage.language.tasks.reward_models import of_model
from vantage.language.tasks.rewards import RewardFunction


def of_trainer(trainer: Any) -> dict[str, Any]:
    """The arguments of a `Task` that asks what the trainer asks; no row is held out.

    Raises:
        InputError: what such a task cannot hold.
    """
    kind = type(trainer).__name__
    refuse_unless(
        is_trl_trainer(trainer), f"Task.from_trl({kind}): give a GRPOTrainer or RLOOTrainer of TRL."
    )
    refuse_unless(
        not getattr(trainer, "tools", None) and not getattr(trainer, "environments", None),
        "Task.from_trl: tools and environments of the trainer answer within its completions; "
        "only single completions can be asked for here.",
    )
    data = trainer.train_dataset
    refuse_unless(
        hasattr(data, "__len__") and hasattr(data, "__getitem__"),
        f"Task.from_trl: the rows of {type(data).__name__} cannot be listed; give a Dataset.",
    )
    weights = [1.0 if w is None else float(w) for w in trainer.reward_weights]
    return {
        "rows": [dict(data[n]) for n in range(len(data))],
        "reward": [_function(trainer, number) for number in range(len(trainer.reward_funcs))],
        "weights": weights,
        "num_generations": trainer.num_generations,
        "held_out": 0.0,
        "name": kind,
    }


def _function(trainer: Any, number: int) -> RewardFunction:
    """A reward of the trainer, of which models are asked as the trainer asks them."""
    given: RewardFunction = trainer.reward_funcs[number]
    if not isinstance(given, nn.Module):
        return given
    tokenizer = trainer.reward_processing_classes[number]
    return of_model(given, tokenizer, trainer.reward_func_names[number])
