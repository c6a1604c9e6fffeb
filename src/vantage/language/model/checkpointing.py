"""Layers recomputed in the backward pass, with nothing random in them.

transformers recomputes layers in training mode only, in which some models add noise: dropout,
layers left out, jitter of routers. Here a layer is in training mode only as far as the choice to
recompute it goes, and in evaluation mode while it runs, both times; the rest of the model always.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vantage.errors import refuse_unless


def recomputed_layers(model: Any) -> list[nn.Module]:
    """The layers that are recomputed from now on where `recomputing` says so.

    Raises:
        InputError: a model without such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    refuse_unless(
        layers,
        f"Policy(gradient_checkpointing=True): {type(model).__name__} has no layers that "
        "transformers can recompute; leave it out.",
    )
    if hasattr(model, "enable_input_require_grads") and hasattr(model, "peft_config"):
        model.enable_input_require_grads()
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(_evaluated, layer)
    return layers


@contextmanager
def recomputing(layers: list[nn.Module]) -> Iterator[None]:
    """Layers are recomputed where there is a gradient."""
    active = layers if torch.is_grad_enabled() else []
    for layer in active:
        layer.training = True
    try:
        yield
    finally:
        for layer in active:
            layer.training = False


def _evaluated(layer: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    def run(*inputs: Any) -> Any:
        before, layer.training = layer.training, False
        try:
            return function(*inputs)
        finally:
            layer.training = before

    return checkpoint(run, *args, use_reentrant=False)
