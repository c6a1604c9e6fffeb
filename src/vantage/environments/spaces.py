"""Gymnasium spaces as tensors: what a policy sees of an observation, what a space is given to do.

| observation space | what the policy sees, a lane |
|---|---|
| Discrete | an id from 0, int64 |
| Box of two or three dimensions that holds a picture | the picture, its dtype kept if it is bytes |
| Box, MultiBinary | a float vector |
| MultiDiscrete, Dict, Tuple (nested) | a float vector, ids as one-hot vectors |

Flat vectors are laid out as `gymnasium.spaces.flatten` lays them out.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import Tensor

from vantage.errors import InputError, refuse_unless
from vantage.policies.networks import SMALLEST_PICTURE

SMALLEST_GREY = 24  # pixels each way, from which bytes of two dimensions are taken for a picture

Leaf = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class Part(NamedTuple):
    """Where one leaf of a nested space lies in the flat vector.

    Attributes:
        path: keys and indices that lead to it.
        space: the leaf.
        first, last: its numbers are flat[first:last].
    """

    path: tuple[str | int, ...]
    space: Leaf
    first: int
    last: int


def parts(space: gymnasium.Space, name: str) -> list[Part]:
    """The leaves of a space, in the order of the flat vector.

    Raises:
        InputError: a space without a fixed size (Text, Graph, Sequence, OneOf), of an unknown kind
            or without numbers.
    """
    leaves: list[Part] = []
    first = 0
    for path, leaf in _leaves(space, (), name):
        last = first + int(spaces.flatdim(leaf))
        leaves.append(Part(path, leaf, first, last))
        first = last
    refuse_unless(
        first > 0, f"Environment {name!r} has observation space {space}, which holds no number."
    )
    return leaves


def width(space: gymnasium.Space, name: str = "environment") -> int:
    """How many numbers a flat observation has; for Discrete, how many ids there are."""
    return parts(space, name)[-1].last


def is_wide(space: gymnasium.Space, name: str) -> bool:
    """Whether single precision may round the numbers of a Box of the space."""
    return any(
        isinstance(part.space, spaces.Box)
        and part.space.dtype.itemsize > (4 if part.space.dtype.kind == "f" else 2)
        for part in parts(space, name)
    )


def is_picture(space: gymnasium.Space) -> bool:
    """Whether a space holds pictures, [height, width] or with channels first or last.

    Bytes of two or three dimensions are, where height and width are 24 pixels or more (less is a
    board) or where three dimensions say that there are channels; floats of three are from 36
    pixels each way.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
        return False
    sides = sorted(space.shape)
    if space.dtype == np.uint8:
        return len(space.shape) == 3 or sides[0] >= SMALLEST_GREY
    return len(space.shape) == 3 and sides[1] >= SMALLEST_PICTURE


def observation_reader(
    space: gymnasium.Space, name: str, dtype: Any = np.float32
) -> Callable[[Any], Tensor]:
    """A function from a batch of observations, as a vector environment gives it, to one tensor.

    The tensor is a copy: environments may write into their arrays at the next step.

    Args:
        dtype: the type of vectors. Double where a normaliser is to take means off before they are
            rounded to single precision.

    Raises:
        InputError: the space is not supported; see `parts`. The function itself raises it for an id
            outside its space and for a batch of another shape.
    """
    layout = parts(space, name)
    if isinstance(space, spaces.Discrete):
        ids_in = _ids(np.asarray(space.n), np.asarray(space.start), "", space, name)
        return lambda batch: torch.from_numpy(ids_in(np.array(batch, np.int64)))
    if is_picture(space):
        number = np.uint8 if space.dtype == np.uint8 else np.float32
        return lambda batch: torch.from_numpy(_array(batch, number, space, name))
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        if len(space.shape) == 1:
            return lambda batch: torch.from_numpy(_array(batch, dtype, space, name))

        def flattened(batch: Any) -> Tensor:
            return torch.from_numpy(_array(batch, dtype, space, name).reshape(len(batch), -1))

        return flattened
    writers = [(part, _writer(part, name)) for part in layout]

    def read(batch: object) -> Tensor:
        pieces = [(_follow(batch, part.path), write) for part, write in writers]
        flat = np.zeros((len(pieces[0][0]), layout[-1].last), dtype)
        for piece, write in pieces:
            write(flat, piece)
        return torch.from_numpy(flat)

    return read


def action_writer(space: gymnasium.Space, dtype: Any, name: str) -> Callable[[Tensor], np.ndarray]:
    """A function from a tensor of actions [lanes, ...] to what a vector environment is given.

    Ids are shifted to start where the space starts; vectors are clipped to the bounds, which does
    nothing where these are infinite, and rounded to the nearest where the space holds integers. The
    array is new: an environment may write into it.

    Args:
        space: the space of one lane.
        dtype: the type of the array the environment is given.

    Raises:
        InputError: the space is not Discrete, MultiDiscrete, MultiBinary or Box.
    """
    if isinstance(space, spaces.Box):
        return _box_writer(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        offset = np.asarray(space.start)
    elif isinstance(space, spaces.MultiBinary):
        offset = np.zeros((), np.int64)
    else:
        raise InputError(
            f"Environment {name!r} has action space {space}; supported are Discrete, "
            "MultiDiscrete, MultiBinary and Box. Wrap it with gymnasium.wrappers.TransformAction "
            "to one of these."
        )
    shifted, shape = bool(offset.any()), space.shape or ()

    def write(action: Tensor) -> np.ndarray:
        ids = action.numpy()
        if len(shape) > 1:
            ids = ids.reshape(-1, *shape)
        return (ids + offset).astype(dtype, copy=False) if shifted else ids.astype(dtype)

    return write


def batched(space: gymnasium.Space, observations: list[object]) -> object:
    """Observations of single lanes as a batch, the way a vector environment gives it."""
    empty: Any = create_empty_array(space, len(observations))
    return concatenate(space, observations, empty)


def share_memory(space: gymnasium.Space, one: Any, other: Any, name: str) -> bool:
    """Whether two observations of one lane hold an array in common."""
    return any(
        np.shares_memory(_follow(one, part.path), _follow(other, part.path))
        for part in parts(space, name)
    )


def unflatten(space: gymnasium.Space, flat: Tensor, name: str = "environment") -> Any:
    """Take flat observations [..., width] apart, for a network that treats the parts differently.

    Returns:
        A dictionary or tuple, nested as the space is, of tensors: [..., *shape] floats for Box and
        MultiBinary, ids from 0 [...] and [..., *shape] for Discrete and MultiDiscrete. For spaces
        that are not nested, one tensor.
    """
    if isinstance(space, spaces.Discrete) or is_picture(space):
        return flat
    leaves = iter(
        [_restore(part.space, flat[..., part.first : part.last]) for part in parts(space, name)]
    )
    return _rebuild(space, leaves)


def as_shown(leaf: Leaf, flat: Tensor) -> Tensor:
    """The columns of one leaf, [..., width], as a policy sees the leaf alone.

    Ids from 0 for Discrete, pictures [..., *shape], the columns themselves for the rest.
    """
    if isinstance(leaf, spaces.Discrete):
        return flat.argmax(-1)
    return flat.unflatten(-1, leaf.shape) if is_picture(leaf) else flat


def unscaled(space: gymnasium.Space, mask: Part | None, name: str) -> list[tuple[int, int]]:
    """Columns, first to last, that no normaliser may touch: masks, and pictures in Dict or Tuple.

    A mask is no number, and a network scales the pixels that it reads.
    """
    nested = isinstance(space, spaces.Dict | spaces.Tuple)
    return [
        (part.first, part.last)
        for part in (parts(space, name) if nested else ())
        if is_picture(part.space) or (mask is not None and part.path == mask.path)
    ]


def _leaves(
    space: gymnasium.Space, path: tuple[str | int, ...], name: str
) -> Iterator[tuple[tuple[str | int, ...], Leaf]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key), name)
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, index), name)
    elif isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    ):
        yield path, space
    else:
        where = "".join(f"[{key!r}]" for key in path)
        raise InputError(
            f"Environment {name!r} has observation space {type(space).__name__}{where and ' at '}"
            f"{where}: {space}; supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict "
            "and Tuple of these. Wrap it with gymnasium.wrappers.TransformObservation to a space "
            "of fixed size."
        )


def _follow(batch: Any, path: tuple[str | int, ...]) -> np.ndarray:
    for key in path:
        batch = batch[key]
    return np.asarray(batch)


def _array(batch: Any, dtype: Any, space: gymnasium.Space, name: str) -> np.ndarray:
    """A batch as a new array [lanes, *shape].

    Raises:
        InputError: its shape is another.
    """
    try:
        array = np.array(batch, dtype)
    except ValueError:  # lanes of different shapes
        array = np.empty(0)
    if array.shape[1:] != space.shape:
        shapes = {np.shape(each) for each in batch}
        wrong = next((shape for shape in shapes if shape != space.shape), array.shape[1:])
        raise InputError(
            f"{name} showed an observation of shape {wrong}; its space {space} says {space.shape}. "
            "Mend the one or the other; gymnasium.wrappers.TransformObservation changes both."
        )
    return array


def _ids(
    sizes: np.ndarray, start: np.ndarray, at: str, space: gymnasium.Space, name: str
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from ids [lanes, ...] as the environment counts to ids from 0.

    Raises, when it is called:
        InputError: an id outside the space, naming lane and value.
    """
    upper = sizes - 1

    def within(shown: np.ndarray) -> np.ndarray:
        ids = shown - start
        if (ids < 0).any() or (ids > upper).any():
            outside = ((ids < 0) | (ids > upper)).reshape(len(ids), -1).any(1)
            lane = int(outside.argmax())
            raise InputError(
                f"{name} showed{at} {np.asarray(shown[lane]).tolist()} in lane {lane}, which is "
                f"not in {space}; mend the environment, or declare a space that holds it."
            )
        return ids

    return within


def _writer(part: Part, name: str) -> Callable[[np.ndarray, np.ndarray], None]:
    """A function that writes one leaf of a batch into the flat vectors of all lanes."""
    space, first, last = part.space, part.first, part.last
    if isinstance(space, spaces.Box | spaces.MultiBinary):

        def write(flat: np.ndarray, piece: np.ndarray) -> None:
            flat[:, first:last] = piece.reshape(len(flat), -1)

        return write
    sizes = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec).flatten()
    at = "".join(f"[{key!r}]" for key in part.path)
    within = _ids(sizes, np.asarray(space.start).flatten(), at, space, name)
    column = first + np.cumsum(sizes) - sizes  # of id 0 of every component

    def write_one_hot(flat: np.ndarray, piece: np.ndarray) -> None:
        lane = np.arange(len(flat))[:, None]
        ids = within(piece.reshape(len(flat), -1).astype(np.int64))
        flat[lane, column + ids] = 1

    return write_one_hot


def _box_writer(space: spaces.Box) -> Callable[[Tensor], np.ndarray]:
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    refuse_unless(
        np.issubdtype(dtype, np.floating) or (np.isfinite(low).all() and np.isfinite(high).all()),
        f"Action space {space}: integers can only be clipped to finite bounds; give it some.",
    )
    bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
    whole = not np.issubdtype(dtype, np.floating)

    def write(action: Tensor) -> np.ndarray:
        vector = action.numpy()
        if len(shape) != 1:
            vector = vector.reshape(-1, *shape)
        if whole:
            vector = np.floor(vector.astype(np.float64) + 0.5)
        if bounded:
            vector = np.minimum(np.maximum(vector, low), high)
        return vector.astype(dtype)

    return write


def _restore(space: Leaf, flat: Tensor) -> Tensor:
    grid = flat.shape[:-1]
    if isinstance(space, spaces.Discrete):
        return flat.argmax(-1)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.flatten().tolist()
        ids = [piece.argmax(-1) for piece in flat.split(sizes, -1)]
        return torch.stack(ids, -1).reshape(*grid, *space.shape)
    return flat.reshape(*grid, *space.shape)


def _rebuild(space: gymnasium.Space, leaves: Iterator[Tensor]) -> object:
    if isinstance(space, spaces.Dict):
        return {key: _rebuild(inner, leaves) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_rebuild(inner, leaves) for inner in space.spaces)
    return next(leaves)
