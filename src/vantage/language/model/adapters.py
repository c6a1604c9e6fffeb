"""LoRA adapters: a new one, one that a folder holds, and a model with its adapter merged in."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vantage.errors import InputError, refuse_unless

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENS = 64  # on which two models are compared


def of_rank(rank: int, layers: list[str] | None = None) -> Any:
    """The LoraConfig of that rank, α twice the rank, on all linear layers but the head.

    Args:
        layers: ends of the names of those that it is put on instead.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=layers or "all-linear",
        task_type="CAUSAL_LM",
    )


def with_lora(model: Any, lora: Any, seed: int) -> Any:
    """The model, frozen, with a new adapter that changes nothing yet.

    Args:
        lora: a peft `LoraConfig`, or a rank (on all linear layers but the head, α = 2 · rank).
        seed: the seed of the adapter's first weights; the global generator is left as it was.

    Raises:
        InputError: no LoRA, dropout, a model that has an adapter already, or layers that it lacks.
    """
    from peft import get_peft_model

    refuse_unless(
        not hasattr(model, "peft_config") and not getattr(model, "_hf_peft_config_loaded", False),
        "Policy(lora=...): the model has an adapter already; leave lora out to train that one, or "
        "merge it first, with merge_and_unload().",
    )
    if isinstance(lora, int):
        refuse_unless(lora >= 1, f"Policy(lora={lora}): a rank of at least 1.")
        lora = of_rank(lora)
    kind = str(getattr(lora, "peft_type", ""))
    refuse_unless(
        kind.endswith("LORA"),
        f"Policy(lora={type(lora).__name__}): a LoraConfig or a rank; prompts learned by peft "
        "change the positions of all tokens.",
    )
    refuse_unless(
        getattr(lora, "lora_dropout", 0) == 0,
        f"Policy(lora): lora_dropout={getattr(lora, 'lora_dropout', 0)} would make the scored "
        "policy another than the one that samples; set it to 0.",
    )
    _refuse_missing(model, getattr(lora, "target_modules", None))
    with _quiet(), torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would reseed the generators of GPUs too
        torch.default_generator.manual_seed(seed)
        try:
            return get_peft_model(model, lora)
        except ValueError as error:  # a kind of layer that peft has no adapter for
            raise InputError(f"Policy(lora): {' '.join(str(error).split())}") from error


def _refuse_missing(model: Any, layers: Any) -> None:
    """Refuse names of which no layer ends in one: peft leaves them out without a word."""
    if layers is None or isinstance(layers, str):
        return
    names = [f".{name}" for name, _ in model.named_modules()]
    missing = sorted(end for end in layers if not any(n.endswith(f".{end}") for n in names))
    linear = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    refuse_unless(
        not missing,
        f"Policy(lora): target_modules names {', '.join(missing)}, and {type(model).__name__} has "
        f"no such layer; its linear ones end in {', '.join(_ends(linear))}.",
    )


def _ends(names: list[str]) -> list[str]:
    """The last parts of dotted names, once each."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft asks a model of transformers 5 by a name that transformers deprecates
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        # and tells of tied weights, which `merged` parts
        warnings.filterwarnings("ignore", r"(?s).*tie_word_embeddings", UserWarning)
        yield


def base_of(folder: Path) -> str:
    """The folder or name of the model that the adapter in a folder was trained on.

    Raises:
        InputError: the folder does not say.
    """
    from peft import PeftConfig

    name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    refuse_unless(
        name,
        f"{folder} holds an adapter and does not say of which model; write its folder into "
        f"base_model_name_or_path of {folder / CONFIG}.",
    )
    return str(name)


def with_own(model: Any, folder: Path) -> Any:
    """The model, frozen, with the adapter of a folder, to be trained on.

    Raises:
        InputError: weights that are not safetensors or do not fit, or no LoRA.
    """
    from peft import PeftConfig, PeftModel

    refuse_unless(
        (folder / WEIGHTS).is_file(),
        f"{folder} holds {CONFIG} and no {WEIGHTS}; save the adapter with save_pretrained.",
    )
    config: Any = PeftConfig.from_pretrained(str(folder))
    refuse_unless(
        str(config.peft_type).endswith("LORA"),
        f"{folder} holds an adapter of kind {config.peft_type}; only LoRA leaves the positions of "
        "tokens as they are.",
    )
    config.lora_dropout = 0.0  # the policy that is scored is the one that samples
    try:
        with _quiet():
            return PeftModel.from_pretrained(model, str(folder), is_trainable=True, config=config)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{folder}: its adapter does not fit {type(model).__name__}: {error}; name its own "
            f"model in base_model_name_or_path of {folder / CONFIG}."
        ) from error


def merged(model: Any) -> Any:
    """A copy of a peft model with its adapters merged into the weights, without peft.

    A vocabulary head that shares its weight with the embeddings gets one of its own where only one
    of the two was adapted.
    """
    model = copy.deepcopy(model)
    base = model.get_base_model()
    ends = [base.get_output_embeddings(), base.get_input_embeddings()]
    layers = [getattr(end, "base_layer", end) for end in ends]
    if layers[0].weight is layers[1].weight and layers != ends:
        layers[0].weight = nn.Parameter(layers[0].weight.detach().clone(), requires_grad=False)
    with _quiet():
        whole = model.merge_and_unload()
    if whole.get_output_embeddings().weight is not whole.get_input_embeddings().weight:
        for config in {id(c): c for c in (whole.config, whole.config.get_text_config())}.values():
            config.tie_word_embeddings = False
    return whole


@torch.no_grad()
def apart(model: Any, other: Any) -> tuple[float, float]:
    """The largest difference between the logits of two models on a row of tokens; the largest."""
    ours, theirs = (m(input_ids=_row(m), use_cache=False).logits.float() for m in (model, other))
    return float((ours - theirs).abs().max()), float(ours.abs().max())


@torch.no_grad()
def moves(model: Any) -> bool:
    """Whether the adapter of a peft model changes its logits at all."""
    with_it = model(input_ids=_row(model), use_cache=False).logits
    with model.disable_adapter():
        return not torch.equal(with_it, model(input_ids=_row(model), use_cache=False).logits)


def _row(model: Any) -> Tensor:
    weight = model.get_input_embeddings().weight
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or TOKENS
    return torch.arange(min(TOKENS, room, len(weight)), device=weight.device)[None]
