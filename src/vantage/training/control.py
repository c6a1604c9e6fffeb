"""How a policy learns in an environment: whole episodes or fragments, and their metrics."""

import copy
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.environments.compiled import Compilation
from vantage.environments.fragments import MOST_STEPS, Fragments
from vantage.environments.holding import innermost
from vantage.environments.interface import Environment
from vantage.environments.normalise import Normalized
from vantage.environments.rollout import Finished, episodes_and_returns
from vantage.errors import refuse_unless
from vantage.estimators.estimator import Estimator, compares
from vantage.gradients.parameters import flat_parameters, write_parameters
from vantage.gradients.passes import Passes
from vantage.policies import Policy
from vantage.runs.progress import note
from vantage.runs.seeds import seed_of
from vantage.statistics.signal import Signal, gradient_and_signal
from vantage.training.auto import best_baseline, next_batch
from vantage.training.evaluation import evaluate
from vantage.training.interface import Memory, refuse_unless_finite
from vantage.training.lanes import lanes_signal
from vantage.training.learner import (
    COLLECTING,
    EVALUATING,
    Collected,
    Learner,
    evaluation_metrics,
    signal_metrics,
)
from vantage.training.settings import Settings

FIRST_BATCH = 64  # of batch="auto"
MEMORY = "memory."  # before the names of what an update rule keeps, in a checkpoint
RECENT = 100  # episodes of the running mean return


@dataclass(frozen=True)
class Collection(Collected):
    """A batch, with its gradient where the update rule wants it."""

    batch: Batch
    estimator: Estimator  # with the baseline that was chosen
    finished: Finished
    entropy: float  # mean over steps
    gradient: Tensor | None  # None: the update rule finds its own
    signal: Signal | None  # None: not measured at this update
    choices: dict[str, object]  # what "auto" settings chose, and why


class ControlLearner(Learner):
    """A policy and a value function that learn in an environment.

    Args:
        env: where to learn.
        passes: over both networks.
        estimators: to choose from at every update; one unless baseline="auto".
        optimizers: as the update rule made them.
        settings: the settings of the run.
        evaluation: where to evaluate, on lanes of its own; None: nowhere.
        episodes: the episodes of an evaluation.
        memory: what the update rule keeps from one update to the next, if it keeps anything.
    """

    unit = pace = "steps"

    def __init__(
        self,
        env: Environment,
        passes: Passes,
        estimators: dict[str, Estimator],
        optimizers: dict[str, Optimizer],
        settings: Settings,
        evaluation: Environment | None = None,
        episodes: int = 20,
        memory: Memory | None = None,
    ) -> None:
        named: dict[str, nn.Module | None] = {
            "policy": passes.policy,
            "value": passes.value,
            "environment": getattr(env, "statistics", None),
        }
        modules = {name: module for name, module in named.items() if module is not None}
        super().__init__(settings.seed, modules, optimizers, memory)
        self.remembered = {} if memory is None else {"memory": memory}
        self.env, self.passes, self.policy, self.value = env, passes, passes.policy, passes.value
        self.evaluation, self.evaluation_episodes = evaluation, episodes
        self.estimators, self.settings = estimators, settings
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.compilation = Compilation(env.name) if settings.compile else None
        self.fragments = Fragments(env, passes, self.compilation, settings.fragment or 1)
        # parameters of the policies that are to act in the next updates, oldest first
        self.waiting: deque[Tensor] = deque([flat_parameters(self.policy)] * settings.delay)
        self.restarted_at = 0
        self.restart = settings.restart  # steps of every lane until all start afresh
        self.cut_off = False  # whether it was said that an episode was
        self.together: Environment | None = None  # lanes that can start from one state

    def done(self) -> float:
        """The larger share of the steps and of the updates asked for."""
        steps, updates = self.settings.steps, self.settings.updates
        by_steps = 0.0 if steps is None else self._steps() / steps
        return max(by_steps, 0.0 if updates is None else len(self.history) / updates)

    def factor(self) -> float:
        """The schedule at the share that is done."""
        return self.settings.schedule(min(1.0, self.done()))

    def collect(self) -> Collection:
        """Collect a batch, and find its gradient where the rule wants it."""
        started, before = time.perf_counter(), self._before_collecting()
        try:
            if self.settings.fragment is None:
                return self._episodes(started)
            return self._fragment(started, self.settings.fragment)
        except BaseException:
            before()
            raise

    def learn(
        self, collected: Collection, factor: float, generator: torch.Generator
    ) -> tuple[dict[str, object], int]:
        """Let the update rule change the policy and V."""
        batch, settings = collected.batch, self.settings
        self.recent.extend(collected.finished.returns.tolist())
        if settings.delay:
            self.waiting.popleft()
            self.waiting.append(flat_parameters(self.policy))
        row: dict[str, object] = {
            "batch": batch.rows if settings.fragment is None else batch.trajectories,
            "steps": collected.finished.taken + self._steps(),
            **self._episode_metrics(collected.finished),
            "entropy": collected.entropy,
            **signal_metrics(collected.signal),
            **collected.choices,
        }

        def step() -> dict[str, Any]:
            if collected.gradient is not None:
                refuse_unless_finite(collected.gradient, batch)
            return settings.update.update(
                self.passes,
                self.optimizers,
                collected.estimator,
                batch,
                generator,
                gradient=collected.gradient,
                stale=settings.delay > 0,
                factor=factor,
                **self.remembered,
            )

        return row | self.unless_non_finite(step), collected.finished.taken

    def evaluate(self) -> dict[str, Any]:
        """The return of whole episodes of the policy, actions sampled, on lanes of their own."""
        refuse_unless(
            self.evaluation is not None,
            "This run has no lanes to evaluate on; train with evaluate_every=.",
        )
        assert self.evaluation is not None
        seed = seed_of(self.seed, len(self.history), EVALUATING)
        result = evaluate(self.evaluation, self.policy, self.evaluation_episodes, seed)
        return evaluation_metrics(result.mean, result.low, result.high)

    def training_return(self, number: int) -> float | None:
        """The mean return of the last 100 episodes of training."""
        return self.history[number - 1]["return_100"]

    def settled(self) -> bool:
        """Whether there have been 100 episodes."""
        return len(self.recent) == RECENT

    def policy_at(self, states: dict[str, dict[str, Tensor]]) -> Policy:
        """A copy of the policy, which acts with the normaliser's statistics of that time."""
        terms = self.policy.terms
        if isinstance(self.env, Normalized):
            env = self.env.frozen()
            env.statistics = copy.deepcopy(env.statistics)
            env.statistics.load_state_dict(states["environment"])
            terms = env.terms
        # spaces and lanes behind `terms` are shared, not copied
        policy = copy.deepcopy(self.policy, {id(self.policy.terms): terms})
        policy.load_state_dict(states["policy"])
        return policy

    def position(self) -> dict[str, Any]:
        """The last returns, where lanes started afresh, and after how many steps they will."""
        return {
            "recent": list(self.recent),
            "restarted_at": self.restarted_at,
            "restart": self.restart,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The policies that are to act, the actions that bring lanes to where they are, the rule's
        memory.
        """
        tensors = {f"waiting.{i}": flat for i, flat in enumerate(self.waiting)}
        tensors |= {f"{MEMORY}{name}": t for name, t in self.memory.tensors.items()}
        if self.settings.fragment is not None and self.history:
            tensors |= {f"lanes.{name}": t for name, t in self.fragments.state().items()}
        return tensors

    def carry_on(self, position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Act again what lanes have acted since they started afresh."""
        self.recent.extend(position["recent"])
        self.restarted_at = position["restarted_at"]
        self.restart = position.get("restart", self.settings.restart)
        self.waiting = deque(tensors[f"waiting.{i}"] for i in range(self.settings.delay))
        kept = {k.removeprefix(MEMORY): t for k, t in tensors.items() if k.startswith(MEMORY)}
        device = next(self.policy.parameters()).device
        self.memory.tensors = {name: tensor.to(device) for name, tensor in kept.items()}
        lanes = {k.removeprefix("lanes."): t for k, t in tensors.items() if k.startswith("lanes.")}
        if not lanes:
            return
        if not self.fragments.restore(lanes, seed_of(self.seed, self.restarted_at, COLLECTING)):
            note(
                f"{self.env.name} does not come back to where it was under the same seed and "
                "actions (vantage check says why): its lanes start afresh, episodes that were "
                "under way are dropped, and the run goes on otherwise than without the stop."
            )
            self.restarted_at = len(self.history)
            self.fragments.restart(seed_of(self.seed, self.restarted_at, COLLECTING))

    def _before_collecting(self) -> Callable[[], None]:
        """Goes back to what a checkpoint holds of the collection, should that fail half-way."""
        env, restarted_at, restart = self.env, self.restarted_at, self.restart
        lanes = self.fragments.mark() if self.settings.fragment and self.history else None
        statistics = running = None
        if isinstance(env, Normalized):
            statistics = copy.deepcopy(env.statistics.state_dict())
            running = env.running_return.clone()

        def go_back() -> None:
            self.restarted_at, self.restart = restarted_at, restart
            if isinstance(env, Normalized) and statistics is not None and running is not None:
                env.statistics.load_state_dict(statistics)
                env.running_return = running
            if lanes is not None:
                self.fragments.go_back(lanes)

        return go_back

    def _episodes(self, started: float) -> Collection:
        settings = self.settings
        size, choices = self._batch_size()
        seed = seed_of(self.seed, len(self.history), COLLECTING)
        lanes, shared = self._lanes(size)
        if self.compilation is not None:
            innermost(lanes).compile_steps(self.compilation)
        batch, ended = episodes_and_returns(
            lanes, self.policy, size, seed, self.passes.value, shared=shared
        )
        with torch.no_grad():
            entropy = self.policy.entropy(batch.observation)[batch.mask].mean().item()
        baseline, why = best_baseline(self.history, list(self.estimators))
        estimator = self.estimators[baseline]
        auto = settings.baseline == "auto"
        if not (settings.update.wants_gradient or auto or settings.batch == "auto"):
            return Collection(started, batch, estimator, ended, entropy, None, None, choices)
        measured = {
            name: gradient_and_signal(self.policy, batch, candidate)
            for name, candidate in self.estimators.items()
        }
        if auto:
            variance = {name: s.variance * s.trajectories for name, (_, s) in measured.items()}
            choices |= {
                "baseline": baseline,
                "baseline_reason": why,
                "baseline_variance": variance,
            }
        gradient, signal = measured[baseline]
        if not self.skip_non_finite:  # before anything of the update is done
            refuse_unless_finite(gradient, batch)
        return Collection(started, batch, estimator, ended, entropy, gradient, signal, choices)

    def _outlasted(self) -> bool:
        """Whether lanes go on since an episode has lasted all the time since they started afresh.

        It would never end otherwise.
        """
        steps = self.fragments.steps
        if int(self.fragments.lengths.max()) < steps:
            return False
        longer = min(2 * self.restart, MOST_STEPS)
        if longer > steps:
            note(
                f"An episode of {self.env.name} has lasted {steps:,} steps: lanes start afresh "
                f"after {longer:,} from now on (restart={longer}). Resuming acts as many again."
            )
            self.restart = longer
            return True
        if not self.cut_off:
            self.cut_off = True
            note(
                f"An episode of {self.env.name} has lasted {steps:,} steps, the most that lanes "
                "run on for: it is cut off, and so are others as long. Give the environment a "
                "limit, max_episode_steps=, or a larger restart=."
            )
        return False

    def _fragment(self, started: float, length: int) -> Collection:
        settings, number = self.settings, len(self.history)
        (estimator,) = self.estimators.values()
        seed = seed_of(self.seed, number, COLLECTING)
        # Lanes start afresh at times that depend on the count of steps alone: what a resumed run
        # must act again is then bounded.
        if number == 0 or (self.fragments.steps >= self.restart and not self._outlasted()):
            self.fragments.restart(seed)
            self.restarted_at = number
        if settings.delay:
            current = flat_parameters(self.policy)
            write_parameters(self.policy, self.waiting[0])
        try:
            batch, ended = self.fragments.collect(length, seed)
        finally:
            if settings.delay:
                write_parameters(self.policy, current)
        gradient = signal = None
        every = settings.signal_every
        measured = every is not None and number % every == 0 and batch.rows > 1
        if measured or settings.update.wants_gradient:
            gradient, signal = lanes_signal(self.passes, estimator, batch, measured)
            if not self.skip_non_finite:
                refuse_unless_finite(gradient, batch)
        entropy = self.fragments.entropy
        return Collection(started, batch, estimator, ended, entropy, gradient, signal, {})

    def _lanes(self, size: int) -> tuple[Environment, int]:
        """Lanes for a batch of episodes, and how many of them start from one state.

        An estimator that compares episodes compares those of one start: one lane gives one episode.
        """
        if not any(compares(estimator) for estimator in self.estimators.values()):
            return self.env, 1
        if self.together is None or self.together.lanes != size:
            self.together = self.env.sharing(size)
        return self.together, self.settings.group_size

    def _batch_size(self) -> tuple[int, dict[str, object]]:
        size = self.settings.fixed_batch
        if size is not None:
            return size, {}
        size, why = next_batch(self.history, FIRST_BATCH, self.settings.target_snr)
        if any(compares(estimator) for estimator in self.estimators.values()):
            size = max(2, round(size / self.settings.group_size)) * self.settings.group_size
        return size, {"batch_reason": why}

    def _episode_metrics(self, ended: Finished) -> dict[str, float | None]:
        count = len(ended.returns)
        return {
            "episodes": count,
            "return": ended.returns.mean().item() if count else None,
            "return_std": ended.returns.std().item() if count > 1 else None,
            "return_100": sum(self.recent) / len(self.recent) if self.recent else None,
            "length": ended.lengths.double().mean().item() if count else None,
        }

    def _steps(self) -> int:
        return self.history[-1]["steps"] if self.history else 0
