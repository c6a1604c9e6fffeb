"""Callbacks: functions of (run state, row) that are called after every update."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from vantage.errors import refuse_unless
from vantage.policies import Policy
from vantage.training.learner import Learner


class RunState:
    """A run under way, as callbacks see it.

    Attributes:
        folder: the folder of the run, or None.
        stopped: why the run ends after this update, or None.
    """

    def __init__(self, learner: Learner, folder: Path | None):
        self._learner, self.folder = learner, folder
        self.stopped: str | None = None

    @property
    def policy(self) -> Policy:
        """The policy as it is now."""
        return self._learner.policy

    @property
    def value(self) -> nn.Module | None:
        """The value function as it is now, or None."""
        return self._learner.value

    @property
    def history(self) -> list[dict[str, object]]:
        """The rows of all updates, this one's last."""
        return self._learner.history

    @property
    def update(self) -> int:
        """The number of updates made."""
        return len(self._learner.history)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._learner.seed

    def evaluate(self) -> dict[str, object]:
        """Metrics of an evaluation of the policy as it is now; no later number depends on it.

        Raises:
            InputError: the run has no lanes to evaluate on; train with evaluate_every=.
        """
        return self._learner.evaluate()

    def stop(self, reason: str) -> None:
        """End the run after this update, as if it were done."""
        self.stopped = reason


# Returns None, metrics to add to the row, or True to end the run.
Callback = Callable[[RunState, dict[str, object]], Mapping[str, object] | bool | None]


def name_of(callback: Callback) -> str:
    """How messages and config.json call a callback."""
    return getattr(callback, "__name__", type(callback).__name__)


def call(callback: Callback, state: RunState, row: dict[str, object]) -> None:
    """Call it, add the metrics that it returns to the row, and note a stop.

    Raises:
        InputError: it returns anything else, naming it.
    """
    returned = callback(state, row)
    if isinstance(returned, Mapping):
        row.update(returned)
    elif returned is True:
        state.stop(f"the callback {name_of(callback)} ended the run")
    else:
        refuse_unless(
            returned is None or returned is False,
            f"The callback {name_of(callback)} returned {returned!r}; return None, metrics as a "
            "dict, or True to end the run.",
        )
