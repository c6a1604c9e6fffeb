"""Fragments: the same number of steps from every lane, time and again, carrying episodes over."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vantage.batch import Batch
from vantage.environments.compiled import Compilation
from vantage.environments.holding import hold, innermost, is_held, position
from vantage.environments.interface import Environment, Step
from vantage.environments.lanes_at_once import LanesAtOnce, steps_itself
from vantage.environments.limits import limited
from vantage.environments.normalise import Normalized
from vantage.environments.rollout import (
    Finished,
    Sight,
    lanes_as_rows,
    over_time,
    refuse_unless_finite,
    refuse_unless_finite_step,
)
from vantage.environments.tensor import TensorEnvironment
from vantage.errors import refuse_unless
from vantage.gradients.mlp_passes import Drawing, MlpPasses
from vantage.gradients.passes import Passes
from vantage.gradients.recorded import recorder_for

# Steps that lanes run on for, at the most, before they start afresh: resuming acts as many again.
MOST_STEPS = 1 << 20


class Fragments:
    """Collects from lanes that run on between one fragment and the next.

    Args:
        env: the lanes to step.
        passes: the policy that acts, and the value function.
        compilation: compiles the steps, of tensor lanes on a processor, before the first; None:
            they run as they are.
        steps: how many `collect` will be asked for, where they are compiled.

    Attributes:
        entropy: mean of H(π(·|s)) over the steps of the last fragment, in nats.

    Call `restart` before the first `collect`.

    >>> import vantage as vt
    >>> from vantage.gradients.passes import AutogradPasses
    >>> env = vt.Gymnasium("CartPole-v1", lanes=2)
    >>> fragments = Fragments(env, AutogradPasses(env.policy(), env.value()))
    >>> fragments.restart(seed=0)
    >>> batch, finished = fragments.collect(16, seed=1)
    >>> batch.reward.shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        env: Environment,
        passes: Passes,
        compilation: Compilation | None = None,
        steps: int = 1,
    ):
        self.env, self.passes = env, passes
        self.compilation, self.steps_at_a_time = compilation, steps
        recorder = recorder_for(getattr(env, "device", torch.device("cpu")))
        self.lanes_at_once: LanesAtOnce | None = None
        if recorder and isinstance(env, TensorEnvironment) and steps_itself(env):
            self.lanes_at_once = LanesAtOnce(env, passes.policy, recorder)

    def restart(self, seed: int) -> None:
        """Start every lane afresh; episodes under way are dropped."""
        # Gymnasium seeds lane i with seed + i: leave room below the largest seed it accepts.
        self.seed = int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1
        first = limited(self.env.reset, self.env)(seed=self.seed)
        hold(self.env, self)
        self.position = position(self.env)
        refuse_unless_finite(first, "observation", self.env, "at reset")
        if self.compilation is not None:
            self._compile(self.compilation, first)
        self.sight = Sight(self.passes.policy, first)
        self.actions: list[Tensor] = []
        self.returns = torch.zeros(self.env.lanes, dtype=torch.float64, device=first.device)
        self.lengths = torch.zeros_like(self.returns)

    @torch.no_grad()
    def collect(self, steps: int, seed: int) -> tuple[Batch, Finished]:
        """The next `steps` steps of every lane: rows are lanes, T = steps.

        A row may hold several episodes and dummy reset steps (mask False). Every row ends with a
        boundary; where the episode runs on, `bootstrap` holds the value of the next observation.
        Weights are 1/M, M the number of episodes and pieces of episodes in the fragment. `log_prob`
        and `value` are found after the last step, for all steps at once.

        Args:
            steps: T.
            seed: the seed of the actions.

        Raises:
            InputError: steps < 1; a NaN or infinite reward or observation, naming step and lane;
                lanes that somebody else has reset or stepped meanwhile.
        """
        refuse_unless(steps >= 1, f"collect(steps={steps}): collect at least one step.")
        refuse_unless(
            is_held(self.env, self) and position(self.env) == self.position,
            f"The lanes of {self.env.name} were reset or stepped by somebody else in the middle of "
            "an episode that is being trained on; sample, step or audit in a callback on an "
            "environment of its own.",
        )
        sight, applied = self.sight, self.passes.policy.applied
        step_all = limited(self.env.step, self.env)
        generator = torch.Generator(sight.observation.device).manual_seed(seed)
        act = self.passes.acting(steps, self.env.lanes, generator)
        if self.lanes_at_once is not None and isinstance(act, Drawing):
            observations, actions, record = self.lanes_at_once(act, steps, sight.observation)
            sight.observation = record[-1].observation
        else:
            observations, actions, record = [], [], []
            for t in range(steps):
                now = sight.observation
                action = act(t, now)
                observations.append(now)
                actions.append(action)
                record.append(sight.after(step_all(applied(action))))
        self.position = position(self.env)
        action = over_time(actions)
        self.actions.append(action)
        observation = over_time(observations)
        _refuse_unless_finite(self.env, observation, record)
        log_prob, entropy = act.scored(observation, action)
        values = self.passes.values(observation)
        batch = lanes_as_rows(
            self.env,
            record,
            observation=observation,
            action=action,
            log_prob=log_prob,
            mask=over_time([step.real for step in record]),
            value=None if values is None else self._value,
            values=values,
        )
        self.entropy = entropy[batch.mask].mean().item()
        return batch, self._finished(batch, record)

    @property
    def steps(self) -> int:
        """Steps that every lane took since the last restart."""
        return sum(action.shape[1] for action in self.actions)

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to carry on from here: the actions since the last restart."""
        actions = torch.cat(self.actions, 1)
        if not actions.is_floating_point() and 0 <= actions.amin() <= actions.amax() < 256:
            actions = actions.to(torch.uint8)
        state = {
            "actions": actions,
            "returns": self.returns,
            "lengths": self.lengths,
            "seen": self.sight.observation,
        }
        if isinstance(self.env, Normalized):
            state["running_return"] = self.env.running_return
        return state

    def mark(self) -> dict[str, Any]:
        """Where the lanes are, for `go_back`."""
        return {**vars(self), "actions": list(self.actions), "sight": copy.copy(self.sight)}

    def go_back(self, mark: dict[str, Any]) -> None:
        """Let `state` be what it was at the mark; the environment's own lanes have moved on."""
        vars(self).update(mark)

    def restore(self, state: dict[str, Tensor], seed: int) -> bool:
        """Bring every lane to where it was: start from `seed` and act again as it was acted.

        Returns:
            Whether lanes show what they showed then. An environment is a function of its seed and
            its actions; one that draws from elsewhere does not come back to where it was, and its
            lanes must start afresh.
        """
        normaliser = self.env if isinstance(self.env, Normalized) else None
        if normaliser is not None:
            normaliser.updating = False  # it has seen these steps before
        self.restart(seed)
        actions = state["actions"]
        whole = actions.long() if not actions.is_floating_point() else actions
        self.actions = [whole]
        last = self._act_again(whole)
        self.position = position(self.env)
        if normaliser is not None:
            normaliser.updating, normaliser.running_return = True, state["running_return"]
        self.returns, self.lengths = state["returns"], state["lengths"]
        shown = state.get("seen", last)
        if self.sight.memory is None and not _same(shown, last):
            return False
        self.sight.observation = shown
        return True

    def _act_again(self, actions: Tensor) -> Tensor:
        """Act as it was acted, [lanes, T, ...]; returns what lanes show then."""
        at_once = self.lanes_at_once
        if at_once is not None and at_once.compiled and isinstance(self.passes, MlpPasses):
            return at_once.replay(self.passes, actions, self.sight.observation)
        step_all = limited(self.env.step, self.env)
        for action in actions.unbind(1):
            step = step_all(self.passes.policy.applied(action))
        return step.observation

    def _compile(self, compilation: Compilation, first: Tensor) -> None:
        """Compile, once, the steps of lanes that show `first`, with the policy where that can be.

        Before any is taken: what fails leaves no step half done, and a limit on the time of steps
        is not held against the compiler.
        """
        env, passes, self.compilation = self.env, self.passes, None
        if (
            isinstance(env, TensorEnvironment)
            and steps_itself(env)
            and isinstance(passes, MlpPasses)
        ):
            at_once = LanesAtOnce(env, passes.policy)
            if at_once.compile(compilation, passes, first, self.steps_at_a_time):
                self.lanes_at_once = at_once
        else:
            innermost(env).compile_steps(compilation)

    def _value(self, observation: Tensor) -> Tensor:
        value = self.passes.values(observation)
        assert value is not None
        return value

    def _finished(self, batch: Batch, record: list[Step]) -> Finished:
        # the last column is a boundary without being an end; where it is one, the step says so
        ended = batch.boundary & batch.mask
        ended[:, -1] = (record[-1].terminated | record[-1].truncated) & batch.mask[:, -1]
        lane, step = ended.nonzero(as_tuple=True)
        raw = [step.reward if step.raw_reward is None else step.raw_reward for step in record]
        rewards = over_time(raw) * batch.mask
        returns, self.returns = _per_episode(rewards, self.returns, lane, step)
        lengths, self.lengths = _per_episode(batch.mask, self.lengths, lane, step)
        return Finished(returns, lengths.long(), int(batch.mask.sum()))


def _same(saved: Tensor, shown: Tensor) -> bool:
    """Whether two observations agree to rounding."""
    if saved.shape != shown.shape or saved.dtype != shown.dtype:
        return False
    return torch.allclose(saved.double(), shown.double(), rtol=1e-4, atol=1e-5)


def _per_episode(
    steps: Tensor, carried: Tensor, lane: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums up to each end (lane, step) of an episode, and what each lane carries on from there."""
    running = carried[:, None] + torch.cumsum(steps.to(carried.dtype), 1)
    at_end = running[lane, step]
    before = torch.cat([at_end.new_zeros(1), at_end[:-1]]) if len(at_end) else at_end
    changes = lane[1:] != lane[:-1]
    first = torch.cat([changes.new_ones(min(1, len(lane))), changes])
    last = torch.cat([changes, changes.new_ones(min(1, len(lane)))])
    ended = torch.zeros_like(carried).index_put((lane[last],), at_end[last])
    return at_end - torch.where(first, 0, before), running[:, -1] - ended


def _refuse_unless_finite(env: Environment, observation: Tensor, record: list[Step]) -> None:
    """Refuse NaN and infinity; one reduction for all steps finds that there is one."""
    total = torch.cat([step.reward for step in record]).float().sum()
    if observation.is_floating_point():
        total = total + observation.sum()
        for step in record:  # successors that the policy never sees, and V does
            if step.final_observation is not step.observation:
                total = total + step.final_observation.sum()
        total = total + record[-1].observation.sum()
    if not torch.isfinite(total):
        for t, step in enumerate(record):
            refuse_unless_finite_step(step, env, f"at step {t}")
