"""Tiny models: a tokenizer of characters and a random Llama or Qwen2 of a million parameters.

Small enough to learn two-digit addition on one core in minutes, and real: what is saved is a folder
that transformers loads by path.
"""

from pathlib import Path
from typing import Any

import torch

from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy

DIGITS = "0123456789+-*="
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] "
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer(alphabet: str = DIGITS + LETTERS + ">: ", chat: bool = False) -> Any:
    """A fast tokenizer with one token a character, which pads on the left.

    A prompt gets <bos> in front. Decoding puts characters together without spaces.

    Args:
        alphabet: the characters it knows; others become <unk>.
        chat: with a chat template, and a token for each role.

    >>> tokens = tokenizer("0123456789+=")
    >>> tokens("1+2=")["input_ids"], tokens.decode([5, 6, 2], skip_special_tokens=True)
    ([1, 5, 14, 6, 15], '12')
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    refuse_unless(
        alphabet and len(set(alphabet)) == len(alphabet),
        f"tokenizer(alphabet={alphabet!r}): give every character once.",
    )
    roles = [f"<{role}>" for role in ROLES] if chat else []
    words = [*SPECIAL.values(), *alphabet, *roles]
    core = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=SPECIAL["unk_token"])
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    if not chat:  # the template writes <bos> itself
        start = SPECIAL["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, words.index(start))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=roles,
        **SPECIAL,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def model(
    tokens: Any,
    *,
    family: str = "llama",
    hidden: int = 192,
    layers: int = 2,
    heads: int = 6,
    intermediate: int = 576,
    positions: int = 256,
    seed: int = 0,
) -> object:
    """A causal language model with random weights: a function of its arguments alone.

    The global random state of torch is left as it was. The default has 1.0 million parameters: two
    wide layers, because a small model's time on one core goes with the number of its layers.

    Args:
        tokens: the tokenizer, for the vocabulary and the special tokens.
        family: "llama" or "qwen2" (which has biases in attention).
        hidden, layers, heads, intermediate, positions: sizes of the architecture.
        seed: the seed of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    families: dict[str, tuple[Any, Any]] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }
    refuse_unless(family in families, f"model(family={family!r}): there are {', '.join(families)}.")
    refuse_unless(
        hidden % (2 * heads) == 0,
        f"model(hidden={hidden}, heads={heads}): the width of a head must be even.",
    )
    config_of, model_of = families[family]
    config = config_of(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would reseed the generators of GPUs too
        torch.default_generator.manual_seed(seed)
        return model_of(config).eval()


def policy(seed: int = 0, max_completion_length: int = 8, **settings: Any) -> Policy:
    """A policy of a tiny model and its tokenizer, untrained.

    Args:
        seed: the seed of the weights.
        max_completion_length: tokens after which a completion is cut.
        **settings: sizes, as in `model`.
    """
    tokens = tokenizer()
    return Policy(
        model(tokens, seed=seed, **settings), tokens, max_completion_length=max_completion_length
    )


def save(policy: Policy, folder: str | Path) -> Path:
    """Write model and tokenizer, which `AutoModelForCausalLM` and `AutoTokenizer` load by path."""
    policy.save_pretrained(folder)
    return Path(folder)
