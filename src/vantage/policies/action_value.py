"""Q(s, ·): a number for every action, and V as its mean under a policy."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vantage.policies.discrete import Categorical
from vantage.policies.networks import Value


class ActionValue(Value):
    """V(s) = Σ_a π(a|s) Q(s, a), from a network of Q(s, ·).

    A loss of V moves Q and leaves π alone.

    Args:
        net: maps observations [..., *shape] to Q(s, ·), [..., A].
        policy: π, over A actions; its parameters are among this module's.
    """

    def __init__(self, net: nn.Module, policy: Categorical):
        super().__init__(net)
        self.policy = policy

    def action_values(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid A"]:
        """Q(s, ·), [..., A]."""
        return self.net(observation)

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*grid"]:
        """V(s), [...]."""
        probability = self.policy.distribution(observation).detach().exp()
        return (probability * self.net(observation)).sum(-1)
