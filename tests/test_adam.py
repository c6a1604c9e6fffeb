"""The optimiser for many small steps is torch's."""

import pytest
import torch
from torch import nn

from vantage.training.adam import Adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch_to_the_bit(dtype: torch.dtype) -> None:
    """Also where the rate changes on the way, and after the state was saved and loaded."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> list[torch.Tensor]:
        return [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((7, 3), (5,))]

    start = drawn()
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    quick = Adam(ours, lr=0.1, eps=1e-5)
    plain = torch.optim.Adam(theirs, lr=0.1, eps=1e-5, fused=True)
    for number in range(6):
        for parameters in (ours, theirs):
            torch.manual_seed(number)
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            if number in (0, 4):  # no gradient yet, and none for once
                parameters[1].grad = None
        if number == 3:
            loaded = Adam(ours, lr=0.1, eps=1e-5)
            loaded.load_state_dict(quick.state_dict())
            quick = loaded
        for optimizer in (quick, plain):
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
            optimizer.step()
        assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], start[0])
