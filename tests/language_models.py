"""Small language models with random weights, one of each architecture that decodes differently."""

from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from vantage import language

VOCABULARY = 61
END = 1
WORDS = 8  # of the tokenizer: a model with fewer can be enumerated


def tokenizer() -> Any:
    words = ["<pad>", "<end>", "<unk>"] + [f"w{i}" for i in range(VOCABULARY - 3)]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": END,
    "bos_token_id": None,
}
_GEMMA: dict[str, Any] = {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}


def config(name: str) -> Any:
    """A configuration of about 20,000 parameters."""
    if name == "gpt2":
        return tf.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128,
            eos_token_id=END, bos_token_id=END, pad_token_id=0,
        )  # fmt: skip
    kinds = ["sliding_attention", "full_attention"]
    return {
        "llama": lambda: tf.LlamaConfig(**_COMMON),
        "qwen2": lambda: tf.Qwen2Config(**_COMMON),
        "qwen3": lambda: tf.Qwen3Config(**_COMMON, head_dim=8),
        "mistral": lambda: tf.MistralConfig(**_COMMON, sliding_window=6),
        "gemma2": lambda: tf.Gemma2Config(**_COMMON, **_GEMMA, layer_types=kinds),
        "gemma3": lambda: tf.Gemma3TextConfig(**_COMMON, **_GEMMA, layer_types=kinds),
    }[name]()


def enumerable(seed: int = 0, max_completion_length: int = 3) -> language.Policy:
    """A model of WORDS tokens: every completion can be listed."""
    torch.manual_seed(seed)
    made = tf.AutoModelForCausalLM.from_config(
        tf.Qwen2Config(
            vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, eos_token_id=END, bos_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 2:
                p.normal_(0, 0.5)
    return language.Policy(made, tokenizer(), max_completion_length=max_completion_length)


ARCHITECTURES = ["llama", "qwen2", "qwen3", "gpt2", "mistral", "gemma2", "gemma3"]


def model(name: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """The model with random weights, wide enough apart that its distributions are not flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = tf.AutoModelForCausalLM.from_config(config(name))
        with torch.no_grad():
            for p in made.parameters():
                if p.ndim == 2:
                    p.normal_(0, 0.25)
    return made.to(dtype)


def policy(name: str = "llama", seed: int = 0, **settings: Any) -> language.Policy:
    """A policy over it."""
    dtype = settings.pop("dtype", torch.float32)
    return language.Policy(model(name, seed, dtype), tokenizer(), **settings)
