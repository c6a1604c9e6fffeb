"""`vantage audit trl`: what does a TRL trainer climb?"""

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from vantage.commands.audit import check_endings, write
from vantage.commands.language_options import quieten
from vantage.conformance.losses.trl import is_trl_trainer
from vantage.errors import InputError, refuse_unless
from vantage.peers.trl_audit import audit
from vantage.runs.files import named_in_file
from vantage.runs.progress import terminal

EXAMPLE = "script.py:make_trainer"


def audit_trl(
    trainer: Annotated[Positional[str], arg(metavar="FILE.py:MAKE_TRAINER")],
    draws: int = 256,
    target_snr: float = 4.0,
    memory: str = "4GB",
    seed: int = 0,
    threads: int = 1,
    json: Path | None = None,
    html: Path | None = None,
) -> None:
    """Measure the gradient of an unmodified TRL trainer against ∇J of its own task.

    Nothing is trained: each draw is a step of trainer.train() at learning rate 0. Beside it stands
    the row of the table that its configuration is, if there is one. ∇J is exact where the model's
    completions can be listed, and sampled by RLOO otherwise.

    The file that is named is imported, and its function called: that runs its code, with your
    rights. Name files of your own. TRL must be installed beside this package.

    Args:
        trainer: FILE.py:FUNCTION, a function without arguments that makes a GRPOTrainer or
            RLOOTrainer; or the name of one.
        draws: optimiser steps to draw.
        target_snr: what the plan is made for.
        memory: the bound on gradients, such as 500MB or 4GB; longer ones are sketched to fit.
        seed: the seed of all random numbers.
        threads: torch threads.
        json: also write the report there.
        html: also write the report there, as one page with figures.
    """
    quieten()
    check_endings(json, html)
    subject: Any = named_in_file(trainer, "Trainer", EXAMPLE)
    if callable(subject) and not is_trl_trainer(subject):
        subject = _called(subject, trainer)
    refuse_unless(
        is_trl_trainer(subject),
        f"Trainer {trainer!r}: it is {type(subject).__name__}; let {EXAMPLE} return a GRPOTrainer "
        "or RLOOTrainer of TRL.",
    )
    report = audit(
        subject, draws=draws, seed=seed, target_snr=target_snr, memory=memory, threads=threads
    )
    terminal.print(str(report), end="")
    write(report.save, json, html)


def _called(make: Any, spec: str) -> Any:
    try:
        return make()
    except Exception as error:
        raise InputError(
            f"Trainer {spec!r}: calling it without arguments failed: {error}"
        ) from error
