"""RLOO of TRL, one step at a time when told: a worker of benchmarks/language.py.

    python rloo_trl.py CASE MODEL_FOLDER [GRADIENT_FILE]

Without gradient checkpointing, clipping or KL, in float32 on the CPU. With GRADIENT_FILE it takes
one step and writes what it was made of: prompts, completions, and the gradient of the loss.
"""

import sys
import tempfile
import time
from typing import Any

import datasets
import torch
from rloo_setup import CASES, Turns, forget_peak, prompts, reward, tokenizer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

torch.set_num_threads(1)
datasets.disable_progress_bars()
CASE, FOLDER = CASES[sys.argv[1]], sys.argv[2]
GRADIENT = sys.argv[3] if len(sys.argv) > 3 else None


class Recorded(RLOOTrainer):
    """Keeps the inputs of its loss."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self.seen = {
            name: inputs[name].clone()
            for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        }
        return super()._compute_loss(model, inputs)


class Watch(TrainerCallback):
    """Takes turns between steps; writes the gradient before the first where that is asked for."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.trainer: Recorded | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        forget_peak()
        if GRADIENT is None:
            self.turns.wait()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **k: Any) -> None:
        if GRADIENT is None or self.trainer is None:
            return
        own = {f"gradient.{n}": p.grad for n, p in k["model"].named_parameters()}
        save_file({n: t.contiguous() for n, t in (own | self.trainer.seen).items()}, GRADIENT)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if GRADIENT is None:
            now = time.perf_counter()
            more = self.turns.step_done(now - self.turns.began)
            self.turns.began = time.perf_counter()
            control.should_training_stop = not more


def main() -> None:
    """Train until told to stop."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as out:
        config = RLOOConfig(
            output_dir=out,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            max_steps=1 if GRADIENT else 10**6,
            per_device_train_batch_size=CASE.completions,
            gradient_accumulation_steps=1,
            num_generations=CASE.group,
            max_completion_length=CASE.tokens,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0 if GRADIENT else 1.0,
            beta=0.0,
            temperature=1.0,
            optim="adamw_torch_fused",
            seed=0,
        )
        trainer = Recorded(
            model=AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32),
            reward_funcs=reward,
            args=config,
            train_dataset=datasets.Dataset.from_list([{"prompt": p} for p in prompts(CASE)]),
            processing_class=tokenizer(CASE),
            callbacks=[watch],
        )
        watch.trainer = trainer
        trainer.train()


main()
