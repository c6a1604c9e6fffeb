"""PettingZoo's parallel environments with one policy for all agents: every agent is a lane."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vantage.arguments import checked
from vantage.environments import fitted, spaces
from vantage.environments.holding import hold
from vantage.environments.interface import Step
from vantage.environments.terms import Terms
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy, Value


@checked
class PettingZoo:
    """Agents of a parallel environment as lanes that share one policy.

    Lane i · agents + j is agent j, in the order of `possible_agents`, of copy i. An agent whose
    episode has ended waits for the others in dummy steps, which count for nothing: its lane shows
    its last observation again (`Step.idle`), until all agents of its copy are done and the copy
    starts anew.

    What an agent collects depends on what the others do: lanes of one copy are not independent, and
    intervals over lanes are too narrow by as much. To one agent the others are part of an
    environment that changes as they learn.

    Args:
        make: makes a `pettingzoo.ParallelEnv`, or is one, which is then copied.
        copies: how many environments run side by side; lanes = copies x agents.
        discount: γ of the objective, in (0, 1].

    Raises:
        InputError: what is given is no parallel environment; agents whose spaces differ, naming
            them; agents that are not there from the start, in `reset`.
    """

    def __init__(self, make: Any, copies: int = 1, discount: float = 0.99):
        refuse_unless(copies >= 1, f"PettingZoo(copies={copies}): make at least one.")
        refuse_unless(0 < discount <= 1, f"PettingZoo(discount={discount}): γ lies in (0, 1].")
        self.make: Callable[[], object] = make if callable(make) else lambda: copy.deepcopy(make)
        self.envs = [self.make() for _ in range(copies)]
        first = self.envs[0]
        refuse_unless(
            hasattr(first, "possible_agents") and hasattr(first, "observation_space"),
            f"PettingZoo({type(first).__name__}): give a parallel environment with "
            "`possible_agents`, such as pistonball_v6.parallel_env; "
            "pettingzoo.utils.aec_to_parallel makes one of an AEC environment.",
        )
        self.agents: list[object] = list(first.possible_agents)
        self.lanes, self.discount = copies * len(self.agents), float(discount)
        self.name = str(getattr(first, "metadata", {}).get("name", type(first).__name__))
        self.observations = self._common(first.observation_space, "observation")
        self.actions = self._common(first.action_space, "action")
        self._observe = spaces.observation_reader(self.observations, self.name)
        kind = getattr(self.actions, "dtype", None)
        self._act = spaces.action_writer(self.actions, kind, self.name)
        self._ended = torch.zeros(self.lanes, dtype=torch.bool)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every copy afresh, copy i from seed + i; returns [lanes, ...].

        Raises:
            InputError: shared starts; agents that are not there from the start.
        """
        refuse_unless(shared == 1, _NO_SHARED.format(name=self.name))
        hold(self, None)
        self.taken = 0
        self._ended = torch.zeros(self.lanes, dtype=torch.bool)
        self._shown = [self._fresh(env, seed + i) for i, env in enumerate(self.envs)]
        return self._read(self._shown)

    def sharing(self, lanes: int) -> "PettingZoo":
        """Refused: agents of one copy start from states of their own.

        Raises:
            InputError: always.
        """
        raise InputError(_NO_SHARED.format(name=self.name))

    def step(self, action: Tensor) -> Step:
        """Act in every lane; actions of agents that wait for the others are ignored."""
        given = self._act(action.detach().clone()).reshape(
            len(self.envs), len(self.agents), *(self.actions.shape or ())
        )
        self.taken += 1
        waiting = self._ended
        reward = torch.zeros(self.lanes)
        terminated, truncated = torch.zeros_like(waiting), torch.zeros_like(waiting)
        final, renewed = [], torch.zeros_like(waiting)
        for i, env in enumerate(self.envs):
            lanes = slice(i * len(self.agents), (i + 1) * len(self.agents))
            acting = {
                agent: given[i, j].copy() if np.ndim(given[i, j]) else given[i, j]
                for j, agent in enumerate(self.agents)
                if not waiting[lanes][j]
            }
            shown, gained, ends, cuts, _ = env.step(acting)
            for j, agent in enumerate(self.agents):
                if agent in acting:
                    refuse_unless(
                        agent in ends and agent in shown,
                        f"{self.name}: agent {agent} is gone without having ended; return its last "
                        "observation, and terminated or truncated, in the step in which it leaves.",
                    )
                    self._shown[i][j] = copy.deepcopy(shown[agent])
                    reward[lanes][j] = float(gained[agent])
                    terminated[lanes][j] = bool(ends[agent])
                    truncated[lanes][j] = bool(cuts[agent]) and not bool(ends[agent])
            final.append(list(self._shown[i]))
            if bool((waiting | terminated | truncated)[lanes].all()):
                self._shown[i] = self._fresh(env, None)
                renewed[lanes] = True
        last, observation = self._read(final), self._read(self._shown)
        # a lane that waited is a dummy: once its copy starts anew, it shows that and nothing else
        last[waiting] = observation[waiting]
        self._ended = (waiting | terminated | truncated) & ~renewed
        idle = waiting & ~renewed
        return Step(observation, reward, terminated, truncated, last, ~waiting, idle=idle)

    def policy(self, hidden: tuple[int, ...] = (64, 64), seed: int = 0, **choices: Any) -> Policy:
        """One policy for all agents; `choices` as for `vantage.environments.fitted.policy`."""
        policy = fitted.policy(self.observations, self.actions, hidden, seed, **choices)
        policy.terms = self.terms
        return policy

    def value(self, hidden: tuple[int, ...] = (64, 64), seed: int = 1, **choices: Any) -> Value:
        """One value function for all; `choices` as for `vantage.environments.fitted.value`."""
        return fitted.value(self.observations, hidden, seed, **choices)

    @property
    def terms(self) -> Terms:
        """How a policy's tensors correspond to what one agent sees and does."""
        return Terms(self.observations, self.actions, self.name)

    def close(self) -> None:
        """Free what the copies hold."""
        for env in self.envs:
            env.close()

    def _fresh(self, env: Any, seed: int | None) -> list[object]:
        shown, _ = env.reset() if seed is None else env.reset(seed=seed)
        missing = [agent for agent in self.agents if agent not in shown]
        refuse_unless(
            not missing,
            f"{self.name}: agents {missing} are not there from the start; lanes need agents that "
            "are. Give them an observation from reset on.",
        )
        return [copy.deepcopy(shown[agent]) for agent in self.agents]

    def _read(self, shown: list[list[object]]) -> Tensor:
        lanes = [observation for one in shown for observation in one]
        return self._observe(spaces.batched(self.observations, lanes))

    def _common(self, space_of: Callable[[object], object], what: str) -> Any:
        """The space that all agents have."""
        first = space_of(self.agents[0])
        for agent in self.agents[1:]:
            refuse_unless(
                space_of(agent) == first,
                f"{self.name}: {what} spaces differ: {self.agents[0]} has {first}, {agent} has "
                f"{space_of(agent)}. One policy needs one space: pad them (SuperSuit's "
                f"pad_{what}s_v0), or train agents of one kind.",
            )
        return first


_NO_SHARED = (
    "{name}: agents of one environment start from states of their own, so lanes cannot be started "
    "from one state."
)
