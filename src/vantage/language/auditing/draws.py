"""Gradients of an estimator on a task, as draws to audit beside those of another trainer."""

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.weighted import gradient
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.rollout import Environment, prompts_of, rollout
from vantage.language.scoring.scoring import plan_passes
from vantage.language.scoring.trial import settle_packing
from vantage.language.tasks.task import Task
from vantage.language.training.inputs import inputs_and_scores, refuse_missing_value, valued
from vantage.runs.seeds import generator_of
from vantage.training.door import estimator_of


def gradient_draws(
    task: Task,
    policy: Policy,
    estimator: Estimator | str,
    *,
    batch: int = 64,
    value: ValueHead | None = None,
    reference_policy: Policy | None = None,
    environment: Environment | None = None,
    turns: int = 8,
) -> Callable[[int], Float[Tensor, " P"]]:
    """`draw(seed) -> [P]`: the gradient of a batch, a source for `vantage.audit_draws`.

    Every seed draws prompts anew, without replacement within a draw as far as there are any.

    Args:
        task, policy: what is asked, and whose gradient is drawn; it is not changed.
        estimator: a row of the table, its name, or your own.
        batch: completions of a draw, in groups of the task's `num_generations`.
        value: V(s_t), where the estimator needs it.
        reference_policy: what a KL is measured to.
        environment, turns: as in `rollout`.

    Raises:
        InputError: groups that are not whole, or a missing input.
    """
    rule, size = estimator_of(estimator), task.num_generations
    refuse_unless(
        batch >= size and batch % size == 0,
        f"gradient_draws(batch={batch}): a batch holds whole groups of num_generations={size}.",
    )
    refuse_missing_value("gradient_draws", rule, value)

    prompts = prompts_of("gradient_draws", task, policy, task.train)
    settle_packing("gradient_draws", policy, prompts, size)

    def draw(seed: int) -> Tensor:
        rows = task.draw(0, batch // size, seed)
        generator = generator_of(seed, 0)
        drawn = rollout(task, policy, rows, generator, environment=environment, turns=turns)
        drawn = replace(drawn, batch=drawn.batch.to(policy.device))
        passes = plan_passes(drawn.batch, policy)
        whole = valued(drawn.batch, policy, value, passes)
        given = inputs_and_scores(rule, task, policy, reference_policy, drawn, whole, passes)
        return gradient(policy, whole, rule, **given)

    return draw
