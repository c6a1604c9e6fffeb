"""Every method gives the loop's numbers, on every kind of layer; sketches keep inner products."""

import pytest
import torch
from torch import Tensor, nn

import vantage as vt
from vantage.batch import Batch
from vantage.gradients.per_trajectory import (
    METHODS,
    by_loop,
    contributions,
    fastest,
    spanning,
)
from vantage.gradients.sketch import count_sketch
from vantage.gradients.weighted import log_prob_change

VOCABULARY, WIDTH, LENGTH, ROWS = 7, 6, 5, 9


class Sequence(nn.Module):
    """Embedding, causal mixing over earlier steps, LayerNorm, a perceptron, a head tied or not."""

    def __init__(self, tied: bool):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.again = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, token: Tensor) -> Tensor:
        x = self.embedding(token)
        x = x + torch.cumsum(torch.tanh(self.mix(x)), -2)
        x = x + self.again(torch.tanh(self.again(x)))  # one layer, called twice
        return self.head(self.norm(x))


class SequencePolicy(vt.Categorical):
    """A categorical policy whose logits look at earlier steps."""

    memoryless = False


def policies() -> dict[str, vt.Policy]:
    torch.manual_seed(0)
    env = vt.Gymnasium("Pendulum-v1", lanes=1)
    perceptron = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 4))
    return {
        "table": vt.SoftmaxTable(VOCABULARY, VOCABULARY),
        "perceptron": vt.Categorical(perceptron),
        "gaussian": env.policy(hidden=(8,)),
        "sequence": SequencePolicy(Sequence(tied=False)),
        "tied": SequencePolicy(Sequence(tied=True)),
    }


def batch_for(name: str) -> Batch:
    generator = torch.Generator().manual_seed(1)
    discrete = name in ("table", "sequence", "tied")
    shape = (ROWS, LENGTH)
    length = torch.randint(1, LENGTH + 1, (ROWS,), generator=generator)
    mask = torch.arange(LENGTH) < length[:, None]
    actions = {"perceptron": 4}.get(name, VOCABULARY)
    return Batch(
        observation=torch.randint(VOCABULARY, shape, generator=generator)
        if discrete
        else torch.randn(*shape, 3, generator=generator),
        action=torch.randn(*shape, 1, generator=generator)
        if name == "gaussian"
        else torch.randint(actions, shape, generator=generator),
        reward=torch.randn(shape, generator=generator),
        discount=torch.ones(shape),
        boundary=torch.arange(LENGTH) == length[:, None] - 1,
        bootstrap=torch.zeros(shape),
        log_prob=torch.zeros(shape),
        mask=mask,
        episode=torch.arange(ROWS)[:, None].expand(shape),
        group=torch.arange(ROWS),
        weight=torch.full((ROWS,), 1 / ROWS),
    )


@pytest.mark.parametrize("name", ["table", "perceptron", "gaussian", "sequence", "tied"])
@pytest.mark.parametrize("method", ["vmap", "layers"])
def test_methods_agree_with_the_loop(name: str, method: str) -> None:
    policy, batch = policies()[name].double(), batch_for(name)
    if batch.observation.is_floating_point():
        batch = batch.map(lambda t: t.double() if t.is_floating_point() else t)
    basis = torch.randn(ROWS, 3, LENGTH, generator=torch.Generator().manual_seed(2)).double()
    expected = by_loop(policy, batch, basis)
    assert expected.norm() > 0
    torch.testing.assert_close(METHODS[method](policy, batch, basis), expected, rtol=0, atol=1e-10)


def test_layers_serve_a_policy_with_memory_only_pass_by_pass() -> None:
    """Claiming that a sequence has no memory gives wrong gradients, and `fastest` notices."""
    policy, batch = policies()["sequence"], batch_for("sequence")
    policy.memoryless = True
    basis = torch.randn(ROWS, 3, LENGTH, generator=torch.Generator().manual_seed(2))
    choice = fastest(policy, batch, basis)
    assert "differs from the loop" in choice.refused["layers"]
    assert choice.name in ("loop", "vmap")


def test_what_vmap_refuses_is_left_to_another_method() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * float(x.abs().max() > -1)  # .item() inside vmap is an error

    choice = fastest(
        vt.Categorical(Counting()), batch_for("perceptron"), torch.ones(ROWS, 1, LENGTH)
    )
    assert "vmap" in choice.refused
    assert choice.name in choice.seconds


def test_spanning_is_exact_and_small() -> None:
    generator = torch.Generator().manual_seed(0)
    outcome = torch.randn(4, ROWS, 1, generator=generator).expand(4, ROWS, LENGTH)
    mixed = torch.randn(3, ROWS, LENGTH, generator=generator) * 1e4
    for weights, rank in ((outcome, 1), (mixed, 3), (torch.cat([outcome, mixed]), 4)):
        basis, coefficient = spanning(weights)
        assert basis.shape[1] == rank
        again = torch.einsum("enr,nrt->ent", coefficient, basis)
        for wanted, got in zip(weights, again, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))
    zero, _ = spanning(torch.zeros(2, ROWS, LENGTH))
    assert not zero.any()


def test_contributions_add_up_to_the_gradient_of_every_estimator() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy, value = env.policy(hidden=(8,)), env.value(hidden=(8,))
    batch = vt.environments.rollout.episodes(env, policy, 12, seed=0, value=value)
    rows = [vt.estimators.reinforce(), vt.estimators.reward_to_go(), vt.estimators.a2c()]
    weights = torch.stack([row.weights(batch) for row in rows])
    found = torch.zeros(3, 12, sum(p.numel() for p in policy.parameters()))
    for index, vectors in contributions(policy, batch, weights, "layers"):
        found[:, index] = vectors
    for row, vectors in zip(rows, found, strict=True):
        expected = vt.gradient(policy, batch, row.replace(entropy=0.0))
        torch.testing.assert_close(vectors.sum(0), expected, rtol=1e-4, atol=1e-4)


def test_a_sketch_keeps_inner_products() -> None:
    """Unbiased, with relative standard deviation about √(2/k): over 200 sketches, 4 s.e. bounds."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, generator=generator).double()
    a = a + b
    products = []
    for seed in range(200):
        sketch = count_sketch(400, 64, seed)
        products.append(float(sketch(a) @ sketch(b)))
    spread = torch.tensor(products).std().item()
    assert abs(sum(products) / 200 - float(a @ b)) < 4 * spread / 200**0.5
    assert spread < (2 / 64) ** 0.5 * float(a.norm() * b.norm())


@pytest.mark.parametrize("name", ["table", "perceptron", "gaussian", "sequence", "tied"])
def test_log_prob_change_is_the_slope_along_a_direction(name: str) -> None:
    """Against a central difference of log π along the direction."""
    policy, batch = policies()[name].double(), batch_for(name)
    if batch.observation.is_floating_point():
        batch = batch.map(lambda t: t.double() if t.is_floating_point() else t)
    start = nn.utils.parameters_to_vector(policy.parameters()).detach()
    direction = torch.randn(
        start.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    found = log_prob_change(policy, batch, direction)
    ends = []
    for step in (1e-6, -1e-6):
        nn.utils.vector_to_parameters(start + step * direction, policy.parameters())
        ends.append(policy.log_prob(batch.observation, batch.action).detach())
    torch.testing.assert_close(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-6)
