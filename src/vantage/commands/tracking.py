"""The trackers that a command line names, for runs of every kind."""

from pathlib import Path

from vantage.runs.trackers import TensorBoard, Tracker, Trackio, WandB


def trackers(
    folder: Path, tensorboard: bool, wandb: str | None, trackio: str | None
) -> list[Tracker]:
    """Those asked for, of the run in that folder.

    Args:
        folder: the run's folder; TensorBoard's files go there too, into `tensorboard`.
        tensorboard: whether to write them.
        wandb, trackio: names of projects; None: not there.

    Raises:
        InputError: a tracker whose package is not installed.
    """
    trackers_: list[Tracker] = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    trackers_ += [] if wandb is None else [WandB(wandb, folder)]
    return trackers_ + ([] if trackio is None else [Trackio(trackio, folder)])
