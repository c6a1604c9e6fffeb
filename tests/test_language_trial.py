"""What is sampled is scored alike on every architecture, or refused before the first update."""

import pytest
import torch
import transformers as tf

import vantage
from vantage import language
from vantage.errors import InputError
from vantage.estimators import reinforce_leave_one_out, rloo

TOKENIZER = language.tiny.tokenizer("0123456789+=")
V = len(TOKENIZER)
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def perturbed(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


def lengths(completions, **_):
    return [float(len(c)) for c in completions]


def task(prompts, **settings):
    rows = [{"prompt": prompt} for prompt in prompts]
    return language.Task(rows, lengths, **{"num_generations": 4, "held_out": 0} | settings)


def policy(model, length=8):
    own = language.Policy(model, TOKENIZER, max_completion_length=length)
    own.end_ids = ()
    return own


def train(own_task, own, **settings):
    settings = {"batch": 8, "updates": 1, "progress": False} | settings
    return vantage.train(own_task, own, rloo(), **settings)


def gpt_neo():
    return tf.GPTNeoConfig(
        vocab_size=V, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64,
        max_position_embeddings=512, attention_types=[[["global", "local"], 1]],
        window_size=150, **IDS,
    )  # fmt: skip


def mpt():
    return tf.MptConfig(vocab_size=V, d_model=32, n_layers=2, n_heads=2, max_seq_len=512)


def bloom():
    return tf.BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=2, **IDS)


def falcon():
    return tf.FalconConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, alibi=True, **IDS
    )


# of different lengths, long enough that completions share a row with their prompt
PROMPTS = [str(n) + "1+2=" * (30 + n) for n in range(6)]


@pytest.mark.parametrize("config", [gpt_neo, mpt, bloom, falcon])
def test_models_that_go_by_places_are_computed_row_by_row(config, capsys):
    own = policy(perturbed(tf.AutoModelForCausalLM.from_config(config())))
    row = train(task(PROMPTS), own).history[0]
    assert row["sampling/log_prob_difference_max"] < 1e-3
    assert row["completions_per_row"] == 1
    assert not own.packed
    assert "goes by places" in capsys.readouterr().err
    audited = policy(own.model)
    report = language.audit(
        task(PROMPTS), audited, [rloo()], trajectories=64, batch=8, progress=False
    )
    assert len(report.rows) == 1
    assert not audited.packed


def test_a_model_that_goes_by_positions_shares_its_prompts():
    model = language.tiny.model(TOKENIZER, hidden=32, layers=2, heads=2, intermediate=64)
    own = policy(model)
    assert train(task(PROMPTS), own).history[0]["completions_per_row"] > 1
    assert own.packed


def test_a_law_that_depends_on_the_length_of_neighbours_is_refused_with_its_size(tmp_path):
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = tf.Phi3Config(
        max_position_embeddings=256, original_max_position_embeddings=16,
        rope_scaling={"rope_type": "longrope", "type": "longrope", **factors,
                      "original_max_position_embeddings": 16},
        **SMALL, **IDS,
    )  # fmt: skip
    model = perturbed(tf.Phi3ForCausalLM(config))
    prompts = [f"{n}+1=" for n in range(8)]
    with pytest.raises(InputError, match=r"does not score what it samples.*differ by 0\.\d+ nats"):
        train(task(prompts), policy(model, 14), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # below the length from which positions are scaled the model is exact
    row = train(task(prompts), policy(model, 8)).history[0]
    assert row["sampling/log_prob_difference_max"] < 1e-3


@pytest.mark.parametrize(
    "model",
    [
        lambda: tf.Llama4ForCausalLM(
            tf.Llama4TextConfig(
                num_key_value_heads=2, head_dim=16, intermediate_size_mlp=64, num_local_experts=2,
                max_position_embeddings=64, **SMALL, **IDS,
            )
        ),
        lambda: tf.RwkvForCausalLM(
            tf.RwkvConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2)
        ),
    ],
    ids=["llama4", "rwkv"],
)  # fmt: skip
def test_architectures_that_cannot_be_trained_are_refused_with_the_reason(model):
    own = model()
    with pytest.raises(InputError, match=type(own).__name__):
        train(task([f"{n}+1=" for n in range(8)]), policy(own.eval()))


def test_a_prompt_with_a_token_that_the_model_lacks_is_refused_by_row():
    wider = language.tiny.tokenizer("0123456789+=")
    wider.add_special_tokens({"additional_special_tokens": ["<go>"]})
    model = language.tiny.model(TOKENIZER, hidden=32, layers=1, heads=2, intermediate=64)
    own = language.Policy(model, wider, max_completion_length=3)
    with pytest.raises(InputError, match=r"prompt of row 1 has token 16 \('<go>'\)"):
        train(task(["1", "2<go>"]), own)


def test_an_overlong_prompt_is_refused_before_training_or_left_out(tmp_path, capsys):
    model = language.tiny.model(TOKENIZER, hidden=32, layers=1, heads=2, intermediate=64)
    own, long = policy(model, 3), task([*"01234567", "1" * 300])
    with pytest.raises(InputError, match="prompt of row 8 has 301 tokens"):
        train(long, own, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    left = language.without_long_prompts(long, own)
    assert (len(left), len(long)) == (8, 9)
    assert "1 of 9 rows" in capsys.readouterr().err
    train(left, own)
    audited = [reinforce_leave_one_out()]
    with pytest.raises(InputError, match="audit: the prompt of row 8"):
        language.audit(long, own, audited, trajectories=64, batch=8, progress=False)
