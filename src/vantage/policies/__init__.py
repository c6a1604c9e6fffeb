"""Policies: a distribution over actions given an observation, with any `nn.Module` inside.

Their methods work over leading dimensions `...`: a rollout passes [lanes], a gradient [N, T].
`forward` gives the parameters of the distribution (logits, means).

The methods compute densities directly: `torch.distributions` builds an object a call, which at one
call per environment step costs more than the network of a small policy.
"""

from vantage.policies.action_value import ActionValue
from vantage.policies.discrete import (
    Bernoulli,
    Categorical,
    MaskedCategorical,
    MultiCategorical,
    SoftmaxTable,
)
from vantage.policies.gaussian import Gaussian, SquashedGaussian
from vantage.policies.networks import Value, cnn, mlp, orthogonal_
from vantage.policies.policy import Policy
from vantage.policies.recurrent import Recurrent

__all__ = [
    "ActionValue",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "MaskedCategorical",
    "MultiCategorical",
    "Policy",
    "Recurrent",
    "SoftmaxTable",
    "SquashedGaussian",
    "Value",
    "cnn",
    "mlp",
    "orthogonal_",
]
