"""Evaluation: the mean return of a policy, with an interval."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vantage.arguments import checked
from vantage.environments import making, remaking
from vantage.environments.envpool import EnvPool
from vantage.environments.holding import is_held
from vantage.environments.interface import Environment
from vantage.environments.normalise import Normalized
from vantage.environments.rollout import episodes_and_returns
from vantage.errors import InputError, refuse_unless
from vantage.runs import notebook
from vantage.runs.progress import return_text
from vantage.runs.threads import torch_threads
from vantage.statistics.intervals import mean_interval
from vantage.training.door import check_policy, opened


@dataclass(frozen=True)
class Evaluation:
    """Returns of independent episodes, undiscounted.

    Attributes:
        returns: [episodes] Σ_t r_t of each.
        lengths: [episodes] steps of each.
        mean: their mean return.
        low, high: 95 % interval of the mean (Student's t over episodes).
    """

    returns: Tensor
    lengths: Tensor
    mean: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"Evaluation({self})"

    def _repr_html_(self) -> str:
        rows = {
            "95 % interval": f"[{return_text(self.low)}, {return_text(self.high)}]",
            "episodes": len(self.returns),
            "lowest, highest": f"{return_text(float(self.returns.min()))}, "
            f"{return_text(float(self.returns.max()))}",
            "mean length": return_text(float(self.lengths.double().mean())),
        }
        return notebook.facts(f"mean return {return_text(self.mean)}", rows)

    def __str__(self) -> str:
        lowest, highest = (return_text(float(r)) for r in (self.returns.min(), self.returns.max()))
        return (
            f"mean return {return_text(self.mean)}, 95 % interval [{return_text(self.low)}, "
            f"{return_text(self.high)}], {len(self.returns)} episodes of "
            f"{self.lengths.double().mean():.0f} steps "
            f"(lowest {lowest}, highest {highest})"
        )


@checked
def evaluate(
    env: Any,
    policy: Any,
    episodes: int = 100,
    seed: int = 1,
    greedy: bool = False,
    threads: int = 1,
) -> Evaluation:
    """Run whole episodes and report their undiscounted return with a 95 % interval.

    Args:
        env: where: an environment, or what `vantage.make` makes one of; an MDP is sampled. Lanes
            contribute quotas of episodes fixed in advance. Where it is normalised, its statistics
            are read and not changed, and rewards are its own.
        policy: acts; sampled unless `greedy`.
        episodes: how many, at least 2.
        seed: the seed of the environment and the actions.
        greedy: take the likeliest action instead of sampling.
        threads: torch threads; small networks want one.

    Returns:
        Evaluation; the interval is mean ± t s/√n. Where every episode has the same return it has no
        width, which says nothing of rarer outcomes.

    An environment that is being trained on in fragments is left where it is: the episodes run on
    lanes of their own.

    Raises:
        InputError: fewer than 2 episodes, or no whole number of them; lanes that are being trained
            on and cannot be made again.
    """
    refuse_unless(
        episodes >= 2, f"evaluate(episodes={episodes}): an interval needs at least two episodes."
    )
    env = opened(env)
    check_policy(env, policy)
    if isinstance(env, Normalized):
        env = env.frozen()
    if is_held(env):
        env = lanes_to_evaluate(env, episodes)
    with torch_threads(threads):
        _, ended = episodes_and_returns(env, policy, episodes, seed, greedy=greedy)
    mean = mean_interval(ended.returns.tolist())
    return Evaluation(
        returns=ended.returns,
        lengths=ended.lengths,
        mean=mean.value,
        low=mean.low,
        high=mean.high,
    )


def lanes_to_evaluate(env: Environment, episodes: int, given: object = None) -> Environment:
    """Lanes made as those of `env` were, to evaluate on while `env` is being trained on.

    A normalised environment's statistics are shared, and read only.

    Args:
        env: the environment that is trained on.
        episodes: the episodes of an evaluation.
        given: an environment to evaluate on, or what `vantage.make` makes one of.

    Raises:
        InputError: fewer than 2 episodes; `env` cannot be made again.
    """
    refuse_unless(
        episodes >= 2,
        f"train(evaluation_episodes={episodes}): an interval needs at least two episodes.",
    )
    apart: Environment
    inner = env.env if isinstance(env, Normalized) else env
    if given is not None:
        apart = opened(given)
        over = isinstance(env, Normalized) and not isinstance(apart, Normalized)
        return env.frozen(apart) if over and isinstance(env, Normalized) else apart
    lanes = min(episodes, env.lanes)
    try:
        if isinstance(inner, EnvPool):
            apart = remaking.remade(making.describe(inner), lanes, trust=True)
        else:
            apart = inner.sharing(lanes)
    except InputError as error:
        raise InputError(
            f"train(evaluate_every=...): {env.name} cannot be made again with lanes of its own "
            f"({error}); give evaluation_env=."
        ) from error
    return env.frozen(apart) if isinstance(env, Normalized) else apart
