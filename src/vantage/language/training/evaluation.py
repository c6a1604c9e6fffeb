"""Evaluation: the mean reward on held-out prompts, with an interval."""

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Decoding, Engine, synchronise
from vantage.language.sampling.rollout import Environment, rollout
from vantage.language.tasks.task import Task
from vantage.statistics.intervals import mean_interval


@dataclass(frozen=True)
class Evaluation:
    """Rewards of completions of different prompts.

    Attributes:
        rewards: [n] of each prompt, the mean over its completions; those that could not be scored
            are left out.
        mean: their mean.
        low, high: 95 % interval (Student's t over prompts).
        parts: mean reward by function.
        metrics: what reward functions logged by `log_metric`, averaged.
    """

    rewards: Float[Tensor, " n"]
    mean: float
    low: float
    high: float
    parts: dict[str, float]
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"mean reward {self.mean:.3f}, 95 % interval [{self.low:.3f}, {self.high:.3f}], "
            f"{len(self.rewards)} prompts"
        )


@checked
def evaluate(
    task: Task,
    policy: Policy,
    rows: list[int] | None = None,
    *,
    greedy: bool = True,
    num_generations: int = 1,
    seed: int = 1,
    engine: Engine | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    state: Any = None,
) -> Evaluation:
    """Complete prompts and score them, with a 95 % interval over prompts.

    Args:
        rows: the rows of the task; those held out where None.
        greedy: take the likeliest token; else draw under the policy's law.
        num_generations: completions of each prompt, averaged.
        seed: the seed of what is drawn.
        engine: draws completions where not greedy; the package's own where None.
        environment, turns: as in training; see `rollout`.
        state: how far training is, for reward functions that ask for `trainer_state`.

    Raises:
        InputError: fewer than two prompts.
    """
    numbers = list(task.held_out) if rows is None else rows
    refuse_unless(
        len(numbers) >= 2,
        f"evaluate: {len(numbers)} prompts make no interval; hold out a share of the rows with "
        "Task(held_out=0.1), or say which with rows=.",
    )
    size = 1 if greedy else num_generations
    drawer: Engine = Decoding(greedy=True) if greedy else engine or Decoding()
    synchronise(drawer, policy)
    generator = torch.Generator().manual_seed(seed)
    scored = rollout(
        task,
        policy,
        numbers,
        generator,
        engine=drawer,
        environment=environment,
        turns=turns,
        num_generations=size,
        state=state,
    )
    total = torch.where(scored.scorable, scored.reward, math.nan).view(-1, size).nanmean(1)
    rewards = total[~total.isnan()].double()
    refuse_unless(len(rewards) >= 2, "evaluate: fewer than two prompts could be scored.")
    mean = mean_interval(rewards.tolist())
    parts = {name: float(each.nanmean()) for name, each in scored.parts.items()}
    logged = {name: fmean(values) for name, values in scored.metrics.items()}
    return Evaluation(rewards, mean.value, mean.low, mean.high, parts, logged)
