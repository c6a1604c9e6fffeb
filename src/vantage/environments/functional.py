"""Environments written as pure functions, as Brax and MuJoCo Playground have them, in any library.

A state holds everything: `reset(keys)` makes a batch of states and `step(states, actions)` the next
one, for all lanes at once (`jax.vmap` and `torch.vmap` turn functions of one lane into these).
Nothing of JAX is imported here: arrays are told by what they are.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from vantage.arguments import checked
from vantage.environments import fitted
from vantage.environments.holding import hold
from vantage.environments.interface import Step
from vantage.environments.terms import Terms
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value


class Shown(NamedTuple):
    """What a batch of states shows, arrays of any library.

    Attributes:
        observation: [lanes, ...].
        reward: [lanes] of the step that led here; not read after a reset.
        terminated, truncated: [lanes] whether that step ended the episode, and how; bools, or 0 and
            1. What is both counts as terminated.
    """

    observation: object
    reward: object
    terminated: object
    truncated: object = None


def brax(state: Any) -> Shown:
    """What a state of Brax or MuJoCo Playground shows: `obs`, `reward`, `done`, `info`.

    `info["truncation"]`, where an episode wrapper sets it, tells a time limit from an end.
    """
    info = getattr(state, "info", None) or {}
    truncated = info.get("truncation")
    done = _tensor(state.done).bool()
    if truncated is not None:
        done = done & ~_tensor(truncated).bool()
    return Shown(state.obs, state.reward, done, truncated)


@checked
class Functional:
    """Lanes of an environment of pure functions. A lane starts anew on the step that ends it.

    With Brax (`env = brax.envs.create("ant", episode_length=1000, auto_reset=False)`):

        vt.Functional(
            jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step)),
            observations=Box(-np.inf, np.inf, (env.observation_size,)),
            actions=Box(-1, 1, (env.action_size,)),
            keys=lambda seeds: jax.vmap(jax.random.PRNGKey)(seeds),
            arrays=lambda tensor: jnp.asarray(tensor.numpy()),
        )

    Args:
        reset: keys of n lanes to n states: tensors or arrays with lanes first, in dictionaries,
            tuples and dataclasses, nested as they like.
        step: states and actions [lanes, ...] to the next states. Neither may reset by itself.
        observations, actions: Box or Discrete spaces of one lane; ids count from 0.
        show: states to `Shown`; by default as Brax names things.
        keys: seeds [n], uint32, to what `reset` takes; by default a tensor of them, int64.
        arrays: a tensor of actions to an array of the library; by default it stays a tensor.
        rekey: (states, keys) to the same states with noise of their own to come, for lanes that
            start from one state (audits); None: such starts are refused.
        lanes: how many copies step side by side.
        discount: γ of the objective, in (0, 1].
        horizon: cut episodes off after so many steps; None for no limit but the functions' own.
        name: how messages and run folders call it.

    Raises:
        InputError: lanes, discount or horizon out of range; spaces of another kind.
    """

    def __init__(
        self,
        reset: Callable[[object], object],
        step: Callable[[object, object], object],
        *,
        observations: gymnasium.Space,
        actions: gymnasium.Space,
        show: Callable[[object], Shown] = brax,
        keys: Callable[[np.ndarray], object] | None = None,
        arrays: Callable[[Tensor], object] | None = None,
        rekey: Callable[[object, object], object] | None = None,
        lanes: int = 64,
        discount: float = 0.99,
        horizon: int | None = None,
        name: str = "functional",
    ):
        refuse_unless(lanes >= 1, f"Functional(lanes={lanes}): give at least one lane.")
        refuse_unless(0 < discount <= 1, f"Functional(discount={discount}): γ lies in (0, 1].")
        refuse_unless(
            horizon is None or horizon >= 1, f"Functional(horizon={horizon}): at least one step."
        )
        for what, space in (("observations", observations), ("actions", actions)):
            refuse_unless(
                isinstance(space, Box) or (isinstance(space, Discrete) and space.start == 0),
                f"Functional({what}={space}): give a Box, or a Discrete that counts from 0.",
            )
        self.functions = (reset, step, show)
        self.keys = keys or (lambda seeds: torch.from_numpy(seeds.astype(np.int64)))
        self.arrays, self.rekey = arrays or (lambda tensor: tensor), rekey
        self.observations, self.actions = observations, actions
        self.lanes, self.discount, self.horizon, self.name = lanes, float(discount), horizon, name
        self.state: object = None

    @torch.no_grad()
    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the first observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each.
        """
        hold(self, None)
        self.taken = 0
        self._random = np.random.default_rng(seed)
        reset, _, show = self.functions
        seeds = self._seeds()
        if shared > 1:
            seeds = seeds[np.arange(self.lanes) // shared * shared]
        self.state = reset(self.keys(seeds))
        if shared > 1:
            refuse_unless(self.rekey, _NO_SHARED.format(name=self.name))
            assert self.rekey is not None
            self.state = self.rekey(self.state, self.keys(self._seeds()))
        self.elapsed = torch.zeros(self.lanes, dtype=torch.int64)
        return self._observation(show(self.state))

    def sharing(self, lanes: int) -> "Functional":
        """This environment with `lanes` lanes whose starts can be shared.

        Raises:
            InputError: there is no `rekey`.
        """
        refuse_unless(self.rekey, _NO_SHARED.format(name=self.name))
        other = copy.copy(self)
        other.lanes, other.state = lanes, None
        return other

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Act in every lane; `action` [lanes] or [lanes, D] is raw and clipped to the bounds."""
        refuse_unless(self.state is not None, f"{self.name}: call reset(seed) before step.")
        reset, step, show = self.functions
        self.taken += 1
        following = step(self.state, self.arrays(self._within(action)))
        shown = show(following)
        final = self._observation(shown)
        reward = _tensor(shown.reward).to(torch.float32)
        terminated = _tensor(shown.terminated).bool()
        truncated = torch.zeros_like(terminated)
        if shown.truncated is not None:
            truncated = _tensor(shown.truncated).bool() & ~terminated
        self.elapsed = self.elapsed + 1
        if self.horizon is not None:
            truncated = truncated | ((self.elapsed >= self.horizon) & ~terminated)
        ended = terminated | truncated
        observation = final
        if bool(ended.any()):
            following = select(ended, reset(self.keys(self._seeds())), following)
            observation = self._observation(show(following))
            self.elapsed = self.elapsed.masked_fill(ended, 0)
        self.state = following
        return Step(observation, reward, terminated, truncated, final, torch.ones_like(ended))

    def policy(self, hidden: tuple[int, ...] = (64, 64), seed: int = 0, **choices: Any) -> Policy:
        """A policy that fits; `choices` as for `vantage.environments.fitted.policy`."""
        policy = fitted.policy(self.observations, self.actions, hidden, seed, **choices)
        policy.terms = self.terms
        return policy

    def value(self, hidden: tuple[int, ...] = (64, 64), seed: int = 1, **choices: Any) -> Value:
        """A value function that fits; `choices` as for `vantage.environments.fitted.value`."""
        return fitted.value(self.observations, hidden, seed, **choices)

    @property
    def terms(self) -> Terms:
        """How a policy's tensors correspond to what one lane shows and takes."""
        return Terms(self.observations, self.actions, self.name)

    def _seeds(self) -> np.ndarray:
        return self._random.integers(1 << 32, size=self.lanes, dtype=np.uint32)

    def _observation(self, shown: Shown) -> Tensor:
        tensor = _tensor(shown.observation)
        wanted = (self.lanes, *(self.observations.shape or ()))
        refuse_unless(
            tuple(tensor.shape) == wanted,
            f"{self.name} shows observations of shape {tuple(tensor.shape)}; {self.lanes} lanes of "
            f"{self.observations} are {wanted}. Lanes come first: vmap functions of one lane.",
        )
        if isinstance(self.observations, Discrete):
            return tensor.long()
        return tensor.to(torch.float32).clone()

    def _within(self, action: Tensor) -> Tensor:
        space = self.actions
        shape = (self.lanes, *(space.shape or ()))
        refuse_unless(
            action.numel() == int(np.prod(shape)),
            f"{self.name}.step: actions are of shape {shape}; got {tuple(action.shape)}.",
        )
        action = action.detach().clone().reshape(shape)
        if isinstance(space, Box):
            low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
            return action.to(low.dtype).clamp(low, high)
        return action


_NO_SHARED = (
    "{name} cannot start several lanes from one state: its states carry their noise with them. "
    "Give Functional(rekey=lambda states, keys: ...), which puts new keys into states."
)


def select(mask: Tensor, one: Any, other: Any) -> Any:
    """Where `mask` [lanes] holds the first of two batches of states, else the second.

    Args:
        one, other: tensors or arrays with lanes first, in dictionaries, tuples, lists and
            dataclasses, nested alike; what has no lanes (a model, a number) is taken from `other`.

    Raises:
        InputError: something with lanes that is neither a tensor nor an array.
    """
    if isinstance(other, dict):
        return {key: select(mask, one[key], other[key]) for key in other}
    if isinstance(other, tuple) and hasattr(other, "_fields"):
        return type(other)(*(select(mask, a, b) for a, b in zip(one, other, strict=True)))
    if isinstance(other, tuple | list):
        return type(other)(select(mask, a, b) for a, b in zip(one, other, strict=True))
    if dataclasses.is_dataclass(other) and not isinstance(other, type):
        names = [field.name for field in dataclasses.fields(other)]
        parts = {name: select(mask, getattr(one, name), getattr(other, name)) for name in names}
        return dataclasses.replace(other, **parts)
    if other is None or not np.shape(other) or np.shape(other)[0] != len(mask):
        return other
    rows = mask.reshape(-1, *[1] * (len(np.shape(other)) - 1))
    if isinstance(other, Tensor):
        return torch.where(rows.to(other.device), one, other)
    if not hasattr(other, "__array_namespace__"):
        raise InputError(
            f"A state holds a {type(other).__name__}: it must be made of tensors, or of arrays "
            "that follow the array API standard, as those of NumPy and JAX do."
        )
    namespace = other.__array_namespace__()
    return namespace.where(namespace.asarray(rows.numpy()), one, other)


def _tensor(array: object) -> Tensor:
    """An array of any library as a tensor on the CPU."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    return torch.from_numpy(np.array(array))
