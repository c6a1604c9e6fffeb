"""Gradients of each completion where Linear layers do not see a row for every position."""

import pytest
import torch
import transformers as tf
from language_models import END, VOCABULARY, tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel

import vantage as vt
from vantage import language
from vantage.gradients.per_trajectory import METHODS, by_loop, fastest, spanning
from vantage.language.sampling.rollout import rollout

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": END, "bos_token_id": None,
}  # fmt: skip
DEEP = {
    "moe_intermediate_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1, "kv_lora_rank": 4,
    "q_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
FAMILIES = {
    "opt": lambda: tf.OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16),
    "granite": lambda: tf.GraniteConfig(**SMALL, intermediate_size=24, num_key_value_heads=2),
    "granite_moe": lambda: tf.GraniteMoeConfig(
        **SMALL, intermediate_size=24, num_key_value_heads=2, num_local_experts=4
    ),
    "deepseek_v3": lambda: tf.DeepseekV3Config(
        **SMALL, **DEEP, intermediate_size=24, num_key_value_heads=2
    ),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_family_are_those_of_the_loop(family: str) -> None:
    """Flattened positions and experts that see some of them: another method, and why, is noted."""
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(FAMILIES[family]())
    policy = language.Policy(model, tokenizer(), max_completion_length=4)
    rows = [{"prompt": prompt} for prompt in ("w1 w2", "w3")]
    task = language.Task(
        rows, lambda completions: [float(len(c)) for c in completions], num_generations=3,
        held_out=0,
    )  # fmt: skip
    batch = rollout(task, policy, list(task.train), torch.Generator().manual_seed(0)).batch
    both = [row().weights(batch) for row in (vt.estimators.rloo, vt.estimators.grpo)]
    basis, _ = spanning(torch.stack(both))
    with sdpa_kernel(SDPBackend.MATH):
        choice = fastest(policy, batch, basis, trajectories=3)
        found, loop = METHODS[choice.name](policy, batch, basis), by_loop(policy, batch, basis)
    assert float((found - loop).norm()) < 1e-4 * float(loop.norm())
    assert "loop" in choice.seconds
    assert set(choice.seconds) | set(choice.refused) == {"loop", "vmap", "layers"}
    if family == "opt":
        assert "layer of" in choice.refused["layers"]
