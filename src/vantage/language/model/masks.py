"""Attention masks by position: who may see whom, for every kind of layer a model has.

A key is visible to a query if it stands at the same position or before it, within the layer's
window, and belongs to the same completion or to the prompt. Positions decide, not places in memory:
places are another matter once prompts are shared or padded.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vantage.errors import refuse_unless

NOWHERE = -1  # the position of a key that no query may see
FULL, SLIDING = "full_attention", "sliding_attention"


def layer_kinds(config: Any) -> set[str]:
    """The kinds of attention layers of a model: "full_attention", "sliding_attention" or both.

    Raises:
        InputError: layers that hold another state than keys and values, or chunked attention.
    """
    config = config.get_text_config()
    listed = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    kinds = set(listed) if listed else {SLIDING if window else FULL}
    refuse_unless(
        kinds <= {FULL, SLIDING},
        f"{config.model_type} has layers of kinds {sorted(kinds - {FULL, SLIDING})}; generation "
        "and shared prompts know full and sliding attention. Sample with another engine, and train "
        "with shared_prompts=False.",
    )
    return kinds


def attention_masks(
    config: Any,
    query: Int[Tensor, "N Q"],
    key: Int[Tensor, "N K"],
    dtype: torch.dtype,
    allowed: Bool[Tensor, "N Q K"] | None = None,
) -> Any:
    """What a model takes as `attention_mask`: 4-D, and by kind of layer where it has two.

    Args:
        config: the configuration of the model.
        query, key: positions; −1 for a key that does not exist.
        dtype: the type of the model, for attention that adds its mask.
        allowed: which keys a query may see, apart from positions; all where None.
    """
    apart = query[:, :, None] - key[:, None, :]
    visible = (apart >= 0) & (key != NOWHERE)[:, None, :]
    if allowed is not None:
        visible &= allowed
    text = config.get_text_config()
    masks = {}
    for kind in layer_kinds(config):
        near = visible & (apart < text.sliding_window) if kind == SLIDING else visible
        masks[kind] = _in_form(near[:, None], text._attn_implementation, dtype)
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _in_form(visible: Bool[Tensor, "N 1 Q K"], implementation: str, dtype: torch.dtype) -> Tensor:
    refuse_unless(
        implementation in ("sdpa", "eager"),
        f"attn_implementation={implementation!r} takes no 4-D mask; load the model with "
        "attn_implementation='sdpa'.",
    )
    if implementation == "sdpa" and visible.device.type != "cpu":
        return visible
    # on a CPU every layer would turn a boolean mask into numbers anew
    added = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return added.masked_fill_(~visible, torch.finfo(dtype).min)
