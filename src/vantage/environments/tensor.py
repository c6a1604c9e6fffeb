"""Environments written as tensor code: state in, state out, all lanes in a few operations.

A task is `Dynamics`: pure functions and constants, as data. `TensorEnvironment` runs many lanes of
it, on CPU or GPU. Its `advance` is pure as well: it takes the state and the random numbers of a
step and branches on no value, so that a policy and its environment compile into one graph.

Lanes are the last dimension of states and random numbers: each coordinate is then one contiguous
row, an operation on it vectorises, and states that are ids (shape [lanes]) and states that are
vectors (shape [d, lanes]) are handled alike. Observations and actions have lanes first, as all
environments do.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from vantage.arguments import checked
from vantage.environments import fitted
from vantage.environments.compiled import Compilation, compact
from vantage.environments.devices import device_named
from vantage.environments.holding import hold
from vantage.environments.interface import Step
from vantage.environments.shown import described, shown
from vantage.environments.terms import Terms
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value

# Random numbers drawn at a time: one call for many steps where lanes are few, and on an
# accelerator, where a call costs as much as a million numbers, where they are many.
BLOCK, BLOCK_ACCELERATOR = 1 << 13, 1 << 22


@dataclass(frozen=True, eq=False)
class Dynamics:
    """A task. The functions are pure, take all lanes at once and branch on no tensor's value.

    Attributes:
        name: how messages and run folders call it.
        initial: uniform numbers [starts, n] in [0, 1) to n first states [..., n].
        transition: state, action [lanes] (ids) or [lanes, D] (within the bounds of `actions`) and
            uniform numbers [noises, lanes] in [0, 1) to the next state, reward [lanes] and
            terminated [lanes].
        observe: state to observation [lanes, ...].
        observations, actions: Box or Discrete (ids from 0) spaces of one lane.
        starts: how many uniform numbers a first state takes.
        noises: how many a transition takes.
        horizon: an episode ends after this many steps if it has not before; None for no limit.
        final: True where the horizon is the problem's own end, so that nothing is worth anything
            after it (`terminated`); False where it is a time limit (`truncated`).
    """

    name: str
    initial: Callable[[Tensor], Tensor]
    transition: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    observe: Callable[[Tensor], Tensor]
    observations: gymnasium.Space
    actions: gymnasium.Space
    starts: int
    noises: int = 0
    horizon: int | None = None
    final: bool = False


class Carry(NamedTuple):
    """What a step hands to the next.

    Attributes:
        state: [..., lanes].
        elapsed: [lanes] steps since the start of the episode.
    """

    state: Shaped[Tensor, "... lanes"]
    elapsed: Int[Tensor, " lanes"]


class Randomness(NamedTuple):
    """What chance decides in one step.

    Attributes:
        fresh: [..., lanes] a first state for every lane, used where its episode ends.
        noise: [noises, lanes] uniform numbers in [0, 1) of the transition.
    """

    fresh: Shaped[Tensor, "... lanes"]
    noise: Float[Tensor, "noises lanes"]


@checked
class TensorEnvironment:
    """Lanes of a task written as tensor code. A lane starts anew on the step that ends its episode.

    Subclass it with `dynamics` for a task of your own; see `vantage.environments.classic`.

    Args:
        lanes: how many copies step side by side.
        discount: γ of the objective, in (0, 1].
        device: where states, observations and random numbers live. One seed gives one sequence of
            bits per kind of device.
        dtype: the type of states, observations and rewards; the class or its name ("float64").

    Attributes:
        dynamics: the task.
        observations, actions: spaces of one lane.
        carry: state and elapsed steps of every lane.
        settings: what a run folder needs to make it again, with `lanes` and `discount`.

    Raises:
        InputError: lanes or discount out of range; a step before the first reset; actions of
            another shape or kind, or ids that do not exist (this last is not looked at on a GPU,
            which would have to be waited for).
    """

    dynamics: Dynamics
    carry: Carry | None
    _compiled: Callable[..., tuple[Carry, Step]] | None

    def __init__(
        self,
        lanes: int = 64,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ):
        kind = type(self).__name__
        refuse_unless(lanes >= 1, f"{kind}(lanes={lanes}): give at least one lane.")
        refuse_unless(
            0 <= discount <= 1, f"{kind}(discount={discount}): γ lies in [0, 1]; 1: undiscounted."
        )
        self.discount, self.name = float(discount), self.dynamics.name
        self.observations, self.actions = self.dynamics.observations, self.dynamics.actions
        self.device = device_named(device)
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.settings: dict[str, Any] = {"dtype": str(self.dtype).removeprefix("torch.")}
        self._bounds = self._limits()
        self._open(lanes)

    @property
    def state(self) -> Shaped[Tensor, "... lanes"]:
        """The state of every lane; assign to it to put the lanes elsewhere."""
        return self._carry().state

    @state.setter
    def state(self, state: Shaped[Tensor, "... lanes"]) -> None:
        self.carry = self._carry()._replace(state=state)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return shown(self)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the first observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each.
        """
        hold(self, None)
        self.taken = 0
        generator = torch.Generator(self.device).manual_seed(seed)
        self._randomness = self._draws(generator)
        state = next(self._randomness).fresh
        if shared > 1:
            lane = torch.arange(self.lanes, device=self.device)
            state = state[..., lane // shared * shared]
        self.carry = Carry(state, torch.zeros(self.lanes, dtype=torch.int64, device=self.device))
        return self.dynamics.observe(state)

    def sharing(self, lanes: int) -> "TensorEnvironment":
        """This environment with another number of lanes."""
        refuse_unless(lanes >= 1, f"{self.name}.sharing(lanes={lanes}): give at least one lane.")
        other = copy.copy(self)
        other._open(lanes)
        return other

    def step(self, action: Tensor) -> Step:
        """Act in every lane; `action` [lanes] or [lanes, D] is raw and clipped to the bounds."""
        carry = self._carry()
        self._refuse_unless_possible(action)
        if self._compiled is not None:
            self.carry, step = self._compiled(carry, compact(action.detach()), self.draw())
            return step
        self.carry, step = self.advance(carry, action.detach(), self.draw())
        return step

    def compile_steps(self, compilation: Compilation | None) -> None:
        """Let `step` run a compiled `advance`, where that can be; None: as it is again."""
        if compilation is None:
            self._compiled = None
        if compilation is None or self._compiled is not None:
            return
        fresh, noise = (each[0] for each in self.random(torch.Generator().manual_seed(0), 1))
        elapsed = torch.zeros(self.lanes, dtype=torch.int64)
        kind = torch.int64 if isinstance(self.actions, Discrete) else self.dtype
        action = torch.zeros(self.lanes, *(self.actions.shape or ()), dtype=kind)
        carry, random = Carry(fresh.clone(), elapsed), Randomness(fresh, noise)
        self._compiled = compilation(self.advance, carry, action, random)

    def draw(self) -> Randomness:
        """What chance decides in the next step, which is counted as taken."""
        self.taken += 1
        return next(self._randomness)

    def advance(self, carry: Carry, action: Tensor, random: Randomness) -> tuple[Carry, Step]:
        """One step as a pure function, which compiles together with a policy.

        Args:
            carry: from `env.carry` after a reset, or from the step before.
            action: as for `step`; nothing is checked.
            random: one step of what `env.random` gives.

        Returns:
            the next carry, fresh where an episode ended, and the Step.
        """
        dynamics = self.dynamics
        if self._bounds is not None:
            action = action.to(self.dtype).clamp(*self._bounds)
        following, reward, terminated = dynamics.transition(carry.state, action, random.noise)
        elapsed, truncated, ended = carry.elapsed + self._one, self._never, terminated
        if dynamics.horizon is not None:
            late = elapsed >= dynamics.horizon
            ended = terminated | late
            if dynamics.final:
                terminated = ended
            else:
                truncated = late & ~terminated
        state = torch.where(ended, random.fresh, following)
        step = Step(
            observation=dynamics.observe(state),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_observation=dynamics.observe(following),
            real=self._always,
        )
        return Carry(state, elapsed.masked_fill(ended, 0)), step

    def random(self, generator: torch.Generator, steps: int) -> Randomness:
        """What chance decides in `steps` steps: each tensor has [steps] before its own shape."""
        starts, noises = self.dynamics.starts, self.dynamics.noises
        fresh = self.dynamics.initial(self._uniform(generator, starts, steps * self.lanes))
        # Every step's states are laid out alike, however many steps: compiled code need not differ.
        fresh = compact(fresh.unflatten(-1, (steps, self.lanes)).movedim(-2, 0))
        return Randomness(fresh, self._uniform(generator, steps, noises, self.lanes))

    def policy(self, hidden: tuple[int, ...] = (64, 64), seed: int = 0, **choices: Any) -> Policy:
        """A policy that fits, on this environment's device; its weights are of `dtype`.

        Args:
            hidden: widths of the hidden layers.
            seed: the seed of the initial weights.
            **choices: net, squash, log_std, orthogonal, recurrent; see
                `vantage.environments.fitted.policy`.
        """
        policy = fitted.policy(self.observations, self.actions, hidden, seed, **choices)
        policy.terms = self.terms
        return policy.to(self.device, self.dtype)

    @property
    def terms(self) -> Terms:
        """How a policy's tensors correspond to what one lane shows and takes."""
        return Terms(self.observations, self.actions, self.name)

    def value(self, hidden: tuple[int, ...] = (64, 64), seed: int = 1, **choices: Any) -> Value:
        """A value function over this environment's observations, initially close to 0.

        Args:
            hidden: widths of the hidden layers.
            seed: the seed of the initial weights.
            **choices: net, orthogonal, recurrent; see `vantage.environments.fitted.value`.
        """
        value = fitted.value(self.observations, hidden, seed, **choices)
        return value.to(self.device, self.dtype)

    def _open(self, lanes: int) -> None:
        self.lanes = lanes
        self.carry = None
        self._compiled = None
        self._never = torch.zeros(lanes, dtype=torch.bool, device=self.device)
        self._always = ~self._never
        self._one = torch.ones((), dtype=torch.int64, device=self.device)

    def _carry(self) -> Carry:
        refuse_unless(self.carry is not None, f"{self.name}: call reset(seed) before step.")
        assert self.carry is not None
        return self.carry

    def _draws(self, generator: torch.Generator) -> Iterator[Randomness]:
        numbers = (self.dynamics.starts + self.dynamics.noises) * self.lanes
        at_a_time = BLOCK if self.device.type == "cpu" else BLOCK_ACCELERATOR
        steps = max(1, at_a_time // numbers)
        while True:
            block = self.random(generator, steps)
            yield from map(Randomness, block.fresh.unbind(), block.noise.unbind())

    def _uniform(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=self.dtype, device=self.device)

    def _limits(self) -> tuple[Tensor, Tensor] | None:
        space = self.actions
        if not isinstance(space, Box) or not np.isfinite([space.low, space.high]).any():
            return None
        low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
        return low.to(self.device, self.dtype), high.to(self.device, self.dtype)

    def _refuse_unless_possible(self, action: Tensor) -> None:
        space = self.actions
        if isinstance(space, Discrete):
            fits = action.shape == (self.lanes,) and not action.is_floating_point()
            if fits and self.device.type == "cpu":
                low, high = action.aminmax()
                fits = low.item() >= 0 and high.item() < space.n
            wanted = f"ids from 0 to {space.n - 1}, one for each of {self.lanes} lanes"
        else:
            shape = (self.lanes, *space.shape)  # type: ignore[misc]
            fits = action.shape == shape and action.is_floating_point()
            wanted = f"real, of shape {shape}"
        if not fits:  # writing out a tensor costs more than the step
            raise InputError(f"{self.name}.step: actions are {wanted}; got {action}.")


def normal(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard normal numbers from uniform ones in [0, 1), by the inverse distribution function."""
    # half the spacing of torch.rand's numbers, in place of a zero that would give −∞
    return torch.special.ndtri(uniform.clamp(min=torch.finfo(uniform.dtype).eps / 4))
