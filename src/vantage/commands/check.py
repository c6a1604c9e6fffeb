"""`vantage check`: what training needs of an environment, and whether it is there."""

import json
import sys
from pathlib import Path

from tyro.conf import Positional

from vantage.environments.checking.check import check_environment
from vantage.runs.progress import terminal


def check(
    env: Positional[str],
    steps: int = 2000,
    seed: int = 0,
    seconds: float = 20.0,
    json_file: Path | None = None,
) -> None:
    """Check an environment: seeds, memory, dtypes, bounds, ids, NaN, ends, speed, with remedies.

    Ends with 1 where there are errors or warnings; notes do not count.

    Args:
        env: a Gymnasium id, such as CartPole-v1 or module:Id-v0, or one with "tensor/" or
            "envpool/" before it.
        steps: the length of the longest trace.
        seed: the seed of environment and actions.
        seconds: after about so many, traces are cut off.
        json_file: also write the report there.
    """
    report = check_environment(env, steps=steps, seed=seed, seconds=seconds)
    terminal.print(str(report), markup=False)
    if json_file is not None:
        json_file.write_text(json.dumps(report.to_dict(), indent=2), encoding="utf-8")
    if not report.ok:
        sys.exit(1)
