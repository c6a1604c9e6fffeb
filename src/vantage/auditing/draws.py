"""Gradients of an estimator as draws: what another trainer's are compared with."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vantage.arguments import checked
from vantage.environments.rollout import episodes, lanes_for
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator, compares
from vantage.gradients.weighted import gradient
from vantage.training.door import check_policy, check_value, estimator_of, opened


@singledispatch
@checked
def gradient_draws(
    env: Any,
    policy: Any,
    estimator: Estimator | str,
    *,
    batch: int = 64,
    value: Any = None,
    group_size: int = 8,
) -> Callable[[int], Float[Tensor, " P"]]:
    """`draw(seed) -> [P]`: the gradient of a batch, a source for `vantage.audit_draws`.

    Args:
        env: an environment, what `vantage.make` makes one of, or a language model's `Task`, whose
            `num_generations` is then the size of groups.
        policy: whose gradient is drawn; it is not changed.
        estimator: a row of the table, its name, or your own.
        batch: trajectories of a draw.
        value: V(s), where the estimator needs one.
        group_size: trajectories of one start state, for estimators that compare them.
    """
    env, rule = opened(env), estimator_of(estimator)
    check_policy(env, policy)
    if value is not None:
        check_value(env, policy, value)
    rule.require({"group", "scores", "entropy"} | ({"value"} if value is not None else set()))
    shared = group_size if compares(rule) else 1
    refuse_unless(
        batch >= 1 and batch % shared == 0,
        f"gradient_draws(batch={batch}): {rule.name} compares groups of {shared}; give whole ones.",
    )
    lanes, shared = lanes_for(env, rule, batch, group_size)

    def draw(seed: int) -> Tensor:
        return gradient(policy, episodes(lanes, policy, batch, seed, value, shared=shared), rule)

    return draw
