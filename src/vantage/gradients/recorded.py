"""Work of a GPU, recorded once and given again whole: CUDA graphs.

A small network takes longer to ask for than to run: every operation costs its launch, some
microseconds, and a rollout or a minibatch has a hundred of them. A graph asks once for all. It does
the same operations in the same order, so that its numbers are those of the function itself.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]


@runtime_checkable
class Replay(Protocol):
    """A recording: `replay` does its work again, on what its inputs hold by then."""

    def replay(self) -> None:
        """Do the recorded work."""
        ...


Recorder = Callable[[Function, list[Tensor]], tuple[Replay, Sequence[Tensor]]]


def cuda_graph(function: Function, inputs: list[Tensor]) -> tuple[Replay, Sequence[Tensor]]:
    """Record `function` of `inputs`; nothing is done yet.

    Raises:
        RuntimeError: it waits for the device, or asks for what a graph cannot hold.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)
    return graph, outputs


class Recorded:
    """Work that is recorded the second time it is asked for, and replayed from then on.

    The first time it runs as it is: libraries and optimisers set up what they need. Work that
    cannot be recorded, because it reads a number of a tensor, say, runs as it is for good.

    Args:
        recorder: makes a recording; None: all work runs as it is.

    >>> Recorded(None)(lambda x: (2 * x,), "doubled", torch.ones(2))
    (tensor([2., 2.]),)
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self.recorder = recorder
        self.same: Hashable = None
        self.replay: Replay | None = None

    def __call__(self, function: Function, same: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """The outputs of a function, tensors of the caller's own.

        Args:
            function: a function of tensors to tensors. It may change tensors that outlive it in
                place, such as parameters; it reads no number of a tensor and draws no random ones.
            same: all that the function depends on beside its inputs: settings, and addresses of
                tensors that outlive it. Where it differs from the last call, or where shapes do,
                what was recorded is dropped.
            inputs: the inputs of the function.
        """
        if self.recorder is None:
            return function(*inputs)
        same = (same, *((x.shape, x.dtype, x.device) for x in inputs))
        if same != self.same:
            self.same, self.replay = same, None
            return function(*inputs)
        if self.replay is None and not self._record(function, inputs):
            return function(*inputs)
        assert self.replay is not None
        torch._foreach_copy_(self.inputs, list(inputs))
        self.replay.replay()
        return [output.clone() for output in self.outputs]

    def _record(self, function: Function, inputs: Sequence[Tensor]) -> bool:
        assert self.recorder is not None
        self.inputs: list[Tensor] = [x.clone() for x in inputs]
        try:
            self.replay, self.outputs = self.recorder(function, self.inputs)
        except RuntimeError:  # the work itself has been done before without a recording
            self.recorder = None
        return self.replay is not None


def recorder_for(device: torch.device) -> Recorder | None:
    """What records work of a device; None where a launch costs nothing."""
    return cuda_graph if device.type == "cuda" else None
