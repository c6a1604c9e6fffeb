"""The monitor inside trainers of transformers, and so of TRL: a callback that adds to their logs.

Nothing of theirs is imported here: the trainer is the user's. Written against transformers 5.24 and
TRL 1.16.
"""

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

from vantage.errors import refuse_unless
from vantage.monitor.groups import Split, split_of
from vantage.monitor.monitor import Monitor
from vantage.statistics.pieces import is_trusted


class TrainerCallback:
    """Adds SNR and noise scale, with 95 % intervals, to what a trainer of transformers logs.

        trainer.add_callback(vantage.monitor.TrainerCallback(trainer))

    Takes any `transformers.Trainer`, those of TRL (GRPO, RLOO, SFT, DPO) among them, in one process
    or under DistributedDataParallel. The gradient is read as it arrives, before it is clipped.

    A step's pieces are its accumulation passes, times ranks. TRL's trainers with
    `num_generations` shuffle completions across passes; while they are watched, completions of a
    prompt stay together, in whole passes. The random numbers that are drawn stay the same, and so
    does a step's gradient where one generation serves one step and the loss has one normaliser for
    all of it, as every `loss_type` but "bnpo".

    Logged, where it can be told: `gradient/snr` of a step over the window; `gradient/noise_scale`,
    in independent units (prompts; examples), and `gradient/batch_for_snr_1`, the same in rows
    (completions; examples) as the trainer's own batch sizes count; each with `_low` and `_high`;
    and `gradient/trusted`, 0 where few steps carry the estimate.

    Steps are left out that are not whole (at the end of an epoch), or that use completions again
    which the parameters were fitted to (`num_iterations` > 1). Where nothing can be told, because
    a step is one piece, a warning says so once, and how to split it.

    Args:
        trainer: whose steps are watched.
        window: how many of the latest steps the ratios are averaged over.

    Raises:
        InputError: no such trainer, or gradients are sharded.
    """

    def __init__(self, trainer: Any, *, window: int = 100) -> None:
        kind = type(trainer).__name__
        refuse_unless(
            all(hasattr(trainer, name) for name in ("callback_handler", "accelerator", "args")),
            f"TrainerCallback({kind}): give a Trainer of transformers, or one of TRL's.",
        )
        sharded = [name for name in ("deepspeed", "fsdp") if getattr(trainer.args, name, None)]
        refuse_unless(
            not sharded,
            f"TrainerCallback({kind}): {' and '.join(sharded)} shards gradients, and a rank sees "
            "only its part of a piece; train with DistributedDataParallel, or in one process.",
        )
        refuse_unless(window >= 8, f"TrainerCallback(window={window}): 8 steps at least.")
        self.trainer, self.window = trainer, window
        self.monitor: Monitor | None = None
        self.split: Split | None = None
        self.passes = 0
        self.left_out = False
        self._let_go: Callable[[], None] = _nothing

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Nothing at all other events of a trainer, whatever they are called."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_, **__: None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._release()
        trainer = self.trainer
        # before those that report, which are handed what this one adds
        handler = trainer.callback_handler
        handler.callbacks = [self, *(c for c in handler.callbacks if c is not self)]
        split = split_of(trainer)
        if split.problem:
            warnings.warn(f"TrainerCallback: {split.problem}", stacklevel=2)
            return
        self.split = split
        split.keep_whole()
        scaler = getattr(trainer.accelerator, "scaler", None)
        self.monitor = Monitor(trainer.model_wrapped, window=self.window, scaler=scaler)
        self._watch_passes(self.monitor, split)
        if trainer.is_world_process_zero():
            print(f"gradient/snr: {split.assumption}", file=sys.stderr)

    def _watch_passes(self, monitor: Monitor, split: Split) -> None:
        """Pieces end with their passes: by the next event gradients are clipped already."""
        trainer, own = self.trainer, vars(self.trainer).get("training_step")
        original = trainer.training_step

        def training_step(*arguments: Any, **named: Any) -> Any:
            if self.passes % split.passes_per_piece == 0:
                monitor.open_piece()
            loss = original(*arguments, **named)
            self.passes += 1
            if self.passes % split.passes_per_piece == 0:
                monitor.close_piece()
            return loss

        def let_go() -> None:
            if own is None:
                del trainer.training_step
            else:
                trainer.training_step = own

        trainer.training_step = training_step
        self._let_go = let_go

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.split is not None:
            self.passes = 0
            self.left_out = self.split.used_before()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self.monitor is None or self.split is None:
            return
        if self.left_out or not self.split.whole(self.passes):
            self.monitor.close_piece()
            self.monitor.leave_out()
        else:
            self.monitor.step(batch=self.split.units)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.monitor is None or not logs or "loss" not in logs:
            return
        row = self.rows()
        logs.update(row)
        if state.log_history:
            state.log_history[-1].update(row)  # a copy of the logs, made before

    def rows(self) -> dict[str, float]:
        """What is logged now: whatever of it is a finite number."""
        if self.monitor is None or self.split is None:
            return {}
        scale, size = self.monitor.noise_scale, self.split.rows_per_unit
        estimates = {
            "snr": (self.monitor.snr, 1.0),
            "noise_scale": (scale, 1.0),
            "batch_for_snr_1": (scale, size),
        }
        ends = {"": "value", "_low": "low", "_high": "high"}
        row = {
            f"gradient/{name}{end}": factor * getattr(estimate, field)
            for name, (estimate, factor) in estimates.items()
            for end, field in ends.items()
        }
        row["gradient/trusted"] = float(is_trusted(self.monitor.snr))
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self.split is not None:
            self.split.let_go()
        self._let_go()
        self._let_go = _nothing
        if self.monitor is not None:
            self.monitor.close()

    def _release(self) -> None:
        self.on_train_end()
        self.monitor = self.split = None


def _nothing() -> None:
    """Nothing was taken."""
