"""Model folders, read by transformers as data: from this machine alone, and no code of theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vantage.errors import InputError

AS_DATA: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def model_folder(name: str | Path, owner: str, wanted: str) -> str:
    """The folder of a model: one that is named, or that of a name in the cache of this machine.

    Args:
        name: a folder, or a name in the cache.
        owner: who asks, for messages: Policy, reward_model.
        wanted: what folder it should be.

    Raises:
        InputError: neither; nothing is looked for elsewhere.
    """
    name = str(name)
    if name and Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, local_files_only=True)
    except Exception as error:  # no such folder, no name of a model, not in the cache
        raise InputError(
            f"{owner}({name!r}): there is no such folder, and no model of that name in the cache "
            f"of this machine; nothing is downloaded. Give the folder of {wanted}."
        ) from error


@contextmanager
def read_by_transformers(name: str | Path, owner: str, wanted: str) -> Iterator[str]:
    """The folder of a model, to be read with transformers, whose errors become one of a sentence.

    Args:
        name, owner, wanted: as in `model_folder`.

    Raises:
        InputError: no such folder; or what transformers cannot load.
    """
    folder = model_folder(name, owner, wanted)
    try:
        yield folder
    except Exception as error:  # of transformers, tokenizers and safetensors there are many
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{owner}({str(name)!r}): transformers cannot load it: {what}; give the folder of "
            f"{wanted} and its tokenizer, weights as safetensors."
        ) from error


def read_model(
    kind: Any,
    name: str | Path,
    owner: str,
    wanted: str,
    dtype: torch.dtype | None,
    tokenizer: Any = None,
    tokens: str | Path | None = None,
) -> tuple[Any, Any, list[str]]:
    """A model, its tokenizer, and the weights that its files lack, which are random.

    Args:
        kind: a class of transformers, such as AutoModelForCausalLM.
        name, owner, wanted: as in `model_folder`.
        dtype: the type of the weights; float32 where None.
        tokenizer: used where it is given.
        tokens: the folder to read it from otherwise; that of the model where None.

    Raises:
        InputError: no such folder; or what transformers cannot load, of safetensors alone.
    """
    from transformers import AutoTokenizer

    with read_by_transformers(name, owner, wanted) as folder:
        model, loading = kind.from_pretrained(
            folder,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **AS_DATA,
        )
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(tokens or folder, **AS_DATA)
    return model, tokenizer, sorted(loading["missing_keys"])
