"""Seeds: everything random in a run is drawn from a seed and words that say what for."""

import numpy as np
import torch

from vantage.errors import refuse_unless


def seed_of(*words: int) -> int:
    """A seed of 32 bits that is a function of the words alone, such as (seed, update, purpose).

    Streams of different words are independent for all practical purposes, also where one list of
    words begins with the other: their number is a word too.

    Args:
        words: not negative.

    Raises:
        InputError: one is.

    >>> seed_of(0, 1) == seed_of(0, 1), len({seed_of(0), seed_of(0, 0), seed_of(0, 0, 0)})
    (True, 3)
    """
    refuse_unless(min(words, default=0) >= 0, f"seed={min(words, default=0)}: must be at least 0.")
    return int(np.random.SeedSequence([*words, len(words)]).generate_state(1)[0])


def generator_of(*words: int) -> torch.Generator:
    """A generator of torch's, on the CPU, seeded with `seed_of(*words)`."""
    return torch.Generator().manual_seed(seed_of(*words))
