"""What a rollout asks of an environment: many lanes, stepped together, honest about their ends."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Shaped
from torch import Tensor


class Step(NamedTuple):
    """What one step did in every lane. Its tensors are to be read: steps may share them.

    Attributes:
        observation: [lanes, ...] what the policy sees next: a fresh start where an episode ended.
        reward: [lanes].
        terminated: [lanes] the episode reached an end of its own.
        truncated: [lanes] it was cut off, by a time limit say, and has value left; never True where
            `terminated` is.
        final_observation: [lanes, ...] the true successor of the action, the last observation of
            the old episode where one ended.
        real: [lanes] False where the step was a dummy: the environment used it to reset the lane
            and ignored the action.
        raw_reward: [lanes] the reward before a normaliser scaled it; None where nothing did.
        idle: [lanes] True where a dummy step repeats what its lane had shown before, waiting for
            other lanes; None where none ever does.
    """

    observation: Shaped[Tensor, "lanes ..."]
    reward: Float[Tensor, " lanes"]
    terminated: Bool[Tensor, " lanes"]
    truncated: Bool[Tensor, " lanes"]
    final_observation: Shaped[Tensor, "lanes ..."]
    real: Bool[Tensor, " lanes"]
    raw_reward: Float[Tensor, " lanes"] | None = None
    idle: Bool[Tensor, " lanes"] | None = None


@runtime_checkable
class Environment(Protocol):
    """Lanes that step together. Lanes reset themselves when their episode ends.

    Attributes:
        lanes: how many.
        discount: γ of the objective, in (0, 1].
        name: how messages and run folders call it.
    """

    lanes: int
    discount: float
    name: str

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`; returns the first observations, [lanes, ...].

        With `shared` = K, lanes start in groups of K from one state each, and go on independently.
        """
        ...

    def sharing(self, lanes: int) -> "Environment":
        """This environment with `lanes` lanes whose starts can be shared.

        Raises:
            InputError: it cannot start several lanes from one state, saying why.
        """
        ...

    def step(self, action: Tensor) -> Step:
        """Act in every lane. `action` is [lanes, ...], raw; the environment clips to its bounds."""
        ...
