"""What reward functions log beside their rewards, by the arguments that TRL offers them.

def reward(completions, log_metric, log_extra, trainer_state, **columns): ...

log_metric(name, value)      a number of this batch; calls under one name are averaged
log_extra(column, values)    one value for each completion, into the table of completions
trainer_state                transformers' `TrainerState`: how far training is
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vantage.errors import refuse_unless

LOGGING = ("trainer_state", "log_metric", "log_extra")


class Logs:
    """What the functions of one batch of completions have logged.

    Attributes:
        metrics: values by name, in the order of the calls.
        extra: values by column, one for each completion.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, list[float]] = {}
        self.extra: dict[str, list[object]] = {}
        self.columns: dict[str, str] = {}  # the function that logged the column first

    def offered(self, name: str, function: Callable[..., object], state: Any) -> Any:
        """The function, with those of the three arguments that its signature takes.

        Args:
            name: the name of the function, for messages.
            function: a reward function.
            state: how far training is; where None, that of a run that has not begun.
        """
        parameters = inspect.signature(function).parameters
        everything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        given: dict[str, object] = {}
        if everything or "trainer_state" in parameters:
            given["trainer_state"] = _fresh() if state is None else state
        if everything or "log_metric" in parameters:
            given["log_metric"] = partial(self._metric, name)
        if everything or "log_extra" in parameters:
            given["log_extra"] = partial(self._column, name)
        return partial(function, **given) if given else function

    def check(self, count: int) -> None:
        """Refuse columns of another length than the completions.

        Raises:
            InputError: naming function and column.
        """
        for column, values in self.extra.items():
            refuse_unless(
                len(values) == count,
                f"Reward {self.columns[column]!r} gave log_extra({column!r}) {len(values)} values "
                f"for {count} completions; it takes one for each.",
            )

    def _metric(self, function: str, name: str, value: Any) -> None:
        number = value.item() if hasattr(value, "item") else value
        refuse_unless(
            isinstance(number, int | float),
            f"log_metric({name!r}, {value!r}) in {function!r}: it takes a number.",
        )
        self.metrics.setdefault(str(name), []).append(float(number))

    def _column(self, function: str, column: str, values: Sequence[object]) -> None:
        self.columns.setdefault(str(column), function)
        self.extra.setdefault(str(column), []).extend(values)


def _fresh() -> Any:
    from transformers import TrainerState

    return TrainerState()
