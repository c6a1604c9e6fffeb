"""Gymnasium vector environments behind the one interface, whatever their autoreset mode.

Gymnasium 1.x vector environments differ in what happens when an episode ends:

- NEXT_STEP: the final observation is returned; the next step ignores its action, gives reward 0 and
  returns the first observation of the new episode. That step is a dummy: `Step.real` is False.
- SAME_STEP: the first observation of the new episode is returned at once and the final one is in
  `info["final_obs"]`.
- DISABLED: the final observation is returned and the caller resets the lanes that ended.

The adapter reads `metadata["autoreset_mode"]` and turns all three into the same `Step`.
"""

import difflib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from vantage.environments.interface import Step
from vantage.errors import InputError, refuse_unless
from vantage.policies import Categorical, Gaussian, SoftmaxTable, Value, mlp


class Gymnasium:
    """Many lanes of a Gymnasium environment, stepped together.

    Args:
        env: an id such as "CartPole-v1", or a `gymnasium.vector.VectorEnv`, whose lanes are then
            taken as they are.
        lanes: how many copies run side by side.
        discount: γ of the objective, in (0, 1].
        **settings: passed to `gymnasium.make_vec`, e.g. `is_slippery=False`.

    Raises:
        InputError: unknown id (with near matches), unsupported space, missing or unknown autoreset
            mode, lanes or discount out of range.
    """

    def __init__(
        self,
        env: str | VectorEnv,
        lanes: int | None = None,
        discount: float = 0.99,
        **settings: Any,
    ):
        refuse_unless(
            0 < discount <= 1,
            f"Gymnasium(discount={discount}): γ must lie in (0, 1]; 1 means undiscounted.",
        )
        if isinstance(env, str):
            lanes = 64 if lanes is None else lanes
            refuse_unless(lanes >= 1, f"Gymnasium(lanes={lanes}): give at least one lane.")
            self.vector = _make(env, lanes, settings)
            self.name = env
        else:
            refuse_unless(
                lanes is None or lanes == env.num_envs,
                f"Gymnasium(lanes={lanes}): the environment given has {env.num_envs} lanes; "
                "leave lanes out.",
            )
            self.vector = env
            self.name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.lanes: int = self.vector.num_envs
        self.discount = float(discount)
        self.settings = dict(settings)
        self._made_from_id = isinstance(env, str)
        self._observe = _observation_reader(self.vector, self.name)
        self._act = _action_writer(self.vector, self.name)
        self._ended = np.zeros(self.lanes, dtype=bool)
        self._advance = _advance_by_mode(self.vector, self.name)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the first observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each: they are reset with one
        seed and then given random numbers of their own. `sharing` makes an environment that can.
        """
        if shared == 1:
            observation, _ = self.vector.reset(seed=seed)
        else:
            assert isinstance(self.vector, SyncVectorEnv)
            lane = range(self.lanes)
            observation, _ = self.vector.reset(seed=[seed + i // shared for i in lane])
            for i, env in enumerate(self.vector.envs):
                env.unwrapped.np_random = np.random.default_rng([seed, i])
        self._ended = np.zeros(self.lanes, dtype=bool)
        return self._observe(observation)

    def sharing(self, lanes: int) -> "Gymnasium":
        """This environment with `lanes` lanes, stepped one by one, whose starts can be shared.

        Raises:
            InputError: it was not made from an id, so that its lanes cannot be made again.
        """
        refuse_unless(
            self._made_from_id,
            f"{self.name} was given as a vector environment: its lanes cannot be started together "
            "from one state; give its id to vantage.Gymnasium instead.",
        )
        settings = self.settings | {"vectorization_mode": "sync"}
        return Gymnasium(self.name, lanes, self.discount, **settings)

    def step(self, action: Tensor) -> Step:
        """Act in every lane; `action` [lanes, ...] is raw and clipped to the bounds here."""
        real = ~self._ended
        following, reward, terminated, truncated, final = self._advance(
            self.vector, self._act(action)
        )
        # Where NEXT_STEP resets a lane, the step is a dummy: only its observation means anything.
        terminated = terminated & real
        truncated = truncated & real & ~terminated
        if _mode(self.vector) is AutoresetMode.NEXT_STEP:
            self._ended = terminated | truncated
        observation = self._observe(following)
        return Step(
            observation=observation,
            reward=torch.from_numpy(np.where(real, reward, 0).astype(np.float32)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            final_observation=observation if final is following else self._observe(final),
            real=torch.from_numpy(real),
        )

    def policy(self, hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> Categorical | Gaussian:
        """A policy that fits this environment's spaces.

        A perceptron over Box observations, a softmax table over Discrete ones; Categorical for
        Discrete actions, Gaussian for Box actions. The last layer starts small, so that the first
        policy is close to uniform.

        Args:
            hidden: widths of the hidden layers.
            seed: of the initial weights.
        """
        space, actions = self.vector.single_observation_space, self.vector.single_action_space
        generator = torch.Generator().manual_seed(seed)
        policy: Categorical | Gaussian
        if isinstance(actions, gymnasium.spaces.Box):
            size = int(np.prod(actions.shape))
            policy = Gaussian(_net(space, hidden, size, 0.01, generator), size)
            policy.hidden = tuple(hidden)
            return policy
        assert isinstance(actions, gymnasium.spaces.Discrete)
        if isinstance(space, gymnasium.spaces.Discrete):
            policy = SoftmaxTable(int(space.n), int(actions.n))
        else:
            policy = Categorical(_net(space, hidden, int(actions.n), 0.01, generator))
        policy.hidden = tuple(hidden)
        return policy

    def value(self, hidden: tuple[int, ...] = (64, 64), seed: int = 1) -> Value:
        """A value function over this environment's observations, initially close to 0."""
        generator = torch.Generator().manual_seed(seed)
        value = Value(_net(self.vector.single_observation_space, hidden, 1, 0.01, generator))
        value.hidden = tuple(hidden)
        return value

    def close(self) -> None:
        """Free what the environment holds (processes, windows)."""
        self.vector.close()


def _make(name: str, lanes: int, settings: dict[str, Any]) -> VectorEnv:
    try:
        return gymnasium.make_vec(name, num_envs=lanes, **settings)
    except gymnasium.error.UnregisteredEnv as error:
        near = difflib.get_close_matches(name, gymnasium.registry.keys(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see gymnasium.pprint_registry()."
        raise InputError(f"Unknown environment {name!r}; {hint}") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise InputError(f"Environment {name!r} needs a package: {error}") from error


def _mode(vector: VectorEnv) -> Any:
    return vector.metadata.get("autoreset_mode")


# (vector, action) -> observation to act on, reward, terminated, truncated, true successor
_Advance = Callable[[VectorEnv, Any], tuple[Any, Any, Any, Any, Any]]


def _advance_by_mode(vector: VectorEnv, name: str) -> _Advance:
    modes: dict[Any, _Advance] = {
        AutoresetMode.NEXT_STEP: _advance_next_step,
        AutoresetMode.SAME_STEP: _advance_same_step,
        AutoresetMode.DISABLED: _advance_disabled,
    }
    mode = _mode(vector)
    if mode not in modes:
        raise InputError(
            f"Environment {name!r} declares autoreset_mode={mode!r} in its metadata; set it to one "
            f"of {', '.join(str(known) for known in AutoresetMode)} so that its reset steps can be "
            "told from real ones."
        )
    return modes[mode]


def _advance_next_step(vector: VectorEnv, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    observation, reward, terminated, truncated, _ = vector.step(action)
    return observation, reward, terminated, truncated, observation


def _advance_same_step(vector: VectorEnv, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    observation, reward, terminated, truncated, info = vector.step(action)
    final = observation
    ended = terminated | truncated
    if ended.any():
        final = np.array(observation, copy=True)
        final[ended] = np.stack(list(info["final_obs"][ended]))
    return observation, reward, terminated, truncated, final


def _advance_disabled(vector: VectorEnv, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    final, reward, terminated, truncated, _ = vector.step(action)
    ended = terminated | truncated
    observation = final
    if ended.any():
        # Some environments write into the array they returned before: keep the final observations.
        final, terminated, truncated = np.copy(final), np.copy(terminated), np.copy(truncated)
        observation, _ = vector.reset(options={"reset_mask": ended})
    return observation, reward, terminated, truncated, final


def _observation_reader(vector: VectorEnv, name: str) -> Any:
    space = vector.single_observation_space
    if isinstance(space, gymnasium.spaces.Discrete):
        start = int(space.start)
        return lambda observation: torch.from_numpy(np.array(observation, np.int64) - start)
    refuse_unless(
        isinstance(space, gymnasium.spaces.Box),
        f"Environment {name!r} has observation space {space}; supported are Box and Discrete. "
        "Wrap it with gymnasium.wrappers.vector.FlattenObservation.",
    )
    # a copy: environments may reuse the array at the next step
    return lambda observation: torch.from_numpy(np.array(observation, np.float32)).flatten(1)


def _action_writer(vector: VectorEnv, name: str) -> Any:
    space = vector.single_action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        start, dtype = int(space.start), vector.action_space.dtype
        return lambda action: (action.numpy() + start).astype(dtype, copy=False)
    refuse_unless(
        isinstance(space, gymnasium.spaces.Box),
        f"Environment {name!r} has action space {space}; supported are Discrete and Box. "
        "Wrap it with a gymnasium ActionWrapper that offers one of these.",
    )
    assert isinstance(space, gymnasium.spaces.Box)
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    return lambda action: np.clip(action.numpy().reshape(-1, *shape), low, high).astype(dtype)


def _net(
    space: gymnasium.Space,
    hidden: tuple[int, ...],
    outputs: int,
    gain: float,
    generator: torch.Generator,
) -> torch.nn.Module:
    if isinstance(space, gymnasium.spaces.Discrete):
        table = torch.nn.Embedding(int(space.n), outputs)
        torch.nn.init.zeros_(table.weight)
        return table
    assert isinstance(space, gymnasium.spaces.Box)
    return mlp(int(np.prod(space.shape)), hidden, outputs, gain=gain, generator=generator)
