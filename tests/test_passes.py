"""Passes by hand give what automatic differentiation gives; only the time differs."""

import copy
import itertools

import pytest
import torch
from torch import nn

import vantage as vt
from vantage.gradients.mlp_passes import MlpPasses, fastest
from vantage.gradients.passes import AutogradPasses

KINDS = [
    (kind, activation, hidden)
    for kind, activation in itertools.product(("categorical", "gaussian"), (nn.Tanh, nn.ReLU))
    for hidden in ((), (7,), (6, 5))
]


def net(inputs: int, hidden: tuple[int, ...], outputs: int, activation: type) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise((inputs, *hidden, outputs)):
        layers += [nn.Linear(one, two), activation()]
    return nn.Sequential(*layers[:-1]).double()


def pair(kind: str, activation: type, hidden: tuple[int, ...]) -> tuple[vt.Policy, vt.Value]:
    value = vt.Value(net(4, hidden, 1, activation))
    if kind == "categorical":
        return vt.Categorical(net(4, hidden, 3, activation)), value
    policy = vt.Gaussian(net(4, hidden, 2, activation), 2).double()
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([0.3, -0.4]))
    return policy, value


def batch(kind: str, *grid: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(*grid, 4, generator=generator, dtype=torch.float64)
    if kind == "categorical":
        action = torch.randint(0, 3, grid, generator=generator)
    else:
        action = torch.randn(*grid, 2, generator=generator, dtype=torch.float64)
    weights = (torch.randn(*grid, generator=generator, dtype=torch.float64) for _ in range(3))
    return observation, action, *weights


@pytest.mark.parametrize(("kind", "activation", "hidden"), KINDS)
@pytest.mark.parametrize("with_value", [True, False])
def test_both_passes_agree(
    kind: str, activation: type, hidden: tuple[int, ...], with_value: bool
) -> None:
    policy, value = pair(kind, activation, hidden)
    twin, twin_value = copy.deepcopy(policy), copy.deepcopy(value)
    slow = AutogradPasses(policy, value if with_value else None)
    quick = MlpPasses(twin, twin_value if with_value else None)  # type: ignore[arg-type]
    for grid in ((5, 3), (4, 1)):
        observation, action, weight, bonus, slope = batch(kind, *grid)
        with torch.no_grad():
            one, two = (p.forward(observation, action) for p in (slow, quick))
            torch.testing.assert_close(one[0], two[0])
            if with_value:
                torch.testing.assert_close(one[1], two[1])
                torch.testing.assert_close(slow.values(observation), quick.values(observation))
            for arguments in ((weight, bonus, slope), (weight, None, None), (weight, bonus, None)):
                for passes in (slow, quick):
                    passes.forward(observation, action)
                    passes.backward(*arguments)
                torch.testing.assert_close(slow.policy_gradient(), quick.policy_gradient())
                owners = [*policy.parameters(), *(value.parameters() if with_value else ())]
                flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in owners]
                torch.testing.assert_close(torch.cat([g.flatten() for g in flat]), quick.flat.grad)
            torch.testing.assert_close(slow.clip(0.01), quick.clip(0.01))
            assert quick.flat.grad is not None
            assert float(quick.flat.grad.norm()) == pytest.approx(0.01, rel=1e-3)


def test_one_optimiser_step_moves_the_modules() -> None:
    """The flat parameter is the modules' parameters, also after their weights are loaded."""
    policy, value = pair("categorical", nn.Tanh, (6, 5))
    twin, twin_value = copy.deepcopy(policy), copy.deepcopy(value)
    weights = {k: v + 0.1 for k, v in policy.state_dict().items()}
    observation, action, weight, bonus, slope = batch("categorical", 5, 3)
    made = [AutogradPasses(policy, value), MlpPasses(twin, twin_value)]  # type: ignore[arg-type]
    for passes in made:
        passes.policy.load_state_dict(weights)
        optimizer = torch.optim.Adam(passes.parameters, lr=0.1)
        with torch.no_grad():
            for _ in range(3):
                passes.forward(observation, action)
                passes.backward(weight, bonus, slope)
                optimizer.step()
    for one, two in zip(
        [*policy.parameters(), *value.parameters()],
        [*twin.parameters(), *twin_value.parameters()],
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_actions_are_drawn_from_the_policy() -> None:
    """Frequencies of 20,000 draws from a softmax within 4.5 standard errors: error rate 2e-5."""
    policy, _ = pair("categorical", nn.Tanh, (6,))
    observation = batch("categorical", 1, 1)[0][0].repeat(20_000, 1)
    with torch.no_grad():
        wanted = torch.softmax(policy(observation[:1]), -1)[0]
    act = MlpPasses(policy).acting(1, 20_000, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    with torch.no_grad():
        found = torch.bincount(act(0, observation), minlength=3) / 20_000
    error = (wanted * (1 - wanted) / 20_000).sqrt()
    assert bool(((found - wanted).abs() < 4.5 * error).all())
    gaussian, _ = pair("gaussian", nn.Tanh, (6,))
    act = MlpPasses(gaussian).acting(1, 20_000, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    with torch.no_grad():
        noise = (act(0, observation) - gaussian(observation[:1])) / gaussian.log_std.exp()  # type: ignore[operator]
    assert bool((noise.mean(0).abs() < 4.5 / 20_000**0.5).all())
    assert bool(((noise.var(0) - 1).abs() < 4.5 * (2 / 20_000) ** 0.5).all())


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_what_was_drawn_is_scored_as_the_policy_scores_it(kind: str) -> None:
    policy, value = pair(kind, nn.Tanh, (6,))
    policy, value = policy.float(), value.float()
    observation = batch(kind, 5, 3)[0].float()
    for passes in (AutogradPasses(policy, value), MlpPasses(policy, value)):  # type: ignore[arg-type]
        with torch.no_grad():
            act = passes.acting(3, 5, torch.Generator().manual_seed(0))
            action = torch.stack([act(t, observation[:, t]) for t in range(3)], 1)
            log_prob, entropy = act.scored(observation, action)
            torch.testing.assert_close(log_prob, policy.log_prob(observation, action))
            torch.testing.assert_close(entropy, policy.entropy(observation))
            torch.testing.assert_close(log_prob, passes.forward(observation, action)[0])


@pytest.mark.parametrize(("kind", "activation", "hidden"), KINDS)
@pytest.mark.parametrize("lanes", [3, 40])
def test_a_draw_is_the_policys_output_and_its_noise(
    kind: str, activation: type, hidden: tuple[int, ...], lanes: int
) -> None:
    """However many lanes there are; few and many go different ways."""
    policy, _ = pair(kind, activation, hidden)
    observation, _, *_ = batch(kind, lanes)
    with torch.no_grad():
        output = policy.net(observation)  # type: ignore[operator]
        act = MlpPasses(policy).acting(2, lanes, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
        drawn = act(1, observation)
        if kind == "categorical":
            assert torch.equal(drawn, (output + act.noise[1]).argmax(-1))
        else:
            torch.testing.assert_close(drawn, output + act.noise[1] * policy.log_std.exp())  # type: ignore[operator]


def test_only_perceptrons_are_taken_apart() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=2)
    assert isinstance(fastest(env.policy(), env.value()), MlpPasses)
    assert isinstance(fastest(env.policy(), None), MlpPasses)
    shared = nn.Linear(4, 4)
    odd = [
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)),
        nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 2, bias=False)),
        nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)),
    ]
    for network in odd:
        assert isinstance(fastest(vt.Categorical(network), env.value()), AutogradPasses)
    assert isinstance(fastest(env.policy(recurrent=4), None), AutogradPasses)
    frozen = env.policy()
    next(frozen.parameters()).requires_grad_(False)
    assert isinstance(fastest(frozen, None), AutogradPasses)

    class Tilted(vt.Categorical):
        """A subclass may change anything."""

    assert isinstance(fastest(Tilted(env.policy().net), None), AutogradPasses)


def through_tanh(x: torch.Tensor) -> torch.Tensor:
    """What passes by hand make of tanh, by a perceptron that does nothing else."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)).to(x.dtype)
    policy = vt.Gaussian(nn.Sequential(nn.Linear(1, 1)), 1).to(x.dtype)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.fill_(1)
            layer.bias.zero_()
        result = MlpPasses(policy, vt.Value(net)).values(x[:, None])
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-7), (torch.float64, 1e-15)], ids=["single", "double"]
)
def test_tanh_is_as_near_as_its_precision_is_to_1(dtype: torch.dtype, bound: float) -> None:
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.logspace(-9, 1, 10_001).neg()])
    x = x.to(dtype)
    error = (through_tanh(x).double() - x.double().tanh()).abs()
    assert float(error.max()) < bound
    assert through_tanh(torch.tensor([-1e4, -50, 0, 50, 1e4])).tolist() == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize(
    ("scale", "bound"), [(10, 1e-6), (1, 1e-6), (0.1, 1e-6), (1e-3, 3e-6), (1e-6, 3e-6)]
)
@pytest.mark.parametrize("rows", [64, 2048])
def test_gradients_in_single_precision(scale: float, bound: float, rows: int) -> None:
    """Against double precision and automatic differentiation. Where every unit is near 0, tanh is
    known to fewer digits, and so is the gradient."""
    env = vt.CartPole(1)
    policy, value = env.policy(seed=0), env.value(seed=1)
    exact = AutogradPasses(copy.deepcopy(policy).double(), copy.deepcopy(value).double())
    quick = MlpPasses(policy, value)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    observation = torch.randn(rows, 4, generator=generator) * scale
    action = torch.randint(0, 2, (rows,), generator=generator)
    weight, slope = torch.randn(2, rows, generator=generator).unbind()
    with torch.no_grad():
        quick.forward(observation, action)
        quick.backward(weight, None, slope)
        exact.forward(observation.double(), action)
        exact.backward(weight.double(), None, slope.double())
    gradients = [p.grad for p in exact.parameters if p.grad is not None]
    wanted = torch.cat([gradient.flatten() for gradient in gradients])
    assert quick.flat.grad is not None
    assert float((quick.flat.grad - wanted).norm() / wanted.norm()) < bound


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_few_lanes_are_scored_as_many(kind: str) -> None:
    """NumPy acts for few lanes: what it records is what is learned from, to rounding."""
    env = vt.CartPole(8) if kind == "categorical" else vt.make("tensor/Pendulum-v1", lanes=8)
    passes = fastest(env.policy(seed=0), env.value(seed=1))
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(8, 5, *env.observations.shape, generator=generator)
    act = passes.acting(5, 8, torch.Generator().manual_seed(1))
    with torch.no_grad():
        action = torch.stack([act(t, observation[:, t]) for t in range(5)], 1)
        log_prob, _ = act.scored(observation, action)
        learned, _ = passes.forward(observation, action)
    torch.testing.assert_close(log_prob, learned, atol=3e-6, rtol=0)


@pytest.mark.parametrize(("inputs", "rows"), [(4, 300), (16, 256), (17, 300), (4, 255)])
def test_gradients_of_narrow_inputs(inputs: int, rows: int) -> None:
    """Either order of the product gives the gradient, of many rows and of few."""
    policy = vt.Categorical(net(inputs, (64,), 3, nn.Tanh))
    twin = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(3)
    observation = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    action = torch.randint(0, 3, (rows,), generator=generator)
    weight = torch.randn(rows, generator=generator, dtype=torch.float64)
    gradients = []
    with torch.no_grad():
        for passes in (AutogradPasses(policy), MlpPasses(twin)):
            passes.forward(observation, action)
            passes.backward(weight)
            gradients.append(passes.policy_gradient())
    torch.testing.assert_close(*gradients)
