"""What `vantage verify LOSS` prints: what a loss climbs."""

import json
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vantage.conformance.losses import verify
from vantage.errors import refuse_unless
from vantage.estimators.table import named
from vantage.runs.files import named_in_file

EXAMPLE = "my_loss.py:loss"


def verify_command(
    loss: Annotated[Positional[str], arg(metavar="FILE.py:LOSS")],
    advantage: str | None = None,
    num_generations: tuple[int, ...] = (2, 3, 4),
    json_file: Annotated[Path | None, arg(name="json")] = None,
) -> None:
    """Say what a loss climbs: ∇J, a multiple of it, or something tilted, and by what angle.

    Every batch of a battery of small problems is listed with its probability, and the loss's
    expected step is compared with the exact gradient. The smallest problem on which they differ is
    printed in numbers to check by hand.

    The file that is named is imported, and its loss called: that runs its code, with your rights.
    Name files of your own.

    The exit status is 0 where the loss climbs ∇J, up to a factor or not, and 1 where it does not.

    Args:
        loss: FILE.py:LOSS, a function loss(log_prob, old_log_prob, reward, mask, group) -> scalar,
            with its arguments by name, in verl's names too; a function without arguments that makes
            the loss, or a GRPOTrainer or RLOOTrainer of TRL; or a row of the table: grpo.
        advantage: FILE.py:FUNCTION that makes the loss's advantages of rewards, as in verl.
        num_generations: completions per prompt to try.
        json_file: where to write everything that was found, as JSON.
    """
    target = named_in_file(loss, "Loss", EXAMPLE) if ":" in loss else named(loss)
    if advantage is not None:
        refuse_unless(
            ":" in loss,
            f"--advantage {advantage}: the row {loss!r} has its own; name a FILE.py:LOSS.",
        )
        target = (named_in_file(advantage, "Advantage", "my_loss.py:advantage"), target)
    examination = verify(target, num_generations=num_generations, name=loss.rpartition(":")[2])
    print(examination)
    if json_file is not None:
        json_file.write_text(json.dumps(examination.to_dict(), indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if examination.verdict in ("climbs", "factor") else 1)
