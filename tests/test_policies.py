"""Distributions over actions against enumeration, integration and Monte Carlo; networks."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import vantage as vt
from vantage.policies import (
    Bernoulli,
    Categorical,
    MultiCategorical,
    Policy,
    SquashedGaussian,
    cnn,
    mlp,
    orthogonal_,
)

SIZES = (2, 4, 3)


class Fixed(nn.Module):
    """Gives the same numbers for every observation."""

    def __init__(self, numbers: Tensor):
        super().__init__()
        self.numbers = nn.Parameter(numbers)

    def forward(self, observation: Tensor) -> Tensor:
        return self.numbers.expand(*observation.shape[:-1], -1)


def fixed(outputs: int, seed: int = 0, scale: float = 1.0) -> Fixed:
    generator = torch.Generator().manual_seed(seed)
    return Fixed(scale * torch.randn(outputs, generator=generator, dtype=torch.float64))


def finite_policies() -> dict[str, tuple[Policy, Tensor]]:
    """Each with all of its actions, [A, K]."""
    choices = torch.tensor(list(itertools.product(*(range(size) for size in SIZES))))
    switches = torch.tensor(list(itertools.product(range(2), repeat=3)))
    return {
        "several": (MultiCategorical(fixed(sum(SIZES)), SIZES), choices),
        "switches": (Bernoulli(fixed(3)), switches),
    }


@pytest.mark.parametrize("name", ["several", "switches"])
def test_probabilities_add_up_and_give_the_entropy(name: str) -> None:
    policy, actions = finite_policies()[name]
    nowhere = torch.zeros(len(actions), 1)
    log_prob = policy.log_prob(nowhere, actions)
    assert log_prob.exp().sum().item() == pytest.approx(1)
    entropy = -(log_prob.exp() * log_prob).sum()
    torch.testing.assert_close(policy.entropy(nowhere[0]), entropy)
    (reference,) = torch.autograd.grad(entropy, list(policy.parameters()))
    (gradient,) = torch.autograd.grad(policy.entropy(nowhere[0]), list(policy.parameters()))
    torch.testing.assert_close(gradient, reference)
    assert torch.equal(policy.mode(nowhere[0]), actions[log_prob.argmax()])


@pytest.mark.parametrize("name", ["several", "switches"])
def test_draws_follow_the_probabilities(name: str) -> None:
    """A χ² over all joint actions, at an error rate of 1e-3."""
    policy, actions = finite_policies()[name]
    draws = 20_000
    generator = torch.Generator().manual_seed(0)
    drawn, log_prob = policy.sample(torch.zeros(draws, 1), generator)
    torch.testing.assert_close(log_prob, policy.log_prob(torch.zeros(draws, 1), drawn).detach())
    counts = (drawn[:, None] == actions).all(-1).sum(0)
    assert counts.sum() == draws
    expected = draws * policy.log_prob(torch.zeros(len(actions), 1), actions).exp().detach()
    chi_square = ((counts - expected).square() / expected).sum().item()
    limits = {24: 49.73, 8: 24.32}  # 0.999 quantiles at 23 and 7 degrees of freedom
    assert chi_square < limits[len(actions)]


def test_several_choices_are_categorical_ones_side_by_side() -> None:
    net = fixed(sum(SIZES))
    policy = MultiCategorical(net, SIZES)
    observation = torch.zeros(2, 5, 1)
    action, log_prob = policy.sample(observation, torch.Generator().manual_seed(0))
    assert action.shape == (2, 5, 3)
    pieces = net.numbers.detach().split(SIZES)
    separate = [
        Categorical(Fixed(piece)).log_prob(observation, action[..., k])
        for k, piece in enumerate(pieces)
    ]
    torch.testing.assert_close(log_prob, sum(separate).detach())  # type: ignore[union-attr]


def test_impossible_actions_leave_entropy_and_gradient_finite() -> None:
    for logits in ([0.0, 200.0], [0.0, -math.inf]):
        policy = Categorical(Fixed(torch.tensor(logits)))
        entropy = policy.entropy(torch.zeros(1))
        assert entropy.isfinite()
        (gradient,) = torch.autograd.grad(entropy, list(policy.parameters()))
        assert gradient.isfinite().all()


def squashed(log_std: float = 0.0) -> SquashedGaussian:
    mean = torch.tensor([0.3, -1.0], dtype=torch.float64)
    policy = SquashedGaussian(Fixed(mean), [-2.0, 0.0], [2.0, 1.0], log_std).double()
    policy.log_std.data += torch.tensor([0.1, -0.4])
    return policy


def test_the_squashed_density_is_that_of_the_squashed_action() -> None:
    """It integrates to 1 over tanh(u), and to the right mean: tanh of the raw draws' mean."""
    policy = squashed(-0.7)
    # midpoints of a grid over (−1, 1)²
    edge = (torch.arange(800, dtype=torch.float64) + 0.5) / 400 - 1
    grid = torch.cartesian_prod(edge, edge)
    density = policy.log_prob(torch.zeros(len(grid), 1), torch.atanh(grid)).exp().detach()
    assert (density.sum() / 400**2).item() == pytest.approx(1, abs=1e-5)
    raw, _ = policy.sample(torch.zeros(200_000, 1), torch.Generator().manual_seed(0))
    mean = (density[:, None] * grid).sum(0) / 400**2
    torch.testing.assert_close(raw.tanh().mean(0), mean, rtol=0, atol=4 / math.sqrt(200_000))


def test_the_environment_is_given_the_squashed_action_within_its_bounds() -> None:
    policy = squashed(2.0)
    raw, log_prob = policy.sample(torch.zeros(1000, 1), torch.Generator().manual_seed(0))
    applied = policy.applied(raw)
    assert (applied >= torch.tensor([-2.0, 0.0])).all()
    assert (applied <= torch.tensor([2.0, 1.0])).all()
    assert (raw.abs() > 3).any()
    torch.testing.assert_close(log_prob, policy.log_prob(torch.zeros(1000, 1), raw).detach())
    extreme = torch.tensor([[80.0, -80.0]], dtype=torch.float64)
    assert policy.log_prob(torch.zeros(1, 1), extreme).isfinite().all()
    assert torch.equal(policy.mode(torch.zeros(1)), policy(torch.zeros(1)).detach())
    other = Categorical(nn.Identity())
    assert other.applied(raw) is raw
    with pytest.raises(vt.InputError, match="must be finite"):
        SquashedGaussian(nn.Identity(), [0.0], [math.inf])


@pytest.mark.parametrize("log_std", [-2.0, 0.0, 0.5])
def test_squashed_entropy_is_the_mean_surprise(log_std: float) -> None:
    """Against Monte Carlo, 400,000 draws and 4 standard errors; gradients by differences."""
    policy = squashed(log_std)
    raw, log_prob = policy.sample(torch.zeros(400_000, 1), torch.Generator().manual_seed(1))
    error = (log_prob.std() / math.sqrt(len(raw))).item()
    entropy = policy.entropy(torch.zeros(1))
    assert entropy.item() == pytest.approx(-log_prob.mean().item(), abs=4 * error)
    parameters = list(policy.parameters())
    gradients = torch.autograd.grad(entropy, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for i in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                parameter.data.view(-1)[i] += sign * 1e-5
                values.append(policy.entropy(torch.zeros(1)).item())
                parameter.data.view(-1)[i] -= sign * 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert gradient.view(-1)[i].item() == pytest.approx(slope, abs=1e-7)


def test_pictures_with_channels_first_and_last_are_the_same_picture() -> None:
    first, last = (
        cnn(shape, 5, gain=1.0, generator=torch.Generator().manual_seed(0))
        for shape in ((4, 84, 60), (84, 60, 4))
    )
    pixels = torch.randint(0, 256, (2, 3, 84, 60, 4), dtype=torch.uint8)
    out = last(pixels)
    assert out.shape == (2, 3, 5)
    torch.testing.assert_close(first(pixels.movedim(-1, -3)), out)
    torch.testing.assert_close(last(pixels[0, 0]), out[0, 0])
    unscaled = cnn((84, 60, 4), 5, gain=1.0, generator=torch.Generator().manual_seed(0), scale=1.0)
    torch.testing.assert_close(unscaled(pixels.float() / 255), out)
    for shape in ((40, 50, 60), (3, 30, 40), (10, 10, 4), (7, 7, 3), (1, 2, 2), (2, 2, 1), (9, 50)):
        small = cnn(shape, 5, gain=1.0, generator=torch.Generator().manual_seed(0))
        assert small(torch.zeros(2, 3, *shape, dtype=torch.uint8)).shape == (2, 3, 5)
    for shape in ((4,), (3, 0, 4), (1, 2, 3, 4)):
        with pytest.raises(vt.InputError, match="height and width"):
            cnn(shape, 5, gain=1.0, generator=torch.Generator())


def test_orthogonal_weights() -> None:
    net = mlp(7, (16, 5), 3, gain=0.01, generator=torch.Generator().manual_seed(0))
    again = orthogonal_(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 2)), 1.0)
    wild = mlp(7, (16, 5), 3, gain=5.0, generator=torch.Generator().manual_seed(9))
    orthogonal_(wild, 0.01, torch.Generator().manual_seed(0))
    for one, other in zip(net.parameters(), wild.parameters(), strict=True):
        assert torch.equal(one, other)
    for network, gains in ((net, (2.0, 2.0, 1e-4)), (again, (2.0, 1.0))):
        weights = [p.data.flatten(1) for p in network.parameters() if p.dim() > 1]
        for weight, gain in zip(weights, gains, strict=True):
            narrow = weight if weight.shape[0] <= weight.shape[1] else weight.T
            torch.testing.assert_close(narrow @ narrow.T, gain * torch.eye(len(narrow)))
        assert all((p == 0).all() for p in network.parameters() if p.dim() == 1)


def test_networks_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    net = mlp(7, (16, 5), 3, gain=0.01, generator=torch.Generator().manual_seed(0))
    cnn((36, 36, 3), 2, gain=1.0, generator=torch.Generator().manual_seed(0))
    orthogonal_(net)
    assert torch.equal(before, torch.get_rng_state())


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(vt.InputError, match="one component at least"):
        MultiCategorical(nn.Identity(), [])
    with pytest.raises(vt.InputError, match="one component at least"):
        MultiCategorical(nn.Identity(), [2, 0])
