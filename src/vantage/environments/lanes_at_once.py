"""Some steps of tensor lanes asked of the device as one piece of work: recorded, or compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vantage.environments import making
from vantage.environments.compiled import Compilation, compact
from vantage.environments.holding import innermost
from vantage.environments.interface import Step
from vantage.environments.tensor import Carry, Randomness, TensorEnvironment
from vantage.errors import refuse_unless
from vantage.gradients.mlp_passes import Drawing, MlpPasses, drawn
from vantage.gradients.recorded import Recorded, Recorder
from vantage.policies import Policy

_OF_A_STEP = ("observation", "reward", "terminated", "truncated", "final_observation", "real")
# Steps in one compiled graph, at most: a call costs as much as several steps of 64 lanes, and a
# graph of more takes longer to compile than that saves.
AT_ONCE = 4
REPLAYED = 256  # graphs at a time when steps are taken again: a bound on memory


def steps_itself(env: TensorEnvironment) -> bool:
    """Whether a step of it is `advance` and nothing besides: a subclass may do otherwise."""
    return all(
        getattr(type(env), name) is getattr(TensorEnvironment, name)
        for name in ("step", "advance", "draw")
    )


def refuse_unless_compilable(env: Any) -> None:
    """Refuse an environment whose steps there is nothing to compile of.

    Raises:
        InputError: it is no tensor environment, takes its steps in a way of its own, or is on
            another device.
    """
    lanes = innermost(env)
    near = f"tensor/{env.name}"
    refuse_unless(
        isinstance(lanes, TensorEnvironment) and type(lanes).step is TensorEnvironment.step,
        f"train(compile=True): steps of {env.name} are not tensor code, which alone can be "
        f"compiled; leave compile (--compile) out"
        f"{f', or train on {near}' if near in making.TENSOR else ''}.",
    )
    refuse_unless(
        lanes.device.type == "cpu",
        f"train(compile=True): {env.name} is on {lanes.device}, and what is compiled is for the "
        "processor (on cuda its fragments are recorded as CUDA graphs as it is); leave compile "
        "(--compile) out.",
    )


class LanesAtOnce:
    """Acts in every lane for some steps: a policy by hand and dynamics that are pure functions.

    Numbers are those of `env.step` under `policy`, step by step: the same operations on the same
    random numbers, where they are compiled to rounding.

    Args:
        env: whose lanes go on.
        policy: what is done to its actions before they are applied.
        recorder: the recorder of the device; None runs the steps as they are.
    """

    def __init__(self, env: TensorEnvironment, policy: Policy, recorder: Recorder | None = None):
        self.env, self.policy = env, policy
        self.recorded = Recorded(recorder)
        self.compiled: Callable[..., list[Tensor]] | None = None

    def __call__(
        self, act: Drawing, steps: int, observation: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Step]]:
        """What was seen, done and what came of it, at each of `steps` steps.

        Args:
            act: draws; what it needs for `scored` is left in it.
            steps: T.
            observation: [lanes, ...] what lanes show.
        """
        outputs, actions, *fields = self._run(
            act.actor, act.normal, act.address, observation, act.shifts
        )
        act.outputs = list(outputs.unbind())
        record = [
            Step(**dict(zip(_OF_A_STEP, at, strict=True)))
            for at in zip(*(field.unbind() for field in fields), strict=True)
        ]
        shown = [observation, *(step.observation for step in record[:-1])]
        return shown, list(actions.unbind()), record

    def compile(
        self, compilation: Compilation, passes: MlpPasses, observation: Tensor, steps: int
    ) -> bool:
        """Compile some steps, and say whether that could be.

        Args:
            compilation: compiles.
            passes: the policy that will act.
            observation: [lanes, ...] what lanes show.
            steps: how many will be asked for at a time; graphs are of a number that divides it.
        """
        self.size = next(size for size in range(AT_ONCE, 0, -1) if steps % size == 0)
        random = self.env.random(torch.Generator().manual_seed(0), self.size)
        still = passes.still()
        noise = observation.new_zeros(self.size, len(observation), len(still[-1].bias))
        self.compiled = compilation(
            self._steps, still, passes.log_std is not None,
            compact(observation), *self.env._carry(), *random, noise,
        )  # fmt: skip
        return self.compiled is not None

    def replay(self, passes: MlpPasses, actions: Tensor, observation: Tensor) -> Tensor:
        """Act again as it was acted, [lanes, T, ...]; returns what lanes show then.

        The compiled steps are those that acted, so that lanes come back to the bit: a policy whose
        outputs are 0 does what its noise says.
        """
        still, normal = passes.still(), passes.log_std is not None
        kind, choices = observation.dtype, len(still[-1].bias)
        for some in actions.split(REPLAYED * self.size, 1):
            noise = (some if normal else one_hot(some, choices)).transpose(0, 1).to(kind)
            shown = self._run(still, normal, 0, observation, noise.contiguous())[2]
            observation = shown[-1]
        return observation

    def _run(
        self, actor: list[Any], normal: bool, address: int, observation: Tensor, shifts: Tensor
    ) -> list[Tensor]:
        """Outputs, actions and `_OF_A_STEP`, [T, lanes, ...] each; the lanes go on."""
        env, carry = self.env, self.env._carry()
        random = [env.draw() for _ in range(len(shifts))]
        fresh, noise = (torch.stack(each) for each in zip(*random, strict=True))
        given = (observation, carry.state, carry.elapsed, fresh, noise, shifts)
        if self.compiled is None:
            work = partial(self._steps, actor, normal)
            state, elapsed, *record = self.recorded(work, address, *given)
        else:
            state, elapsed, *record = self._in_pieces(partial(self.compiled, actor, normal), *given)
        env.carry = Carry(state, elapsed)
        return record

    def _in_pieces(
        self,
        work: Callable[..., list[Tensor]],
        observation: Tensor,
        state: Tensor,
        elapsed: Tensor,
        *random: Tensor,
    ) -> list[Tensor]:
        """`work` for `size` steps at a time."""
        pieces = []
        for some in zip(*(each.split(self.size) for each in random), strict=True):
            # a reset may lay them out otherwise than compiled steps do
            state, elapsed, *record = work(compact(observation), compact(state), elapsed, *some)
            pieces.append(record)
            observation = record[2][-1]
        return [state, elapsed, *map(torch.cat, zip(*pieces, strict=True))]

    def _steps(
        self,
        actor: list[Any],
        normal: bool,
        observation: Tensor,
        state: Tensor,
        elapsed: Tensor,
        fresh: Tensor,
        noise: Tensor,
        shifts: Tensor,
    ) -> list[Tensor]:
        carry = Carry(state, elapsed)
        outputs, actions, record = [], [], []
        for random, shift in zip(
            zip(fresh.unbind(), noise.unbind(), strict=True), shifts.unbind(), strict=True
        ):
            output, action = drawn(actor, normal, observation, shift)
            carry, step = self.env.advance(carry, self.policy.applied(action), Randomness(*random))
            observation = step.observation
            outputs.append(output)
            actions.append(action)
            record.append(step)
        kept = torch.stack(outputs) if not normal else shifts.new_empty(len(actions))
        fields = (torch.stack([getattr(step, name) for step in record]) for name in _OF_A_STEP)
        return [carry.state, carry.elapsed, kept, torch.stack(actions), *fields]
