"""Reward models: a classifier of one label reads prompt and completion; its logit is the reward.

They read what TRL has them read: prompt and completion as one text, or as one conversation through
their own chat template, without special tokens of the tokenizer's own, padded on the right.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vantage.arguments import checked
from vantage.environments.devices import device_named
from vantage.errors import refuse_unless
from vantage.language.model.folders import read_model
from vantage.language.tasks.rewards import RewardFunction


@checked
def reward_model(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    rows: int = 16,
) -> RewardFunction:
    """A reward function that asks the sequence classifier of a folder, called as the folder is.

    Args:
        path: a folder (or name in the local cache) with the model and its tokenizer, weights as
            safetensors.
        device: where the model lives.
        dtype: the type of the weights; float32 where None.
        rows: texts of one forward pass, which are padded to the longest.

    Raises:
        InputError: what transformers cannot load, another number of labels than one, or files that
            lack weights.
    """
    from transformers import AutoModelForSequenceClassification

    refuse_unless(rows >= 1, f"reward_model(rows={rows}): at least 1.")
    model, tokenizer, missing = read_model(
        AutoModelForSequenceClassification, path, "reward_model", "a sequence classifier", dtype
    )
    refuse_unless(
        not missing,
        f"reward_model({str(path)!r}): its files lack {', '.join(missing[:5])}, which would be "
        "random; a reward model is a classifier of sequences that was trained as one.",
    )
    return of_model(model.to(device_named(device)), tokenizer, Path(path).name, rows)


def of_model(model: Any, tokenizer: Any, name: str, rows: int = 16) -> RewardFunction:
    """A reward function that asks a sequence classifier of one label.

    Args:
        model: a model of transformers; it is set to evaluation, and to the tokenizer's padding.
        tokenizer: its own; without a padding token it pads with its end.
        name: how logs call it.
        rows: texts of one forward pass.

    Raises:
        InputError: another number of labels than one.
    """
    labels = model.config.num_labels
    refuse_unless(
        labels == 1,
        f"Reward model {name!r} has {labels} labels, and a reward is one number; wrap it in a "
        "function of prompts and completions that says which.",
    )
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # the last token that is no padding carries the score
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

    @torch.no_grad()
    def judged(prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        texts = [_text(tokenizer, *pair, name) for pair in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        for start in range(0, len(texts), rows):
            read = tokenizer(
                text=texts[start : start + rows], return_tensors="pt", padding=True,
                padding_side="right", add_special_tokens=False,
            ).to(model.device)  # fmt: skip
            scores += model(**read).logits[:, 0].float().tolist()
        return scores

    judged.__name__ = name
    return judged


def _text(tokenizer: Any, prompt: Any, completion: Any, name: str) -> str:
    """Prompt and completion as the model reads them."""
    if isinstance(prompt, str):
        return prompt + str(completion)
    refuse_unless(
        getattr(tokenizer, "chat_template", None) is not None,
        f"Reward model {name!r}: the prompts are conversations, and its tokenizer has no chat "
        "template; save one with it.",
    )
    return str(tokenizer.apply_chat_template([*prompt, *completion], tokenize=False))
