"""The run folder: what was asked (config.json), what happened (metrics.jsonl), where it got to.

runs/cartpole/
  config.json       every setting, resolved, with versions
  metrics.jsonl     one line per update
  checkpoint/       weights and optimiser state (safetensors), position (JSON)
  checkpoint.old/   the one before
  checkpoints/      the last few that were kept; best/ the best (see `retained`)
  lock              the number of the process that writes here
"""

import json
import math
import platform
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vantage.errors import InputError, refuse_unless
from vantage.runs import notebook, stored
from vantage.version import __version__

if TYPE_CHECKING:
    import matplotlib.figure

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint"
LARGEST_METRICS = 1 << 32  # bytes: some millions of updates

# What metrics were called in runs of earlier versions: read under the names they have now.
RENAMED = {
    "gradient_norm": "grad_norm",
    "seconds": "step_time",
    "held_out/reward": "eval/return",
}


# Settings that a run may be resumed with others of: no number of the training depends on them.
FREE = {
    "versions",
    "command",
    "steps",
    "updates",
    "evaluate_every",
    "evaluation_episodes",
    "keep_best",
    "keep_last",
    "stop_at",
    "patience",
    "callbacks",
    "skip_non_finite",
    "environment_timeout",
}


# Settings that folders of earlier versions lack, and what their runs did.
BEFORE = {"compile": False}


@dataclass(frozen=True, repr=False)
class Run:
    """A finished or interrupted training run.

    Attributes:
        path: its folder, or None when nothing was written.
        config: every setting, resolved.
        history: one dict per update, as in metrics.jsonl.
        policy, value, env: what was trained, and where; None where the run was read from its folder
            (`vantage.load` builds them again).
        stopped: why it ended before all steps or updates that were asked for; None if it did not.
    """

    path: Path | None
    config: dict[str, object]
    history: list[dict[str, Any]]
    policy: Any = field(default=None, repr=False, compare=False)
    value: object = field(default=None, repr=False, compare=False)
    env: object = field(default=None, repr=False, compare=False)
    stopped: str | None = None
    best_policy: Callable[[], object] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        steps = f", {last['steps']:,} steps" if last.get("steps") is not None else ""
        count = len(self.history)
        return (
            f"Run({self._what()}, {count} update{'s' * (count != 1)}{steps}, "
            f"return {_shown(last.get('return_100', last.get('return')))}, "
            f"{'not written' if self.path is None else self.path})"
        )

    def _repr_html_(self) -> str:
        last = self.history[-1] if self.history else {}
        names = ("update", "steps", "return_100", "return", "length", "entropy", "grad_norm")
        rows: dict[str, object] = {name: _shown(last[name]) for name in names if name in last}
        rows |= {"folder": self.path} if self.path is not None else {}
        rows |= {"stopped": self.stopped} if self.stopped is not None else {}
        return notebook.facts(self._what(), rows, self.plot() if len(self.history) > 1 else None)

    def plot(self) -> "matplotlib.figure.Figure":
        """Return and gradient SNR against steps."""
        from vantage.runs.curves import learning_figure

        return learning_figure({self._what(): self.history})

    def to_pandas(self) -> object:
        """The history as a DataFrame, one line an update.

        Raises:
            InputError: pandas is not installed.
        """
        return notebook.frame(self.history)

    def export(self, path: str | Path) -> Path:
        """Write the policy as ONNX (.onnx) or TorchScript (.pt), normaliser and all.

        Raises:
            InputError: the run was read from its folder; else as `vantage.Policy.export`.
        """
        refuse_unless(
            self.policy is not None,
            f"{self!r} was read from its folder, without its policy: "
            "env, policy, value = vantage.load(path), then policy.export(...).",
        )
        refuse_unless(
            hasattr(self.policy, "export"),
            "export: a language model is written by policy.save_pretrained(folder), not as ONNX.",
        )
        return self.policy.export(path)

    def _what(self) -> str:
        config = self.config
        estimator = config.get("estimator")
        name = estimator.get("name") if isinstance(estimator, dict) else estimator
        world = config.get("environment") or config.get("task") or {}
        where = world.get("name") if isinstance(world, dict) else world
        return f"{config.get('algorithm') or name} on {where or 'a task'}"

    @property
    def best(self) -> object:
        """A copy of the policy as it was at its best, where it was trained with keep_best=True.

        Raises:
            InputError: nothing was kept, or the run was read from disk; see `vantage.load`.
        """
        refuse_unless(
            self.best_policy is not None,
            "This run has no best policy at hand: train with keep_best=True, or load it from a run "
            f"folder with vantage.load({str(self.path or 'runs/...')!r}, best=True).",
        )
        assert self.best_policy is not None
        return self.best_policy()


def refuse_unless_startable(path: Path, config: dict[str, object], resume: bool) -> None:
    """Refuse a folder in which this run cannot begin or go on; nothing is written.

    Raises:
        InputError: the folder already holds a run and `resume` is False; it holds none and `resume`
            is True; or its settings differ, naming the first that does.
    """
    held = (path / CONFIG).exists()
    if resume:
        refuse_unless(held, f"{path} holds no run to resume; leave resume out to start one.")
        _refuse_other_settings(path, read_config(path), config)
        return
    refuse_unless(
        not held,
        f"{path} already holds a run; choose another folder with out (--out), "
        "or carry it on with resume (--resume).",
    )


def _shown(value: object) -> str:
    """A metric in few digits."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def open_run(path: Path, config: dict[str, object], resume: bool) -> None:
    """Make the folder and write config.json; on resume, check that the settings are the same.

    Settings that may differ on resume, such as how long to go on, are those of the last start;
    `resumed` lists what they were before, and after how many updates they changed.

    Raises:
        InputError: as `refuse_unless_startable`; or the folder cannot be written to.
    """
    refuse_unless_startable(path, config, resume)
    if resume:
        before = read_config(path)
        config = _resumed(path, before, json.loads(json.dumps(config)))
        if config == before:
            return
    text = json.dumps(config, indent=2) + "\n"
    try:
        path.mkdir(parents=True, exist_ok=True)
        stored.write_whole(path / CONFIG, text)
    except OSError as error:
        raise InputError(f"Cannot write to {path}: {error}; choose another folder.") from error


def _resumed(path: Path, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """config.json of a run that goes on: the settings that hold from here, and those before."""
    before = {
        name: old.get(name) for name in sorted(FREE & new.keys()) if old.get(name) != new[name]
    }
    if not before:
        return old
    change = {"updates": len(read_metrics(path)), "before": before}
    return (
        old | {name: new[name] for name in before} | {"resumed": [*old.get("resumed", []), change]}
    )


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run folder.

    Raises:
        InputError: the folder holds no run, or its config is no JSON object; see `stored`.
    """
    file = path / CONFIG
    refuse_unless(file.exists(), f"{path} holds no run: there is no {file}.")
    return stored.object_of(file)


def read_metrics(path: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl, under present names.

    A last line that was cut off by a kill is left out.

    Raises:
        InputError: another line is no JSON object, or is of no later update than the one before
            it, naming it; the file is a link, or no text.
    """
    file = path / METRICS
    if not file.exists() and not file.is_symlink():
        return []
    *whole, rest = stored.text_of(file, largest=LARGEST_METRICS).split("\n")
    rows = [stored.parsed(line, f"{file}, line {i + 1}") for i, line in enumerate(whole)]
    if rest:  # a kill fell into the writing of it, unless only its end was lost
        with suppress(InputError):
            rows.append(stored.parsed(rest, file))
    _refuse_unless_in_order(file, rows)
    return [_with_present_names(row) for row in rows]


def _refuse_unless_in_order(file: Path, rows: Sequence[dict[str, object]]) -> None:
    latest = -math.inf
    for number, row in enumerate(rows, 1):
        update = row.get("update")
        if isinstance(update, int | float):
            refuse_unless(
                update > latest,
                f"{file}, line {number}, is of update {update} and comes after update {latest}: "
                "the file holds lines twice, or in another order. Delete what does not belong, or "
                "restore the file from a copy.",
            )
            latest = update


def _with_present_names(row: dict[str, object]) -> dict[str, object]:
    row = {RENAMED.get(name, name): value for name, value in row.items()}
    if "reward" in row and "return" not in row:  # of a language model
        row |= {"return": row["reward"], "length": row.get("completions/mean_length")}
    return row


def read_run(path: str | Path) -> Run:
    """A run from its folder."""
    folder = Path(path)
    return Run(folder, read_config(folder), read_metrics(folder))


def write_metrics(path: Path, rows: list[dict[str, object]]) -> None:
    """Replace metrics.jsonl by the given rows."""
    stored.write_whole(path / METRICS, "".join(line_of(row) for row in rows))


def append_metrics(path: Path, row: dict[str, object]) -> None:
    """Add a line to metrics.jsonl."""
    stored.refuse_link(path / METRICS)
    with (path / METRICS).open("a") as file:
        file.write(line_of(row))


def line_of(row: dict[str, Any]) -> str:
    """The line of metrics.jsonl of an update; that of a row read from there is the same."""
    # JSON has no NaN: a ratio that the data do not determine is null
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    import gymnasium
    import numpy

    return {
        "vantage": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "gymnasium": gymnasium.__version__,
    }


def started_by(arguments: Sequence[str]) -> dict[str, str]:
    """The command of a process, where it is `vantage`: what config.json says a run was started by.

    >>> started_by(["/usr/bin/vantage", "train", "CartPole-v1", "--resume"])
    {'command': 'vantage train CartPole-v1'}
    >>> started_by(["script.py", "--steps", "10"])
    {}
    """
    program = Path(arguments[0] if arguments else "")
    if program.stem != "vantage" and program.parts[-3:] != ("vantage", "commands", "main.py"):
        return {}
    again = [argument for argument in arguments[1:] if argument != "--resume"]
    return {"command": f"vantage {shlex.join(again)}"}


def _refuse_other_settings(path: Path, old: dict[str, object], new: dict[str, object]) -> None:
    for name in sorted(new.keys() - FREE):
        started = old.get(name, BEFORE.get(name))
        refuse_unless(
            started == json.loads(json.dumps(new[name])),
            f"{path} was started with {name}={started!r}, not {new[name]!r}; "
            "resume with the settings of config.json, or start a new run elsewhere.",
        )
