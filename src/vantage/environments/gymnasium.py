"""Gymnasium vector environments behind the one interface, whatever their autoreset mode.

Gymnasium 1.x vector environments differ in what happens when an episode ends:

- NEXT_STEP: the final observation is returned; the next step ignores its action, gives reward 0 and
  returns the first observation of the new episode. That step is a dummy: `Step.real` is False.
- SAME_STEP: the first observation of the new episode is returned at once and the final one is in
  `info["final_obs"]`.
- DISABLED: the final observation is returned and the caller resets the lanes that ended.

The adapter reads `metadata["autoreset_mode"]` and turns all three into the same `Step`.
"""

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from vantage.arguments import checked
from vantage.environments import fitted, spaces
from vantage.environments.devices import at_once, device_named
from vantage.environments.generators import reseed
from vantage.environments.holding import hold
from vantage.environments.interface import Step
from vantage.environments.lanes import Lanes, worker_death
from vantage.environments.masks import mask_part
from vantage.environments.shown import described, shown
from vantage.environments.sources import source
from vantage.environments.terms import Terms
from vantage.environments.vectors import vector
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value


@checked
class Gymnasium:
    """Many lanes of a Gymnasium environment, stepped together.

    Args:
        env: an id such as "CartPole-v1"; "module:Name" or "file.py:Name", where Name is an id that
            the module registers or a class, function, EnvSpec or environment of it; a class derived
            from `gymnasium.Env`; a function that makes an environment; an `EnvSpec`; an
            environment, which is copied into every lane; or a `gymnasium.vector.VectorEnv`, whose
            lanes are taken as they are.
        lanes: how many copies run side by side.
        discount: γ of the objective, in (0, 1].
        action_mask: which actions are allowed, told by the entry "action_mask" of Dict observations
            (None, the default, takes it where it fits the actions); by the entry of that name
            of `info` or of the observation (True, or its name); or by nothing (False: an entry of
            the observation like any other). `policy` is then a masked one.
        device: where observations, policy and value function live ("cuda"); the environment itself
            runs where it always does.
        **settings: for what makes the environment: `gymnasium.make` (e.g. `is_slippery=False`), the
            class or the function. Besides, `wrappers`: functions from an environment to an
            environment, or strings such as
            "gymnasium.wrappers:FrameStackObservation(stack_size=4)"; `max_episode_steps`; and
            `vectorization_mode`: "sync", "async" (a process a lane) or "vector_entry_point". By
            default an id's own vector environment where it has one and
            there are 8 lanes or more, else the lanes are stepped one by one in this process.

    Raises:
        InputError: unknown id (with near matches) or one out of date; a package that is missing;
            what is no environment; unsupported space; missing or unknown autoreset mode; lanes or
            discount out of range; an action mask that is not there or does not fit.
    """

    def __init__(
        self,
        env: object,
        lanes: int | None = None,
        discount: float = 0.99,
        *,
        action_mask: bool | str | None = None,
        device: torch.device | str = "cpu",
        **settings: Any,
    ):
        refuse_unless(
            0 < discount <= 1,
            f"{type(self).__name__}(discount={discount}): γ must lie in (0, 1]; 1 means "
            "undiscounted.",
        )
        self.settings = settings | ({} if action_mask is None else {"action_mask": action_mask})
        self._resetting: np.ndarray | None = None
        self._waiting: np.ndarray | None = None
        self.taken = 0  # steps since the reset
        self._given = env
        self.named = not isinstance(env, VectorEnv)
        if isinstance(env, VectorEnv):
            refuse_unless(
                lanes is None or lanes == env.num_envs,
                f"Gymnasium(lanes={lanes}): the environment given has {env.num_envs} lanes; "
                "leave lanes out.",
            )
            self.vector = env
            self.name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        else:
            lanes = 64 if lanes is None else lanes
            refuse_unless(
                lanes >= 1, f"{type(self).__name__}(lanes={lanes}): give at least one lane."
            )
            self.vector = self._make(env, lanes, self.settings)
        self.lanes: int = self.vector.num_envs
        self.discount = float(discount)
        self.observations: gymnasium.Space = self.vector.single_observation_space
        self.actions: gymnasium.Space = self.vector.single_action_space
        self.mask = mask_part(self.observations, self.actions, action_mask, self.name)
        self.unscaled = spaces.unscaled(self.observations, self.mask, self.name)
        dtype = getattr(self.vector.action_space, "dtype", self.actions.dtype)
        self.device = device_named(device)
        self._away = self.device.type != "cpu"
        self._read = spaces.observation_reader(self.observations, self.name)
        self._act = spaces.action_writer(self.actions, dtype, self.name)
        # most steps end nothing: they share these two
        self._all_real = torch.ones(self.lanes, dtype=torch.bool)
        self._none_ended = torch.zeros(self.lanes, dtype=torch.bool)
        self._step = self._step_by_mode()
        self._begin()

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return shown(self)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the first observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each: they are reset with one
        seed and then given random numbers of their own. `sharing` makes an environment that can.
        """
        if shared == 1:
            try:
                observation, _ = self.vector.reset(seed=seed)
            except (EOFError, OSError) as error:
                self._refuse_dead_workers(error)
                raise
        else:
            assert isinstance(self.vector, SyncVectorEnv)
            lane = range(self.lanes)
            observation, _ = self.vector.reset(seed=[seed + i // shared for i in lane])
            for i, env in enumerate(self.vector.envs):
                reseed(env, [seed, i])
        self._begin()
        return self._read(observation).to(self.device)

    def sharing(self, lanes: int) -> "Gymnasium":
        """This environment with `lanes` lanes, stepped one by one, whose starts can be shared.

        Raises:
            InputError: it was given as a vector environment, whose lanes cannot be made again.
        """
        refuse_unless(
            not isinstance(self._given, VectorEnv),
            f"{self.name} was given as a vector environment: its lanes cannot be started together "
            "from one state; give its id to vantage.Gymnasium instead.",
        )
        settings = self.settings | {"vectorization_mode": "sync"}
        return Gymnasium(self._given, lanes, self.discount, device=self.device, **settings)

    def step(self, action: Tensor) -> Step:
        """Act in every lane; `action` [lanes, ...] is raw and clipped to the bounds here.

        Raises:
            InputError: what the environment returned cannot be, naming the step and the lane.
        """
        try:
            step = self._step(action.cpu() if self._away else action)
        except InputError as error:
            raise InputError(f"At step {self.taken} since the reset: {error}") from error
        except (EOFError, OSError) as error:
            self._refuse_dead_workers(error)
            raise
        self.taken += 1
        if not self._away:
            return step
        tensors = {name: each for name, each in step._asdict().items() if each is not None}
        return step._replace(**at_once(tensors, self.device))

    def pause(self, waiting: Tensor) -> None:
        """Leave lanes as they are, where [lanes] is True, until the next reset or pause.

        Lanes that are stepped one by one can wait: their steps are dummies (`Step.idle`). Others
        are stepped on.
        """
        if isinstance(self.vector, Lanes):
            self._waiting = waiting.numpy() if bool(waiting.any()) else None

    def precise(self) -> "Gymnasium":
        """These lanes, with vectors shown in double precision where single would round them.

        What takes a mean off must do so before numbers are rounded.
        """
        if not spaces.is_wide(self.observations, self.name):
            return self
        other = copy.copy(self)
        other._read = spaces.observation_reader(self.observations, self.name, np.float64)
        other._step = other._step_by_mode()
        return other

    def _begin(self) -> None:
        """Forget what was under way: every lane starts afresh."""
        hold(self, None)
        self._resetting = None
        self._waiting = None
        self.taken = 0

    def policy(self, hidden: Sequence[int] = (64, 64), seed: int = 0, **choices: Any) -> Policy:
        """A policy that fits this environment's spaces.

        Args:
            hidden: widths of the hidden layers.
            seed: the seed of the initial weights.
            **choices: net, squash, log_std, orthogonal, recurrent, activation; see
                `vantage.environments.fitted.policy`.
        """
        policy = fitted.policy(
            self.observations, self.actions, hidden, seed, mask=self.mask, **choices
        )
        policy.terms = self.terms
        return policy.to(self.device)

    @property
    def terms(self) -> Terms:
        """How a policy's tensors correspond to what one lane shows and takes."""
        return Terms(self.observations, self.actions, self.name, mask=self.mask)

    def value(self, hidden: Sequence[int] = (64, 64), seed: int = 1, **choices: Any) -> Value:
        """A value function over this environment's observations, initially close to 0.

        Args:
            hidden: widths of the hidden layers.
            seed: the seed of the initial weights.
            **choices: net, orthogonal, recurrent, activation, trunk, under; see
                `vantage.environments.fitted.value`.
        """
        value = fitted.value(self.observations, hidden, seed, mask=self.mask, **choices)
        return value.to(self.device)

    def unflatten(self, observation: Tensor) -> object:
        """Observations [..., width] taken apart as the space is: see `spaces.unflatten`."""
        return spaces.unflatten(self.observations, observation, self.name)

    def close(self) -> None:
        """Free what the environment holds (processes, windows)."""
        self.vector.close()

    def _make(self, env: object, lanes: int, settings: dict[str, object]) -> VectorEnv:
        origin = source(env)
        self.name, self.named = origin.name, origin.named
        return vector(origin, lanes, settings)

    def _refuse_dead_workers(self, error: Exception) -> None:
        """Say what broke, where that was a pipe to a process that is no more."""
        vector = self.vector.unwrapped
        if isinstance(vector, AsyncVectorEnv):
            raise worker_death(vector, self.name) from error

    def _step_by_mode(self) -> Any:
        if isinstance(self.vector, Lanes):
            return self._step_lanes
        modes = {
            AutoresetMode.NEXT_STEP: self._step_next,
            AutoresetMode.SAME_STEP: self._step_same,
            AutoresetMode.DISABLED: self._step_disabled,
        }
        mode = self.vector.metadata.get("autoreset_mode")
        if mode not in modes:
            raise InputError(
                f"Environment {self.name!r} declares autoreset_mode={mode!r} in its metadata; set "
                f"it to one of {', '.join(str(known) for known in AutoresetMode)} so that its "
                "reset steps can be told from real ones."
            )
        return modes[mode]

    def _step_lanes(self, action: Tensor) -> Step:
        lanes: Lanes = self.vector  # type: ignore[assignment]
        waiting = self._waiting
        observed, rewards, ends = lanes.play(self._act(action), waiting)
        reward = torch.tensor(rewards, dtype=torch.float64)
        final = observation = self._read(observed)
        terminated = truncated = self._none_ended
        if ends:
            terminated, truncated, final = terminated.clone(), truncated.clone(), final.clone()
            where = torch.tensor([end.lane for end in ends])
            terminated[where] = torch.tensor([end.terminated for end in ends])
            truncated[where] = torch.tensor([not end.terminated for end in ends])
            final[where] = self._read(lanes.batch([end.observation for end in ends]))
        if waiting is None:
            return Step(observation, reward, terminated, truncated, final, self._all_real)
        idle = torch.from_numpy(waiting)
        return Step(observation, reward, terminated, truncated, final, ~idle, idle=idle)

    def _step_next(self, action: Tensor) -> Step:
        following, gained, terminated, truncated, _ = self.vector.step(self._act(action))
        reward = _rewards(gained)
        real, dummy = self._all_real, self._resetting
        if dummy is not None:
            # Where the lane was reset, the step is a dummy: only its observation means anything.
            reward[dummy] = 0
            terminated, truncated = terminated & ~dummy, truncated & ~dummy
            real = torch.from_numpy(~dummy)
        observation = self._read(following)
        self._resetting = _ended(terminated, truncated)
        ends = self._ends(self._resetting, terminated)
        return Step(observation, torch.from_numpy(reward), *ends, observation, real)

    def _step_same(self, action: Tensor) -> Step:
        following, gained, terminated, truncated, info = self.vector.step(self._act(action))
        reward = torch.from_numpy(_rewards(gained))
        final = observation = self._read(following)
        ended = _ended(terminated, truncated)
        if ended is not None:
            final = observation.clone()
            self._refuse_overwritten(ended, info["final_obs"])
            last = spaces.batched(self.observations, list(info["final_obs"][ended]))
            final[torch.from_numpy(ended)] = self._read(last)
        ends = self._ends(ended, terminated)
        return Step(observation, reward, *ends, final, self._all_real)

    def _refuse_overwritten(self, ended: np.ndarray, final: Any) -> None:
        """Refuse last observations whose memory the first of the next episode has overwritten.

        Gymnasium's synchronous vector environment hands out the array that the environment did.
        """
        first: Any = getattr(self.vector.unwrapped, "_env_obs", None)
        shown = np.flatnonzero(ended) if isinstance(first, list) else ()
        for place in shown:
            refuse_unless(
                not spaces.share_memory(self.observations, first[place], final[place], self.name),
                f"{self.name} shows the same array at the end of an episode and at the start of "
                "the next, which overwrites it. Return a copy from reset and step; or give the id "
                "or a function that makes the environment instead of a vector environment.",
            )

    def _step_disabled(self, action: Tensor) -> Step:
        following, gained, terminated, truncated, _ = self.vector.step(self._act(action))
        reward = torch.from_numpy(_rewards(gained))
        observation = final = self._read(following)
        ended = _ended(terminated, truncated)
        ends = self._ends(ended, terminated)
        if ended is not None:
            following, _ = self.vector.reset(options={"reset_mask": ended})
            observation = self._read(following)
        return Step(observation, reward, *ends, final, self._all_real)

    def _ends(self, ended: np.ndarray | None, terminated: np.ndarray) -> tuple[Tensor, Tensor]:
        """Terminated and truncated as tensors of our own; what terminated was not truncated."""
        if ended is None:
            return self._none_ended, self._none_ended
        copied = terminated.copy()
        return torch.from_numpy(copied), torch.from_numpy(ended & ~copied)


def _rewards(gained: Any) -> np.ndarray:
    """A copy of the rewards [lanes], in double precision: sums of many are sums of what was given.

    Raises:
        InputError: one is no number.
    """
    try:
        if not np.iscomplexobj(gained):
            return np.array(gained, np.float64)
        error = None
    except (TypeError, ValueError) as fault:
        error = fault
    raise InputError(f"the rewards of the lanes are not one real number each: {gained}.") from error


def _ended(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray | None:
    """Lanes whose episode ended, [lanes]; None if none did, which is the common case."""
    if not np.count_nonzero(terminated) and not np.count_nonzero(truncated):
        return None
    return terminated | truncated
