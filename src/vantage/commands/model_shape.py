"""The sizes of a model that options name, without its weights: for `--dry-run`."""

from pathlib import Path
from typing import Any

from vantage.commands.language_options import ModelOptions
from vantage.language.model.folders import AS_DATA, read_by_transformers
from vantage.language.model.policy import CAUSAL
from vantage.language.scoring.arithmetic import Shape, shape_of

BYTES = {"float32": 4, "bfloat16": 2}


def shape_of_options(options: ModelOptions) -> tuple[Shape, Any]:
    """The sizes, and the tokenizer.

    Raises:
        InputError: transformers cannot load the model.
    """
    empty, tokens = _without_weights(options.model)
    return shape_of(empty, BYTES[options.dtype], _lora_parameters(empty, options)), tokens


def _without_weights(model: Path) -> tuple[Any, Any]:
    """The model on the meta device, where it takes no memory, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with read_by_transformers(model, "Policy", CAUSAL) as folder, torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, **AS_DATA)
        tokens = AutoTokenizer.from_pretrained(folder, **AS_DATA)
        return AutoModelForCausalLM.from_config(config), tokens


def _lora_parameters(model: Any, options: ModelOptions) -> int | None:
    """Numbers of the adapter that is asked for; None without one."""
    if options.lora is None:
        return None
    import torch

    head = model.get_output_embeddings()
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and (layer is not head or options.target_modules)
    }
    adapted = [linear[name] for name in options.adapted(list(linear))]
    return sum(options.lora * (layer.in_features + layer.out_features) for layer in adapted)
