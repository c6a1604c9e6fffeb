"""Continuous actions: closed forms against autograd, quadrature and sampling."""

import numpy as np
import pytest
import torch

import vantage as vt
from vantage.errors import InputError
from vantage.exact.gaussian import LQR, OneStepGaussian


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


LINE = LQR(*(tensor(x) for x in ([[0.9]], [[0.5]], [[1.0]], [[0.3]], [0.2], [0.7], [0.4])), 3, 0.9)
PLANE = LQR(
    tensor([[0.9, 0.2], [-0.1, 0.8]]),
    tensor([[0.3], [0.6]]),
    tensor([[1.0, 0.1], [0.1, 0.5]]),
    tensor([[0.2]]),
    tensor([0.1, 0.2]),
    tensor([0.5, -0.3]),
    tensor([0.2, 0.4]),
    3,
    0.95,
)


@pytest.mark.parametrize("baseline", [0.0, -1.3])
def test_one_step_problem_agrees_with_its_definition(baseline):
    """Moments of ψ(r − b) by Gauss–Hermite quadrature, ψ by autograd through `vantage.Gaussian`."""
    problem, mean, log_std = OneStepGaussian(1.5, 2.0, 0.4), 0.3, -0.4
    grid = np.polynomial.hermite_e.hermegauss(12)  # exact far beyond the degree needed
    nodes, weights = (torch.from_numpy(x) for x in grid)
    weights = weights / weights.sum()
    net = torch.nn.Linear(1, 1, bias=False).double()
    policy = vt.Gaussian(net, 1, log_std).double()
    net.weight.data.fill_(mean)
    one = torch.ones(1, dtype=torch.float64)
    g = []
    for z in nodes:
        action = mean + torch.exp(tensor(log_std)) * z
        log_prob = policy.log_prob(one, action[None])
        psi = torch.cat([p.flatten() for p in torch.autograd.grad(log_prob, policy.parameters())])
        g.append(psi * (0.4 - (action - 1.5) ** 2 - baseline))
    g = torch.stack(g)
    found = problem.moments(mean, log_std, baseline)
    torch.testing.assert_close(found.mean, weights @ g)
    torch.testing.assert_close(found.trace, weights @ (g - found.mean).square().sum(1))


def test_one_step_best_baseline_is_the_lowest():
    problem = OneStepGaussian(1.5, 2.0, 0.4)
    b = problem.best_baseline(0.3, -0.4)
    low, middle, high = (problem.moments(0.3, -0.4, b + d).trace for d in (-0.2, 0.0, 0.2))
    assert middle < low
    torch.testing.assert_close(low, high)


@pytest.mark.parametrize("problem", [LINE, PLANE])
def test_mean_of_the_estimate_is_the_gradient_with_and_without_a_baseline(problem):
    n, m = problem.B.shape
    weight, log_std = torch.full((m, n), -0.4).double(), torch.full((m,), -0.5).double()
    G = problem.gradient(weight, log_std)
    none, value = (problem.moments(weight, log_std, b) for b in ("none", "value"))
    torch.testing.assert_close(none.mean, G, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(value.mean, G, atol=1e-9, rtol=1e-9)
    assert value.trace < none.trace


@pytest.mark.parametrize("problem", [LINE, PLANE])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_lqr_agrees_with_sampling(problem, baseline):
    """400,000 trajectories, 4.5 standard errors: fails once in 10⁵ seeds."""
    n, m = problem.B.shape
    weight, log_std = torch.full((m, n), -0.4).double(), torch.full((m,), -0.5).double()
    generator, count = torch.Generator().manual_seed(0), 400_000

    def normal(k):
        return torch.randn(count, k, generator=generator, dtype=torch.float64)

    std, gamma, H = log_std.exp(), problem.discount, problem.horizon
    x = problem.start_mean + normal(n) * problem.start_std
    rewards, scores, states = [], [], []
    for _ in range(H):
        epsilon = normal(m)
        u = x @ weight.T + epsilon * std
        cost = (x @ problem.state_cost * x).sum(1) + (u @ problem.action_cost * u).sum(1)
        of_weight = (epsilon / std)[:, :, None] * x[:, None]
        scores.append(torch.cat([epsilon.square() - 1, of_weight.flatten(1)], 1))
        rewards.append(-cost)
        states.append(x)
        x = x @ problem.A.T + u @ problem.B.T + normal(n) * problem.noise
    R = sum(gamma**t * r for t, r in enumerate(rewards))
    assert abs(R.mean() - problem.objective(weight, log_std)) < 4.5 * R.std() / count**0.5
    to_go, g = 0.0, 0.0
    for t in reversed(range(H)):
        to_go = rewards[t] + gamma * to_go
        b = value_at(problem, weight, log_std, states[t], H - t) if baseline == "value" else 0.0
        g = g + gamma**t * scores[t] * (to_go - b)[:, None]
    found = problem.moments(weight, log_std, baseline)
    assert ((g.mean(0) - found.mean).abs() < 4.5 * g.std(0) / count**0.5).all()
    squares = (g - found.mean).square().sum(1)
    assert abs(squares.mean() - found.trace) < 4.5 * squares.std() / count**0.5


def value_at(problem, weight, log_std, x, steps):
    """V with so many steps to go: J of starts without spread is quadratic in the start."""
    n = len(problem.noise)

    def worth(start):
        return LQR(
            problem.A, problem.B, problem.state_cost, problem.action_cost, problem.noise,
            start, torch.zeros(n).double(), steps, problem.discount,
        ).objective(weight, log_std)  # fmt: skip

    zero = torch.zeros(n).double()
    P = torch.autograd.functional.hessian(worth, zero)
    return worth(zero) + 0.5 * ((x @ P) * x).sum(1)


def test_what_cannot_be_is_refused():
    weight, log_std = tensor([[-0.4]]), tensor([0.0])
    with pytest.raises(InputError, match="best"):
        LINE.moments(weight, log_std, "best")
