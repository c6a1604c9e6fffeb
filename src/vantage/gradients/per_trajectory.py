"""The gradient of every trajectory under many estimators, from one set of gradient passes.

Estimators differ only in their weights: g_n^e = Σ_t w^e_nt s_nt. On each trajectory the E weight
vectors span a space of R ≤ E dimensions (one, where every estimator gives a trajectory one weight),
so R backward passes serve them all, and each g_n^e is a combination of R vectors.

Three methods form those vectors, and all give the same numbers:

    by_loop     one backward pass a trajectory: slow, and obviously right
    by_vmap     one vectorised pass over trajectories
    by_layers   for Linear layers: outer products of inputs and output gradients, a pass for all

`fastest` times them on a few trajectories, checks them against the loop, and takes the quickest.
Models too large to hold their gradients are sketched: a count sketch of k numbers keeps inner
products, with a relative standard deviation of about √(2/k).
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.gradients.linear_layers import linear_calls, linear_layers, scaled_products
from vantage.gradients.weighted import row_gradients, weighted_score
from vantage.policies import Policy

# (policy, batch, basis [N, R, T]) -> [N, R, P]
Method = Callable[[Policy, Batch, Tensor], Tensor]


class Sketch(NamedTuple):
    """A count sketch: coordinate p is added, with its sign, to bucket[p].

    Source: Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009 for inner products.
    """

    bucket: Int[Tensor, " P"]
    sign: Float[Tensor, " P"]
    size: int

    def __call__(self, vectors: Float[Tensor, "... P"]) -> Float[Tensor, "... k"]:
        """k numbers for every vector; inner products keep their value in expectation."""
        out = vectors.new_zeros(*vectors.shape[:-1], self.size)
        return out.index_add_(-1, self.bucket, vectors * self.sign.to(vectors.dtype))


def count_sketch(parameters: int, size: int, seed: int) -> Sketch:
    """A count sketch of `size` buckets for vectors of `parameters` numbers."""
    generator = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, (parameters,), generator=generator)
    sign = torch.randint(2, (parameters,), generator=generator) * 2.0 - 1.0
    return Sketch(bucket, sign, size)


def spanning(
    weights: Float[Tensor, "E N T"],
) -> tuple[Float[Tensor, "N R T"], Float[Tensor, "E N R"]]:
    """Write every trajectory's E weight vectors in a basis of as few as they span.

    Returns basis and coefficients with weights = Σ_r coefficient[e, n, r] basis[n, r] to rounding.

    >>> basis, coefficient = spanning(torch.tensor([[[1.0, 1.0]], [[3.0, 3.0]]]))
    >>> basis.shape, torch.einsum("enr,nrt->ent", coefficient, basis).round(decimals=4)
    (torch.Size([1, 1, 2]), tensor([[[1., 1.]],
    <BLANKLINE>
            [[3., 3.]]]))
    """
    rows = weights.double().transpose(0, 1)
    # estimators live on different scales (returns of 500, normalised advantages): compare shapes
    size = rows.square().sum((0, 2)).sqrt()
    shapes = rows / torch.where(size > 0, size, 1)[:, None]
    squares, directions = torch.linalg.eigh(shapes @ shapes.transpose(1, 2))
    squares, directions = squares.flip(-1), directions.flip(-1)
    present = squares > 1e-13 * squares[:, :1].clamp_min(torch.finfo(torch.float64).tiny)
    rank = max(1, int(present.sum(1).max()))
    lengths = torch.where(present, squares, 0)[:, :rank].sqrt()
    directions = directions[:, :, :rank] * present[:, None, :rank]
    basis = directions.transpose(1, 2) @ shapes / torch.where(lengths > 0, lengths, 1)[..., None]
    coefficient = directions * lengths[:, None] * size[:, None]
    return basis.to(weights.dtype), coefficient.transpose(0, 1).to(weights.dtype)


def by_loop(policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"]) -> Float[Tensor, "N R P"]:
    """One backward pass a trajectory and direction: the reference."""
    parts = [slice(n, n + 1) for n in range(batch.rows)]
    every = [
        weighted_score(policy, batch.select(rows), direction[None])
        for rows in parts
        for direction in basis[rows][0]
    ]
    return torch.stack(every).view(batch.rows, basis.shape[1], -1)


def by_vmap(policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"]) -> Float[Tensor, "N R P"]:
    """One vectorised pass a direction, over all trajectories."""
    return torch.stack([row_gradients(policy, batch, w) for w in basis.unbind(1)], 1)


def by_layers(
    policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"]
) -> Float[Tensor, "N R P"]:
    """Linear layers by outer products, what is not in one by `by_vmap`.

    With inputs a_t and output gradients b_t of a layer, the gradient of its weight on trajectory n
    is Σ_t w_nt b_t a_tᵀ. In a policy without memory b_t does not depend on the weights of other
    steps, and one backward pass serves every direction.

    Raises:
        RuntimeError: a layer is called with something other than all positions of every row, as
            where positions are flattened or experts see some of them.
    """
    layers = linear_layers(policy)
    log_prob, used = linear_calls(policy, layers, batch.observation, batch.action)
    outputs = [out for _, _, out in used]
    if not used:
        return by_vmap(policy, batch, basis)
    for layer, a, out in used:
        if a.ndim != 3 or out.ndim != 3 or len(a) != batch.rows:
            inputs = f"inputs of shape {tuple(a.shape)}, not [{batch.rows} rows, positions, width]"
            raise RuntimeError(f"the layer of {layers[layer][0]} sees {inputs}")
    memoryless = bool(getattr(policy, "memoryless", False))
    passes = [batch.mask.to(basis.dtype)] if memoryless else list(basis.unbind(1))
    backward = []
    for i, w in enumerate(passes):
        surrogate = torch.where(batch.mask, w * log_prob, 0).sum()
        keep = i + 1 < len(passes)
        backward.append(torch.autograd.grad(surrogate, outputs, retain_graph=keep))
    gradients: dict[str, Tensor] = {}
    for k, (layer, a, _) in enumerate(used):
        if memoryless:
            weight, bias = scaled_products(basis, backward[0][k], a.detach())
        else:
            b = torch.stack([piece[k] for piece in backward], 1)
            rows, rank, steps, width = b.shape
            flat = b.permute(0, 1, 3, 2).reshape(rows, rank * width, steps)
            weight, bias = (flat @ a.detach()).reshape(rows, rank, -1), b.sum(2)
        for name, piece in zip(layers[layer], (weight, bias), strict=False):
            gradients[name] = gradients[name] + piece if name in gradients else piece
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    for name in (name for name in names if name not in gradients):
        gradients[name] = torch.stack(
            [row_gradients(policy, batch, w, only=[name]) for w in basis.unbind(1)], 1
        )
    return torch.cat([gradients[name] for name in names], -1)


METHODS: dict[str, Method] = {"loop": by_loop, "vmap": by_vmap, "layers": by_layers}


class Choice(NamedTuple):
    """What `fastest` found.

    Attributes:
        name: of the method taken.
        method: the method.
        seconds: measured per trajectory, by method; those that failed or disagreed are missing.
        refused: why, by method.
    """

    name: str
    method: Method
    seconds: dict[str, float]
    refused: dict[str, str]


def fastest(
    policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"], trajectories: int = 8
) -> Choice:
    """Time the methods on a few trajectories and take the quickest that agrees with the loop.

    A method agrees if it is within 1e-5 of the loop, relative to the longest gradient. Ties between
    machines' moods do not change results beyond rounding.
    """
    index = torch.linspace(0, batch.rows - 1, min(trajectories, batch.rows)).long()
    few, directions = batch.select(index), basis[index]
    reference = by_loop(policy, few, directions)
    tolerance = 1e-5 * float(reference.norm(dim=-1).max())
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, method in METHODS.items():
        try:
            method(policy, few, directions)  # the first call pays for what is built once
            started = time.perf_counter()
            result = method(policy, few, directions)
            elapsed = time.perf_counter() - started
        except Exception as error:
            # the loop is the reference and has passed: vmap refuses some operators and in-place
            # code, and models answer in exceptions of their own to tensors that they cannot take
            refused[name] = (str(error) or type(error).__name__).splitlines()[0]
            continue
        apart = float((result - reference).norm(dim=-1).max())
        if apart <= tolerance:
            seconds[name] = elapsed / len(index)
        else:
            refused[name] = f"differs from the loop by {apart:.2g}, more than {tolerance:.2g}"
    name = min(seconds, key=lambda key: seconds[key])
    return Choice(name, METHODS[name], seconds, refused)


def contributions(
    policy: Policy,
    batch: Batch,
    weights: Float[Tensor, "E N T"],
    method: Method,
    sketch: Sketch | None = None,
    memory: int = 256 << 20,
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "E n k"]]]:
    """Yield (rows, [E, n, P or k]): the trajectories' gradients under every estimator, in chunks.

    Chunks hold rows of similar length, so that little is spent on padding.

    Args:
        method: how to form them.
        sketch: applied to every vector, or None to keep whole gradients.
        memory: bytes that one chunk of gradients may take.
    """
    basis, coefficient = spanning(weights)
    parameters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    each = basis.shape[1] * (parameters * 3) * basis.element_size()
    length = batch.mask.long().cumsum(1).argmax(1) + 1
    order = torch.argsort(length, stable=True)
    for rows in order.split(max(1, min(64, memory // each))):
        steps = slice(0, int(length[rows].max()))
        shortened = _first_steps(batch.select(rows), steps)
        vectors = method(policy, shortened, basis[rows][:, :, steps])
        if sketch is not None:
            vectors = sketch(vectors)
        yield rows, torch.einsum("enr,nrk->enk", coefficient[:, rows], vectors)


def _first_steps(batch: Batch, steps: slice) -> Batch:
    grids = {
        name: tensor if name in ("group", "weight") else tensor[:, steps]
        for name, tensor in batch.tensors().items()
    }
    return Batch(**grids)
