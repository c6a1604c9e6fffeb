"""Sketches: a few numbers in place of a long vector, which keep inner products in expectation.

In a count sketch of k numbers every coordinate is added, with a random sign, to one of k buckets.
Here the coordinates of a block of k neighbours go to the k buckets in turn, from a random one on.
Two coordinates of one block never meet and two of different blocks meet with probability 1/k, so
that inner products are unbiased with a relative standard deviation of at most about √(2/k), as with
buckets that are all drawn anew; and a block is added as it lies, without an index per coordinate.

Source: Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009 for inner products.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor


class Sketch(NamedTuple):
    """Coordinate p = j k + r is added, with its sign, to bucket (r + start_j) mod k.

    Attributes:
        sign: [P] of −1 and 1, a byte each.
        start: bucket of the first coordinate of each block.
        size: k.
    """

    sign: Int8[Tensor, " P"]
    start: list[int]
    size: int

    def __call__(self, vectors: Float[Tensor, "... P"]) -> Float[Tensor, "... k"]:
        """k numbers for every vector."""
        out = vectors.new_zeros(*vectors.shape[:-1], self.size)
        self.add(out, vectors, 0)
        return out

    def add(self, out: Float[Tensor, "*n k"], piece: Float[Tensor, "*n _"], first: int) -> None:
        """Add the sketch of coordinates first, first + 1, ... of every vector to `out`."""
        place, last = first, first + piece.shape[-1]
        while place < last:
            block, within = divmod(place, self.size)
            bucket = (within + self.start[block]) % self.size
            # to the end of the piece, of the block, or of the buckets
            count = min(last - place, self.size - within, self.size - bucket)
            sign = self.sign[place : place + count].to(out.device)
            out[..., bucket : bucket + count] += piece[..., place - first :][..., :count] * sign
            place += count


def count_sketch(parameters: int, size: int, seed: int) -> Sketch:
    """A sketch of `size` numbers for vectors of `parameters` numbers."""
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-parameters // size)
    start = torch.randint(size, (blocks,), generator=generator).tolist()
    sign = torch.randint(2, (parameters,), generator=generator, dtype=torch.int8)
    return Sketch(sign.mul_(2).sub_(1), start, size)


def joined(
    pieces: Sequence[Float[Tensor, "... _"]], sketch: Sketch | None
) -> Float[Tensor, "... _"]:
    """Vectors given piece by piece, one behind the other, or the sketch of them."""
    if sketch is None:
        return torch.cat(list(pieces), -1)
    out = pieces[0].new_zeros(*pieces[0].shape[:-1], sketch.size)
    place = 0
    for piece in pieces:
        sketch.add(out, piece, place)
        place += piece.shape[-1]
    return out
