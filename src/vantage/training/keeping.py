"""What a run keeps as it goes: its metrics, the latest checkpoint, the last few, and the best."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from vantage.policies import Policy
from vantage.runs import retained
from vantage.runs.checkpoint import POSITION, read_tensors
from vantage.runs.run import append_metrics, line_of
from vantage.runs.stored import naming, object_of
from vantage.training.learner import Learner, checksum


class Keeper:
    """Writes a run into its folder; without one it holds the best policy in memory.

    Args:
        learner: restored, if it is to be.
        folder: the folder of the run, or None.
        evaluate_every: updates between evaluations, which then say how good a policy is; 0: the
            training's own return says it.
        best: whether to keep the best checkpoint.
        last: how many others to keep: of evaluated updates, or where none is, of those at which a
            checkpoint was due; and that of the end.
    """

    def __init__(
        self, learner: Learner, folder: Path | None, evaluate_every: int, best: bool, last: int
    ) -> None:
        self.learner, self.folder, self.evaluate_every = learner, folder, evaluate_every
        self.keeps_best, self.last = best, last
        self.recorded, self.lines = len(learner.history), checksum(learner.history)
        self.best_score = self._best_before()
        self.best_states: dict[str, dict[str, Tensor]] | None = None
        if self.recorded and folder is not None:
            self._keep_what_a_kill_left_out(folder)

    def score(self, number: int) -> float | None:
        """How good the policy was after update `number`, from 1; None where nothing says it."""
        if self.evaluate_every:
            return self.learner.history[number - 1].get("eval/return")
        return self.learner.training_return(number)

    def reached(self, goal: float | None) -> str | None:
        """Why the run may end: the return that the last update is worth has reached the goal."""
        number = len(self.learner.history)
        if goal is None or number == 0:
            return None
        score = self.score(number)
        settled = self.evaluate_every > 0 or self.learner.settled()
        if score is None or not settled or not score >= goal:
            return None
        return f"return {score:.6g} reached stop_at={goal:g} at update {number}"

    def stalled(self, patience: int | None) -> str | None:
        """Why the run may end: so many evaluations in a row were no better than one before.

        The history alone says it, so that a resumed run ends where the whole one does.
        """
        history = self.learner.history
        if patience is None or not history or "eval/return" not in history[-1]:
            return None
        best, at, since = float("-inf"), 0, 0
        for row in history:
            score = row.get("eval/return", best)
            if score is not None and score > best:
                best, at, since = score, row["update"], 0
            elif "eval/return" in row:
                since += 1
        if since < patience:
            return None
        return (
            f"no return of the last {since} evaluations was above {best:.6g}, of update {at} "
            f"(patience={patience})"
        )

    def record(self) -> None:
        """Append the rows that are not yet in metrics.jsonl."""
        if self.folder is not None:
            for row in self.learner.history[self.recorded :]:
                append_metrics(self.folder, row)
                self.lines.update(line_of(row).encode())
        self.recorded = len(self.learner.history)

    def save(self) -> None:
        """Write the latest checkpoint, after the rows that it builds on."""
        self.record()
        if self.folder is not None:
            self.learner.save(self.folder, self.lines.hexdigest())

    def after_update(self, due: bool) -> bool:
        """Record the update, and save and keep what is to be; returns whether it was saved.

        Args:
            due: whether a checkpoint is.
        """
        self.record()
        number = len(self.learner.history)
        score = self.score(number) if self.keeps_best else None
        better = score is not None and score > self.best_score
        evaluated = self.evaluate_every > 0 and number % self.evaluate_every == 0
        keeps = self.last > 0 and (evaluated if self.evaluate_every else due)
        if better and score is not None:
            self.best_score = score
        if self.folder is None:
            if better:
                self.best_states = self.learner.states()
            return False
        if not (better or keeps or due):
            return False
        self.save()
        if better:
            retained.keep_best(self.folder, self.learner.export)
        if keeps:
            self._keep_update(self.folder, number)
        return True

    def at_end(self) -> None:
        """Save, and keep the last update's checkpoint."""
        self.save()
        number = len(self.learner.history)
        if (
            self.folder is not None
            and self.last
            and number not in retained.kept_updates(self.folder)
        ):
            self._keep_update(self.folder, number)

    def best_policy(self) -> Callable[[], Policy] | None:
        """Makes a copy of the policy as it was at its best; None where nothing was kept."""
        if not self.keeps_best:
            return None
        if self.folder is None:
            states = self.best_states
            return None if states is None else lambda: self.learner.policy_at(states)
        folder = self.folder / retained.BEST
        if not folder.exists():
            return None
        return lambda: self.learner.policy_at(_states_in(folder, self.learner))

    def _keep_update(self, folder: Path, number: int) -> None:
        retained.keep_update(folder, number, self.last, self.learner.export)

    def _best_before(self) -> float:
        """The score of the best checkpoint in the folder, as the history has it."""
        if self.folder is None or not (self.folder / retained.BEST).exists():
            return float("-inf")
        position = self.folder / retained.BEST / POSITION
        with naming(position):
            number = int(object_of(position)["updates"])
        score = self.score(number) if 1 <= number <= self.recorded else None
        return float("-inf") if score is None else score

    def _keep_what_a_kill_left_out(self, folder: Path) -> None:
        """A kill may fall between saving a checkpoint and keeping it."""
        number = self.recorded
        score = self.score(number) if self.keeps_best else None
        if score is not None and score > self.best_score:
            self.best_score = score
            retained.keep_best(folder, self.learner.export)
        evaluated = self.evaluate_every > 0 and number % self.evaluate_every == 0
        if self.last and evaluated and number not in retained.kept_updates(folder):
            self._keep_update(folder, number)


def _states_in(folder: Path, learner: Learner) -> dict[str, dict[str, Tensor]]:
    return {name: read_tensors(folder / f"{name}.safetensors") for name in learner.modules}
