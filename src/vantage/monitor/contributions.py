"""What the pieces of a step contribute to its gradient: squared norms, by hooks on parameters.

A hook sees a parameter's gradient c just before it is added to `.grad`, which then holds the sum G
of the earlier pieces. Two inner products are taken, c·c and G·c, and nothing is kept but their
values: ‖Σ c_k‖² = Σ ‖c_k‖² + 2 Σ G_{k−1}·c_k. What is done to `.grad` afterwards (clipping, a
scaler's division) is too late to matter.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# How many numbers of an inner product are added in single precision: on a processor they are added
# one after another (at 2^22 the error is 6e-5, at 2^18 1e-6), on an accelerator as a tree.
CHUNK, CHUNK_ACCELERATOR = 1 << 18, 1 << 22
OUTSIDE = (
    "a backward pass ran outside of monitor.piece(); wrap every loss.backward() of the step in "
    "`with monitor.piece(weight=...)`"
)
Products = tuple[list[Tensor], list[Tensor], Tensor | None]
LEFTOVER = (
    "the gradient was not zero when the step began, so that the last step counts into this one; "
    "call optimizer.zero_grad() between steps"
)


def inner(left: Tensor, right: Tensor) -> list[Tensor]:
    """Terms, each a scalar on the tensors' device, whose sum is left · right.

    At least single precision; by chunks, so that neither rounding nor the converted copy of a
    half-precision tensor grows with the tensor.
    """
    size = CHUNK if left.device.type == "cpu" else CHUNK_ACCELERATOR
    pairs = zip(left.reshape(-1).split(size), right.reshape(-1).split(size), strict=True)
    if left.dtype in (torch.float16, torch.bfloat16):
        return [torch.dot(x.float(), y.float()) for x, y in pairs]
    return [torch.dot(x, y) for x, y in pairs]


def added(terms: Iterable[Tensor]) -> float:
    """Their sum in double precision; one transfer for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for term in terms:
        by_device.setdefault(term.device, []).append(term)
    return sum(float(torch.stack(each).cpu().double().sum()) for each in by_device.values())


class Contributions:
    """The sums of one step: `squares` = Σ ‖c_k‖², `crosses` = Σ G_{k−1}·c_k, as lists of terms.

    Memory: a few scalars for every parameter and piece, until the step is read. A parameter whose
    gradient arrives in several parts within one piece (two backward passes, reentrant checkpointing
    of a layer used twice) has the parts summed in a copy of its own until the piece ends; the step
    in which that is first seen is left out.
    """

    def __init__(self, reduced: bool) -> None:
        self.reduced = reduced  # ‖Σ c_k‖² is known from elsewhere: no crosses are needed
        self.several: set[int] = set()
        self.handles: dict[int, Any] = {}
        self.weight: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the last step."""
        self.squares: list[Tensor] = []
        self.crosses: list[Tensor] = []
        self.before_first: list[Tensor] = []
        self.weights: list[float] = []
        self.arrived: set[int] = set()
        self.partial: dict[int, Tensor] = {}
        self.pending: dict[int, Products] = {}
        self.outside = False
        self.unseen_parts = False

    def watch(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Hooks on those that learn and have none yet."""
        for parameter in parameters:
            if parameter.requires_grad and id(parameter) not in self.handles:
                before, after = self.hooks(parameter)
                self.handles[id(parameter)] = (
                    parameter.register_hook(before),
                    parameter.register_post_accumulate_grad_hook(after),
                )

    def hooks(
        self, parameter: torch.nn.Parameter
    ) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
        """Before a gradient is added to `.grad` (`autograd.grad` calls this alone), and after."""
        name, reference = id(parameter), weakref.ref(parameter)

        def before(gradient: Tensor) -> None:
            owner = reference()
            if owner is not None and self.weight is not None:
                with torch.no_grad():
                    self.pending[name] = self.products(name, owner.grad, gradient.detach())

        def after(_: Tensor) -> None:
            self.lands(name)

        return before, after

    def close(self) -> None:
        for handles in self.handles.values():
            for handle in handles:
                handle.remove()
        self.handles.clear()

    def open_piece(self, weight: float) -> None:
        self.weight = weight
        self.weights.append(weight)

    def close_piece(self) -> None:
        for total in self.partial.values():
            self.squares += inner(total, total)
        self.partial.clear()
        self.arrived.clear()
        self.pending.clear()
        self.weight = None

    def products(self, name: int, there: Tensor | None, gradient: Tensor) -> Products:
        """c·c and G·c of a gradient that is about to be added; its copy if it is a part."""
        several = name in self.several
        earlier = self.partial.get(name)
        crosses: list[Tensor] = []
        if not self.reduced and there is not None:
            crosses = inner(there if earlier is None else there - earlier, gradient)
        if several:
            return [], crosses, gradient.clone()
        return inner(gradient, gradient), crosses, None

    def lands(self, name: int) -> None:
        """The gradient whose products are pending was added to `.grad`."""
        pending = self.pending.pop(name, None)
        if pending is None:
            self.outside = True
            return
        squares, crosses, rest = pending
        if rest is not None:
            earlier = self.partial.get(name)
            self.partial[name] = rest if earlier is None else earlier.add_(rest)
        elif name in self.arrived:
            self.several.add(name)
            self.unseen_parts = True
            return
        self.arrived.add(name)
        self.squares += squares
        if len(self.weights) > 1:
            self.crosses += crosses
        elif rest is None:
            self.before_first += crosses

    def problem(self) -> str:
        """Why the step cannot be measured, or ""."""
        if self.outside:
            return OUTSIDE
        return LEFTOVER if added(self.before_first) != 0 else ""
