"""The largest change of a log-probability: the quick way gives the numbers of the clear one."""

import pytest
import torch
from torch import nn

import vantage as vt
from vantage.environments.rollout import episodes
from vantage.gradients.linear_layers import largest_change, scaled_products
from vantage.gradients.weighted import log_prob_change


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 7), (7, 3), (4, 4)])
def test_scaled_products_are_the_sums_they_stand_for(inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(5, 2, 6, generator=generator).double()
    a = torch.randn(5, 6, inputs, generator=generator).double()
    b = torch.randn(5, 6, outputs, generator=generator).double()
    weight, bias = scaled_products(basis, b, a)
    expected = torch.einsum("nrt,nto,nti->nroi", basis, b, a).flatten(2)
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(bias, torch.einsum("nrt,nto->nro", basis, b))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_the_largest_change_is_that_of_the_directional_derivative(name: str) -> None:
    """A categorical policy takes the quick way; a Gaussian, whose σ is in no layer, cannot."""
    env = vt.Gymnasium(name, lanes=2)
    policy = env.policy(hidden=(8, 5))
    batch = episodes(env, policy, 4, seed=0)
    size = sum(p.numel() for p in policy.parameters())
    directions = torch.randn(3, size, generator=torch.Generator().manual_seed(1))
    changes = [log_prob_change(policy, batch, direction) for direction in directions]
    expected = torch.stack([(change * batch.mask).abs().max() for change in changes])
    for layers in (True, False):
        found = largest_change(policy, batch, directions, layers)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_without_bias_called_twice() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    shared = nn.Linear(4, 4, bias=False)
    policy = vt.Categorical(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 2)))
    batch = episodes(env, policy, 4, seed=0)
    size = sum(p.numel() for p in policy.parameters())
    directions = torch.randn(2, size, generator=torch.Generator().manual_seed(1))
    found = largest_change(policy, batch, directions, True)
    torch.testing.assert_close(found, largest_change(policy, batch, directions, False))
