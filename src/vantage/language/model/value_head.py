"""V(s_t) of the tokens so far: a linear layer on the policy's hidden states, as PPO has."""

from jaxtyping import Float
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.language.model.policy import Policy


@checked
class ValueHead(nn.Module):
    """V(s) = v · h(s) + b on the last hidden state h of the policy's model.

    It is trained jointly with the policy, by least squares on the estimator's returns; under
    V-trace on its targets, and where returns are of whole completions on the rewards from the token
    on.

    Args:
        policy: whose hidden states it reads.
        trunk: whether its error also trains the model below, as in most implementations of PPO.

    It starts at zero, so that the first batch is weighed as without a value function.
    """

    def __init__(self, policy: Policy, trunk: bool = True):
        super().__init__()
        width = policy.base.config.get_text_config().hidden_size
        # float32, whatever the model: a regression on rewards needs the digits
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.linear.to(policy.device)
        self.trunk = trunk

    def forward(self, hidden: Float[Tensor, "*grid H"]) -> Float[Tensor, "*grid"]:
        """V, [...], from hidden states [..., H]."""
        states = hidden if self.trunk else hidden.detach()
        return self.linear(states.to(self.linear.weight.dtype)).squeeze(-1)
