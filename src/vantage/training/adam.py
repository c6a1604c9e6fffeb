"""Adam for many small steps: torch's arithmetic, without what surrounds it at every call."""

import inspect
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adam import adam


class Adam(torch.optim.Adam):
    """torch's fused Adam, the same to the bit, as an optimiser that is stepped a thousand times a
    second.

    `torch.optim.Adam.step` opens a profiling range, looks for hooks and asks each parameter's state
    what it holds; on a perceptron's parameters that takes longer than the arithmetic. This one goes
    to torch's functional form at once. Hooks registered on it are therefore not called. Nor does it
    load torch's compiler, as the first optimiser of a process does otherwise, for 1 to 2 seconds:
    decorators of torch keep four methods out of compiled graphs, and no compiled graph steps it.

    Args:
        parameters: tensors to step; those without a gradient stay as they are.
        lr, eps: learning rate, and the ε that is added to the root of the second moment.

    Source: Kingma and Ba 2015.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    _general_step = inspect.unwrap(torch.optim.Adam.step)

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8):
        super().__init__(parameters, lr=lr, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """θ ← θ − α m̂/(√v̂ + ε), from the gradients as they are."""
        groups = [
            (group, [p for p in group["params"] if p.grad is not None])
            for group in self.param_groups
        ]
        known = all(self.state[p] for _, parameters in groups for p in parameters)
        if closure is not None or not known:
            self._general_step(closure)  # makes the state of what had no gradient before
            return
        for group, parameters in groups:
            states = [self.state[p] for p in parameters]
            beta1, beta2 = group["betas"]
            adam(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                foreach=False,
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
            )

    @property
    def numbers(self) -> tuple[object, ...]:
        """What a step depends on beside tensors."""
        return tuple(
            (group["lr"], group["betas"], group["eps"], group["weight_decay"], group["maximize"])
            for group in self.param_groups
        )

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where the tensors lie that a step changes: parameters, moments, counts."""
        state = (tensor for each in self.state.values() for tensor in each.values())
        parameters = (p for group in self.param_groups for p in group["params"])
        return tuple(tensor.data_ptr() for tensor in (*parameters, *state))

    # torch would wrap `step` in a profiling range otherwise
    step.hooked = True  # type: ignore[attr-defined]
