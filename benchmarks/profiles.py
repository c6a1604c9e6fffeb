"""Where the time of a training run goes: by stage, and by operator of torch.

Run: python benchmarks/profiles.py [--updates 8] [--work 'CartPole 64' ...] [--out FILE]

PPO with the settings of `benchmarks/control_work.py`, one thread. Stages are functions of the
package, timed by the processor time of their thread less that of the stages inside them. Operators
come from a second run under torch's profiler, which makes each call dearer by a few µs: they say
what is called, and how often, better than how long a run takes. The first update is not counted.
Results are written to results/profile.<processor>.json.
"""

import argparse
import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from control_ours import train
from control_work import WORKS, asked
from machines import file_of, machine, processor

import vantage as vt
from vantage.environments import fragments, gymnasium, rollout, tensor
from vantage.gradients import mlp_passes
from vantage.training import adam, control, epochs

HERE = Path(__file__).parent
TRAINERS = {
    "tensor CartPole 64": "vantage, tensor environment",
    "tensor CartPole 2048": "vantage, tensor environment",
    "CartPole 64": "vantage",
    "HalfCheetah 1": "vantage",
    "HalfCheetah 16": "vantage",
}
# Where each stage is, and what it is called. What a stage calls of another counts there.
STAGES: list[tuple[Any, str, str]] = [
    (mlp_passes.Drawing, "__call__", "acting"),
    (mlp_passes.Drawing, "__init__", "acting: random numbers"),
    (tensor.TensorEnvironment, "step", "environment"),
    (gymnasium.Gymnasium, "step", "environment"),
    (mlp_passes.Drawing, "scored", "scoring"),
    (mlp_passes.MlpPasses, "values", "values"),
    (fragments, "lanes_as_rows", "record"),
    (rollout, "over_time", "record"),
    (fragments.Fragments, "collect", "record"),
    (epochs, "_weighed", "advantages"),
    (control, "lanes_signal", "signal of the gradient"),
    (vt.Estimator, "weights", "weights"),
    (mlp_passes.MlpPasses, "forward", "forward"),
    (mlp_passes.MlpPasses, "backward", "backward"),
    (mlp_passes.MlpPasses, "clip", "clip"),
    (adam.Adam, "step", "optimiser"),
    (epochs.Epochs, "_step", "minibatch step, the rest"),
    (epochs.Epochs, "update", "minibatches and metrics"),
]


class Stages:
    """Seconds of every stage, and its calls, in the order that they end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.inner = [0.0]

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function, with its own time added to a stage."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.inner.append(0.0)
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - start
                self.seconds[stage] += took - self.inner.pop()
                self.calls[stage] += 1
                self.inner[-1] += took

        return call


@contextmanager
def watched(stages: Stages) -> Iterator[None]:
    """Every stage's function timed, and put back."""
    with ExitStack() as stack:
        for place, name, stage in STAGES:
            function = stages.timed(getattr(place, name), stage)
            stack.enter_context(mock.patch.object(place, name, function))
        yield


class AfterFirst:
    """A tracker that calls a function at the end of the first update, and one at the end."""

    def __init__(self, first: Callable[[], object], last: Callable[[], object], updates: int):
        self.first, self.last, self.updates = first, last, updates

    def log(self, row: dict[str, Any], step: int) -> None:
        """An update is done."""
        if row["update"] == 1:
            self.first()
        if row["update"] == self.updates + 1:
            self.last()

    def close(self) -> None:
        """Nothing is open."""


def by_stage(given: SimpleNamespace, updates: int) -> dict[str, Any]:
    """Milliseconds and calls an update of every stage, and the share in the whole."""
    stages, marks = Stages(), []

    def start() -> None:
        stages.seconds.clear()
        stages.calls.clear()
        stages.inner[:] = [0.0] * len(stages.inner)
        marks.append(time.thread_time())

    ended = AfterFirst(start, lambda: marks.append(time.thread_time()), updates)
    with watched(stages):
        train(given, ended, updates=updates + 1)
    whole = marks[1] - marks[0]
    stages.seconds["loop, metrics of the run"] = whole - sum(stages.seconds.values())
    rows = {
        stage: {
            "ms": round(1e3 * seconds / updates, 3),
            "calls": stages.calls[stage] / updates,
            "share": round(seconds / whole, 4),
        }
        for stage, seconds in sorted(stages.seconds.items(), key=lambda item: -item[1])
    }
    return {"ms": round(1e3 * whole / updates, 3), "stages": rows}


def by_operator(given: SimpleNamespace, updates: int, most: int = 20) -> list[dict[str, Any]]:
    """The operators of most time of their own: share in all of them, calls an update, µs a call."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    train(given, AfterFirst(profiler.start, profiler.stop, updates), updates=updates + 1)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    return [
        {
            "operator": event.key,
            "share": round(event.self_cpu_time_total / whole, 4),
            "calls": event.count / updates,
            "us": round(event.self_cpu_time_total / event.count, 2),
        }
        for event in events[:most]
    ]


def profiled(work: str, updates: int) -> dict[str, Any]:
    """One work, both ways."""
    settings = asked(WORKS[work], TRAINERS[work], seed=0)
    given = SimpleNamespace(**settings)
    return by_stage(given, updates) | {"operators": by_operator(given, max(1, updates // 4))}


def main() -> None:
    """Profile the works that are asked for, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=8, help="that are timed")
    parser.add_argument("--work", action="append", choices=list(TRAINERS), help="all by default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "command": " ".join(["python benchmarks/profiles.py", *sys.argv[1:]]),
        "machine": machine(),
        "vantage": vt.__version__,
        "torch": torch.__version__,
        "works": {work: profiled(work, given.updates) for work in given.work or TRAINERS},
    }
    out = given.out or HERE / "results" / file_of("profile", processor())
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
