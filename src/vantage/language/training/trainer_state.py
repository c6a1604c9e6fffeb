"""How far a run is, in the form in which reward functions written for TRL read it."""

from typing import Any

from vantage.language.training.settings import Settings


def trainer_state(settings: Settings, history: list[dict[str, Any]], rows: int) -> Any:
    """A `TrainerState` of transformers.

    `global_step` and `max_steps` count steps of the optimiser, those of updates that were skipped
    included, so that their ratio is the share of the run that is done; `epoch` counts passes over
    the prompts, and `log_history` holds the metrics so far.

    Args:
        settings: the settings of the run.
        history: a row for each update that is done.
        rows: that are trained on.
    """
    from transformers import TrainerState

    steps = settings.epochs * settings.minibatches
    return TrainerState(
        global_step=len(history) * steps,
        max_steps=settings.updates * steps,
        epoch=history[-1]["prompts_drawn"] / rows if history else 0.0,
        log_history=list(history),
    )
