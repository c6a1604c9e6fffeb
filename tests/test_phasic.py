"""The phasic update rule: PPO between its phases, and each phase as it was published."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.optim import SGD

import vantage as vt
from vantage.environments.fragments import Fragments
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import AutogradPasses
from vantage.training import phasic
from vantage.training.epochs import Epochs
from vantage.training.interface import Memory
from vantage.training.phasic import HEAD, Phasic, auxiliary_losses

TIMES = ("step_time", "steps_per_second")


def world(name: str = "tensor/CartPole-v1", **choices: Any) -> tuple[Any, Any, Any]:
    env = vt.make(name, lanes=4)
    return env, env.policy((8, 8), seed=1, **choices), env.value((8,), seed=2)


def flat(*modules: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()]).clone()


def trained(rule: Any, env: Any, policy: Any, value: Any, **settings: Any) -> vt.Run:
    given = {"fragment": 16, "updates": 4, "signal_every": None, "progress": False} | settings
    return vt.train(env, policy, vt.estimators.ppo(entropy=0.01), value=value, update=rule, **given)


def plain(run: vt.Run, *without: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in (*TIMES, *without)} for row in run.history]


@pytest.mark.parametrize("name", ["tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_with_a_phase_longer_than_the_run_it_is_ppo(name: str) -> None:
    """Weights and metrics, from one seed, to rounding."""
    shared = {"epochs": 2, "minibatches": 2, "lr": 1e-2, "eps": 1e-8, "max_grad_norm": None}
    runs = []
    for rule in (Epochs(**shared), Phasic(**shared, phase=5), Phasic(**shared, phase=4)):
        env, policy, value = world(name)
        runs.append((plain(trained(rule, env, policy, value), "phase"), flat(policy, value)))
    (rows, weights), (phasic_rows, phasic_weights), (_, after_a_phase) = runs
    assert [row.keys() for row in rows] == [row.keys() for row in phasic_rows]
    for row, twin in zip(rows, phasic_rows, strict=True):
        torch.testing.assert_close(
            [row[name] for name in row if row[name] is not None],
            [twin[name] for name in row if row[name] is not None],
        )
    torch.testing.assert_close(weights, phasic_weights)
    assert (weights - after_a_phase).abs().max() > 1e-4


def law(policy: Any, observation: torch.Tensor) -> Any:
    """The distribution of the actions, by torch's own."""
    outputs = policy(observation)
    return (
        Normal(outputs, policy.log_std.exp())
        if isinstance(policy, vt.Gaussian)
        else Categorical(logits=outputs)
    )


def published(
    policy: Any, before: Any, head: nn.Module, value: nn.Module, observation: torch.Tensor,
    target: torch.Tensor, beta: float,
) -> torch.Tensor:  # fmt: skip
    """L_joint + L_value of Cobbe et al., by torch's distributions and the layers one by one."""
    hidden = observation
    for layer in list(policy.net)[:-1]:
        hidden = layer(hidden)
    auxiliary = head(hidden)
    divergence = kl_divergence(law(before, observation), law(policy, observation))
    divergence = divergence if divergence.dim() == 1 else divergence.sum(-1)
    joint = 0.5 * (auxiliary - target).pow(2).mean() + beta * divergence.mean()
    return joint + 0.5 * (value(observation) - target).pow(2).mean()


@pytest.mark.parametrize("name", ["tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_the_loss_is_the_published_one(name: str) -> None:
    env, policy, value = world(name)
    generator = torch.Generator().manual_seed(0)
    head = Phasic().memory(fastest(policy, value), generator).modules[HEAD]
    before = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in (*policy.parameters(), *head.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    observation = torch.randn(50, *env.observations.shape, generator=generator)
    target = 5 * torch.randn(50, generator=generator)
    pieces = auxiliary_losses(policy, before, head, value, observation, target)
    loss = (pieces["head_loss"] + pieces["value_loss"]) / 2 + 0.7 * pieces["kl"]
    assert pieces["kl"] > 1e-2
    torch.testing.assert_close(
        loss, published(policy, before, head, value, observation, target, beta=0.7)
    )


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_a_phase_is_the_published_one_step_by_step(name: str, quick: bool) -> None:
    """Five steps over the whole of a batch, by the formula and automatic differentiation.

    By plain descent: Adam makes steps of full length of what is 0 up to rounding, the slope of the
    KL at its first step.
    """
    env, policy, value = world(name)
    passes = fastest(policy, value) if quick else AutogradPasses(policy, value)
    # the policy phase moves nothing, so that the auxiliary one begins with the first policy
    rule = Phasic(
        phase=1, minibatches=1, auxiliary_minibatches=1, auxiliary_epochs=5, auxiliary_lr=0.02,
        beta_clone=3.0,
    )  # fmt: skip
    row = vt.estimators.ppo()
    memory = rule.memory(passes, torch.Generator().manual_seed(3))
    networks = (policy, value, memory.modules[HEAD])
    of_rule = rule.optimizers(passes, None, None, memory=memory)[HEAD]
    (group,) = of_rule.param_groups
    assert (type(of_rule).__name__, group["lr"], group["eps"]) == ("Adam", 0.02, 1e-8)
    assert {id(p) for p in group["params"]} == {id(p) for m in networks for p in m.parameters()}
    optimizers = {
        "policy": SGD(passes.parameters, lr=0.0),
        HEAD: SGD(group["params"], lr=0.02),
    }
    batch = collected(env, passes)
    before = copy.deepcopy(policy)
    twins = [copy.deepcopy(module) for module in networks]
    metrics = rule.update(
        passes, optimizers, row, batch, torch.Generator().manual_seed(4), memory=memory
    )
    plain_descent = SGD([p for twin in twins for p in twin.parameters()], lr=0.02)
    target = vt.returns.gae(batch, lambda_=0.95)[batch.mask]
    observation = batch.observation[batch.mask]
    actor, critic, head = twins
    for _ in range(5):
        plain_descent.zero_grad()
        published(actor, before, head, critic, observation, target, beta=3.0).backward()
        plain_descent.step()
    torch.testing.assert_close(flat(*networks), flat(*twins), rtol=1e-3, atol=2e-5)
    assert (flat(policy) - flat(before)).abs().max() > 1e-3
    assert metrics["phase"] == 1
    assert memory.tensors == {}


def collected(env: Any, passes: Any) -> vt.Batch:
    lanes = Fragments(env, passes)
    lanes.restart(seed=0)
    return lanes.collect(24, seed=1)[0]


def test_a_pass_over_a_phase_takes_every_step_of_every_batch_once() -> None:
    """With rates of 0, the means over an epoch are those over all steps; each target is its own."""
    env, policy, value = world()
    passes = fastest(policy, value)
    rule = Phasic(phase=3, minibatches=1, auxiliary_epochs=1, auxiliary_minibatches=5)
    memory = rule.memory(passes, torch.Generator().manual_seed(3))
    optimizers = {name: SGD(passes.parameters, lr=0.0) for name in ("policy", HEAD)}
    batches, rows = [collected(env, passes) for _ in range(3)], []
    batches = [replace(b, reward=b.reward + i) for i, b in enumerate(batches)]
    for number, batch in enumerate(batches):
        rows.append(
            rule.update(
                passes,
                optimizers,
                vt.estimators.ppo(),
                batch,
                torch.Generator().manual_seed(number),
                memory=memory,
            )
        )
    assert [row["phase"] for row in rows] == [1, 2, 3]
    assert [name for row in rows[:2] for name in row if "auxiliary" in name] == []
    errors = torch.cat(
        [(vt.returns.gae(b, lambda_=0.95) - value(b.observation))[b.mask] for b in batches]
    )
    assert rows[2]["auxiliary/value_loss"] == pytest.approx(errors.square().mean().item(), 1e-5)
    assert rows[2]["auxiliary/kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_the_policy_is_held_by_beta(name: str) -> None:
    """It moves the less the larger β is; its features have moved all the same.

    Its last layer is made large, for the first policy is as good as uniform whatever its features.
    """
    moved, features = {}, {}
    for beta in (0.0, 1.0, 1000.0):
        env, policy, value = world(name)
        with torch.no_grad():
            policy.net[-1].weight *= 100
        first = flat(policy.net[:-1])
        rule = Phasic(phase=2, beta_clone=beta, auxiliary_lr=1e-2, lr=1e-9, minibatches=2)
        history = trained(rule, env, policy, value, updates=2).history
        moved[beta], features[beta] = history[1]["auxiliary/kl"], flat(policy.net[:-1]) - first
    assert 0 <= moved[1000.0] < 0.05 * moved[0.0]
    assert moved[1000.0] < moved[1.0] < moved[0.0]
    assert features[1000.0].abs().max() > 1e-2


def test_a_run_that_stops_within_a_phase_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """A phase of eleven batches, stopped after the third and the tenth: "10" sorts before "3"."""

    def run(folder: str, updates: int, resume: bool = False) -> vt.Run:
        rule = vt.algorithms.ppg(fragment=8, phase=11, minibatches=2, auxiliary_epochs=2)
        return vt.train(
            "tensor/CartPole-v1", rule, lanes=4, updates=updates, out=tmp_path / folder,
            resume=resume, progress=False,
        )  # fmt: skip

    whole = run("whole", 12)
    for updates in (3, 10, 12):
        parts = run("parts", updates, resume=updates > 3)
    assert plain(whole) == plain(parts)
    assert whole.history[10]["auxiliary/value_loss"] > 0
    files = sorted((tmp_path / "whole/checkpoint").glob("*.safetensors"))
    assert {"auxiliary.safetensors", "auxiliary_optimizer.safetensors"} <= {f.name for f in files}
    for file in files:
        assert file.read_bytes() == (tmp_path / "parts/checkpoint" / file.name).read_bytes()
    _, policy, value = vt.load(tmp_path / "parts")
    assert torch.equal(flat(policy, value), flat(whole.policy, whole.value))


@pytest.mark.parametrize("fails", ["the step", "the phase"])
def test_an_update_that_is_skipped_is_not_remembered(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its step is not finite, or the phase after it: the next update takes its place."""
    env, policy, value = world()
    spoilt = iter([False, True, False] if fails == "the step" else [False] * 3)
    spoilt_phases = iter([fails == "the phase"] + [False] * 1000)

    def returns(batch: vt.Batch) -> torch.Tensor:
        worth = vt.returns.gae(batch, lambda_=0.95)
        return worth * float("nan") if next(spoilt) else worth

    def losses(*given: Any) -> dict[str, torch.Tensor]:
        factor = float("nan") if next(spoilt_phases) else 1.0
        return {name: factor * each for name, each in auxiliary_losses(*given).items()}

    monkeypatch.setattr(phasic, "auxiliary_losses", losses)
    run = vt.train(
        env, policy, vt.estimators.ppo().replace(returns=returns), value=value, fragment=16,
        updates=3, update=Phasic(phase=2, minibatches=2), skip_non_finite=True, signal_every=None,
        progress=False,
    )  # fmt: skip
    assert [row.get("phase") for row in run.history] == [1, None, 2]
    assert run.history[2]["auxiliary/value_loss"] > 0


@pytest.mark.parametrize("name", ["tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_passes_by_hand_go_on_after_a_phase(name: str) -> None:
    """They share parameters and gradients with the modules; two phases as by differentiation."""
    weights = []
    for quick in (True, False):
        env, policy, value = world(name)
        passes = fastest(policy, value) if quick else AutogradPasses(policy, value)
        batch = collected(env, AutogradPasses(*world(name)[1:]))
        rule = Phasic(phase=1, minibatches=2, auxiliary_epochs=1, auxiliary_minibatches=2)
        memory = rule.memory(passes, torch.Generator().manual_seed(0))
        optimizers = rule.optimizers(passes, partial(SGD, lr=0.1), None, memory=memory)
        optimizers[HEAD] = SGD(optimizers[HEAD].param_groups[0]["params"], lr=0.01)
        for number in range(2):
            rule.update(
                passes, optimizers, vt.estimators.ppo(), batch,
                torch.Generator().manual_seed(number), memory=memory,
            )  # fmt: skip
        weights.append(flat(policy, value, memory.modules[HEAD]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


class Nameless(vt.Categorical):
    """A policy that tells probabilities of actions, and no distribution."""

    def log_prob(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return super().log_prob(observation, action)


def test_refusals() -> None:
    env, policy, value = world()
    tried = {"updates": 1, "fragment": 16, "progress": False, "dry_run": True}
    table = vt.make("FrozenLake-v1", lanes=4)
    for where, actor, critic, match in (
        (table, table.policy(), table.value(), "this SoftmaxTable has none"),
        (env, env.policy(hidden=()), value, "this Categorical has none"),
        (env, env.policy(recurrent=4), env.value(recurrent=4), "Recurrent tells none"),
        (env, Nameless(policy.net), value, "Nameless tells none"),
        (env, policy, None, r"give value=env\.value\(\)"),
    ):
        row = vt.estimators.ppo() if critic is not None else vt.estimators.reinforce()
        with pytest.raises(vt.InputError, match=match):
            vt.train(where, actor, row, value=critic, update=Phasic(), **tried)
    with pytest.raises(vt.InputError, match="has 8 steps; use fewer minibatches"):
        trained(Phasic(minibatches=1), env, policy, value, fragment=2)
    for setting in ("phase", "auxiliary_epochs", "auxiliary_minibatches", "auxiliary_lr"):
        with pytest.raises(vt.InputError, match=rf"Phasic\({setting}=0"):
            Phasic(**{setting: 0})
    with pytest.raises(vt.InputError, match=r"Phasic\(beta_clone=-1"):
        Phasic(beta_clone=-1.0)
    with pytest.raises(vt.InputError, match=r"Phasic\(epochs=0"):
        Phasic(epochs=0)


class Switches(gymnasium.Env[Any, Any]):
    """One step an episode: as many switches on as the observation says."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))

    def __init__(self, action_space: gymnasium.Space[Any]):
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1, 1, 3).astype("float32")
        return self.seen, {}

    def step(self, action: Any) -> Any:
        return self.seen, float(sum(action * (self.seen[: len(action)] > 0))), True, False, {}


@pytest.mark.parametrize(
    "space", [gymnasium.spaces.MultiBinary(3), gymnasium.spaces.MultiDiscrete([2, 3])], ids=str
)
def test_every_kind_of_policy_has_phases(space: Any) -> None:
    run = vt.train(
        lambda: Switches(space), vt.algorithms.ppg(fragment=16, phase=2, minibatches=2), lanes=2,
        updates=2, progress=False,
    )  # fmt: skip
    assert run.history[1]["auxiliary/kl"] >= 0


def test_a_value_function_on_the_policys_layers_has_phases() -> None:
    """The single network: what V is fitted through is then held by the KL too."""
    env, policy, _ = world()
    value = env.value(trunk=policy)
    rule = Phasic(phase=2, minibatches=2, beta_clone=1000.0)
    history = trained(rule, env, policy, value, updates=2).history
    assert 0 <= history[1]["auxiliary/kl"] < 1e-2


def test_the_memory_begins_with_a_head_of_its_own_and_no_batch() -> None:
    _, policy, value = world()
    passes = AutogradPasses(policy, value)
    memories = [Phasic().memory(passes, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    same, again, other = (flat(memory.modules[HEAD]) for memory in memories)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert memories[0].tensors == {} == Memory().tensors


@pytest.mark.long
def test_ppg_learns_cartpole() -> None:
    """61,440 steps, in which the pole is up for 21 steps at first, of 500 at most.

    The mean of 100 episodes of a policy that has learned nothing is above 150, six times its
    deviation above its mean, in less than one run of a billion.
    """
    run = vt.train(
        "tensor/CartPole-v1", vt.algorithms.ppg(phase=10), updates=30, signal_every=None,
        progress=False,
    )  # fmt: skip
    assert run.history[0]["return"] < 30
    assert run.history[-1]["return_100"] > 150
    assert [row["update"] for row in run.history if "auxiliary/kl" in row] == [10, 20, 30]
