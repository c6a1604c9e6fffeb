"""Gradients of TRL's trainer, one optimiser step each, as `vantage.audit_draws` reads them.

    PYTHONPATH=src TRL_ENVIRONMENT/bin/python benchmarks/peers/draws_trl.py OUT DRAWS

Run by TRL's interpreter, which writes OUT/CASE.npy, [DRAWS, P], and OUT/peer.json. The trainer is
TRL's, unmodified.
"""

import json
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vantage.language.model import tiny
from vantage.peers import trl as peer

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dr_grpo, scale_rewards=none": {"loss_type": "dr_grpo", "scale_rewards": "none"},
}
PROMPTS = ("a", "b")
SIZE = 8  # completions of a prompt
LENGTH = 3  # tokens of a completion, at most


def reward(completions: list[str], prompts: list[str], **_: Any) -> list[float]:
    """The share of a's after "a"; a tenth of the share of b's after "b"."""
    worth = {"a": 1.0, "b": 0.1}
    pairs = zip(completions, prompts, strict=True)
    return [worth[prompt] * text.count(prompt) / LENGTH for text, prompt in pairs]


def model_and_tokenizer() -> tuple[Any, Any]:
    """A Llama of 568 numbers over six tokens, the same every time."""
    tokens = tiny.tokenizer("ab")
    model = tiny.model(tokens, hidden=8, layers=1, heads=2, intermediate=8, positions=16, seed=0)
    with torch.no_grad():  # a random Llama of this size is all but uniform: give it a mind
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10.0)
    return model, tokens


def make_trainer(**settings: Any) -> Any:
    """TRL's trainer as it comes, on two prompts: every step takes both."""
    import datasets
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    model, tokens = model_and_tokenizer()
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=SIZE * len(PROMPTS),
        num_generations=SIZE,
        max_completion_length=LENGTH,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        **settings,
    )
    return GRPOTrainer(
        model=model,
        processing_class=tokens,
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
    )


def main() -> None:
    """Write the draws of every case."""
    out, count = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seconds = {}
    for name, settings in CASES.items():
        draw = peer.draws(make_trainer(**settings))
        began = time.perf_counter()
        np.save(out / f"{name}.npy", np.stack([draw(seed).numpy() for seed in range(count)]))
        seconds[name] = (time.perf_counter() - began) / count
        print(f"{name}: {seconds[name]:.3f} s a draw", flush=True)
    versions = {name: version(name) for name in ("trl", "transformers", "torch")}
    said = {"versions": versions, "seconds_per_draw": seconds, "draws": count}
    (out / "peer.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
