"""A policy's words in the environment's: observations as it shows them, actions as it takes them.

Inside the package a policy reads tensors of many lanes and gives raw actions; outside, in a loop
of one's own, it is asked about one observation, or a batch of them, as the environment gives it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from vantage.environments.exporting import Acting
from vantage.environments.masks import beside
from vantage.environments.spaces import Part, action_writer, batched, observation_reader, parts
from vantage.errors import refuse_unless
from vantage.policies import Policy


@dataclass(frozen=True)
class Terms:
    """How a policy's tensors correspond to what one lane of an environment shows and takes.

    Attributes:
        observations: space of one lane.
        actions: space of one lane.
        name: the name of the environment, for messages.
        normalise: applied to the tensor of observations [n, ...] before the policy sees it; None
            where the environment is not normalised.
        mask: where the mask of actions lies in the observation; None without one.
        normaliser: gives `normalise`, as it is now, as a network.
    """

    observations: gymnasium.Space
    actions: gymnasium.Space
    name: str
    normalise: Callable[[Tensor], Tensor] | None = None
    mask: Part | None = None
    normaliser: Callable[[], nn.Module] | None = None

    def acting(self, policy: Policy) -> Acting:
        """A network that does what `policy.act(deterministic=True)` does."""
        fixed = None if self.normaliser is None else self.normaliser()
        return Acting(policy, self.observations, self.actions, fixed)

    def read(self, observation: object, action_mask: object = None) -> tuple[Tensor, bool]:
        """One observation, or a batch of them, as a tensor [n, ...].

        Args:
            observation: as the environment gives it, in NumPy, tensors or plain numbers; a batch as
                a vector environment gives it.
            action_mask: which actions are allowed, [actions] or [n, actions], where `info` tells it
                and not the observation.

        Returns:
            The tensor, and whether it was one observation alone (n is then 1).

        Raises:
            InputError: the shape is neither that of one observation nor that of a batch; a mask is
                missing, or there is none.
        """
        plain = self._with_mask(_plain(observation), _plain(action_mask))
        single = self._is_single(plain)
        batch = batched(self.observations, [plain]) if single else plain
        dtype = np.float32 if self.normalise is None else np.float64
        tensor = observation_reader(self.observations, self.name, dtype)(batch)
        if self.normalise is not None:
            tensor = self.normalise(tensor)
        return (tensor.float() if tensor.dtype == torch.float64 else tensor), single

    def write(self, action: Tensor, single: bool) -> object:
        """What the environment is given for actions [n, ...] that `policy.applied` has seen.

        Args:
            action: ids from 0, or vectors; vectors are clipped to the bounds here.
            single: give the one action alone.
        """
        kind = getattr(self.actions, "dtype", None) or np.int64
        array = action_writer(self.actions, kind, self.name)(action.detach().cpu())
        return array[0] if single else array

    def _with_mask(self, observation: object, action_mask: object) -> object:
        """The observation as the space has it, with the mask that was given beside it."""
        if self.mask is None:
            refuse_unless(
                action_mask is None,
                f"policy.act(action_mask=...): the policy knows no mask; make the environment with "
                f"action_mask=True, as in vantage.make({self.name!r}, action_mask=True).",
            )
            return observation
        assert isinstance(self.observations, gymnasium.spaces.Dict)
        key = str(self.mask.path[0])
        if action_mask is None:
            refuse_unless(
                isinstance(observation, dict) and key in observation,
                f"policy.act: which actions are allowed? Give action_mask=info[{key!r}].",
            )
            return observation
        bare = self.observations.spaces.keys() == {"observation", key}
        whole = isinstance(observation, dict) and not (bare and "observation" not in observation)
        mask = (np.asarray(action_mask) > 0).astype(np.int8)
        return beside(observation, mask, key, whole)

    def _is_single(self, observation: Any) -> bool:
        """Whether it is one observation, by the shape of its first leaf."""
        leaf = parts(self.observations, self.name)[0]
        value = observation
        try:
            for key in leaf.path:
                value = value[key]
            shape = np.shape(value)
        except (KeyError, IndexError, TypeError, ValueError):
            shape = None
        one = leaf.space.shape or ()
        at = "".join(f"[{key!r}]" for key in leaf.path)
        refuse_unless(
            shape is not None and (shape == one or shape[1:] == one),
            f"policy.act: the observation{at} has shape {shape}; {self.name} shows {one}, and a "
            f"batch of n is {('n', *one)}.",
        )
        return shape == one


def _plain(observation: object) -> object:
    """Tensors as arrays, within dictionaries and tuples too."""
    if isinstance(observation, Tensor):
        return observation.detach().cpu().numpy()
    if isinstance(observation, dict):
        return {key: _plain(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_plain(value) for value in observation)
    return observation
