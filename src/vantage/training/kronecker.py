"""Kronecker-factored curvature: the Fisher information of a layer as a product of two matrices.

A Linear layer with inputs ā = (a, 1) and gradients b = ∂ log p/∂s of its outputs s = W̄ ā has the
score b āᵀ, and its block of the Fisher information, E[āāᵀ ⊗ bbᵀ], is taken for A ⊗ B with

    A = E[ā āᵀ],   B = E[b bᵀ]:

inputs and output gradients as if independent, and layers too. Its inverse times a gradient is then
B⁻¹ ∇W̄ A⁻¹. Both factors are averaged over the batches of a run, as they change slowly.

Source: Martens & Grosse 2015.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.errors import refuse_unless
from vantage.gradients.linear_layers import linear_calls

SMALLEST = 1e-12  # of a factor's mean eigenvalue, where nothing has come through a layer

# Parameters that make up the rows of one matrix: a weight [O, I] and its bias [O], say.
Block = tuple[nn.Parameter, ...]


class Factors(NamedTuple):
    """The two factors of a block.

    Attributes:
        inputs: A = E[ā āᵀ], [I, I].
        outputs: B = E[b bᵀ], [O, O].
    """

    inputs: Float[Tensor, "I I"]
    outputs: Float[Tensor, "O O"]


def factors_of(
    layers: Collection[nn.Linear], forward: Callable[[], Float[Tensor, " M"]]
) -> tuple[Float[Tensor, " M"], list[Factors]]:
    """What `forward` gives for M independent steps, its graph kept, and every layer's factors.

    Args:
        layers: in the order of the factors.
        forward: log p of each step.

    Raises:
        InputError: a layer does not see every step once, by itself.
    """
    result, calls = linear_calls(layers, forward)
    seen = [layer for layer, a, _ in calls if a.shape[:-1] == result.shape]
    refuse_unless(
        seen == list(layers),
        "KFAC: a Linear layer sees something other than every step once, by itself, so that its "
        "factors are not known; use vt.algorithms.trpo(), whose Fisher information has none.",
    )
    gradients = torch.autograd.grad(
        result.sum(), [outputs for _, _, outputs in calls], retain_graph=True
    )
    factors = []
    for (layer, a, _), b in zip(calls, gradients, strict=True):
        inputs = (
            a.detach() if layer.bias is None else nn.functional.pad(a.detach(), (0, 1), value=1)
        )
        factors.append(Factors(inputs.T @ inputs / len(a), b.T @ b / len(b)))
    return result, factors


def natural_direction(
    gradient: Float[Tensor, "O I"], factors: Factors, damping: float
) -> Float[Tensor, "O I"]:
    """(B + √ε/π I)⁻¹ ∇ (A + π√ε I)⁻¹, π² the ratio of the factors' mean eigenvalues, of A to B.

    Args:
        gradient: that of the block's parameters, as one matrix.
        factors: A and B.
        damping: ε; the product of the two dampings.

    Source: Martens & Grosse 2015, section 6.3 (factored Tikhonov damping).
    """
    a, b = (factor.double() for factor in factors)
    means = [factor.trace().clamp_min(SMALLEST) / len(factor) for factor in (a, b)]
    pi, root = (means[0] / means[1]).sqrt(), math.sqrt(damping)
    inputs = torch.linalg.cholesky_ex(a + pi * root * torch.eye(len(a)).to(a))[0]
    outputs = torch.linalg.cholesky_ex(b + root / pi * torch.eye(len(b)).to(b))[0]
    left = torch.cholesky_solve(gradient.double(), outputs)
    return torch.cholesky_solve(left.T, inputs).T.to(gradient.dtype)


class KroneckerFactored(Optimizer):
    """An optimiser along B⁻¹ ∇ A⁻¹ of every block, each step no longer than a KL allows.

    The step is min(lr, √(2 δ / Δᵀ F̂ Δ)) Δ, with Δ the direction of all blocks and F̂ the damped
    factors, so that ½ Δᵀ F̂ Δ, to second order the KL of the step, is at most δ. Steps are averaged:
    the parameters move by m × the last move + (1 − m) × this step.

    Args:
        blocks: the parameters, in blocks.
        lr: η_max.
        max_kl: δ.
        damping: ε.
        decay: how much of the factors' running average stays when a batch is added; the mean of the
            batches so far, until that weighs them so.
        momentum: m.

    Attributes:
        length: what the last direction was multiplied by.

    Source: Wu et al. 2017, section 3.2; Ba et al. 2017.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        lr: float,
        max_kl: float,
        damping: float,
        decay: float,
        momentum: float,
    ):
        settings = {
            "lr": lr, "max_kl": max_kl, "damping": damping, "decay": decay, "momentum": momentum,
        }  # fmt: skip
        super().__init__([p for block in blocks for p in block], settings)
        self.blocks, self.length = blocks, 0.0

    @torch.no_grad()
    def observe(self, factors: Sequence[Factors]) -> None:
        """Add a batch's factors, one of each block, to the running averages."""
        decay = self.param_groups[0]["decay"]
        for block, new in zip(self.blocks, factors, strict=True):
            state = self.state[block[0]]
            batches = float(state.get("batches", 0.0)) + 1
            keep = min(1 - 1 / batches, decay)
            for name, factor in new._asdict().items():
                state[name] = factor if batches == 1 else keep * state[name] + (1 - keep) * factor
            state["batches"] = torch.tensor(batches)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Move the parameters against `.grad`."""
        (group,) = self.param_groups
        gradients = [
            _matrix([torch.zeros_like(p) if p.grad is None else p.grad for p in block])
            for block in self.blocks
        ]
        directions = []
        for block, gradient in zip(self.blocks, gradients, strict=True):
            state = self.state[block[0]]
            factors = Factors(state["inputs"], state["outputs"])
            directions.append(natural_direction(gradient, factors, group["damping"]))
        # F̂ Δ = ∇, by what Δ is
        curvature = sum(
            float((g.double() * d.double()).sum())
            for g, d in zip(gradients, directions, strict=True)
        )
        bound = math.sqrt(2 * group["max_kl"] / curvature) if curvature > 0 else math.inf
        self.length = min(group["lr"], bound)
        for block, direction in zip(self.blocks, directions, strict=True):
            state = self.state[block[0]]
            last = state.get("move", torch.zeros_like(direction))
            move = torch.lerp(self.length * direction, last, group["momentum"])
            state["move"] = move
            widths = [p.numel() // len(p) for p in block]
            for p, piece in zip(block, move.split(widths, 1), strict=True):
                p.sub_(piece.reshape(p.shape))


def _matrix(block: Sequence[Tensor]) -> Float[Tensor, "O I"]:
    """Weight and bias side by side."""
    return torch.cat([each.reshape(len(each), -1) for each in block], 1)
