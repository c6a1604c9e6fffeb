"""Exact moments of estimates that compare trajectories, by kinds and not by tuples.

What an estimator weighs a trajectory by depends on few numbers: its reward and its length, say.
Trajectories that agree in them are of one kind κ, and a group of K is known, to the estimator, by
how often each kind occurs in it. Given that, the trajectories of a kind are independent draws from
it, so that with φ the score, or the score of each step,

    E[ĝ | counts]       = Σ_i w_i μ_κ(i),                       μ_κ = E[φ | κ]
    tr Cov[ĝ | counts]  = Σ_i w_i² C_κ(i),                      C_κ = E[‖φ‖² | κ] − ‖μ_κ‖²

and the sum over counts has as many terms as there are multisets of K kinds: polynomial in K, where
the tuples of trajectories grow exponentially.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Kinds:
    """The trajectories of one start state or prompt, sorted by what an estimator reads of them.

    Attributes:
        probability: [M] of each of M kinds; sums to 1.
        steps: [M] counted steps of a trajectory of the kind.
        mean: [M, F, P] E[φ_f | κ] of F features of a trajectory: vectors that a weight multiplies,
            such as the score of every step.
        covariance: [M, F, F] E[φ_f·φ_f' | κ] − μ_f·μ_f'.
    """

    probability: Float[Tensor, " M"]
    steps: Int[Tensor, " M"]
    mean: Float[Tensor, "M F P"]
    covariance: Float[Tensor, "M F F"]

    @staticmethod
    def joined(every: "Sequence[Kinds]") -> "Kinds":
        """The kinds of several starts, one after the other; probabilities given the start."""
        return Kinds(*(torch.cat([getattr(one, name) for one in every]) for name in _FIELDS))


_FIELDS = ("probability", "steps", "mean", "covariance")


@dataclass(frozen=True)
class BySteps:
    """Moments of ĝ of a group, apart by the number L of counted steps in the group.

    Attributes:
        probability: [S] P(L) of L = 0 … S − 1.
        mean: [S, P] E[ĝ 1{L}].
        square: [S] E[‖ĝ‖² 1{L}].
    """

    probability: Float[Tensor, " S"]
    mean: Float[Tensor, "S P"]
    square: Float[Tensor, " S"]

    @property
    def total(self) -> tuple[Float[Tensor, " P"], Float[Tensor, ""]]:
        """E ĝ and E‖ĝ‖²."""
        return self.mean.sum(0), self.square.sum()


def moments_by_steps(
    kinds: Kinds,
    members: Int[Tensor, "U K"],
    probability: Float[Tensor, " U"],
    weight: Float[Tensor, "U K F"],
) -> BySteps:
    """Moments of ĝ = Σ_i Σ_f w_if φ_if over every multiset of kinds.

    Args:
        kinds: M kinds of trajectories.
        members: [U, K] the kinds in each of U multisets.
        probability: [U] of each multiset.
        weight: [U, K, F] of each feature of each member.
    """
    count, features, _ = kinds.mean.shape
    flat = kinds.mean.flatten(0, 1)
    place = members[..., None] * features + torch.arange(features)
    total = weight.new_zeros(len(members), count * features)
    total.scatter_add_(1, place.flatten(1), weight.flatten(1))
    within = torch.zeros_like(probability)
    for member in range(members.shape[1]):
        share = weight[:, member]
        spread = kinds.covariance[members[:, member]]
        within += torch.einsum("uf,ufg,ug->u", share, spread, share)
    square = probability * (torch.einsum("ux,xy,uy->u", total, flat @ flat.T, total) + within)
    steps = kinds.steps[members].sum(1)
    bins = int(steps.max()) + 1
    loads = weight.new_zeros(bins, total.shape[1])
    return BySteps(
        weight.new_zeros(bins).index_add_(0, steps, probability),
        loads.index_add_(0, steps, probability[:, None] * total) @ flat,
        weight.new_zeros(bins).index_add_(0, steps, square),
    )


def added(parts: Sequence[BySteps]) -> BySteps:
    """Moments over the union of disjoint sets of multisets."""
    bins = max(len(moments.probability) for moments in parts)

    def grown(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(bins - len(tensor), *tensor.shape[1:])])

    return BySteps(
        *(
            torch.stack([grown(getattr(moments, name)) for moments in parts]).sum(0)
            for name in ("probability", "mean", "square")
        )
    )


def over_steps(groups: Sequence[BySteps]) -> tuple[Float[Tensor, " P"], Float[Tensor, ""]]:
    """E ĝ and E‖ĝ‖² of ĝ = (Σ_g N_g)/(Σ_g L_g), over independent groups g.

    N_g is what `BySteps` holds the moments of and L_g the group's steps: the mean over the tokens
    of a batch, which couples all of its groups through one number.
    """
    mean = torch.zeros_like(groups[0].mean[0])
    square = torch.zeros_like(groups[0].square[0])
    for g, one in enumerate(groups):
        others = [other for h, other in enumerate(groups) if h != g]
        mean += _inverse(others, len(one.square), 1) @ one.mean
        square += _inverse(others, len(one.square), 2) @ one.square
        for h in range(g):
            rest = [other for k, other in enumerate(groups) if k not in (g, h)]
            products = one.mean @ groups[h].mean.T
            steps = torch.arange(len(one.square))[:, None] + torch.arange(products.shape[1])
            weight = _inverse(rest, products.shape[0] + products.shape[1] - 1, 2)
            square += 2 * (weight[steps] * products).sum()
    return mean, square


def _inverse(others: Sequence[BySteps], count: int, power: int) -> Float[Tensor, " S"]:
    """E[(x + Σ L)^−power] at x = 0 … count − 1, Σ L the steps of other groups; 0 at x + Σ L = 0."""
    law = np.ones(1)
    for other in others:
        law = np.convolve(law, other.probability.numpy())
    total = torch.arange(count)[:, None] + torch.arange(len(law))
    terms = torch.where(total > 0, total.clamp(min=1).double() ** -power, 0)
    return terms @ torch.from_numpy(law)
