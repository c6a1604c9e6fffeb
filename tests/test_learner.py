"""One learner: control and language models share settings, metrics, update rules, run folders."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import vantage as vt
from vantage import language as vl
from vantage.runs.run import append_metrics, open_run, read_metrics
from vantage.runs.seeds import seed_of
from vantage.training.interface import Update, optimizer_of

SHARED = {
    "updates", "batch", "target_snr", "baseline", "lr", "schedule", "optimizer", "epochs",
    "minibatches", "max_grad_norm", "value", "signal_every", "seed", "out", "resume",
    "checkpoint_seconds", "track", "threads", "progress",
}  # fmt: skip
METRICS = {
    "update", "batch", "return", "length", "entropy", "grad_norm", "learning_rate", "value_loss",
    "explained_variance", "units", "unit", "gradient_squared_norm", "gradient_variance", "snr",
    "noise_scale", "step_time", "optimizer_steps",
}  # fmt: skip


def control(**settings: Any) -> vt.Run:
    env = vt.CartPole(lanes=8)
    settings = {"updates": 3, "fragment": 16, "signal_every": 1, "progress": False} | settings
    return vt.train(env, env.policy((8,)), vt.estimators.ppo(), value=env.value((8,)), **settings)


def language(**settings: Any) -> vt.Run:
    rows = [{"prompt": letter} for letter in "abcdefgh"]

    def even(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    task = vl.Task(rows, even, num_generations=2, held_out=0)
    policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2)
    settings = {"updates": 3, "batch": 8, "signal_every": 1, "progress": False} | settings
    return vl.train(task, policy, vt.estimators.ppo(), value=vl.ValueHead(policy), **settings)


BOTH = pytest.mark.parametrize("train", [control, language])


def test_settings_and_metrics_bear_the_same_names_in_both() -> None:
    for train in (vt.train, vl.train):
        assert set(inspect.signature(train).parameters) >= SHARED
    for run in (control(), language()):
        assert set(run.history[0]) >= METRICS


@BOTH
def test_a_schedule_is_a_name_or_a_function_of_the_share_that_is_done(
    train: Callable[..., vt.Run],
) -> None:
    settings = {"optimizer": partial(torch.optim.SGD, lr=0.5), "updates": 4}
    by_name = [row["learning_rate"] for row in train(schedule="linear", **settings).history]
    assert by_name == [0.5, 0.375, 0.25, 0.125]
    own = train(schedule=lambda done: 1 - done, **settings).history
    assert [row["learning_rate"] for row in own] == by_name
    with pytest.raises(vt.InputError, match="did you mean linear"):
        train(schedule="liner")


@BOTH
def test_a_learning_rate_is_heeded_with_any_optimizer(train: Callable[..., vt.Run]) -> None:
    """`lr` goes before the optimiser's own; where it is left out the optimiser's own stands."""
    sgd = partial(torch.optim.SGD, lr=0.5)
    assert train(optimizer=sgd).history[0]["learning_rate"] == 0.5
    assert train(optimizer=sgd, lr=0.25).history[0]["learning_rate"] == 0.25
    assert train(lr=0.125).history[0]["learning_rate"] == 0.125


@BOTH
def test_epochs_and_minibatches_are_counted_alike(train: Callable[..., vt.Run]) -> None:
    run = train(epochs=3, minibatches=2)
    assert [row["optimizer_steps"] for row in run.history] == [6, 6, 6]


@BOTH
def test_a_bound_on_the_gradient_is_one_on_the_step(train: Callable[..., vt.Run]) -> None:
    """The optimiser sees it; the metric is of the gradient as it was."""
    stepped: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, *rest: Any) -> None:  # type: ignore[override]
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            stepped.append(float(torch.nn.utils.get_total_norm(gradients)))

    settings = {"optimizer": partial(Watched, lr=1.0), "updates": 1, "epochs": 1, "minibatches": 1}
    free = train(max_grad_norm=None, **settings).history[0]["grad_norm"]
    bound = train(max_grad_norm=1e-3, **settings).history[0]["grad_norm"]
    assert bound == free > 1e-3
    assert stepped == pytest.approx([free, 1e-3], rel=1e-3)


def test_two_names_of_one_number_are_refused() -> None:
    assert language(num_iterations=2).history[0]["optimizer_steps"] == 2
    with pytest.raises(vt.InputError, match="two names of one number"):
        language(num_iterations=2, epochs=3)


def test_settings_that_a_rule_does_not_have_are_refused() -> None:
    env = vt.CartPole(lanes=8)
    for settings, message in (
        ({"epochs": 3}, "Natural has no epochs"),
        ({"max_grad_norm": 1.0}, "Natural has no max_grad_norm"),
        ({"lr": 0.1}, "no learning rate"),
        ({"optimizer": torch.optim.SGD}, "no optimiser"),
    ):
        with pytest.raises(vt.InputError, match=message):
            vt.train(
                env, env.policy((8,)), vt.algorithms.trpo(fragment=8), value=env.value((8,)),
                updates=1, progress=False, **settings,
            )  # fmt: skip


class SignAscent:
    """A rule of one's own: a step of fixed size along the sign of ĝ."""

    wants_gradient, fragment, optimizer_steps = True, None, 1

    def check(self, estimator: vt.Estimator) -> None:
        pass

    def optimizers(self, passes: Any, factory: Any, lr: float | None) -> Any:
        return {"policy": optimizer_of(passes.policy.parameters(), torch.optim.SGD, lr)}

    def update(self, passes: Any, optimizers: Any, *rest: Any, gradient: Any, **more: Any) -> Any:
        rate = optimizers["policy"].param_groups[0]["lr"]
        vector = torch.nn.utils.parameters_to_vector(passes.policy.parameters())
        moved = (vector + rate * gradient.sign()).detach()
        torch.nn.utils.vector_to_parameters(moved, passes.policy.parameters())
        return {"grad_norm": float(gradient.norm())}


def test_a_rule_of_ones_own_trains() -> None:
    assert isinstance(SignAscent(), Update)
    env = vt.CartPole(lanes=8)
    policy = env.policy((8,))
    before = torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    run = vt.train(
        env, policy, vt.estimators.reinforce(), update=SignAscent(), lr=0.5, updates=1, batch=8,
        progress=False,
    )  # fmt: skip
    moved = torch.nn.utils.parameters_to_vector(policy.parameters()).detach() - before
    assert bool(((moved.abs() - 0.5).abs() < 1e-6).all())
    assert run.config["update"] == {"class": "SignAscent"}


def test_runs_of_earlier_versions_are_read_under_present_names(tmp_path: Path) -> None:
    open_run(tmp_path, {"seed": 0}, resume=False)
    append_metrics(tmp_path, {"update": 1, "return": 3.0, "gradient_norm": 2.0, "seconds": 0.5})
    append_metrics(
        tmp_path,
        {"update": 2, "reward": 0.5, "completions/mean_length": 7.0, "grad_norm": 1.0,
         "step_time": 0.1, "held_out/reward": 0.25},
    )  # fmt: skip
    control, language = read_metrics(tmp_path)
    assert (control["grad_norm"], control["step_time"]) == (2.0, 0.5)
    assert (language["return"], language["length"], language["eval/return"]) == (0.5, 7.0, 0.25)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["seconds"] == 0.5


def test_seeds_of_different_words_differ() -> None:
    words = [(a, b, c)[:n] for a in range(4) for b in range(4) for c in range(4) for n in (1, 2, 3)]
    assert len({seed_of(*each) for each in words}) == len(set(words))
    assert all(0 <= seed_of(*each) < 2**32 for each in words)
