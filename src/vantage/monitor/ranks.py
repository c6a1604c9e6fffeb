"""The ranks of DistributedDataParallel as pieces: the norm of their average, sums over all."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vantage.errors import InputError
from vantage.monitor.contributions import added, squares_of


class Ranks:
    """A communication hook that averages as usual and takes the norm of what comes out.

    Hooks on the parameters see a rank's gradient before it is reduced; the norm of the average
    comes from here, bucket by bucket, so that clipping afterwards does not matter.
    """

    def __init__(self, model: nn.parallel.DistributedDataParallel) -> None:
        self.group = model.process_group
        self.size = dist.get_world_size(self.group)
        self.device = next(model.parameters()).device
        self.buckets: list[Tensor] = []
        try:
            model.register_comm_hook(self, _average)
        except RuntimeError as error:
            raise InputError(
                "Monitor: the DistributedDataParallel model has a communication hook already; make "
                f"the monitor with a model that has none. ({error})"
            ) from error

    @classmethod
    def of(cls, model: nn.Module) -> "Ranks | None":
        return cls(model) if isinstance(model, nn.parallel.DistributedDataParallel) else None

    def reduced(self, sums: list[float]) -> tuple[float, list[float]]:
        """‖ĝ‖² of the averaged gradient; [Σ‖c‖², ...] over ranks, the first as shares of ĝ."""
        total = added(self.buckets) if self.buckets else float("nan")
        self.buckets = []
        everywhere = torch.tensor(sums, dtype=torch.float64, device=self.device)
        dist.all_reduce(everywhere, group=self.group)
        squares, *others = everywhere.tolist()
        return total, [squares / self.size**2, *others]


def _average(ranks: Ranks, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    if bucket.index() == 0:
        ranks.buckets = []
    terms = ranks.buckets  # of this backward pass: what was reduced before is in .grad again

    def measured(future: torch.futures.Future[Any]) -> Tensor:
        value = future.value()
        average = value[0] if isinstance(value, list) else value
        terms.extend(squares_of(average))
        return average

    return allreduce_hook(ranks.group, bucket).then(measured)
