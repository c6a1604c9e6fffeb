"""Update rules: PPO's epochs, V-trace's delay, natural gradients; by reference, by enumeration."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import vantage as vt
from vantage.environments.fragments import Fragments
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import AutogradPasses
from vantage.gradients.weighted import flat_gradient
from vantage.training.natural import conjugate_gradients
from vantage.training.updates import Epochs, Natural


def world(lanes: int = 4, env: str = "CartPole-v1", **choices: Any) -> tuple[Any, Any, Any]:
    made = vt.make(env, lanes=lanes)
    recurrent = choices.get("recurrent")
    return made, made.policy(hidden=(8,), **choices), made.value(hidden=(8,), recurrent=recurrent)


def fragment(env: Any, passes: Any, steps: int = 24) -> vt.Batch:
    lanes = Fragments(env, passes)
    lanes.restart(seed=0)
    lanes.collect(steps, seed=1)
    return lanes.collect(steps, seed=2)[0]


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=1.0)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_the_first_minibatch_is_the_plain_policy_gradient(quick: bool, name: str) -> None:
    """One step of SGD at rate 1 moves the policy by ĝ; its ratio is exactly 1, its clip idle."""
    env, policy, value = world(env=name)
    passes = fastest(policy, value) if quick else AutogradPasses(policy, value)
    batch = fragment(env, passes)
    row = vt.estimators.ppo(epsilon=1e-12)  # any ratio but 1 would be clipped
    expected = vt.gradient(
        policy, batch, row.replace(ratio=vt.ratios.none, clip=vt.ratios.unclipped)
    )
    before = flat(policy)
    rule = Epochs(epochs=1, minibatches=1, max_grad_norm=None)
    metrics = rule.update(passes, {"policy": sgd(passes.parameters)}, row, batch, torch.Generator())
    torch.testing.assert_close(flat(policy) - before, expected, rtol=1e-4, atol=1e-6)
    assert metrics["clip_fraction"] == 0


class Spy(AutogradPasses):
    """Keeps the weights of every backward pass."""

    def backward(self, weight: Any, entropy_weight: Any = None, value_slope: Any = None) -> None:
        self.__dict__.setdefault("seen", []).append(weight)
        super().backward(weight, entropy_weight, value_slope)


def test_the_first_ratio_is_one_to_the_bit_and_later_ones_are_not() -> None:
    """Even where rounding, here exaggerated, has changed the log-probabilities in the record."""
    env, policy, value = world()
    passes = Spy(policy, value)
    batch = fragment(env, passes)
    batch = replace(batch, log_prob=batch.log_prob + 0.01)
    row = vt.estimators.ppo(normalise=False)
    weights = row.weights(batch)
    Epochs(epochs=2, minibatches=1).update(
        passes, {"policy": sgd(passes.parameters)}, row, batch, torch.Generator().manual_seed(0)
    )
    first, second = (w.flatten().sort().values for w in passes.__dict__["seen"])
    counted = weights[batch.mask].flatten().sort().values
    assert torch.equal(first, counted)
    assert not torch.allclose(second, counted, rtol=1e-3)


def without_timing(run: vt.Run) -> list[dict[str, Any]]:
    timing = {"step_time", "steps_per_second"}
    return [{k: v for k, v in row.items() if k not in timing} for row in run.history]


def reference_ppo(
    policy: Any, value: Any, batch: vt.Batch, target: torch.Tensor, advantage: torch.Tensor,
    rule: Epochs, epsilon: float, entropy: float, old_log_prob: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """PPO's loss as papers write it, on flat steps: surrogate, clipped value loss, entropy."""
    if rule.standardise:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    log_prob = policy.log_prob(batch.observation, batch.action)[batch.mask]
    ratio = (log_prob - old_log_prob).exp()
    surrogate = torch.min(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
    predicted = value(batch.observation)[batch.mask]
    error = (predicted - target) ** 2
    if rule.value_clip is not None:
        assert batch.value is not None
        old = batch.value[batch.mask]
        held = old + (predicted - old).clamp(-rule.value_clip, rule.value_clip)
        error = torch.max(error, (held - target) ** 2)
    bonus = policy.entropy(batch.observation)[batch.mask]
    return -surrogate.mean() + rule.value_coefficient * error.mean() - entropy * bonus.mean()


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("value_clip", [None, 0.05])
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_epochs_equal_ppo_as_it_is_written(
    standardise: bool, value_clip: float | None, quick: bool, name: str
) -> None:
    """Four steps over a whole batch, by the loss and automatic differentiation, and by the rule."""
    env, policy, value = world(env=name)
    twin, twin_value = copy.deepcopy(policy), copy.deepcopy(value)
    passes = fastest(policy, value) if quick else AutogradPasses(policy, value)
    batch = fragment(env, passes)
    rule = Epochs(4, 1, standardise=standardise, value_clip=value_clip, max_grad_norm=0.5)
    row = vt.estimators.ppo(epsilon=0.1, normalise=False, entropy=0.02)
    rule.update(passes, {"policy": SGD(passes.parameters, lr=0.3)}, row, batch, torch.Generator())
    parameters = [*twin.parameters(), *twin_value.parameters()]
    optimizer = SGD(parameters, lr=0.3)
    assert batch.value is not None
    target = vt.returns.gae(batch, lambda_=0.95)
    advantage = (target - batch.value)[batch.mask]
    for _ in range(4):
        optimizer.zero_grad()
        reference_ppo(
            twin, twin_value, batch, target[batch.mask], advantage, rule, 0.1, 0.02,
            batch.log_prob[batch.mask],
        ).backward()  # fmt: skip
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
    torch.testing.assert_close(flat(policy), flat(twin), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(flat(value), flat(twin_value), rtol=1e-4, atol=2e-5)


def test_an_epoch_takes_every_step_once() -> None:
    """With a rate of 0 the minibatches of an epoch add up to the batch, whatever the shuffle."""
    env, policy, value = world()
    passes = Spy(policy, value)
    batch = fragment(env, passes)
    row = vt.estimators.ppo(normalise=False)
    rule = Epochs(epochs=3, minibatches=4)
    still = {"policy": SGD(passes.parameters, lr=0.0)}
    rule.update(passes, still, row, batch, torch.Generator().manual_seed(0))
    seen = passes.__dict__["seen"]
    assert len(seen) == 12
    size = batch.steps // 4
    assert all(len(w) == size for w in seen)
    # within 3 steps of the batch: a remainder is left out, a new one every epoch
    whole = row.weights(batch)[batch.mask] * batch.steps / size
    for epoch in range(3):
        taken = torch.cat(seen[4 * epoch : 4 * epoch + 4]).flatten()
        for weight in taken:
            assert (whole - weight).abs().min() < 1e-5
        assert len(taken) > batch.steps - 4


def test_epochs_stop_once_the_policy_has_moved_too_far() -> None:
    env, policy, value = world()
    passes = fastest(policy, value)
    batch = fragment(env, passes)
    row = vt.estimators.ppo(normalise=False)
    rule = Epochs(epochs=50, minibatches=2, target_kl=1e-4, standardise=True)
    optimizer = torch.optim.Adam(passes.parameters, lr=1e-2)
    metrics = rule.update(
        passes, {"policy": optimizer}, row, batch, torch.Generator().manual_seed(0)
    )
    assert 1 < metrics["optimizer_steps"] < 10


def test_rows_stay_whole_for_a_memory_and_for_a_ratio_of_sequences() -> None:
    """Minibatches of rows add up to the batch's gradient, through time."""
    for choices, ratio in (({"recurrent": 5}, vt.ratios.token), ({}, vt.ratios.sequence)):
        env, policy, value = world(**choices)
        passes = Spy(policy, value)
        batch = fragment(env, passes)
        row = vt.estimators.ppo(normalise=False).replace(ratio=ratio)
        expected = vt.gradient(policy, batch, row)
        before = flat(policy)
        rule = Epochs(epochs=1, minibatches=1, max_grad_norm=None)
        rule.update(passes, {"policy": sgd(passes.parameters)}, row, batch, torch.Generator())
        assert passes.__dict__["seen"][0].shape == batch.reward.shape
        torch.testing.assert_close(flat(policy) - before, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["CartPole-v1", "tensor/CartPole-v1"])
def test_a_memory_is_empty_at_every_start_and_nowhere_else(name: str) -> None:
    """Where a lane starts anew in the same step, and where it takes a dummy step to."""
    env, policy, value = world(lanes=3, env=name, recurrent=5)
    lanes = Fragments(env, AutogradPasses(policy, value))
    lanes.restart(seed=0)
    before = None
    for seed in range(3):
        batch, _ = lanes.collect(40, seed)
        flag, memory = batch.observation[..., 4] == 1, batch.observation[..., 5:]
        ended = (batch.boundary & (batch.discount == 0)) | ~batch.mask
        first = torch.ones(3, dtype=torch.bool) if before is None else before
        starts = torch.cat([first[:, None], ended[:, :-1]], 1)
        assert torch.equal(flag[batch.mask], starts[batch.mask])
        assert starts[:, 1:][batch.mask[:, 1:]].sum() > 2
        assert bool((memory[flag] == 0).all())
        assert bool((memory[~flag & batch.mask] != 0).any(-1).all())
        before = ended[:, -1]


@pytest.mark.parametrize(
    "choices", [{}, {"recurrent": 4}, {"env": "Pendulum-v1"}, {"normalise": True}, {"delay": 2}],
    ids=str,
)  # fmt: skip
def test_fragments_resume_to_the_same_bits(tmp_path: Path, choices: dict[str, Any]) -> None:
    """Stopped after 5 of 9 updates and carried on in new objects: same metrics, same weights."""
    choices = dict(choices)
    delay, normalise = choices.pop("delay", 0), choices.pop("normalise", False)
    name = choices.pop("env", "CartPole-v1")

    def run(folder: str, updates: int, resume: bool = False) -> vt.Run:
        env = vt.make(name, lanes=3, normalise=normalise)
        recurrent = choices.get("recurrent")
        return vt.train(
            env, env.policy(hidden=(8,), **choices),
            vt.algorithms.ppo(fragment=20, minibatches=2, anneal=False),
            value=env.value((8,), recurrent=recurrent), updates=updates, out=tmp_path / folder,
            resume=resume, progress=False, delay=delay, restart=70,
        )  # fmt: skip

    whole = run("whole", 9)
    run("parts", 5)
    parts = run("parts", 9, resume=True)
    timing = {"step_time", "steps_per_second"}
    plain = [
        [{k: v for k, v in r.items() if k not in timing} for r in x.history] for x in (whole, parts)
    ]
    assert plain[0] == plain[1]
    for file in (tmp_path / "whole/checkpoint").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "parts/checkpoint" / file.name).read_bytes()


def test_a_delayed_policy_acts_and_vtrace_knows() -> None:
    """Log-probabilities of the batch are those of the policy two updates ago."""
    env, policy, value = world(env="tensor/CartPole-v1", lanes=8)
    seen: list[tuple[torch.Tensor, float]] = []
    original = Epochs.update

    def spy(
        self: Epochs, passes: Any, optimizers: Any, estimator: Any, batch: vt.Batch, *rest: Any,
        **named: Any,
    ) -> Any:  # fmt: skip
        now = policy.log_prob(batch.observation, batch.action).detach()
        seen.append((flat(policy), float((now - batch.log_prob).abs().max())))
        snapshots = [copy.deepcopy(policy.state_dict()) for _ in range(1)]
        held.append((batch, snapshots[0]))
        return original(self, passes, optimizers, estimator, batch, *rest, **named)

    held: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Epochs, "update", spy)
        vt.train(env, policy, vt.algorithms.impala(delay=2), value=value, updates=5, progress=False)
    twin = copy.deepcopy(policy)
    for number in range(2, 5):
        batch, _ = held[number]
        twin.load_state_dict(held[number - 2][1])
        old = twin.log_prob(batch.observation, batch.action).detach()
        torch.testing.assert_close(batch.log_prob, old, atol=1e-5, rtol=1e-5)
        assert seen[number][1] > 1e-4


def test_conjugate_gradients_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(12), torch.randn(12, generator=generator).double()
    found = conjugate_gradients(lambda v: matrix @ v, target, 40)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-4, atol=1e-5)


def test_trpo_moves_within_its_region_and_uphill() -> None:
    env, policy, value = world(lanes=8)
    passes = AutogradPasses(policy, value)
    batch = fragment(env, passes, 64)
    row = vt.algorithms.trpo().estimator
    gradient = vt.gradient(policy, batch, row)
    for line_search, every_action in itertools.product((True, False), repeat=2):
        copied = copy.deepcopy(policy)
        rule = Natural(max_kl=0.01, line_search=line_search, every_action=every_action)
        metrics = rule.step(copied, gradient, batch, row)
        change = copied.log_prob(batch.observation, batch.action).detach() - batch.log_prob
        advantage = row.advantage(batch) * row.share(batch)
        assert float((advantage * change.exp()).sum()) > float(advantage.sum())
        assert 0.001 < metrics["kl"] < (0.01 if line_search else 0.03)
    still = copy.deepcopy(policy)
    # an estimator whose surrogate cannot improve leaves the policy where it is
    worse = Natural(max_kl=0.01, line_search=True, halvings=2).step(still, -gradient, batch, row)
    assert worse["halvings"] == 3
    assert torch.equal(flat(still), flat(policy))


@pytest.mark.parametrize("every_action", [True, False])
def test_the_natural_gradient_does_not_depend_on_the_parameters(every_action: bool) -> None:
    """Scaling one parameter's units changes ĝ, not the policy that a natural step leads to."""

    class Scaled(vt.Categorical):
        def __init__(self, scale: float):
            super().__init__(nn.Identity())
            self.theta, self.scale = nn.Parameter(torch.zeros(2, 2).double()), scale
            with torch.no_grad():
                self.theta[0, 0] = 0.4 / scale

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            factor = torch.tensor([[self.scale, 1.0], [1.0, 1.0]], dtype=torch.float64)
            return (self.theta * factor)[observation]

    mdp = vt.MDP.article()
    table = vt.SoftmaxTable(2, 2)
    with torch.no_grad():
        table.logits[0, 0] = 0.4
    batch = vt.exact.enumerate(mdp, table)
    moved = []
    for scale in (1.0, 50.0):
        policy = Scaled(scale)
        weights = vt.estimators.reinforce().weights(batch)
        log_prob = policy.log_prob(batch.observation, batch.action)
        gradient = flat_gradient((weights * log_prob).sum(), policy)
        # per step of one-step trajectories, so that share and weight are one
        rule = Natural(max_kl=1e-3, every_action=every_action, damping=1e-9, iterations=50)
        rule.step(policy, gradient, batch, vt.estimators.reinforce())
        moved.append(policy.log_prob(batch.observation, batch.action).detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=1e-4)


def test_refusals() -> None:
    env, policy, value = world()
    with pytest.raises(vt.InputError, match="standardise once"):
        vt.train(
            env, policy, vt.estimators.ppo(), value=value, updates=1,
            update=Epochs(standardise=True),
        )  # fmt: skip
    with pytest.raises(vt.InputError, match="compares whole episodes"):
        vt.train(env, policy, vt.estimators.grpo(), updates=1, fragment=8)
    with pytest.raises(vt.InputError, match="give one of them"):
        vt.train(env, policy, vt.estimators.reinforce(), updates=1, fragment=8, batch=8)
    with pytest.raises(vt.InputError, match="give fragment="):
        vt.train(env, policy, vt.estimators.reinforce(), updates=1, delay=1)
    with pytest.raises(vt.InputError, match="needs two"):
        vt.train(
            env, policy, vt.algorithms.ppo(fragment=2, minibatches=8), value=value, updates=1,
        )  # fmt: skip
    with pytest.raises(vt.InputError, match=r"did you mean ppo"):
        vt.algorithms.named("pppo")
    with pytest.raises(vt.InputError, match=r"no setting 'epoch'"):
        vt.algorithms.named("ppo", epoch=3)


@pytest.mark.parametrize(
    "name",
    ["a2c", "ppo", "trpo", "impala", "acktr", pytest.param("vpg", marks=pytest.mark.long),
     pytest.param("natural", marks=pytest.mark.long)],
)  # fmt: skip
def test_every_algorithm_improves_on_cartpole(name: str) -> None:
    """A short run from one seed brings half as much again; each rule does its own work.

    A return of 21 whose standard error is 2 would seem to grow so, by five of them, in less than
    one of 100,000 runs of a rule that does nothing.
    """
    env = vt.CartPole(lanes=16)
    algorithm = vt.algorithms.TABLE[name]().replace(fragment=64)
    if name not in ("natural", "trpo", "a2c", "acktr"):
        algorithm = algorithm.replace(lr=3e-3)
    run = vt.train(
        env, env.policy((32,)), algorithm, value=env.value((32,)), progress=False,
        updates=12 if name == "ppo" else 30,
    )  # fmt: skip
    assert run.history[-1]["return_100"] > 1.5 * run.history[0]["return"]
