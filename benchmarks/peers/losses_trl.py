"""What the losses of TRL climb: a worker of benchmarks/losses.py, run by TRL's interpreter.

    PYTHONPATH=src TRL_ENVIRONMENT/bin/python benchmarks/peers/losses_trl.py OUT.json

Each trainer is TRL's, unmodified, over a model of a few hundred parameters.
"""

import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from typing import Any

import datasets
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import vantage as vt

torch.set_num_threads(1)
datasets.disable_progress_bars()
transformers.utils.logging.disable_progress_bar()
SIZES = (2, 3, 4)
SEQUENCE: dict[str, Any] = {"importance_sampling_level": "sequence"}
CASES: tuple[tuple[str, type, dict[str, Any]], ...] = (
    ("dapo (the default)", GRPOTrainer, {}),
    ("grpo", GRPOTrainer, {"loss_type": "grpo"}),
    ("bnpo", GRPOTrainer, {"loss_type": "bnpo"}),
    ("dr_grpo", GRPOTrainer, {"loss_type": "dr_grpo"}),
    ("cispo", GRPOTrainer, {"loss_type": "cispo", "epsilon_high": 5.0}),
    ("sapo", GRPOTrainer, {"loss_type": "sapo"}),
    ("luspo", GRPOTrainer, {"loss_type": "luspo", **SEQUENCE}),
    ("vespo", GRPOTrainer, {"loss_type": "vespo"}),
    ("dapo, scale_rewards=none", GRPOTrainer, {"scale_rewards": "none"}),
    ("dapo, scale_rewards=batch", GRPOTrainer, {"scale_rewards": "batch"}),
    ("grpo, scale_rewards=none", GRPOTrainer, {"loss_type": "grpo", "scale_rewards": "none"}),
    ("dr_grpo, scale_rewards=none", GRPOTrainer, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    (
        "luspo, scale_rewards=none",
        GRPOTrainer,
        {"loss_type": "luspo", "scale_rewards": "none", **SEQUENCE},
    ),
    ("grpo as GSPO", GRPOTrainer, {"loss_type": "grpo", **SEQUENCE}),
    ("dapo, beta=0.1", GRPOTrainer, {"beta": 0.1}),
    ("RLOO", RLOOTrainer, {"beta": 0.0}),
    ("RLOO, normalize_advantages", RLOOTrainer, {"beta": 0.0, "normalize_advantages": True}),
    ("RLOO, beta=0.05 (the default)", RLOOTrainer, {}),
)


def main() -> None:
    """Examine every case and write what was found."""
    warnings.simplefilter("ignore")
    folder = saved_model()
    found = []
    for name, kind, settings in CASES:
        examined = vt.verify(trainer(kind, folder, settings), num_generations=SIZES, name=name)
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        found.append({"settings": shown, **examined.to_dict()})
        print(examined.name, examined.sentence, flush=True)
    versions = {name: version(name) for name in ("trl", "transformers", "torch")}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump({"versions": versions, "losses": found}, file)


def saved_model() -> str:
    """A Llama of four words and its tokenizer, as trainers load a model and its reference."""
    words = {"<pad>": 0, "<end>": 1, "<unk>": 2, "x": 3}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        padding_side="left",
    )
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=1,
            bos_token_id=None,
            pad_token_id=0,
        )
    )
    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def trainer(kind: type, folder: str, settings: dict[str, Any]) -> Any:
    """A trainer with the settings, and everything else as TRL has it."""
    config = GRPOConfig if kind is GRPOTrainer else RLOOConfig
    arguments = config(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        **settings,
    )
    return kind(
        model=folder,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": "x"}] * 8),
    )


if __name__ == "__main__":
    main()
