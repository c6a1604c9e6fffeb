"""Weights in half precision, stepped in float32.

A weight of bfloat16 keeps 8 bits, and a step below 1/256 of it is rounded away; at the learning
rates of policy gradients that is nearly every step. So the optimiser steps copies in float32, which
gather the gradients, and the weights follow them, rounded. (Micikevicius et al. 2018, section 3.1.)
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

HALF = (torch.bfloat16, torch.float16)


class Masters:
    """Float32 copies of the parameters in half precision, for an optimiser to step in their place.

    Args:
        parameters: the parameters of the policy, those that are trained.

    Attributes:
        parameters: for the optimiser: copies where there are any, else the parameters themselves.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]):
        half = [p for p in parameters if p.dtype in HALF]
        self._copies = {id(p): (p, nn.Parameter(p.detach().float())) for p in half}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.parameters = [self.of(p) for p in parameters]

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """The copy of a parameter, or itself where it has none."""
        return self._copies.get(id(parameter), (parameter, parameter))[1]

    def attach(self, optimizer: Optimizer) -> None:
        """Gradients go to the copies, and weights follow their steps, until `detach`."""
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        stepping = {key: pair for key, pair in self._copies.items() if id(pair[1]) in stepped}
        self._copies = stepping
        for parameter, copy in stepping.values():
            hook = parameter.register_post_accumulate_grad_hook(partial(_passed_on, copy))
            self._hooks.append(hook)
        if stepping:
            self._hooks.append(optimizer.register_step_post_hook(lambda *_: self.round()))

    def detach(self) -> None:
        """Leave the parameters as they were found, but for their values."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @torch.no_grad()
    def round(self) -> None:
        """Give the parameters the values of their copies."""
        for parameter, copy in self._copies.values():
            parameter.copy_(copy)


def _passed_on(copy: nn.Parameter, parameter: Tensor) -> None:
    assert parameter.grad is not None
    gradient, parameter.grad = parameter.grad.float(), None
    copy.grad = gradient if copy.grad is None else copy.grad.add_(gradient)
