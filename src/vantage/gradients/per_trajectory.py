"""The gradient of every trajectory under many estimators, from one set of gradient passes.

Estimators differ only in their weights: g_n^e = Σ_t w^e_nt s_nt. On each trajectory the E weight
vectors span a space of R ≤ E dimensions (one, where every estimator gives a trajectory one weight),
so R backward passes serve them all, and each g_n^e is a combination of R vectors.

Three methods form those vectors, and all give the same numbers:

    by_loop     one backward pass a trajectory: slow, and obviously right
    by_vmap     one vectorised pass over trajectories
    by_layers   for Linear layers: outer products of inputs and output gradients, a pass for all

`fastest` times those that fit into memory on a few trajectories, checks them against the loop, and
takes the quickest. Models too large to hold their gradients are sketched, parameter by parameter as
these are formed.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.batch import Batch, last_steps
from vantage.gradients.linear_layers import linear_calls, linear_layers, scaled_products
from vantage.gradients.sketch import Sketch, joined
from vantage.gradients.weighted import row_pieces, weighted_pieces
from vantage.policies import Policy

MOST_ROWS = 64  # of a chunk
SECONDS = 2.0  # that take a trial of a method to be long, so that once is enough


class Method(Protocol):
    """A way to form the gradients of every row along every direction, whole or sketched."""

    def __call__(
        self,
        policy: Policy,
        batch: Batch,
        basis: Float[Tensor, "N R T"],
        sketch: Sketch | None = None,
    ) -> Float[Tensor, "N R k"]: ...


class Room(NamedTuple):
    """What gradients may take while they are formed.

    Attributes:
        memory: bytes, of a chunk's vectors and of the passes that form them.
        activations: (method, steps) -> bytes of the pass over one row; None where they are few.
    """

    memory: int = 256 << 20
    activations: Callable[[str, int], int] | None = None

    def rows(self, name: str, parameters: int, rank: int, results: int, steps: int) -> int:
        """How many rows a method can take at once; 0 where not even one.

        Args:
            name: the name of the method.
            parameters: bytes of one gradient.
            rank: R, directions formed together.
            results: bytes that are held of every row at the end.
            steps: T.
        """
        one_pass = 0 if self.activations is None else self.activations(name, steps)
        fixed, each = vectors_held(name, rank)
        fixed, each = fixed * parameters, each * parameters + results
        if name == "loop":
            fixed += one_pass
        else:
            each += one_pass
        return max(0, min(MOST_ROWS, (self.memory - fixed) // max(1, each)))


def vectors_held(name: str, rank: int) -> tuple[int, int]:
    """Vectors as long as a gradient that a method holds beside its results: in all, and per row.

    The loop has the pieces of one gradient, the others those of every row: by vmap one direction's,
    with what is added up where a parameter is used twice; by layers those of all directions.
    """
    return {"loop": (1, 0), "vmap": (0, 2), "layers": (0, rank + 1)}[name]


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


def by_loop(
    policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"], sketch: Sketch | None = None
) -> Float[Tensor, "N R k"]:
    """One backward pass a trajectory and direction: the reference."""
    every: Tensor | None = None
    for n in range(batch.rows):
        one = batch.select(slice(n, n + 1))
        for r, direction in enumerate(basis[n]):
            vector = joined(weighted_pieces(policy, one, direction[None]), sketch)
            if every is None:
                every = vector.new_empty(batch.rows, basis.shape[1], len(vector))
            every[n, r] = vector
            del vector
    assert every is not None
    return every


def by_vmap(
    policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"], sketch: Sketch | None = None
) -> Float[Tensor, "N R k"]:
    """One vectorised pass a direction, over all trajectories."""
    every = [joined(row_pieces(policy, batch, w), sketch)[:, None] for w in basis.unbind(1)]
    return every[0] if len(every) == 1 else torch.cat(every, 1)


def by_layers(
    policy: Policy, batch: Batch, basis: Float[Tensor, "N R T"], sketch: Sketch | None = None
) -> Float[Tensor, "N R k"]:
    """Linear layers by outer products, what is not in one by `by_vmap`.

    With inputs a_t and output gradients b_t of a layer, the gradient of its weight on trajectory n
    is Σ_t w_nt b_t a_tᵀ. In a policy without memory b_t does not depend on the weights of other
    steps, and one backward pass serves every direction.

    Raises:
        RuntimeError: a layer is called with something other than all positions of every row, as
            where positions are flattened or experts see some of them.
    """
    layers = linear_layers(policy)
    log_prob, used = linear_calls(layers, partial(policy.log_prob, batch.observation, batch.action))
    outputs = [out for _, _, out in used]
    if not used:
        return by_vmap(policy, batch, basis, sketch)
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
    del log_prob, used, outputs, backward  # the graph, before vmap makes its own
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    others = [name for name in names if name not in gradients]
    if others:
        every = [row_pieces(policy, batch, w, only=others) for w in basis.unbind(1)]
        for name, pieces in zip(others, zip(*every, strict=True), strict=True):
            gradients[name] = torch.stack(pieces, 1)
        del every
    return joined([gradients.pop(name) for name in names], sketch)


METHODS: dict[str, Method] = {"loop": by_loop, "vmap": by_vmap, "layers": by_layers}


class Choice(NamedTuple):
    """What `fastest` found.

    Attributes:
        name: the name of the method taken.
        seconds: measured per trajectory, by method; those that failed or disagreed are missing.
        refused: why, by method.
    """

    name: str
    seconds: dict[str, float]
    refused: dict[str, str]


def fastest(
    policy: Policy,
    batch: Batch,
    basis: Float[Tensor, "N R T"],
    trajectories: int = 8,
    sketch: Sketch | None = None,
    room: Room | None = None,
) -> Choice:
    """Time the methods on a few trajectories and take the quickest that agrees with the loop.

    A method agrees if it is within 1e-5 of the loop, relative to the longest gradient. Ties between
    machines' moods do not change results beyond rounding. Gradients are formed in chunks that fit
    into `room` and compared by their sketches, where there is one; a method that cannot take one
    row is not tried.
    """
    room = room or Room()
    parameters, length = _bytes(policy), _length(policy, sketch)
    width, rank = basis.element_size(), basis.shape[1]
    two = 2 * rank * length * width  # the loop's result of a row, and the method's
    count = max(1, min(trajectories, batch.rows, (room.memory - parameters) // (2 * two)))
    if count > 2:  # of a large model two are enough
        one = batch.select(slice(0, 1))
        began = time.perf_counter()
        by_loop(policy, one, basis[:1], sketch)
        count = 2 if time.perf_counter() - began > SECONDS / 8 else count
    index = torch.linspace(0, batch.rows - 1, count).long()
    few, directions = batch.select(index), basis[index]
    left = room._replace(memory=room.memory - count * two)

    def formed(name: str) -> tuple[Tensor, float]:
        began = time.perf_counter()
        chunks = _in_chunks(policy, few, directions, name, sketch, left)
        vectors = torch.cat([each for _, each in chunks])
        return vectors, (time.perf_counter() - began) / len(vectors)

    reference, elapsed = formed("loop")
    seconds, refused = {"loop": elapsed}, dict[str, str]()
    tolerance = 1e-5 * float(reference.norm(dim=-1).max())
    able = [n for n in METHODS if left.rows(n, parameters, 1, 0, basis.shape[2]) > 0]
    for name in able if len(able) > 1 else []:
        try:
            result, elapsed = formed(name)
            if elapsed * count < SECONDS:  # the first call pays for what is built once
                del result
                result, elapsed = formed(name)
        except Exception as error:
            # the loop is the reference and has passed: vmap refuses some operators and in-place
            # code, and models answer in exceptions of their own to tensors that they cannot take
            refused[name] = (str(error) or type(error).__name__).splitlines()[0]
            continue
        apart = float(result.sub_(reference).norm(dim=-1).max())
        del result
        if apart <= tolerance:
            seconds[name] = elapsed
        else:
            refused[name] = f"differs from the loop by {apart:.2g}, more than {tolerance:.2g}"
    refused |= {n: "takes more memory than there is" for n in METHODS if n not in [*able, "loop"]}
    return Choice(min(seconds, key=lambda key: seconds[key]), seconds, refused)


def contributions(
    policy: Policy,
    batch: Batch,
    weights: Float[Tensor, "E N T"],
    method: str,
    sketch: Sketch | None = None,
    room: Room | None = None,
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "E n k"]]]:
    """Yield (rows, [E, n, P or k]): the trajectories' gradients under every estimator, in chunks.

    Chunks hold rows of similar length, so that little is spent on padding.

    Args:
        method: how to form them, a name of `METHODS`.
        sketch: applied to every vector, or None to keep whole gradients.
        room: what a chunk may take; where it is too little for one row a chunk is one row.
    """
    basis, coefficient = spanning(weights)
    combined = len(weights) * _length(policy, sketch) * basis.element_size()
    length = last_steps(batch)
    order = torch.argsort(length, stable=True)
    ordered, room = batch.select(order), room or Room()
    chunks = _in_chunks(policy, ordered, basis[order], method, sketch, room, combined)
    for places, vectors in chunks:
        rows = order[places]
        yield rows, torch.einsum("enr,nrk->enk", coefficient[:, rows], vectors)


def _in_chunks(
    policy: Policy,
    batch: Batch,
    basis: Float[Tensor, "N R T"],
    method: str,
    sketch: Sketch | None,
    room: Room,
    beside: int = 0,
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "n R k"]]]:
    """(rows, their vectors) in as many rows as fit, by directions one at a time where one row is
    too many.

    Args:
        beside: bytes that are held of every row, its vectors apart.
    """
    parameters, rank = _bytes(policy), basis.shape[1]
    results = 2 * rank * _length(policy, sketch) * basis.element_size() + beside
    length = last_steps(batch)

    def most(steps: int, together: int) -> int:
        return room.rows(method, parameters, together, results, steps)

    count = most(int(length.max()), rank)
    together = rank if count > 0 else 1
    for rows in torch.arange(batch.rows).split(max(1, count)):
        steps = slice(0, int(length[rows].max()))
        shortened = _first_steps(batch.select(rows), steps)
        directions = basis[rows][:, :, steps].split(together, 1)
        pieces = [METHODS[method](policy, shortened, each, sketch) for each in directions]
        yield rows, pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)


def _bytes(policy: Policy) -> int:
    """Bytes of one gradient."""
    return sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)


def _length(policy: Policy, sketch: Sketch | None) -> int:
    """Numbers that are kept of a gradient."""
    whole = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    return whole if sketch is None else sketch.size


def _first_steps(batch: Batch, steps: slice) -> Batch:
    grids = {
        name: tensor if name in ("group", "weight") else tensor[:, steps]
        for name, tensor in batch.tensors().items()
    }
    return Batch(**grids)
