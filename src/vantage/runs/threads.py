"""How many threads torch uses, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vantage.errors import refuse_unless


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block on `count` torch threads, then restore what was set.

    Small networks want one: on a busy machine a second thread makes each small call wait.

    Raises:
        InputError: count < 1.
    """
    refuse_unless(count >= 1, f"threads={count}: torch needs at least one.")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
