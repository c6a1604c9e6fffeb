"""One run of a comparison, described so that another process can do it."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vantage.environments.interface import Environment
from vantage.environments.making import make
from vantage.runs.run import CONFIG
from vantage.runs.seeds import seed_of
from vantage.runs.stored import object_of, write_whole
from vantage.training.algorithm import Algorithm
from vantage.training.door import DISCOUNT
from vantage.training.evaluation import evaluate
from vantage.training.loop import train

RESULT = "result.json"  # in the run folder, once training and evaluation are done
# A word of seeds beside those of training, (seed, update, purpose); large, for it is no update.
COMPARISON = 0x434F4D50
RECENT = 100  # episodes of the mean that training itself reports


@dataclass(frozen=True)
class World:
    """An environment as it is made anew in every worker.

    Attributes:
        name: how folders, tables and figures call it.
        make: what `vantage.make` makes lanes of; or an importable function without arguments that
            gives an environment with `.policy(hidden, seed)` and `.value(hidden, seed)`.
        settings: lanes, discount and what else lanes are made with; unused where the function gives
            them.
    """

    name: str
    make: object
    settings: dict[str, object]

    def build(self, contender: "Contender") -> Any:
        """The environment, with the lanes, normaliser and γ that the contender asks for.

        Raises:
            InputError: as `vantage.Gymnasium`.
        """
        if callable(self.make) and not isinstance(self.make, type):
            built = self.make()
            if isinstance(built, Environment):
                return built
        asked: dict[str, Any] = {"lanes": contender.lanes}
        if isinstance(contender.estimator, Algorithm):
            asked["normalise"] = contender.estimator.normalise
            asked |= {"discount": contender.estimator.discount or DISCOUNT}
        return make(self.make, **asked | self.settings)


@dataclass(frozen=True)
class Contender:
    """An estimator or an algorithm, with the settings it trains with.

    Attributes:
        name: how folders, tables and figures call it.
        estimator: what `vantage.train` is given.
        settings: further arguments of `vantage.train`.
        value: whether a value function is trained.
        lanes: the lanes of an environment that is made from an id.
    """

    name: str
    estimator: Any
    settings: dict[str, Any]
    value: bool
    lanes: int


@dataclass(frozen=True)
class Job:
    """One run: who trains where, for how long, and where it is written."""

    world: World
    contender: Contender
    seed: int
    folder: Path
    steps: int
    hidden: tuple[int, ...]
    evaluation_episodes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.contender.name} on {self.world.name}, seed {self.seed}"


class Seeds(NamedTuple):
    """What a run draws from its seed besides what `vantage.train` draws."""

    policy: int
    value: int
    evaluation: int


def seeds(seed: int) -> Seeds:
    """Seeds of the first weights and of the evaluation, apart from those of training.

    Estimators with the same seed start from the same weights and are evaluated on the same starts.
    """
    return Seeds(*(seed_of(seed, COMPARISON, purpose) for purpose in range(3)))


def run(job: Job) -> dict[str, object]:
    """Train, or carry on training, then evaluate; returns what is also written to result.json.

    Returns:
        evaluation_return: mean undiscounted return of `evaluation_episodes` whole episodes of the
            final policy, actions sampled; None where no episodes were asked for.
        training_return: see `recent_return`, of the last 100 episodes.
        steps, updates, seconds: environment steps and updates of training, seconds they took.
        evaluation_seconds: what the evaluation took.

    Raises:
        InputError: as `vantage.train`.
    """
    drawn, env = seeds(job.seed), job.world.build(job.contender)
    policy, value = networks(env, job, drawn)
    history = train(
        env,
        policy,
        job.contender.estimator,
        value=value,
        steps=job.steps,
        seed=job.seed,
        out=job.folder,
        resume=(job.folder / CONFIG).exists(),
        threads=job.threads,
        progress=False,
        **job.contender.settings,
    ).history
    started, score = time.perf_counter(), None
    if job.evaluation_episodes:
        score = evaluate(
            env, policy, job.evaluation_episodes, drawn.evaluation, threads=job.threads
        ).mean
    result = {
        "environment": job.world.name,
        "estimator": job.contender.name,
        "seed": job.seed,
        "evaluation_return": score,
        "evaluation_episodes": job.evaluation_episodes,
        "training_return": recent_return(history, RECENT),
        "steps": history[-1]["steps"],
        "updates": history[-1]["update"],
        "seconds": sum(row["step_time"] for row in history),
        "evaluation_seconds": time.perf_counter() - started,
    }
    write_whole(job.folder / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def networks(env: Any, job: Job, drawn: Seeds) -> tuple[Any, Any]:
    """Policy and value function, with what the algorithm says of them before what the job does."""
    weighs = job.contender.estimator
    published = isinstance(weighs, Algorithm)
    of_policy = weighs.policy_network() if published else {}
    hidden = of_policy.pop("hidden", job.hidden)
    policy = env.policy(hidden, seed=drawn.policy, **of_policy)
    of_value = weighs.value_network(policy) if published else {}
    of_value.pop("hidden", None)
    value = env.value(hidden, seed=drawn.value, **of_value) if job.contender.value else None
    return policy, value


def finished(job: Job) -> dict[str, Any] | None:
    """What `run` returned, where it already has."""
    file = job.folder / RESULT
    return object_of(file) if file.exists() else None


def recent_return(history: list[dict[str, Any]], episodes: int) -> float | None:
    """Mean return of the last updates that hold at least `episodes` episodes between them.

    Whole updates, each weighted by its episodes; all of them where there are not so many.

    >>> recent_return([{"return": 0.0, "batch": 9}, {"return": 1.0, "batch": 4},
    ...                {"return": 4.0, "batch": 2}], episodes=5)
    2.0
    """
    total = counted = 0.0
    for row in reversed(history):
        count = row.get("episodes", row.get("batch", 1))
        if row["return"] is None or counted >= episodes:
            continue
        total, counted = total + count * row["return"], counted + count
    return total / counted if counted else None
