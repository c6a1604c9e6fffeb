"""ACKTR: Kronecker factors, damping and step by the published formulas written out."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import vantage as vt
from vantage.environments import fitted
from vantage.gradients.parameters import flat_parameters
from vantage.gradients.weighted import step_scores
from vantage.training.kfac import KFAC, blocks_of, policy_factors
from vantage.training.kronecker import (
    Factors,
    KroneckerFactored,
    factors_of,
    natural_direction,
)
from vantage.training.natural import mean_kl

NEAR = {"rtol": 1e-10, "atol": 1e-12}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def away(module: Any, seed: int = 1) -> Any:
    """In float64, with weights of one seed that are nowhere near a first policy's."""
    module = module.double()
    draw = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=draw).double())
    return module


def batch_of(policy: vt.Policy, observation: Tensor, action: Tensor) -> vt.Batch:
    """One row of independent steps."""
    grid = torch.zeros(1, len(observation), dtype=torch.float64)
    return vt.Batch(
        observation=observation[None], action=action[None], reward=grid, discount=grid + 1,
        boundary=torch.zeros_like(grid, dtype=torch.bool), bootstrap=grid,
        log_prob=policy.log_prob(observation, action).detach()[None],
        mask=torch.ones_like(grid, dtype=torch.bool),
        episode=torch.zeros_like(grid, dtype=torch.long), group=torch.zeros(1, dtype=torch.long),
        weight=torch.ones(1, dtype=torch.float64),
    )  # fmt: skip


def optimizer_of(module: Any, known: Any = (), **settings: float) -> KroneckerFactored:
    given = {"lr": 1.0, "max_kl": 1e9, "damping": 0.01, "decay": 0.9, "momentum": 0.0} | settings
    return KroneckerFactored(blocks_of("it", module, known), **given)


# ---- the factors -------------------------------------------------------------------------------


def test_the_factors_are_those_of_every_score_written_out() -> None:
    """A = mean ā āᵀ and B = mean b bᵀ with ā and b of each of 20 steps by hand, to 1e-10."""
    policy = away(vt.Categorical(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))))
    first, _, last = policy.net
    observation = normal(20, 3)
    inner, outer = policy_factors(policy, observation, generator(7))
    seed = int(torch.randint(2**62, (), generator=generator(7)))
    action, _ = policy.sample(observation, generator(seed))
    expected = [torch.zeros(4, 4), torch.zeros(4, 4), torch.zeros(5, 5), torch.zeros(3, 3)]
    one = torch.ones(1, dtype=torch.float64)
    for o, a in zip(observation, action, strict=True):
        hidden = torch.tanh(first.weight @ o + first.bias)
        probability = torch.softmax(last.weight @ hidden + last.bias, 0)
        b = nn.functional.one_hot(a, 3) - probability  # ∂ log p(a)/∂ logits
        below = (1 - hidden.square()) * (last.weight.T @ b)
        pieces = (torch.cat([o, one]), below, torch.cat([hidden, one]), b)
        expected = [e + torch.outer(v, v) / 20 for e, v in zip(expected, pieces, strict=True)]
    expected = [each.detach() for each in expected]
    for factor, hand in zip([*inner, *outer], expected, strict=True):
        torch.testing.assert_close(factor, hand, **NEAR)


LAYERS: dict[str, Callable[[], vt.Policy]] = {
    "one choice": lambda: vt.Categorical(nn.Linear(2, 3)),
    "without a bias": lambda: vt.Categorical(nn.Linear(2, 3, bias=False)),
    "masked": lambda: vt.MaskedCategorical(nn.Linear(3, 3), first=0),
    "several choices": lambda: vt.MultiCategorical(nn.Linear(2, 5), [2, 3]),
    "switches": lambda: vt.Bernoulli(nn.Linear(2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_where_the_input_is_constant_the_block_is_the_fisher_information(name: str) -> None:
    """One layer on one state: A ⊗ B is the mean of s sᵀ over the sampled actions, to 1e-10."""
    policy: Any = away(LAYERS[name]())
    inputs = policy.net.in_features
    state = torch.tensor([1.0, 0.0, 1.0] if name == "masked" else [1.0, -0.7]).double()
    observation = state.expand(50, inputs).contiguous()
    (factors,) = policy_factors(policy, observation, generator(3))
    seed = int(torch.randint(2**62, (), generator=generator(3)))
    action, _ = policy.sample(observation, generator(seed))
    scores = step_scores(policy, batch_of(policy, observation, action))[0]
    if policy.net.bias is not None:  # from (weight, bias), flat, to rows of (weight, bias)
        outputs = len(policy.net.bias)
        flat = torch.arange(scores.shape[1])
        weight, bias = flat[:-outputs].view(outputs, inputs), flat[-outputs:, None]
        scores = scores[:, torch.cat([weight, bias], 1).flatten()]
    exact = scores.T @ scores / 50
    assert exact.abs().max() > 1e-2
    torch.testing.assert_close(torch.kron(factors.outputs, factors.inputs), exact, **NEAR)


def test_fresh_actions_give_the_information_of_all_of_them() -> None:
    """B of 20,000 draws in one state is diag p − p pᵀ within 5 standard errors."""
    policy = away(vt.Categorical(nn.Linear(2, 3)))
    state = normal(2)
    (factors,) = policy_factors(policy, state.expand(20_000, 2).contiguous(), generator(4))
    p = torch.softmax(policy(state), -1).detach()
    exact = torch.diag(p) - torch.outer(p, p)
    # of 1[a = i] 1[a = j] and the like, whose variance is 1/4 at most
    assert (factors.outputs - exact).abs().max() < 5 * 0.5 / math.sqrt(20_000)
    torch.testing.assert_close(
        factors.inputs, torch.outer(*(2 * [torch.cat([state, state.new_ones(1)])])), **NEAR
    )


def test_sigma_of_a_gaussian_is_a_block_of_its_own() -> None:
    """Its Fisher information in log σ is 2 I; the step is ∇ over it, damped in two factors."""
    policy = away(fitted.policy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), (4,)))
    factors = policy_factors(policy, normal(10, 3), generator())
    assert factors[-1].inputs.tolist() == [[1.0]]
    assert factors[-1].outputs.tolist() == [[2.0, 0.0], [0.0, 2.0]]
    optimizer = optimizer_of(policy, [policy.log_std])
    optimizer.observe(factors)
    before = policy.log_std.detach().clone()
    policy.log_std.grad = torch.tensor([1.0, -2.0]).double()
    optimizer.step()
    pi = math.sqrt(1 / 2)
    damped = (1 + pi * 0.1) * (2 + 0.1 / pi)
    torch.testing.assert_close(
        policy.log_std.detach() - before, torch.tensor([-1.0, 2.0]).double() / damped, **NEAR
    )


# ---- the step ----------------------------------------------------------------------------------


def test_the_direction_solves_the_damped_system() -> None:
    """(A + π√ε I) ⊗ (B + √ε/π I) with π by its definition, as one matrix of 12 × 12, to 1e-10."""
    roots = normal(3, 3, seed=1), normal(4, 4, seed=2)
    a, b = (root @ root.T for root in roots)
    gradient, damping = normal(4, 3, seed=3), 0.05
    pi = math.sqrt((a.trace() / 3) / (b.trace() / 4))
    left = b + math.sqrt(damping) / pi * eye(4)
    right = a + math.sqrt(damping) * pi * eye(3)
    expected = torch.linalg.solve(torch.kron(left, right), gradient.flatten()).view(4, 3)
    torch.testing.assert_close(
        natural_direction(gradient, Factors(a, b), damping), expected, **NEAR
    )


def test_where_nothing_comes_through_damping_alone_is_left() -> None:
    """One allowed action everywhere: B = 0, and the direction is ∇/ε along A's small side."""
    direction = natural_direction(torch.ones(2, 2), Factors(torch.eye(2), torch.zeros(2, 2)), 0.1)
    assert direction.isfinite().all()


def test_a_step_is_as_long_as_its_kl_allows() -> None:
    """½ Δᵀ F̂ Δ is δ where the bound binds, and the length η_max where it does not, to 1e-10."""
    policy = away(vt.Categorical(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))))
    factors = policy_factors(policy, normal(30, 3), generator())
    gradients = [normal(*p.shape, seed=i) for i, p in enumerate(policy.parameters())]
    for max_kl, binds in ((1e-4, True), (1e6, False)):
        optimizer = optimizer_of(policy, lr=0.3, max_kl=max_kl)
        optimizer.observe(factors)
        for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        before = [p.detach().clone() for p in policy.parameters()]
        optimizer.step()
        moves = [(p.detach() - b) for p, b in zip(policy.parameters(), before, strict=True)]
        quadratic = 0.0
        for (weight, bias), (a, b) in zip((moves[:2], moves[2:]), factors, strict=True):
            move = torch.cat([weight, bias[:, None]], 1)
            pi = math.sqrt((a.trace() / len(a)) / (b.trace() / len(b)))
            a, b = a + pi * 0.1 * eye(len(a)), b + 0.1 / pi * eye(len(b))
            quadratic += float((move * (b @ move @ a)).sum())
        assert (optimizer.length < 0.3) == binds
        assert binds == (abs(quadratic / 2 / max_kl - 1) < 1e-10)


def test_the_kl_of_a_step_is_what_was_asked_for() -> None:
    """One softmax layer on one state, little damping: the exact KL is δ within a tenth.

    Of 5,000 drawn actions: B is wrong by one in a hundred, and the third order by less.
    """
    policy = away(vt.Categorical(nn.Linear(2, 3)))
    state = normal(2).expand(5_000, 2).contiguous()
    optimizer = optimizer_of(policy, max_kl=1e-3, lr=1e9, damping=1e-8)
    optimizer.observe(policy_factors(policy, state, generator(1)))
    batch = batch_of(policy, state, torch.zeros(5_000, dtype=torch.long))
    kl = mean_kl(policy, batch, every_action=True)
    policy.log_prob(batch.observation, batch.action).mean().neg().backward()
    optimizer.step()
    assert abs(kl().item() / 1e-3 - 1) < 0.1


def test_a_whole_step_of_a_linear_critic_is_least_squares() -> None:
    """A ⊗ 1 is its Gauss-Newton matrix: from anywhere, one step of length 1 solves the problem."""
    value = away(vt.Value(nn.Linear(3, 1)))
    observation, target = normal(40, 3, seed=5), normal(40, seed=6)
    rule = KFAC(value_lr=1.0, value_max_kl=1e9, damping=1e-16, momentum=0.0)
    optimizer = optimizer_of(value, damping=1e-16)
    rule._fit(value, optimizer, observation, target)
    design = torch.cat([observation, observation.new_ones(40, 1)], 1)
    solution = torch.linalg.lstsq(design, target[:, None]).solution.squeeze(-1)
    torch.testing.assert_close(flat_parameters(value), solution, rtol=1e-5, atol=1e-6)


def test_averages_and_moves_are_kept_as_stated() -> None:
    """Factors: the mean of two batches, then 0.6 of it; moves: half of the last, half of this."""
    layer = nn.Linear(1, 1, bias=False).double()
    optimizer = optimizer_of(layer, decay=0.6, momentum=0.5, damping=1e-12)
    expected, batches = 0.0, []
    for number, size in enumerate((1.0, 3.0, 5.0, 7.0), 1):
        batches.append(size)
        one = torch.tensor([[size]]).double()
        optimizer.observe([Factors(one, one)])
        if number == 2:
            assert float(optimizer.state[layer.weight]["inputs"]) == pytest.approx(2.0)
        expected = sum(batches) / number if number <= 2 else 0.6 * expected + 0.4 * size
    assert float(optimizer.state[layer.weight]["outputs"]) == pytest.approx(expected)
    moves, last = [], 0.0
    for gradient in (1.0, -2.0, 4.0):
        before = layer.weight.item()
        layer.weight.grad = torch.tensor([[gradient]]).double()
        optimizer.step()
        moves.append(before - layer.weight.item())
        last = 0.5 * last + 0.5 * gradient / expected**2
        assert moves[-1] == pytest.approx(last, rel=1e-4)


# ---- runs --------------------------------------------------------------------------------------


def acktr(where: Any, updates: int, **settings: Any) -> vt.Run:
    given = {"lanes": 4, "progress": False} | settings
    return vt.train(where, vt.algorithms.acktr(fragment=16), updates=updates, **given)


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    """Factors, their count and the last moves are in the checkpoint; the report is written."""
    whole = acktr("CartPole-v1", 6, out=tmp_path / "whole", schedule="constant")
    acktr("CartPole-v1", 3, out=tmp_path / "parts", schedule="constant")
    parts = acktr("CartPole-v1", 6, out=tmp_path / "parts", schedule="constant", resume=True)
    assert [r["kl"] for r in whole.history] == [r["kl"] for r in parts.history]
    files = sorted((tmp_path / "whole/checkpoint").glob("*.safetensors"))
    assert {"policy_optimizer.safetensors", "value_optimizer.safetensors"} <= {
        f.name for f in files
    }
    for file in files:
        assert file.read_bytes() == (tmp_path / "parts/checkpoint" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("env", "choices"),
    [("CartPole-v1", {}), ("Pendulum-v1", {}), ("Pendulum-v1", {"squash": True})],
)
def test_steps_stay_near_their_kl(env: str, choices: dict[str, Any]) -> None:
    """Each of ten steps from the first policy on is within three times its bound, and not 0."""
    world = vt.make(env, lanes=8)
    policy, value = world.policy((16,), seed=1, **choices), world.value((16,), seed=2)
    run = vt.train(
        world, policy, vt.algorithms.acktr(momentum=0.0), value=value, updates=10, progress=False
    )
    assert all(1e-6 < row["kl"] < 3e-3 for row in run.history)
    assert all(row["step_size"] <= row["learning_rate"] for row in run.history)


@pytest.mark.parametrize("estimator", ["reinforce", "reinforce_baseline"])
def test_whole_episodes_and_estimators_without_v_will_do(estimator: str) -> None:
    """A rule serves any estimator: no fragment, and V only where there is one."""
    run = vt.train(
        "tensor/CartPole-v1", estimator, update=KFAC(momentum=0.0), batch=16, lanes=16, updates=3,
        progress=False,
    )  # fmt: skip
    assert all(1e-6 < row["kl"] < 3e-3 for row in run.history)
    assert ("value_loss" in run.history[-1]) == (estimator == "reinforce_baseline")


def test_an_update_that_is_undone_gives_back_factors_and_moves() -> None:
    """What `skip_non_finite` does: from a copy of the states the next step is the same again."""
    layer = nn.Linear(3, 2)
    optimizer = optimizer_of(layer, momentum=0.9)

    def step(seed: int) -> Tensor:
        root = normal(4, 4, seed=seed).float()
        optimizer.observe([Factors(root @ root.T, (root @ root.T)[:2, :2])])
        for parameter in layer.parameters():
            parameter.grad = normal(*parameter.shape, seed=seed).float()
        before = flat_parameters(layer)
        optimizer.step()
        return flat_parameters(layer) - before

    step(0)
    weights, state = copy.deepcopy(layer.state_dict()), copy.deepcopy(optimizer.state_dict())
    first = step(1)
    step(2)
    layer.load_state_dict(weights)
    optimizer.load_state_dict(state)
    assert torch.equal(step(1), first)


class Twice(nn.Module):
    """One layer, called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, observation: Tensor) -> Tensor:
        return self.last(self.layer(torch.tanh(self.layer(observation))))


def test_networks_whose_factors_are_not_known_are_refused_before_work(tmp_path: Path) -> None:
    pole, lake = vt.CartPole(lanes=2), vt.make("FrozenLake-v1", lanes=2)
    normed = vt.Categorical(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    policy = pole.policy((4,))
    cases = [
        (pole, pole.policy((4,), recurrent=4), pole.value((4,), recurrent=4), "has a memory"),
        (pole, normed, pole.value((4,)), r"policy's net\.1\.weight is a parameter of LayerNorm"),
        (lake, lake.policy(), lake.value(), "policy's logits is a parameter of SoftmaxTable.*trpo"),
        (pole, policy, pole.value(trunk=policy), "share layers; make V with env.value()"),
        (pole, policy, vt.Value(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))),
         r"value function's net\.1\.weight is a parameter of LayerNorm"),
    ]  # fmt: skip
    for env, actor, value, message in cases:
        with pytest.raises(vt.InputError, match=message):
            vt.train(
                env, actor, vt.algorithms.acktr(), value=value, updates=1, out=tmp_path / "run",
                progress=False,
            )  # fmt: skip
        assert not (tmp_path / "run").exists()
    with pytest.raises(vt.InputError, match="an optimiser of its own"):
        vt.train("tensor/CartPole-v1", "acktr", updates=1, optimizer=torch.optim.SGD)
    with pytest.raises(vt.InputError, match="sees something other than every step once"):
        vt.train(
            pole, vt.Categorical(Twice()), vt.algorithms.acktr(), value=pole.value((4,)), updates=1,
            progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "amount", "message"),
    [("max_kl", 0.0, "must be positive"), ("damping", -1.0, "must be positive"),
     ("decay", 1.0, "from 0 to below 1"), ("momentum", -0.1, "from 0 to below 1")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str, amount: float, message: str) -> None:
    with pytest.raises(vt.InputError, match=rf"KFAC\({setting}={amount}\): {message}"):
        KFAC(**{setting: amount})


def test_frozen_layers_stay() -> None:
    """What is not trained needs no factors."""
    env = vt.CartPole(lanes=4)
    policy, value = env.policy((8,)), env.value((8,))
    for parameter in policy.net[0].parameters():
        parameter.requires_grad_(False)
    before = policy.net[0].weight.clone(), policy.net[2].weight.clone()
    vt.train(env, policy, vt.algorithms.acktr(), value=value, updates=1, progress=False)
    assert torch.equal(policy.net[0].weight, before[0])
    assert not torch.equal(policy.net[2].weight, before[1])


def test_factors_are_those_of_what_forward_gives() -> None:
    layer = nn.Linear(2, 1)
    seen = torch.ones(3, 2)
    result, (factors,) = factors_of([layer], lambda: layer(seen).squeeze(-1))
    assert result.shape == (3,)
    torch.testing.assert_close(factors.inputs, torch.ones(3, 3))
    torch.testing.assert_close(factors.outputs, torch.ones(1, 1))
