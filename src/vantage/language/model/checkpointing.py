"""Layers recomputed in the backward pass, with nothing random in them."""

from typing import Any

from torch import nn


def recompute_layers(model: Any) -> None:
    """Recompute layers in the backward pass; every dropout is set to 0, as in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    if hasattr(model, "enable_input_require_grads") and hasattr(model, "peft_config"):
        model.enable_input_require_grads()
    enable = getattr(model, "activation_checkpointing_enable", None)  # its name in transformers 5
    if enable is not None:
        enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
