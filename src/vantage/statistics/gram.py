"""Inner products of unit gradients: the door for matrices from outside, and their U-statistics."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vantage.errors import InputError

Array = NDArray[np.float64]
TINY = 1e-300  # below it a sum of squares is zero


BLOCK = 1 << 19  # numbers that are converted to float64 at a time


def products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Inner products [U, V] of vectors [U, k] and [V, k], or [U] with one vector [k], in float64.

    A block of columns is converted at a time: vectors may be most of what memory there is.
    """
    columns = max(1, BLOCK // max(len(left), 1))
    total = torch.zeros((), dtype=torch.float64, device=left.device)
    for a, b in zip(left.split(columns, -1), right.split(columns, -1), strict=True):
        total = total + a.double() @ b.double().transpose(0, -1)
    return total


def averaged(kernel: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Means over blocks [rows, columns]: inner products of the means of so many neighbours each."""
    down, across = kernel.shape[0] // rows, kernel.shape[1] // columns
    return kernel.view(down, rows, across, columns).mean((1, 3))


def double(numbers: object) -> torch.Tensor:
    if isinstance(numbers, torch.Tensor):
        return numbers.detach().cpu().double()
    return torch.as_tensor(numbers, dtype=torch.float64)


def checked(gram: object, name: str, fewest: int = 2) -> Array:
    """Square, finite, at least `fewest` units, as float64."""
    matrix: Array = double(gram).numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name}: shape {matrix.shape}; give inner products of all units, [U, U].")
    if len(matrix) < fewest:
        raise InputError(f"{name}: {len(matrix)} unit(s), at least {fewest} needed; draw more.")
    if broken := int((~np.isfinite(matrix)).sum()):
        raise InputError(f"{name}: {broken} entries are not finite; drop or repair those units.")
    return matrix


def against(cross: object, reference: object) -> tuple[Array, Array]:
    """Kernels [U, U] of g_u . r_v and r_u . r_v; an exact reference is the same r for all units."""
    across = double(cross)
    if across.ndim == 1:
        across = across[:, None].expand(-1, len(across))
    matrix = checked(across, "cross")
    below = double(reference)
    below = below if below.ndim == 2 else below.expand(matrix.shape)
    return matrix, checked(below, "reference")


class Hoeffding(NamedTuple):
    """kernel[u, v] = mean + first[u] + first[v] + second[u, v], over all pairs (Hoeffding)."""

    mean: float
    first: Array
    second: Array


def hoeffding(kernel: Array) -> Hoeffding:
    rows = kernel.mean(1)
    mean = float(rows.mean())
    return Hoeffding(mean, rows - mean, kernel - rows[:, None] - rows[None, :] + mean)


def deviations(gram: Array) -> Array:
    """‖g_u - ḡ‖², rounding taken for zero."""
    size = hoeffding(gram).second.diagonal()
    return np.where(size > 1e-13 * np.abs(gram.diagonal()).max(), size, 0.0)


def off_diagonal(kernel: Array) -> float:
    return float((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)))


def pair_moments(kernel: Array) -> tuple[float, float, Array]:
    """Unbiased: variance of the first-order part, mean square of the second; U-centred kernel."""
    units = len(kernel)
    rows = (kernel.sum(1) - kernel.diagonal()) / (units - 2)
    centred = kernel - rows[:, None] - rows[None, :] + rows.sum() / (units - 1)
    np.fill_diagonal(centred, 0.0)
    square = float((centred**2).sum()) / (units * (units - 3))
    return float(rows.var(ddof=1)) - square / (units - 2), square, centred
