"""What the language-model commands share: how they start, stop and report."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from vantage import estimators as table
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.language.model.policy import Policy
from vantage.language.scoring.arithmetic import Workload
from vantage.language.tasks.rewards import RewardFunction, load_reward
from vantage.language.tasks.task import Task
from vantage.language.tasks.verifiers import BUILT_IN
from vantage.language.training.evaluation import evaluate
from vantage.language.training.settings import FIRST_BATCH
from vantage.language.transcripts.records import recorder
from vantage.runs.progress import WINDOW, terminal, windowed_snr
from vantage.runs.run import Run


def quieten() -> None:
    """No progress bars of transformers for loading and saving: they cut through ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def named(estimator: str, beta: float | None) -> Estimator:
    """The row of that name, with the coefficient of its KL where one is given."""
    return table.named(estimator) if beta is None else table.named(estimator, beta=beta)


def task_from(
    data: Path, reward: tuple[str, ...], weights: tuple[float, ...], answer: str, **settings: Any
) -> Task:
    """The rows of a file with rewards by name, called as the file is."""
    return Task(
        data,
        [_reward_named(spec, answer) for spec in reward],
        weights=weights or None,
        answer=answer,
        name=data.stem,
        **settings,
    )


def _reward_named(spec: str, answer: str) -> RewardFunction:
    """The built-in verifier of that name, or FILE.py:FUNCTION."""
    if spec in BUILT_IN:
        make: Any = BUILT_IN[spec]
        return make() if spec == "format" else make(answer=answer)
    refuse_unless(
        ":" in spec,
        f"--reward {spec}: give FILE.py:FUNCTION, or one of {', '.join(BUILT_IN)}.",
    )
    return load_reward(spec)


def watch(folder: Path, task: Task, policy: Policy, every: int) -> Any:
    """The recorder of transcripts, or None."""
    refuse_unless(every >= 0, f"--transcripts-every {every}: 0 or more.")
    return recorder(folder, task, policy.tokenizer, every) if every else None


def carried_on(folder: Path, begin: Callable[[], Run]) -> Run:
    """Train, and say how to carry on after an interrupt."""
    try:
        return begin()
    except KeyboardInterrupt:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        terminal.print(
            f"Stopped; {folder} is saved. Carry on with:\n  vantage {shlex.join(again)} --resume"
        )
        raise


def percent(task: Task, policy: Policy, greedy: bool) -> str:
    """Held-out accuracy, to read."""
    return f"{evaluate(task, policy, greedy=greedy).mean:.1%}"


def first_batch(batch: int | Literal["auto"], num_generations: int) -> int:
    """Completions of the first update, which is what a plan can be made for."""
    if batch != "auto":
        return batch
    return max(2, round(FIRST_BATCH / num_generations)) * num_generations


def print_plan(rule: Estimator, plan: Workload, folder: Path) -> None:
    """What `--dry-run` prints."""
    terminal.print(f"estimator  {rule.name}")
    terminal.print_json(json.dumps(rule.columns()))
    terminal.print(f"{plan}\nWould be written to {folder}.")


def print_end(run: Run, folder: Path) -> None:
    """The last lines of a run."""
    last = run.history[-WINDOW:]
    if run.stopped is not None:
        terminal.print(f"Ended early: {run.stopped}.", markup=False)
    measured = [row for row in last if "gradient_variance" in row]
    signal = f"; gradient SNR {windowed_snr(measured):.2f}" if measured else ""
    if "baseline" in last[-1]:
        terminal.print(f"Baseline: {last[-1]['baseline']} ({last[-1]['baseline_reason']}).")
    terminal.print(
        f"Mean reward of the last batch {run.history[-1]['reward']:.3f}, "
        f"{run.history[-1]['num_tokens']:,} tokens{signal}.\n"
        f"Run folder: {folder}; model: {folder / 'model'}\n"
        f"Next: vantage transcripts {folder} --worst 5"
    )
