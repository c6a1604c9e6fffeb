"""The settings of a language-model run, checked together before anything is generated."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from vantage.errors import refuse_unless, refuse_unless_positive, refuse_unless_within
from vantage.estimators.estimator import Estimator
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Engine
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import (
    AVAILABLE,
    refuse_frozen,
    refuse_infinite_kl,
    refuse_missing_value,
)
from vantage.runs.run import versions
from vantage.training.auto import next_batch, rules
from vantage.training.schedules import Schedule, name_of
from vantage.training.settings import describe_optimizer

MANY_TOKENS = 2000
FIRST_BATCH = 64  # completions of batch="auto"


@dataclass(frozen=True)
class Settings:
    """Numbers and choices of a run; `language.train` says what each means."""

    updates: int
    batch: int | Literal["auto"]
    target_snr: float
    baseline: Literal["auto"] | None
    baseline_every: int
    lr: float | None
    schedule: Schedule
    warmup: int
    epochs: int
    minibatches: int
    max_grad_norm: float | None
    value_coefficient: float
    mask_truncated_completions: bool
    resample_dead_groups: int
    shared_prompts: bool | Literal["auto"]
    token_budget: int
    signal_every: int | Literal["auto"]
    decompose_every: int
    turns: int
    delay: int
    seed: int
    threads: int

    def check(
        self, task: Task, policy: Policy, estimator: Estimator, value: nn.Module | None
    ) -> None:
        """Refuse what cannot work, naming the setting and the remedy.

        Raises:
            InputError: see `language.train`.
        """
        for name in ("updates", "epochs", "minibatches", "turns", "threads",
                     "token_budget", "baseline_every"):  # fmt: skip
            refuse_unless_within(getattr(self, name), 1, "train", name)
        for name in ("warmup", "resample_dead_groups", "decompose_every", "delay", "seed"):
            refuse_unless_within(getattr(self, name), 0, "train", name)
        for name in ("lr", "max_grad_norm", "target_snr"):
            amount = getattr(self, name)
            if amount is not None:
                refuse_unless_positive(amount, "train", name)
        size = task.num_generations
        if self.batch != "auto":
            self._check_batch(self.batch, size)
        refuse_unless(
            "group" not in estimator.needs or size >= 2,
            f"train: {estimator.name!r} compares the completions of a prompt, and the task has "
            "num_generations=1; make it Task(num_generations=8), or take an estimator without "
            "groups, such as reinforce_leave_one_out.",
        )
        refuse_missing_value("train", estimator, value)
        estimator.require({"group", *AVAILABLE})
        self._check_law(policy, estimator)

    def rules(
        self, estimator: Estimator, value: nn.Module | None, num_generations: int
    ) -> dict[str, Estimator]:
        """The estimators to choose from at every update, by baseline; one unless baseline="auto".

        Raises:
            InputError: baseline="auto" with an estimator that no baseline leaves unbiased, or with
                batches of one prompt, between which no variance can be measured.
        """
        candidates = rules(estimator, self.baseline, value is not None, num_generations > 1)
        refuse_unless(
            self.baseline is None or self.batch == "auto" or self.batch > num_generations,
            f"train(batch={self.batch}, baseline='auto'): the variance of a gradient is measured "
            f"between prompts; take a batch of {2 * num_generations} or more.",
        )
        return candidates

    def _check_batch(self, batch: int, size: int) -> None:
        refuse_unless_within(batch, 1, "train", "batch")
        refuse_unless(
            batch % size == 0,
            f"train(batch={batch}): a batch counts completions and holds whole groups of "
            f"num_generations={size}; take {size * max(1, round(batch / size))} "
            f"({max(1, round(batch / size))} prompts).",
        )
        groups = batch // size
        refuse_unless(
            groups % self.minibatches == 0,
            f"train(batch={batch}, minibatches={self.minibatches}): {groups} prompts of "
            f"{size} completions do not make {self.minibatches} equal minibatches of whole groups.",
        )

    def _check_law(self, policy: Policy, estimator: Estimator) -> None:
        steps = self.epochs * self.minibatches
        refuse_unless(
            not (policy.law.truncates and steps > 1),
            f"train(epochs={self.epochs}, minibatches={self.minibatches}) with "
            f"{policy.law}: after the first step the policy's support is another than that of the "
            "policy that sampled, and no ratio corrects for it. Take one step a batch, or sample "
            "with temperature alone.",
        )
        refuse_unless(
            not (policy.law.truncates and self.delay),
            f"train(delay={self.delay}) with {policy.law}: the policy's support is another than "
            "that of the one that sampled, and no ratio corrects for it. Sample with temperature "
            "alone.",
        )
        refuse_infinite_kl("train", estimator, policy)
        refuse_frozen("train", policy)

    def groups(self, history: list[dict[str, Any]], size: int) -> tuple[int, dict[str, Any]]:
        """How many prompts the next update draws, and why where that was chosen.

        Under "auto" the batch that would have had the target SNR over the last updates in which it
        was measured, rounded to whole groups, as many for each minibatch; two groups at least, of
        which a signal can be measured.
        """
        if self.batch != "auto":
            return self.batch // size, {}
        measured = [row for row in history if "gradient_variance" in row]
        wanted, why = next_batch(measured, FIRST_BATCH, self.target_snr)
        groups = self.minibatches * max(1, round(wanted / (size * self.minibatches)))
        return max(2, groups), {"batch_reason": why}

    def pieces(self, update: int, tokens: int, num_generations: int) -> int:
        """In how many pieces the gradient of an update (from 0) is summed; see `ascend`.

        A piece costs a pass. On few tokens a pass is mostly overhead: "auto" then measures the
        signal at every fifth update instead of every one. A batch that follows the signal has it
        measured every time.
        """
        often, rarely = self.signal_every, self.decompose_every
        if rarely and update % rarely == 0 and num_generations > 1:
            return 4
        if self.batch == "auto":
            often = 1
        if often == "auto":
            often = 1 if tokens >= MANY_TOKENS else 5
        return 2 if often and update % often == 0 else 1

    def measures_baselines(self, update: int) -> bool:
        """Whether an update (from 0) measures the variance that each baseline leaves."""
        return self.baseline == "auto" and update % self.baseline_every == 0


def describe(
    task: Task,
    policy: Policy,
    estimator: Estimator,
    optimizer: Optimizer,
    value: nn.Module | None,
    engine: Engine,
    settings: Settings,
) -> dict[str, Any]:
    """config.json of a run: every setting, resolved."""
    import transformers

    return {
        "task": task.describe(),
        "policy": policy.describe(),
        "value": None if value is None else type(value).__name__,
        "engine": type(engine).__name__,
        "estimator": {"name": estimator.name, **estimator.columns()},
        "optimizer": describe_optimizer(optimizer),
        **asdict(settings),
        "schedule": name_of(settings.schedule),
        "versions": versions() | {"transformers": transformers.__version__},
    }
