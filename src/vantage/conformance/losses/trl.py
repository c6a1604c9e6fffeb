"""TRL's trainers at the door: their own code makes advantages of rewards and a loss of these.

Nothing of TRL is imported here: the trainer is the user's. Three of its methods are answered on its
behalf, those that generate completions, call reward functions and run the model; everything between
(group statistics, scaling, masks, ratios, clipping, KL, normalisers) is TRL's. Its rows must be
neighbours by prompt, and its `num_generations` is set to the size of the groups at hand.
"""

from typing import Any

import torch
from torch import Tensor

from vantage.conformance.losses.door import Loss, Rows
from vantage.errors import refuse_unless

METHODS = ("_generate", "_calculate_rewards", "_get_per_token_logps_and_entropies")
SCORING = "_generate_and_score_completions"


def is_trl_trainer(trainer: object) -> bool:
    """Whether it is a trainer of the GRPO family: GRPOTrainer, RLOOTrainer or a subclass."""
    return all(hasattr(trainer, name) for name in (*METHODS, SCORING, "_compute_loss"))


def trl_loss(trainer: object, name: str | None = None) -> Loss:
    """The loss of a GRPOTrainer or RLOOTrainer, as it is configured.

    Written against TRL 1.16. The trainer is left as it was after every call.

    Args:
        trainer: on the CPU, not yet training.
        name: how reports call it; the trainer's class and `loss_type` where None.

    Raises:
        InputError: not such a trainer.
    """
    refuse_unless(
        is_trl_trainer(trainer),
        f"trl_loss({type(trainer).__name__}): give a GRPOTrainer or RLOOTrainer of TRL.",
    )
    kind = getattr(trainer, "loss_type", "")
    shown = name or f"{type(trainer).__name__} {kind}".strip()
    takes = {"log_prob", "old_log_prob", "reward", "mask"}
    if getattr(trainer, "beta", 0.0) != 0:
        takes.add("reference_log_prob")
    # bnpo counts the tokens of each pass; all else is known of the batch before it is split
    return Loss(shown, _Answered(trainer), frozenset(takes), "rewards [N]", kind != "bnpo")


class _Answered:
    """`rows -> scalar` of a trainer, three of whose methods are answered from the rows."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def __call__(self, rows: Rows) -> Tensor:
        trainer = self.trainer
        lengths = rows.mask.sum(1).tolist()
        longest = max(lengths)
        answers = {
            "num_generations": int((rows.group == rows.group[0]).sum()),
            "current_gradient_accumulation_steps": 1,
            "_generate": lambda prompts: self._completions(lengths),
            "_calculate_rewards": lambda *_: rows.reward[:, None],
        }
        before = {key: vars(trainer).get(key) for key in (*answers, METHODS[2])}
        training, weights = trainer.model.training, getattr(trainer, "reward_weights", None)
        try:
            vars(trainer).update(answers)
            if isinstance(weights, Tensor):
                trainer.reward_weights = torch.ones(1, dtype=rows.reward.dtype)
            trainer.model.train()
            # while completions are scored, the model is the one that sampled, or the reference
            trainer._get_per_token_logps_and_entropies = self._answer(
                rows.batch.log_prob[:, :longest], rows.reference_log_prob[:, :longest], rows
            )
            inputs = getattr(trainer, SCORING)([{"prompt": "x"} for _ in lengths])
            if hasattr(trainer, "loss_type"):
                # as where batches are used more than once; RLOO keeps its own
                inputs.setdefault("old_per_token_logps", rows.batch.log_prob[:, :longest])
            trainer._get_per_token_logps_and_entropies = self._answer(
                rows.log_prob[:, :longest], rows.log_prob[:, :longest], rows
            )
            return trainer._compute_loss(trainer.model, inputs)
        finally:
            trainer.model.train(training)
            trainer.reward_weights = weights
            for key, value in before.items():
                if value is None:
                    vars(trainer).pop(key, None)
                else:
                    setattr(trainer, key, value)

    def _completions(self, lengths: list[int]) -> tuple[object, ...]:
        """Prompts of one token, completions of the given lengths, and nothing else."""
        prompts = [[1] for _ in lengths]
        tokens = [[2] * length for length in lengths]
        texts = ["x" for _ in lengths]
        if hasattr(self.trainer, "loss_type"):
            return prompts, tokens, None, texts, None, {}, None, None
        return prompts, tokens, texts

    def _answer(self, log_prob: Tensor, reference: Tensor, rows: Rows) -> object:
        """The model's method: log-probabilities, entropies, and no auxiliary loss."""
        # TRL finds a quantile of them in float32, which no other number format would meet
        entropy = rows.entropy[:, : log_prob.shape[1]].float()

        def answer(model: object, *_: object, **__: object) -> tuple[Tensor, Tensor, None]:
            is_reference = model is getattr(self.trainer, "ref_model", None)
            values = reference if is_reference else log_prob
            return values, entropy, None

        return answer
