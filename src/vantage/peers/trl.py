"""The gradients of an unmodified TRL trainer, one optimiser step each, at fixed parameters.

Written against TRL 1.16. Nothing of TRL is imported here: the trainer is the user's. Each draw is a
run of `trainer.train()` of one step at learning rate 0: prompts, completions, rewards, advantages,
loss, accumulation and backward passes are the trainer's own code, and the gradient is read where
the optimiser would take it.
"""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vantage.conformance.losses.trl import is_trl_trainer
from vantage.errors import refuse_unless

# What one step at learning rate 0 needs of the trainer's arguments. Nothing is clipped, since the
# gradient is read behind the clipping; nothing is written, logged or evaluated.
ARGUMENTS: dict[str, Any] = {
    "max_steps": 1,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "disable_tqdm": True,
}
# Counters and buffers of the trainer that a draw starts anew, and leaves as they were.
COUNTERS: dict[str, Any] = {"_step": 0, "_buffered_inputs": None, "log_completions": False}


class Draws:
    """`draw(seed) -> [P]`: the gradient of one optimiser step of a trainer, uphill.

    Attributes:
        trainer: the trainer; between draws it is as it was given.
        completions: the completions of one optimiser step, which a draw averages over.
        num_generations: completions of one prompt among them.
        name: the name of the trainer and its `loss_type`.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        arguments = trainer.args
        self.completions = (
            arguments.per_device_train_batch_size
            * arguments.gradient_accumulation_steps
            * arguments.world_size
        )
        self.num_generations: int = trainer.num_generations
        self.name = f"{type(trainer).__name__} {getattr(trainer, 'loss_type', '')}".strip()

    def __call__(self, seed: int) -> Float[Tensor, " P"]:
        """The gradient of the step that `seed` draws prompts and completions for.

        Raises:
            InputError: the parameters changed, or no optimiser step was reached.
        """
        trainer = self.trainer
        watch = _Watch(trainer)
        before = [parameter.detach().clone() for parameter in watch.trained]
        with _prepared(trainer, watch, seed), _random(seed):
            trainer.train()
        changed = sum(
            not torch.equal(now, then) for now, then in zip(watch.trained, before, strict=True)
        )
        refuse_unless(
            not changed,
            f"draws({self.name}): {changed} of {len(before)} parameters changed at learning rate "
            "0; take out of the trainer what writes to the model beside its optimiser.",
        )
        refuse_unless(
            watch.gradient is not None,
            f"draws({self.name}): training ended before its first optimiser step; give the "
            "trainer at least as many prompts as one step takes.",
        )
        assert watch.gradient is not None
        return watch.gradient


def draws(trainer: Any) -> Draws:
    """The gradients of a GRPOTrainer or RLOOTrainer as `draw(seed)`, for `vantage.audit_draws`.

    A draw is what the optimiser would be given for one step: the mean over accumulation passes,
    before clipping, and its sign is that of ascent. Prompts are drawn anew for every seed, so that
    draws are independent. It is a function of the seed, and of the trainer as it is given:
    callbacks are left out, its random states, counters and metrics are put back.

    Args:
        trainer: a trainer of TRL, in one process, without DeepSpeed or FSDP, whose weights are
            float32 or bfloat16 without a gradient scaler.

    Raises:
        InputError: not such a trainer.
    """
    refuse_unless(
        is_trl_trainer(trainer),
        f"draws({type(trainer).__name__}): give a GRPOTrainer or RLOOTrainer of TRL.",
    )
    arguments = trainer.args
    refuse_unless(
        arguments.world_size == 1
        and not getattr(arguments, "deepspeed", None)
        and not getattr(arguments, "fsdp", None),
        f"draws({type(trainer).__name__}): gradients are read in one process; make the trainer "
        "without DeepSpeed, FSDP and torchrun.",
    )
    refuse_unless(
        not getattr(arguments, "fp16", False),
        f"draws({type(trainer).__name__}): fp16=True scales gradients; use bf16 or float32.",
    )
    return Draws(trainer)


class _Watch:
    """A callback of transformers' Trainer that does nothing but read the gradient."""

    def __init__(self, trainer: Any):
        self.trained = [p for p in trainer.model.parameters() if p.requires_grad]
        self.gradient: Tensor | None = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_, **__: None

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.trained]
        # a loss descends: the gradient that is climbed is its negative
        self.gradient = -torch.cat([piece.flatten() for piece in pieces])


@contextmanager
def _prepared(trainer: Any, watch: _Watch, seed: int) -> Iterator[None]:
    """The trainer set for one step at learning rate 0, and put back afterwards."""
    arguments, handler = trainer.args, trainer.callback_handler
    wanted = ARGUMENTS | {"seed": seed, "data_seed": seed}
    before = {name: getattr(arguments, name) for name in wanted}
    counters = {name: getattr(trainer, name) for name in COUNTERS if hasattr(trainer, name)}
    callbacks, training = handler.callbacks, trainer.model.training
    objects = {name: getattr(trainer, name) for name in ("optimizer", "lr_scheduler", "state")}
    metrics = getattr(trainer, "_metrics", {})
    saved = {
        mode: {name: list(v) for name, v in values.items()} for mode, values in metrics.items()
    }
    flow = [each for each in callbacks if type(each).__name__ == "DefaultFlowCallback"]
    try:
        for name, value in wanted.items():
            object.__setattr__(arguments, name, value)
        for name in counters:
            setattr(trainer, name, COUNTERS[name])
        handler.callbacks = [*flow, watch]
        trainer.optimizer = trainer.lr_scheduler = None
        # train() collects garbage; what is there already need not be looked through every time
        gc.freeze()
        yield
    finally:
        gc.unfreeze()
        for name, value in before.items():
            object.__setattr__(arguments, name, value)
        for name, value in (counters | objects).items():
            setattr(trainer, name, value)
        handler.callbacks = callbacks
        for mode, values in metrics.items():
            for name in list(values):
                if name in saved.get(mode, {}):
                    values[name] = saved[mode][name]
                else:
                    del values[name]
        trainer.model.train(training)
        trainer.model.zero_grad()


@contextmanager
def _random(seed: int) -> Iterator[None]:
    """Every global generator seeded, as the trainer draws from them, and put back afterwards."""
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002
