"""What settings of TRL are called here: an unknown keyword by such a name says so."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from vantage.errors import InputError

T = TypeVar("T", bound=Callable[..., Any])
ESTIMATOR = "a setting of the estimator, such as vantage.estimators.grpo("
LAW = "part of the sampling law: Policy(temperature=, top_k=, top_p=, min_p=)"
ENGINE = "a matter of the engine that draws: train(engine=)"
BATCH = "train(batch=), the completions of an update, on all devices and in all passes together"
STEPS = (
    "train(updates=), the batches to learn from; each has train(epochs=) × train(minibatches=) "
    "steps of the optimiser"
)
OPTIMIZER = "a setting of train(optimizer=), a function that makes an optimiser of parameters"
# of GRPOConfig, RLOOConfig, GRPOTrainer and what they inherit; `name(setting=` is a call of ours
NAMES = {
    "model": "the first argument of Policy",
    "args": "given one by one: to train, Policy, Task and the estimator",
    "processing_class": "Policy(tokenizer=)",
    "model_init_kwargs": "Policy(dtype=) and the other settings of Policy",
    "peft_config": "Policy(lora=)",
    "bf16": "Policy(dtype=)",
    "fp16": "Policy(dtype=)",
    "gradient_checkpointing": "Policy(gradient_checkpointing=)",
    "use_cpu": "Policy(device=)",
    "max_completion_length": "Policy(max_completion_length=)",
    "temperature": LAW,
    "top_k": LAW,
    "top_p": LAW,
    "min_p": LAW,
    "train_dataset": "the first argument of Task",
    "eval_dataset": "Task(held_out=)",
    "reward_funcs": "the second argument of Task",
    "reward_weights": "Task(weights=)",
    "num_generations": "Task(num_generations=)",
    "max_prompt_length": "left to language.without_long_prompts(task, policy), which drops rows",
    "learning_rate": "train(lr=)",
    "lr_scheduler_type": "train(schedule=)",
    "warmup_steps": "train(warmup=), in updates",
    "warmup_ratio": "train(warmup=), in updates",
    "optim": "train(optimizer=)",
    "optimizers": "train(optimizer=) and train(schedule=)",
    "weight_decay": OPTIMIZER,
    "adam_beta1": OPTIMIZER,
    "adam_beta2": OPTIMIZER,
    "adam_epsilon": OPTIMIZER,
    "num_train_epochs": STEPS,
    "max_steps": STEPS,
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": BATCH + "; how many pass at once is train(token_budget=)",
    "generation_batch_size": BATCH,
    "steps_per_generation": "train(minibatches=)",
    "mask_truncated_completions": "train(mask_truncated_completions=)",
    "ref_model": "train(reference=)",
    "rollout_func": "train(engine=) or train(environment=)",
    "environment_factory": "train(environment=)",
    "tools": "train(environment=)",
    "max_tool_calling_iterations": "train(turns=)",
    "use_vllm": ENGINE,
    "vllm_mode": ENGINE,
    "use_transformers_continuous_batching": "train(engine=language.ContinuousBatching())",
    "output_dir": "train(out=)",
    "resume_from_checkpoint": "train(resume=)",
    "eval_steps": "train(evaluate_every=), in updates",
    "eval_strategy": "train(evaluate_every=), in updates",
    "save_total_limit": "train(keep_last=)",
    "load_best_model_at_end": "train(keep_best=)",
    "report_to": "train(track=), a list of trackers",
    "log_completions": "train(watch=language.recorder(folder, task, tokenizer))",
    "disable_tqdm": "train(progress=False)",
    "beta": ESTIMATOR + "beta=0.04)",
    "epsilon": ESTIMATOR + "epsilon=0.2)",
    "epsilon_high": "a setting of the estimator: vantage.estimators.dapo(epsilon_high=0.28)",
    "delta": "a setting of the estimator, as vantage.estimators.two_sided_grpo has it",
    "loss_type": "the estimator's name: vantage.estimators.grpo, bnpo, dr_grpo, dapo, cispo, ...",
    "scale_rewards": "the estimator's scale: vantage.estimators.dr_grpo has none",
    "multi_objective_aggregation": "the estimator: vantage.estimators.gdpo scales functions apart",
    "top_entropy_quantile": "a setting of vantage.estimators.forking_tokens(fraction=0.2)",
    "importance_sampling_level": "the estimator's ratio: the sequence's in vantage.estimators.gspo",
    "entropy_coef": "the estimator's entropy: vantage.estimators.grpo().replace(entropy=0.01)",
    "vllm_importance_sampling_correction": (
        "the estimator's importance: vantage.estimators.tis, mis, icepop"
    ),
}


def hinted(function: T) -> T:
    """Have a function, or the making of a class, refuse keywords of TRL by what they are here."""
    if isinstance(function, type):
        function.__init__ = _hinted(function.__init__, function.__name__)  # type: ignore[misc]
        return function
    return _hinted(function, function.__name__)


def _hinted(function: T, owner: str) -> T:
    taken = inspect.signature(function).parameters

    @wraps(function)
    def told(*arguments: Any, **settings: Any) -> Any:
        for name in settings:
            if name not in taken and name in NAMES:
                raise InputError(f"{owner}({name}=...): {name} of TRL is {NAMES[name]} here.")
        return function(*arguments, **settings)

    return told  # type: ignore[return-value]
