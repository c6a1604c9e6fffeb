"""Which group size: many prompts with few completions each, or few prompts with many?

A prompt's completions share its prefill and serve one another as a baseline; but what differs
between prompts is averaged over prompts alone. Which matters more is measured: for every size the
gradient's signal-to-noise ratio, by an audit, and the time of the work of a training step.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from torch.optim import SGD

from vantage.arguments import checked
from vantage.auditing.planner import scaled
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.auditing.audit import audit
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.rollout import Environment, rollout
from vantage.language.scoring.scoring import plan_passes
from vantage.language.tasks.task import Task
from vantage.language.training.ascent import Weighed, gradient_in_pieces
from vantage.language.training.inputs import inputs_and_scores, valued
from vantage.pages.numbers import number, plain, text, written
from vantage.runs.progress import counting
from vantage.runs.seeds import generator_of
from vantage.runs.terminal import Terminal
from vantage.runs.threads import torch_threads
from vantage.statistics.intervals import Estimate, time_interval

TIMED = 6  # steps whose work is timed for each size; the first pays for warming up


@dataclass(frozen=True)
class GroupSize:
    """One estimator at one group size.

    Attributes:
        num_generations: completions per prompt.
        estimator: its name.
        snr: the SNR of a batch's gradient.
        noise_scale: completions at which the SNR is 1.
        cost: seconds per completion: sampling, and the gradient as training finds it.
        seconds: the seconds of a step with the target SNR; the cost is taken as measured.
    """

    num_generations: int
    estimator: str
    snr: Estimate
    noise_scale: Estimate
    cost: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class GroupSizes:
    """What `group_sizes` found.

    Attributes:
        rows: one for each size and estimator.
        best: the row that reaches the target in the least time, or None.
        batch: completions of a gradient step, as audited.
        target: SNR that seconds are for.
    """

    rows: list[GroupSize]
    best: GroupSize | None
    batch: int
    target: float

    @property
    def advice(self) -> str:
        """The best, and what the intervals cannot tell from it."""
        best = self.best
        if best is None:
            return (
                f"No size has a measurable signal at batch {self.batch}: sample more trajectories."
            )
        near = [
            f"{row.estimator} with {row.num_generations}"
            for row in self.rows
            if row is not best and row.seconds.low <= best.seconds.high
        ]
        completions = self.target * best.noise_scale.value
        each = "completion" if best.num_generations == 1 else "completions"
        return (
            f"Use {best.estimator} with {best.num_generations} {each} per prompt: SNR "
            f"{number(self.target)} takes {number(completions)} completions and "
            f"{number(best.seconds.value)} s a step."
            + (f" The intervals do not tell it from {', '.join(near)}." if near else "")
        )

    def table(self) -> Table:
        """The rows as a table for a terminal."""
        table = Table(caption="95 % intervals in brackets")
        table.add_column("estimator")
        for heading in (
            "completions\nper prompt",
            f"SNR\nbatch {self.batch}",
            "noise scale\ncompletions",
            "cost\ns/completion",
            f"seconds a step\nof SNR {number(self.target)}",
        ):
            table.add_column(heading, justify="right")
        for row in self.rows:
            shown = (row.snr, row.noise_scale, row.cost, row.seconds)
            table.add_row(row.estimator, str(row.num_generations), *map(text, shown))
        return table

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; what is undetermined is null.

        Raises:
            InputError: another ending than .json.
        """
        refuse_unless(
            Path(path).suffix == ".json", f"GroupSizes.save({str(path)!r}): end it in .json."
        )
        return written(path, "GroupSizes", lambda: plain(asdict(self)), str)

    def __str__(self) -> str:
        console = Terminal(width=120, force_terminal=False)
        with console.capture() as capture:
            console.print(f"• {self.advice}", soft_wrap=True)
            console.print(self.table())
        return capture.get()


@checked
def group_sizes(
    task: Task,
    policy: Policy,
    estimators: Sequence[Estimator],
    *,
    sizes: Sequence[int] = (1, 2, 4, 8),
    trajectories: int = 512,
    batch: int = 64,
    target_snr: float = 4.0,
    seed: int = 0,
    value: ValueHead | None = None,
    reference_policy: Policy | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    memory: int = 4 << 30,
    threads: int = 1,
    progress: bool = True,
) -> GroupSizes:
    """Signal, cost and time to a target SNR for each group size, at equal numbers of completions.

    Estimators that compare the completions of a prompt are left out at size 1. Prices are those of
    this machine and of the completions as long as they are now.

    Args:
        task: its own `num_generations` is not looked at.
        policy: whose gradient is measured; it is not changed.
        estimators: with different names.
        sizes: completions per prompt to try; each divides `batch`.
        trajectories: completions to sample at each size, rounded down to whole batches.
        batch: completions of one gradient step.
        target_snr: what the seconds are for.
        seed, value, reference_policy, environment, turns, memory, threads: as in `language.audit`.
        progress: show progress.

    Raises:
        InputError: sizes that do not fit the batch, and what `language.audit` refuses.
    """
    refuse_unless(sizes, "group_sizes(sizes=()): give at least one.")
    for size in sizes:
        refuse_unless(
            size >= 1 and batch % size == 0 and batch > size,
            f"group_sizes(sizes with {size}, batch={batch}): a batch holds two or more whole "
            "groups; take sizes that divide it.",
        )
    rows: list[GroupSize] = []
    with counting("group sizes", trajectories * len(sizes), progress) as done:
        for finished, size in enumerate(sizes, 1):
            resized = copy.copy(task)
            resized.num_generations = size
            able = [e for e in estimators if size > 1 or "group" not in e.needs]
            if not able:
                continue
            report = audit(
                resized, policy, able, trajectories=trajectories, batch=batch, seed=seed,
                value=value,
                reference_policy=reference_policy, environment=environment, turns=turns,
                target_snr=target_snr, memory=memory, threads=threads, progress=False,
            )  # fmt: skip
            for estimator, row in zip(able, report.rows, strict=True):
                work = _Work(
                    resized, policy, estimator, value, reference_policy, environment, turns
                )
                with torch_threads(threads):
                    cost = time_interval(_timed(work, batch, seed))
                seconds = scaled(row.noise_scale, target_snr * cost.value)
                rows.append(
                    GroupSize(size, estimator.name, row.snr, row.noise_scale, cost, seconds)
                )
            done(trajectories * finished)
    # as in an audit's plan: no estimator whose mean gradient points elsewhere is advised
    right = {e.name for e in estimators if e.bias in ("none", "scale")}
    able_rows = [row for row in rows if row.estimator in right and 0 < row.seconds.value < math.inf]
    best = min(able_rows, key=lambda row: row.seconds.value, default=None)
    return GroupSizes(rows, best, batch, target_snr)


class _Work(NamedTuple):
    """What a training step does before its step."""

    task: Task
    policy: Policy
    estimator: Estimator
    value: ValueHead | None
    reference: Policy | None
    environment: Environment | None
    turns: int


def _timed(work: _Work, batch: int, seed: int) -> list[float]:
    """Seconds per completion of drawing a batch and of finding its gradient, several times."""
    task, policy, estimator, value, reference, environment, turns = work
    # never steps: it says whose gradient is found
    optimizer = SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    prompts, seconds = batch // task.num_generations, []
    for step in range(TIMED):
        generator = generator_of(seed, step)
        began = time.perf_counter()
        rows = task.stream(step * prompts, prompts, seed)
        drawn = rollout(task, policy, rows, generator, environment=environment, turns=turns)
        passes = plan_passes(drawn.batch, policy)
        given = valued(drawn.batch, policy, value, passes)
        inputs = inputs_and_scores(estimator, task, policy, reference, drawn, given, passes)
        gradient_in_pieces(policy, Weighed(estimator, given, inputs, passes), optimizer, 1)
        seconds.append((time.perf_counter() - began) / batch)
    return seconds[1:]
