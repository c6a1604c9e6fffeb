"""A key-value cache that is written in place: no copy of the past at every token."""

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class Buffer(DynamicLayer):
    """Keys and values of one layer in memory set aside in advance; every position is kept.

    Sliding layers keep theirs whole too: masks decide what is seen.

    Args:
        capacity: tokens that fit.
    """

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Set memory aside, once the shapes are known."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = _empty(key_states, self.capacity)
        self.values = _empty(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; returns views of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def taken(
        self, rows: Int[Tensor, " n"], capacity: int, places: Int[Tensor, "n k"] | None
    ) -> "Buffer":
        """Another buffer with the given rows (a row may be taken several times)."""
        new = Buffer(capacity)
        assert self.keys is not None
        assert self.values is not None
        new.dtype, new.device, new.is_initialized = self.dtype, self.device, True
        new.length = self.length if places is None else places.shape[1]
        new.keys = _copied(self.keys, rows, self.length, capacity, places)
        new.values = _copied(self.values, rows, self.length, capacity, places)
        return new


def empty_cache(capacity: int) -> Cache:
    """A cache whose layers appear as the model first writes to them."""
    return Cache(layer_class_to_replicate=lambda: Buffer(capacity))  # type: ignore[arg-type]


def taken(
    cache: Cache, rows: Int[Tensor, " n"], capacity: int, places: Int[Tensor, "n k"] | None = None
) -> Cache:
    """The cache of the given rows, with room for `capacity` tokens.

    Args:
        places: [n, k] which of a row's tokens to keep; all where None.
    """
    layers = [layer.taken(rows, capacity, places) for layer in cache.layers]  # type: ignore[union-attr]
    return Cache(layers=layers)


def _empty(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return torch.empty(rows, heads, capacity, width, dtype=states.dtype, device=states.device)


def _copied(
    states: Tensor, rows: Tensor, length: int, capacity: int, places: Tensor | None
) -> Tensor:
    _, heads, _, width = states.shape
    new = states.new_empty(len(rows), heads, capacity, width)
    if places is None:
        torch.index_select(states[:, :, :length], 0, rows, out=new[:, :, :length])
    else:
        index = places[:, None, :, None].expand(-1, heads, -1, width)
        new[:, :, : places.shape[1]] = states[rows].gather(2, index)
    return new
