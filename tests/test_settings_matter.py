"""Every setting of every update rule changes what is learned, where it has something to say."""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch

import vantage as vt
from vantage.training.updates import KFAC, Ascent, Epochs, Fit, Natural, Phasic, Replay

# rule as it is, and per setting another value, with what else it needs to have something to say
EPOCHS, NATURAL, ASCENT = Epochs(epochs=2, minibatches=2), Natural(), Ascent()
FACTORED, REPLAY = KFAC(), Replay(begin=100, capacity=200)
PHASIC = Phasic(phase=2, auxiliary_epochs=2, epochs=2, minibatches=2)
CHANGES: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (EPOCHS, {}, {"epochs": 3}),
    (EPOCHS, {}, {"minibatches": 1}),
    (EPOCHS, {}, {"value_coefficient": 0.1}),
    (EPOCHS, {}, {"value_clip": 1e-3}),
    (EPOCHS, {}, {"standardise": True}),
    (EPOCHS, {"epochs": 4}, {"target_kl": 1e-9}),
    (EPOCHS, {}, {"refresh": True}),
    (EPOCHS, {}, {"lr": 1e-2}),
    (EPOCHS, {}, {"eps": 1e-2}),
    (EPOCHS, {}, {"max_grad_norm": 1e-3}),
    (REPLAY, {}, {"ratio": 20.0}),
    (REPLAY, {}, {"capacity": 100}),
    (REPLAY, {}, {"begin": 0}),
    (REPLAY, {}, {"maximum": 1e-3}),
    (REPLAY, {}, {"trust_region": 1e-6}),
    (REPLAY, {"trust_region": 1e-6}, {"decay": 0.5}),
    (REPLAY, {}, {"lambda_": 0.5}),
    (REPLAY, {}, {"value_coefficient": 0.1}),
    (REPLAY, {}, {"lr": 1e-2}),
    (REPLAY, {}, {"eps": 1e-2}),
    (REPLAY, {}, {"max_grad_norm": 1e-3}),
    (PHASIC, {}, {"phase": 1}),
    (PHASIC, {}, {"auxiliary_epochs": 3}),
    (PHASIC, {}, {"auxiliary_minibatches": 4}),
    (PHASIC, {}, {"beta_clone": 100.0}),
    (PHASIC, {}, {"auxiliary_lr": 1e-2}),
    (NATURAL, {}, {"max_kl": 0.1}),
    (NATURAL, {}, {"every_action": False}),
    (NATURAL, {"max_kl": 50.0}, {"line_search": True}),
    (NATURAL, {}, {"iterations": 1}),
    (NATURAL, {}, {"damping": 3.0}),
    (NATURAL, {"max_kl": 50.0, "line_search": True}, {"halvings": 1}),
    (NATURAL, {}, {"fit": Fit(lr=0.1)}),
    (ASCENT, {}, {"fit": Fit(lr=0.1)}),
    (ASCENT, {}, {"fit": Fit(epochs=1)}),
    (ASCENT, {}, {"fit": Fit(minibatch=8)}),
    (ASCENT, {}, {"lr": 0.1}),
    (ASCENT, {}, {"eps": 1.0}),
    (ASCENT, {}, {"max_grad_norm": 1e-3}),
    (FACTORED, {}, {"lr": 1e-3}),
    (FACTORED, {}, {"max_kl": 1e-4}),
    (FACTORED, {}, {"value_lr": 1e-3}),
    (FACTORED, {}, {"value_max_kl": 1e-4}),
    (FACTORED, {}, {"value_steps": 2}),
    (FACTORED, {}, {"damping": 1.0}),
    (FACTORED, {}, {"decay": 0.1}),
    (FACTORED, {}, {"momentum": 0.0}),
]


@cache
def bits(rule: Any) -> bytes:
    """The weights after four updates."""
    clipped = vt.estimators.ppo().replace(scale=vt.scales.none)
    estimator = clipped if isinstance(rule, Epochs) else vt.estimators.a2c()
    env = vt.CartPole(lanes=4)
    policy = env.policy(seed=1, hidden=(8,))
    under = {"under": policy} if isinstance(rule, Replay) else {}
    value = env.value(seed=2, hidden=(8,), **under)
    with torch.no_grad():
        value.net[-1].bias += 5  # advantages of both signs
    vt.train(
        env, policy, estimator, value=value, update=rule, fragment=16, updates=4,
        signal_every=None, progress=False,
    )  # fmt: skip
    weights = [*policy.parameters(), *value.parameters()]
    return torch.cat([p.detach().flatten() for p in weights]).numpy().tobytes()


@pytest.mark.parametrize(("rule", "base", "change"), CHANGES, ids=lambda part: str(part)[:60])
def test_a_setting_is_heeded(rule: Any, base: dict[str, Any], change: dict[str, Any]) -> None:
    rule = replace(rule, **base)
    assert bits(rule) != bits(replace(rule, **change))


@pytest.mark.parametrize("rule", [EPOCHS, PHASIC, REPLAY, NATURAL, FACTORED, ASCENT])
def test_no_setting_is_left_out(rule: Any) -> None:
    """Those of `Epochs` are looked at in `Epochs`; `Phasic` hands them on."""
    changed = {name for other, _, change in CHANGES if other is rule for name in change}
    inherited = {field.name for field in fields(EPOCHS)} if rule is PHASIC else set()
    assert changed == {field.name for field in fields(rule)} - inherited


@pytest.mark.parametrize("lr", [1e-3, 1000.0])
@pytest.mark.parametrize("name", sorted(vt.algorithms.TABLE))
def test_the_learning_rate_of_an_algorithm_is_heeded_or_refused(name: str, lr: float) -> None:
    rule = vt.algorithms.named(name).settings().get("update")
    settings: dict[str, Any] = {"lanes": 4, "fragment": 16, "updates": 1, "progress": False}
    settings |= {"minibatches": 1} if isinstance(rule, Epochs) else {}
    if isinstance(rule, Natural):
        with pytest.raises(vt.InputError, match=r"train\(lr=.*no learning rate"):
            vt.train("tensor/CartPole-v1", name, **settings, lr=lr)
        return
    run = vt.train("tensor/CartPole-v1", name, **settings, lr=lr, schedule="constant")
    assert run.history[0]["learning_rate"] == lr


def test_epochs_stop_once_the_kl_is_half_as_large_again_as_its_target() -> None:
    """A target of a third of the KL that the second step meets stops there; one of 0.9 does not."""

    def first(target: float | None, epochs: int) -> dict[str, Any]:
        env = vt.CartPole(lanes=4)
        rule = Epochs(epochs=epochs, minibatches=1, target_kl=target, lr=1e-2)
        run = vt.train(
            env, env.policy(seed=1), vt.estimators.ppo(), value=env.value(seed=2), update=rule,
            fragment=16, updates=1, signal_every=None, progress=False,
        )  # fmt: skip
        return run.history[0]

    kl = first(None, 2)["kl"]
    assert kl > 0
    assert first(kl / 3, 4)["optimizer_steps"] == 2
    assert first(0.9 * kl, 4)["optimizer_steps"] > 2
