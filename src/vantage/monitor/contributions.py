"""What the pieces of a step contribute to its gradient: squared norms, by hooks on parameters.

A hook sees a parameter's gradient c just before it is added to `.grad`. The first that arrives in a
step becomes `.grad` itself and is read there when its piece ends; of the others ‖c‖² is taken as
they come, and nothing is kept but its value. The norm of the whole, ‖Σ c_k‖², is read from `.grad`
as the last piece ends, so that each gradient is read once and their sum once more. Which piece is
the last is known by how many the steps before had. What is done to `.grad` afterwards (clipping, a
scaler's division) is too late to matter.
"""

import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# How many squares are added in single precision: on a processor they are added one after another
# (the error of normal numbers is 6e-5 at 2^22, 8e-7 at 2^18; shorter chunks take longer), on an
# accelerator as a tree.
CHUNK, CHUNK_ACCELERATOR = 1 << 18, 1 << 22
OUTSIDE = (
    "a backward pass ran outside of monitor.piece(); wrap every loss.backward() of the step in "
    "`with monitor.piece(weight=...)`"
)
LEFTOVER = (
    "the gradient was not zero when the step began, so that the last step counts into this one; "
    "call optimizer.zero_grad() between steps"
)
GONE = (
    "a gradient was taken away between the pieces of the step; call optimizer.zero_grad() after "
    "monitor.step() and not before"
)
SHORT = (
    "it had fewer pieces than any step before, and when that was known its gradient might have "
    "been clipped; from now on steps of so few are measured"
)


def squares_of(tensor: Tensor) -> list[Tensor]:
    """Terms, each a scalar on the tensor's device, whose sum is its squared norm.

    At least single precision; by chunks in the order of memory, so that neither rounding nor the
    converted copy of a half-precision tensor grows with the tensor.
    """
    size = CHUNK if tensor.device.type == "cpu" else CHUNK_ACCELERATOR
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    chunks = tensor.permute(order).reshape(-1).split(size)
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return [torch.dot(single, single) for single in (chunk.float() for chunk in chunks)]
    return [torch.dot(chunk, chunk) for chunk in chunks]


def added(terms: Iterable[Tensor]) -> float:
    """Their sum in double precision; one transfer for each accelerator."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for term in terms:
        by_device.setdefault(term.device, []).append(term)
    numbers = (
        each if device.type == "cpu" else torch.stack(each).tolist()
        for device, each in by_device.items()
    )
    return math.fsum(float(number) for each in numbers for number in each)


class Contributions:
    """The sums of one step: `squares` = Σ ‖c_k‖², `total` = ‖Σ c_k‖², as lists of terms.

    Memory: a few scalars for every parameter and piece, until the step is read. A parameter whose
    gradient arrives in several parts within one piece (two backward passes, reentrant checkpointing
    of a layer used twice) has the parts summed in a copy of its own until the piece ends, but for
    the piece that brings its first; a step in which that is first seen later is left out.
    """

    def __init__(self, reduced: bool) -> None:
        self.reduced = reduced  # ‖Σ c_k‖² is known from elsewhere, and `.grad` is no rank's own
        self.several: set[int] = set()
        self.handles: dict[int, Any] = {}
        self.fewest = 0  # pieces of a step so far
        self.weight: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the last step."""
        self.squares: list[Tensor] = []
        self.total: list[Tensor] = []
        self.before_first: list[Tensor] = []
        self.weights: list[float] = []
        self.entered: dict[int, weakref.ref[torch.nn.Parameter]] = {}
        self.entering: dict[int, weakref.ref[torch.nn.Parameter]] = {}
        self.arrived: set[int] = set()
        self.partial: dict[int, Tensor] = {}
        self.pending: dict[int, tuple[list[Tensor], Tensor | None]] = {}
        self.outside = self.gone = self.unseen_parts = False

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
                    self.pending[name] = self.arriving(name, owner.grad, gradient.detach())

        def after(_: Tensor) -> None:
            self.lands(name, reference)

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
            self.squares += squares_of(total)
        first = self.norms(self.entering)
        self.squares += first
        if not self.reduced and len(self.weights) >= self.fewest:
            self.total = first + self.norms(self.entered)
        self.entered |= self.entering
        self.entering = {}
        self.partial.clear()
        self.arrived.clear()
        self.pending.clear()
        self.weight = None

    def norms(self, references: dict[int, weakref.ref[torch.nn.Parameter]]) -> list[Tensor]:
        """Terms of the squared norm of `.grad` of these parameters."""
        terms: list[Tensor] = []
        for parameter in (reference() for reference in references.values()):
            gradient = None if parameter is None else parameter.grad
            if gradient is None:
                self.gone = True
            else:
                terms += squares_of(gradient.detach())
        return terms

    def arriving(
        self, name: int, there: Tensor | None, gradient: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        """What a gradient that is about to be added brings: its terms; its copy if it is a part."""
        if name in self.several and (self.reduced or name in self.entered):
            return [], gradient.clone()
        if self.reduced or name in self.entered:
            self.gone |= not self.reduced and there is None
            return squares_of(gradient), None
        if there is not None and name not in self.entering:
            return squares_of(there), None
        return [], None

    def lands(self, name: int, reference: weakref.ref[torch.nn.Parameter]) -> None:
        """The gradient that was pending was added to `.grad`."""
        pending = self.pending.pop(name, None)
        if pending is None:
            self.outside = True
            return
        terms, rest = pending
        again = name in self.arrived
        self.arrived.add(name)
        if rest is not None:
            earlier = self.partial.get(name)
            self.partial[name] = rest if earlier is None else earlier.add_(rest)
            return
        if again:
            self.several.add(name)
        if self.reduced or name in self.entered:
            self.squares += terms
            self.unseen_parts |= again
        else:
            self.before_first += terms
            self.entering[name] = reference

    def expect(self) -> None:
        """From now on a step may end with as many pieces as this one has."""
        if len(self.weights) > 1:
            self.fewest = min(self.fewest or len(self.weights), len(self.weights))

    def problem(self) -> str:
        """Why the step cannot be measured, or ""."""
        if self.outside:
            return OUTSIDE
        if added(self.before_first) != 0:
            return LEFTOVER
        if self.gone:
            return GONE
        return SHORT if not self.reduced and 1 < len(self.weights) < self.fewest else ""
