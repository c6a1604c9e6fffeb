"""All steps of a fragment of tensor lanes, asked of the device as one piece of work."""

from functools import partial

import torch
from torch import Tensor

from vantage.environments.interface import Step
from vantage.environments.tensor import Carry, Randomness, TensorEnvironment
from vantage.gradients.mlp_passes import Drawing
from vantage.gradients.recorded import Recorded, Recorder
from vantage.policies import Policy

_OF_A_STEP = ("observation", "reward", "terminated", "truncated", "final_observation", "real")


def steps_itself(env: TensorEnvironment) -> bool:
    """Whether a step of it is `advance` and nothing besides: a subclass may do otherwise."""
    return all(
        getattr(type(env), name) is getattr(TensorEnvironment, name)
        for name in ("step", "advance", "draw")
    )


class LanesAtOnce:
    """Acts in every lane for some steps: a policy by hand and dynamics that are pure functions.

    Numbers are those of `env.step` under `policy`, step by step: the same operations on the same
    random numbers.

    Args:
        env: whose lanes go on.
        policy: what is done to its actions before they are applied.
        recorder: the recorder of the device; None runs the steps as they are.
    """

    def __init__(self, env: TensorEnvironment, policy: Policy, recorder: Recorder | None):
        self.env, self.policy = env, policy
        self.recorded = Recorded(recorder)

    def __call__(
        self, act: Drawing, steps: int, observation: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Step]]:
        """What was seen, done and what came of it, at each of `steps` steps.

        Args:
            act: draws; what it needs for `scored` is left in it.
            steps: T.
            observation: [lanes, ...] what lanes show.
        """
        env, carry = self.env, self.env._carry()
        random = [env.draw() for _ in range(steps)]
        fresh, noise = (torch.stack(each) for each in zip(*random, strict=True))
        state, elapsed, outputs, actions, *fields = self.recorded(
            partial(self._steps, act), act.address,
            observation, carry.state, carry.elapsed, fresh, noise, act.shifts,
        )  # fmt: skip
        env.carry = Carry(state, elapsed)
        act.outputs = list(outputs.unbind())
        record = [
            Step(**dict(zip(_OF_A_STEP, at, strict=True)))
            for at in zip(*(field.unbind() for field in fields), strict=True)
        ]
        shown = [observation, *(step.observation for step in record[:-1])]
        return shown, list(actions.unbind()), record

    def _steps(
        self,
        act: Drawing,
        observation: Tensor,
        state: Tensor,
        elapsed: Tensor,
        fresh: Tensor,
        noise: Tensor,
        shifts: Tensor,
    ) -> list[Tensor]:
        act, carry = act.shifted_by(shifts), Carry(state, elapsed)
        actions, record = [], []
        for t, random in enumerate(zip(fresh.unbind(), noise.unbind(), strict=True)):
            action = act(t, observation)
            carry, step = self.env.advance(carry, self.policy.applied(action), Randomness(*random))
            observation = step.observation
            actions.append(action)
            record.append(step)
        outputs = torch.stack(act.outputs) if act.outputs else shifts.new_empty(len(actions))
        fields = (torch.stack([getattr(step, name) for step in record]) for name in _OF_A_STEP)
        return [carry.state, carry.elapsed, outputs, torch.stack(actions), *fields]
