"""The Fisher information of natural steps: by published forms, enumeration, samples, other KLs."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, distributions, nn
from torch.distributions import kl_divergence

import vantage as vt
from vantage.environments import fitted
from vantage.environments.spaces import parts
from vantage.gradients.parameters import flat_parameters, write_parameters
from vantage.gradients.weighted import step_scores
from vantage.training.natural import hessian_product, mean_kl
from vantage.training.updates import Natural

SEEN = spaces.Box(-1, 1, (3,))
MASKED = spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})


def policy_of(action: gymnasium.Space, seen: gymnasium.Space = SEEN, **choices: Any) -> vt.Policy:
    """A policy of float64 that is nowhere near uniform."""
    mask = next((part for part in parts(seen, "it") if part.path == ("action_mask",)), None) if (
        isinstance(seen, spaces.Dict)) else None  # fmt: skip
    policy = fitted.policy(seen, action, hidden=(4,), mask=mask, **choices).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator).double()
    return policy


FINITE: dict[str, Callable[[], vt.Policy]] = {
    "categorical": lambda: policy_of(spaces.Discrete(3)),
    "table": lambda: policy_of(spaces.Discrete(3), spaces.Discrete(4)),
    "masked": lambda: policy_of(spaces.Discrete(3), MASKED),
    "several choices": lambda: policy_of(spaces.MultiDiscrete([2, 3])),
    "switches": lambda: policy_of(spaces.MultiBinary(2)),
    "with a memory": lambda: policy_of(spaces.Discrete(3), recurrent=2),
    "masked, with a memory": lambda: policy_of(spaces.Discrete(3), MASKED, recurrent=2),
}
REAL: dict[str, Callable[[], vt.Policy]] = {
    "gaussian": lambda: policy_of(spaces.Box(-1, 1, (2,))),
    "squashed": lambda: policy_of(spaces.Box(-1, 1, (2,)), squash=True),
    "gaussian, with a memory": lambda: policy_of(spaces.Box(-1, 1, (2,)), recurrent=2),
}
ACTIONS: dict[str, list[tuple[int, ...]]] = {
    "several choices": list(itertools.product(range(2), range(3))),
    "switches": list(itertools.product(range(2), repeat=2)),
}


def batch_of(policy: vt.Policy, rows: int = 2, steps: int = 3, seed: int = 0) -> vt.Batch:
    """Random states and what the policy does in them; the last step of the last row is padding."""
    generator = torch.Generator().manual_seed(seed)
    recurrent = isinstance(policy, vt.Recurrent)
    head = policy.head if recurrent else policy
    masked = isinstance(head, vt.MaskedCategorical)
    if isinstance(policy, vt.SoftmaxTable):
        observation = torch.randint(4, (rows, steps), generator=generator)
    else:
        width = (5 if masked else 3) + (1 + policy.memory if recurrent else 0)
        observation = torch.randn(rows, steps, width, generator=generator).double()
    if masked:  # "action_mask" sorts first
        allowed = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).double()
        observation[..., :3] = allowed.expand(rows, steps, 3)
    law = policy.distribution(observation)
    action = draws(head, law.detach(), generator)
    grid = torch.zeros(rows, steps, dtype=torch.float64)
    mask = torch.ones(rows, steps, dtype=torch.bool)
    mask[-1, -1] = False
    return vt.Batch(
        observation=observation, action=action, reward=grid, discount=grid + 1,
        boundary=torch.zeros_like(mask), bootstrap=grid,
        log_prob=policy.log_prob(observation, action).detach(), mask=mask,
        episode=torch.arange(rows)[:, None].expand(rows, steps).contiguous(),
        group=torch.arange(rows), weight=torch.full((rows,), 1 / rows).double(),
    )  # fmt: skip


def theirs(head: vt.Policy, law: Tensor) -> distributions.Distribution:
    """The same distribution of PyTorch's own."""
    if isinstance(head, vt.Gaussian):
        return distributions.Independent(distributions.Normal(law[..., 0], law[..., 1].exp()), 1)
    if isinstance(head, vt.Bernoulli):
        return distributions.Independent(distributions.Bernoulli(logits=law), 1)
    if isinstance(head, vt.MultiCategorical):
        return distributions.Independent(distributions.Categorical(logits=law), 1)
    return distributions.Categorical(logits=law)


def draws(head: vt.Policy, law: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(head, vt.Gaussian):
        noise = torch.randn(law.shape[:-1], generator=generator, dtype=law.dtype)
        return law[..., 0] + noise * law[..., 1].exp()
    if isinstance(head, vt.Bernoulli):
        return (torch.rand(law.shape, generator=generator) < law.sigmoid()).long()
    flat = torch.multinomial(law.exp().flatten(0, -2), 1, generator=generator)
    return flat.view(law.shape[:-1])


def matrix(policy: vt.Policy, batch: vt.Batch, every_action: bool) -> Tensor:
    """The rule's F, a product at a time."""
    product = hessian_product(mean_kl(policy, batch, every_action)(), policy)
    size = len(flat_parameters(policy))
    return torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])


def share(batch: vt.Batch) -> Tensor:
    return batch.mask.double() / batch.mask.sum()


@pytest.mark.parametrize("name", FINITE)
def test_over_all_actions_it_is_the_sum_over_actions(name: str) -> None:
    """F = Σ_t c_t Σ_a π(a|s_t) s s^T from the score of every action at every step, to 1e-10."""
    policy = FINITE[name]()
    batch = batch_of(policy)
    total = torch.zeros(1, dtype=torch.float64)
    for action in ACTIONS.get(name, [(a,) for a in range(3)]):
        given = torch.tensor(action if len(action) > 1 else action[0])
        every = given.expand(*batch.mask.shape, *given.shape).contiguous()
        log_prob = policy.log_prob(batch.observation, every).detach()
        possible = log_prob > -torch.inf
        taken = vt.Batch(**{**vars(batch), "action": every, "mask": batch.mask & possible})
        scores = step_scores(policy, taken)
        scores = torch.where(possible[..., None], scores, 0)
        total = total + torch.einsum(
            "nt,ntp,ntq->pq", share(batch) * log_prob.exp(), scores, scores
        )
    torch.testing.assert_close(matrix(policy, batch, True), total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", REAL)
def test_of_a_gaussian_it_is_the_published_form(name: str) -> None:
    """F = J^T M J with M = 1/σ² for μ and 2 for log σ, J by `torch.func.jacrev`, to 1e-10."""
    policy = REAL[name]()
    batch = batch_of(policy)
    names = [key for key, _ in policy.named_parameters()]

    def law(*parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            _Distribution(policy), {f"policy.{key}": each for key, each in state.items()},
            (batch.observation,),
        )  # fmt: skip

    values = tuple(p.detach() for p in policy.parameters())
    pieces = torch.func.jacrev(law, argnums=tuple(range(len(values))))(*values)
    jacobian = torch.cat([each.flatten(4) for each in pieces], -1)  # [N, T, D, 2, P]
    log_std = policy.distribution(batch.observation)[..., 1].detach()
    metric = torch.stack([(-2 * log_std).exp(), torch.full_like(log_std, 2)], -1)
    expected = torch.einsum("nt,ntdk,ntdkp,ntdkq->pq", share(batch), metric, jacobian, jacobian)
    torch.testing.assert_close(matrix(policy, batch, True), expected, rtol=1e-10, atol=1e-12)


class _Distribution(nn.Module):
    def __init__(self, policy: vt.Policy):
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Tensor:
        return self.policy.distribution(observation)


@pytest.mark.parametrize("name", ["gaussian", "squashed", "categorical"])
def test_it_is_the_mean_over_fresh_actions(name: str) -> None:
    """The mean of F̂ over 4,000 draws of all actions is F within 5 of its standard errors.

    Of 300 entries one alone would be further away in less than two of 10,000 draws of a right F.
    """
    policy = (FINITE | REAL)[name]()
    batch = batch_of(policy)
    head = policy.head if isinstance(policy, vt.Recurrent) else policy
    draw, draw_many = torch.Generator().manual_seed(5), 4_000
    law = policy.distribution(batch.observation).detach()
    many = law.expand(draw_many, *law.shape)
    action = draws(head, many, draw)
    observation = batch.observation.expand(draw_many, *batch.observation.shape)
    grid = {
        key: each.expand(draw_many, *each.shape).flatten(0, 1)
        for key in ("reward", "discount", "boundary", "bootstrap", "log_prob", "mask", "episode")
        if isinstance(each := getattr(batch, key), Tensor)
    }
    wide = vt.Batch(
        observation=observation.flatten(0, 1), action=action.flatten(0, 1), **grid,
        group=torch.zeros(2 * draw_many, dtype=torch.long), weight=torch.ones(2 * draw_many),
    )  # fmt: skip
    scores = step_scores(policy, wide).unflatten(0, (draw_many, -1))
    each = torch.einsum("nt,bntp,bntq->bpq", share(batch), scores, scores)
    error = each.std(0) / draw_many**0.5
    away = (each.mean(0) - matrix(policy, batch, True)).abs()
    assert (away <= 5 * error + 1e-12).all()
    # so small an error would show a factor that is wrong by a tenth
    assert error.max() < 0.1 * each.mean(0).diagonal().max()


@pytest.mark.parametrize("name", FINITE | REAL)
def test_the_divergence_is_that_of_pytorch(name: str) -> None:
    """KL(first ‖ second) by `torch.distributions`, which is no route of ours, to 1e-10."""
    policy = (FINITE | REAL)[name]()
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.3
    batch = batch_of(policy)
    head = policy.head if isinstance(policy, vt.Recurrent) else policy
    laws = [each.distribution(batch.observation) for each in (policy, other)]
    expected = kl_divergence(theirs(head, laws[0]), theirs(head, laws[1]))
    torch.testing.assert_close(
        policy.kl(batch.observation, other), expected, rtol=1e-10, atol=1e-12
    )
    if not isinstance(head, vt.SquashedGaussian):  # whose density is that of tanh(u)
        torch.testing.assert_close(
            policy.log_prob(batch.observation, batch.action),
            theirs(head, laws[0]).log_prob(batch.action.to(laws[0].dtype)),
            rtol=1e-10, atol=1e-12,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["several choices", "gaussian, with a memory"])
def test_it_is_the_hessian_of_their_kl(name: str) -> None:
    """The second derivative at θ of the mean KL of `torch.distributions`, to 1e-8."""
    policy = (FINITE | REAL)[name]()
    batch = batch_of(policy)
    head = policy.head if isinstance(policy, vt.Recurrent) else policy
    parameters = list(policy.parameters())
    old = theirs(head, policy.distribution(batch.observation).detach())
    new = theirs(head, policy.distribution(batch.observation))
    slope = torch.autograd.grad(
        (share(batch) * kl_divergence(old, new)).sum(), parameters, create_graph=True
    )
    flat = torch.cat([each.flatten() for each in slope])
    rows = [
        torch.cat([
            piece.flatten() for piece in torch.autograd.grad(
                each, parameters, retain_graph=True, materialize_grads=True)
        ])
        for each in flat
    ]  # fmt: skip
    torch.testing.assert_close(
        matrix(policy, batch, True), torch.stack(rows), rtol=1e-8, atol=1e-10
    )


def test_with_sampled_actions_its_expectation_is_the_same() -> None:
    """Σ over all 9 joint actions of two steps of π(a) F̂(a) is F to 1e-12; each has rank 2."""
    policy = policy_of(spaces.Discrete(3), spaces.Discrete(4))
    batch = batch_of(policy, rows=1, steps=3)
    expected, mean, whole = matrix(policy, batch, True), 0.0, 0.0
    for first, second in itertools.product(range(3), repeat=2):
        action = torch.tensor([[first, second, 0]])
        sampled = vt.Batch(**{**vars(batch), "action": action})
        log_prob = policy.log_prob(batch.observation, action)[batch.mask].sum().detach()
        fisher = matrix(policy, sampled, False)
        assert torch.linalg.matrix_rank(fisher, hermitian=True) <= 2
        mean, whole = mean + log_prob.exp() * fisher, whole + log_prob.exp()
    assert abs(float(whole) - 1) < 1e-12
    assert torch.linalg.matrix_rank(expected, hermitian=True) > 2
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-14)


def test_over_an_enumerated_batch_both_are_the_same() -> None:
    """Trajectories and their probabilities: Σ p s s^T from every score, by both settings."""
    mdp = vt.MDP.short_corridor()
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    with torch.no_grad():
        policy.logits.normal_(generator=torch.Generator().manual_seed(3))
    batch = vt.exact.enumerate(mdp, policy, horizon=4)
    scores = step_scores(policy, batch).flatten(0, 1)
    each = (batch.weight[:, None] * batch.mask).flatten()
    fisher = torch.einsum("t,tp,tq->pq", each / each.sum(), scores, scores)
    for every_action in (True, False):
        torch.testing.assert_close(
            matrix(policy, batch, every_action), fisher, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("every_action", [True, False])
def test_padding_does_not_count(every_action: bool) -> None:
    policy = FINITE["masked"]()
    batch = batch_of(policy)
    observation, action = batch.observation.clone(), batch.action.clone()
    observation[-1, -1] = 100.0
    action[-1, -1] = 2
    changed = vt.Batch(**{**vars(batch), "observation": observation, "action": action})
    assert torch.equal(matrix(policy, batch, every_action), matrix(policy, changed, every_action))


def test_the_kl_of_a_step_is_exact() -> None:
    """The metric `kl` of a step is the mean KL by `torch.distributions`; sampled, it is k3's."""
    for name in ("categorical", "gaussian", "with a memory"):
        policy = (FINITE | REAL)[name]()
        batch = batch_of(policy, rows=4, steps=6)
        head = policy.head if isinstance(policy, vt.Recurrent) else policy
        before = flat_parameters(policy)
        gradient = torch.randn(len(before), generator=torch.Generator().manual_seed(2)).double()
        old = theirs(head, policy.distribution(batch.observation).detach())
        seen = {}
        for every_action in (True, False):
            rule = Natural(max_kl=0.05, every_action=every_action)
            seen[every_action] = rule.step(policy, gradient, batch, vt.estimators.reinforce())["kl"]
            new = theirs(head, policy.distribution(batch.observation).detach())
            exact = float((share(batch) * kl_divergence(old, new)).sum())
            if not every_action:  # ρ − 1 − log ρ, the mean over steps
                log_ratio = (
                    policy.log_prob(batch.observation, batch.action).detach() - batch.log_prob
                )
                exact = float((share(batch) * (log_ratio.exp() - 1 - log_ratio)).sum())
            assert abs(seen[every_action] / exact - 1) < 1e-6
            write_parameters(policy, before)
        assert abs(seen[True] / seen[False] - 1) > 1e-3


@pytest.mark.parametrize("every_action", [True, False])
def test_the_line_search_holds_the_kl_to_its_bound(every_action: bool) -> None:
    """A step of a KL of 0.5 to second order has a larger one, and improves the surrogate."""
    policy = REAL["gaussian"]()
    batch = batch_of(policy, rows=4, steps=6)
    reward = torch.randn(batch.reward.shape, generator=torch.Generator().manual_seed(3)).double()
    batch = vt.Batch(**{**vars(batch), "reward": reward})
    row, before = vt.estimators.reinforce(), flat_parameters(policy)
    gradient = vt.gradient(policy, batch, row)
    kl = {}
    for line_search in (False, True):
        rule = Natural(max_kl=0.5, damping=1e-3, line_search=line_search, every_action=every_action)
        metrics = rule.step(policy, gradient, batch, row)
        kl[line_search] = metrics["kl"]
        write_parameters(policy, before)
    assert kl[False] > 0.6
    assert 0.05 < kl[True] <= 0.5


class Counting(vt.Policy):
    """A policy that knows log π of an action, and no more."""

    memoryless = True

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def sample(
        self, observation: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        action = torch.randint(2, observation.shape[:-1], generator=generator)
        return action, self.log_prob(observation, action).detach()

    def mode(self, observation: Tensor) -> Tensor:
        return torch.zeros(observation.shape[:-1], dtype=torch.long)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        return torch.log_softmax(self.logits, -1)[action]

    def entropy(self, observation: Tensor) -> Tensor:
        return vt.Categorical(nn.Identity()).entropy(self.logits).expand(observation.shape[:-1])


class Cooler(vt.Categorical):
    """Another law than the class that it inherits its distribution from."""

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        return super().log_prob(observation, action) / 2


@pytest.mark.parametrize("name", ["natural", "trpo"])
def test_a_policy_whose_distribution_is_not_known_is_refused_before_work(
    name: str, tmp_path: Path
) -> None:
    env = vt.CartPole(lanes=2)
    for policy in (Counting(), Cooler(nn.Linear(4, 2))):
        made, given = vt.algorithms.TABLE[name], {"value": env.value((4,)), "updates": 1}
        with pytest.raises(vt.InputError, match=rf"{type(policy).__name__} has.*every_action=Fal"):
            vt.train(env, policy, made(fragment=8), **given, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
        run = vt.train(env, policy, made(fragment=8, every_action=False), **given, progress=False)
        assert run.history[0]["kl"] > 0


def test_who_tells_the_distribution() -> None:
    """Inherited together they fit; a subclass that scores otherwise needs one of its own."""

    class Told(Cooler):
        def distribution(self, observation: Tensor) -> Tensor:
            return super().distribution(observation)

    class Half(Counting):
        def distribution(self, observation: Tensor) -> Tensor:
            return torch.log_softmax(self.logits, -1).expand(*observation.shape[:-1], 2)

    net = nn.Linear(4, 2)
    assert not Half().tells_distribution()  # nothing compares two of them
    assert all(policy().tells_distribution() for policy in (FINITE | REAL).values())
    assert [each.tells_distribution() for each in (Counting(), Cooler(net), Told(net))] == [
        False, False, True,
    ]  # fmt: skip
    assert not vt.Recurrent(4, Cooler(net), 4).tells_distribution()


@pytest.mark.parametrize(
    ("env", "choices"),
    [("CartPole-v1", {}), ("CartPole-v1", {"recurrent": 4}), ("Pendulum-v1", {}),
     ("Pendulum-v1", {"squash": True}), ("FrozenLake-v1", {})],
)  # fmt: skip
def test_whatever_an_environment_makes_takes_a_step_within_its_kl(
    env: str, choices: dict[str, Any]
) -> None:
    """And another step than with sampled actions, from the same batch."""
    weights = []
    for every_action in (True, False):
        world = vt.make(env, lanes=4)
        policy = world.policy((8,), seed=1, **choices)
        value = world.value((8,), seed=2, recurrent=choices.get("recurrent"))
        run = vt.train(
            world, policy, vt.algorithms.trpo(fragment=64, every_action=every_action), value=value,
            updates=1, progress=False,
        )  # fmt: skip
        assert run.history[0]["kl"] <= 0.01
        weights.append(flat_parameters(policy))
    assert not torch.equal(*weights)
