"""The record: trajectories as parallel tensors on one grid.

Environments, enumeration and language models all make a `Batch`; every estimator reads one. Rows
are indexed by n (N of them), steps by t (T of them). A row holds one trajectory or, for a lane of a
simulator that runs on, several; `episode` tells them apart. Two transitions of a corridor, the
second
of which ends the episode:

    reward   [[-1., -1.]]        discount [[1., 0.]]     boundary [[False, True]]
    mask     [[True, True]]      episode  [[0, 0]]       weight   [1.]
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vantage.errors import InputError, refuse_unless


@dataclass(frozen=True)
class Batch:
    """Trajectories on a grid of N rows and T steps, all tensors on one device.

    Attributes:
        observation: [N, T, ...] what the policy saw (state ids, vectors, token ids).
        action: [N, T, ...] what it did, unclipped.
        reward: [N, T] r_t.
        discount: [N, T] γ, and 0 where the episode terminated after this step. No formula asks
            whether a step was the last: a zero discount says it.
        boundary: [N, T] last step of an episode or of a fragment; recursions restart after it.
        bootstrap: [N, T] value of the true final observation at a boundary that is not a
            termination, else 0.
        log_prob: [N, T] log π(a_t|s_t) under the policy, and the law, that sampled the action.
        mask: [N, T] True where the step counts; False for padding, prompts and dummy reset steps.
        episode: [N, T] which trajectory a step belongs to, numbered from 0.
        group: [N] which start state or prompt; rows of one group share it.
        weight: [N] weight of each trajectory in the row: 1/m for m sampled trajectories, the
            probability for enumerated ones. Exact and sampled gradients are then the same code.
        value: [N, T] V(s_t) as predicted when the batch was made, or None without a value function.
    """

    observation: Shaped[Tensor, "N T ..."]
    action: Shaped[Tensor, "N T ..."]
    reward: Float[Tensor, "N T"]
    discount: Float[Tensor, "N T"]
    boundary: Bool[Tensor, "N T"]
    bootstrap: Float[Tensor, "N T"]
    log_prob: Float[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    episode: Int[Tensor, "N T"]
    group: Int[Tensor, " N"]
    weight: Float[Tensor, " N"]
    value: Float[Tensor, "N T"] | None = None

    @property
    def rows(self) -> int:
        """N."""
        return self.reward.shape[0]

    @property
    def trajectories(self) -> int:
        """How many trajectories (or pieces of one, in a fragment) have a counted step."""
        return int(self.episode[self.mask].unique().numel())

    @property
    def steps(self) -> int:
        """How many steps count."""
        return int(self.mask.sum())

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply `function` to every tensor (all have N as their first dimension)."""
        return replace(self, **{name: function(tensor) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are present, by name."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in present.items() if tensor is not None}

    def select(self, rows: Tensor | slice) -> "Batch":
        """The given rows, weights unchanged.

        A part of a batch keeps the weights of the whole, so that the gradients of the parts add up
        to the gradient of the whole. Call `reweighted` for a part that stands for itself.
        """
        return self.map(lambda tensor: tensor[rows])

    def reweighted(self) -> "Batch":
        """The same rows, weights rescaled so that those of the trajectories sum to one."""
        return replace(self, weight=self.weight / self.total_weight())

    def to(self, target: torch.device | str) -> "Batch":
        """The batch on another device."""
        return self.map(lambda tensor: tensor.to(target))

    def total_weight(self) -> Tensor:
        """Σ of the weights of all trajectories; 1 unless the batch is a part of another. Scalar."""
        starts = episode_start(self)
        return (self.weight * starts.sum(1)).sum()

    def check(self) -> "Batch":
        """Validate once, at the door; returns the batch itself.

        Raises:
            InputError: naming the field, the row and the step at fault.
        """
        for name, tensor in self.tensors().items():
            refuse_unless(
                tensor.device == self.reward.device,
                f"Batch.{name} is on {tensor.device}, Batch.reward on {self.reward.device}; "
                "move the batch with batch.to(device).",
            )
            kind = KINDS.get(name, "real numbers")
            refuse_unless(
                _is_of(tensor.dtype, kind),
                f"Batch.{name} has dtype {tensor.dtype}; it must hold {kind}.",
            )
            grid = self.weight.shape if name in ("group", "weight") else self.reward.shape
            refuse_unless(
                tensor.shape[: len(grid)] == grid,
                f"Batch.{name} has shape {tuple(tensor.shape)}; its first dimensions must be "
                f"{tuple(grid)}.",
            )
        for name in ("reward", "discount", "bootstrap", "log_prob", "value"):
            tensor = getattr(self, name)
            if tensor is not None:
                _refuse_first(~tensor.isfinite() & self.mask, name, tensor, "must be finite")
        outside = ((self.discount < 0) | (self.discount > 1)) & self.mask
        _refuse_first(outside, "discount", self.discount, "must lie in [0, 1]")
        _refuse_first(
            (self.bootstrap != 0) & ~self.boundary & self.mask,
            "bootstrap",
            self.bootstrap,
            "must be 0 away from a boundary",
        )
        last = self.episode != torch.roll(self.episode, -1, 1)
        last[:, -1] = True
        _refuse_first(
            last & ~self.boundary & self.mask,
            "boundary",
            self.boundary,
            "must be True at the last step of an episode or fragment",
        )
        # A terminated episode must not run on: discount 0 is only right at a boundary.
        _refuse_first(
            (self.discount == 0) & ~self.boundary & self.mask & (self.discount.amax() > 0),
            "discount",
            self.discount,
            "is 0 (terminated) where boundary is False",
        )
        bad = ~self.weight.isfinite() | (self.weight < 0)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise InputError(
                f"Batch.weight[{row}] is {self.weight[row].item()}; weights must be finite and ≥ 0."
            )
        return self


def _refuse_first(bad: Tensor, name: str, tensor: Tensor, rule: str) -> None:
    if bad.any():
        row, step = (int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"Batch.{name} at row {row}, step {step} is {tensor[row, step].item()}; it {rule}."
        )


def episode_start(batch: Batch) -> Bool[Tensor, "N T"]:
    """True at the first counted step of every trajectory."""
    steps = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    counted = torch.where(batch.mask, steps, -1).cummax(1).values
    before = torch.cat([torch.full_like(counted[:, :1], -1), counted[:, :-1]], 1)
    previous = batch.episode.gather(1, before.clamp(min=0))
    return batch.mask & ((before < 0) | (previous != batch.episode))


# What a field holds where that is not "real numbers".
KINDS = {
    "mask": "truth values",
    "boundary": "truth values",
    "episode": "whole numbers",
    "group": "whole numbers",
    "observation": "real numbers, whole numbers or truth values",
    "action": "real numbers, whole numbers or truth values",
}


def _is_of(dtype: torch.dtype, kind: str) -> bool:
    if dtype == torch.bool:
        return "truth" in kind
    if dtype.is_complex:
        return False
    return "real" in kind if dtype.is_floating_point else "whole" in kind


def sum_by_episode(batch: Batch, steps: Float[Tensor, "N T"]) -> Float[Tensor, " M"]:
    """Sum a per-step tensor over the counted steps of each trajectory; M is the highest id + 1."""
    total = steps.new_zeros(int(batch.episode.max()) + 1)
    return total.index_add(0, batch.episode[batch.mask], steps[batch.mask])


def elapsed_discount(batch: Batch) -> Float[Tensor, "N T"]:
    """Γ_t = Π_{k<t} γ_k within each trajectory: γ^t, written without knowing γ.

    A fragment that starts in the middle of an episode counts from its own first step. Steps whose
    mask is False (prompts, padding) do not count as time.
    """
    discount = torch.where(batch.mask, batch.discount, 1)
    carry = torch.where(batch.boundary, 0, discount)
    # Γ_{t+1} = 1[boundary at t] + carry_t Γ_t from Γ_0 = 1: the recursion of the returns, run the
    # other way
    restart = torch.cat([torch.ones_like(carry[:, :1]), batch.boundary[:, :-1].to(carry)], 1)
    before = torch.cat([torch.zeros_like(carry[:, :1]), carry[:, :-1]], 1)
    return recursion(restart.flip(1), before.flip(1)).flip(1)


def recursion(x: Float[Tensor, "N T"], c: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """y_t = x_t + c_t y_{t+1}, y_{T} = 0, along the steps of every row.

    By doubling: where y_t = x_t + c_t y_{t+k}, also y_t = (x_t + c_t x_{t+k}) + c_t c_{t+k}
    y_{t+2k}. log₂ T operations over the whole grid do what T would, one step at a time.
    """
    span, steps = 1, x.shape[1]
    while span < steps:
        nearer, later = c[:, :-span], x[:, span:]
        x = torch.cat([torch.addcmul(x[:, :-span], nearer, later), x[:, -span:]], 1)
        c = torch.cat([nearer * c[:, span:], torch.zeros_like(c[:, -span:])], 1)
        span *= 2
    return x


def last_steps(batch: Batch) -> Int[Tensor, " N"]:
    """One more than the last counted step of each row: what must be computed of it; at least 1."""
    place = torch.arange(1, batch.mask.shape[1] + 1, device=batch.mask.device)
    return torch.where(batch.mask, place, 1).amax(1)
