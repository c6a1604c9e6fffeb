"""Every setting of training changes something, or is refused by its name.

Settings are read from the signatures, and other values from what a setting takes and has: a new one
is tried without a word here. What needs an object, or acts in one kind of run only, stands in a
table, and so does what is not tried, with the reason.
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import pytest
import torch
from torch.optim import SGD

import vantage as vt
from vantage import language as vl
from vantage.conformance.checks import random_batch

TIMES = ("_time", "per_second", "seconds")
NUMBERS: dict[type, tuple[Any, ...]] = {
    bool: (True, False), int: (1, 2, 3, 8), float: (1e-9, 1e-3, 0.1, 0.9, 2.0, 5.0), str: (),
}  # fmt: skip


def others(annotation: Any, default: Any) -> Iterator[Any]:
    """Other values that a setting takes, those near its default first.

    >>> list(others(bool, False)), list(others(int | None, 2))
    ([True], [4, 3, 1, 8])
    """
    kinds = typing.get_args(annotation) or (annotation,)
    words = [typing.get_args(kind) or (kind,) for kind in kinds] if Literal in (
        typing.get_origin(annotation), *map(typing.get_origin, kinds)) else []  # fmt: skip
    named = [word for group in words for word in group if isinstance(word, str)]
    near: list[Any] = []
    if isinstance(default, int | float) and not isinstance(default, bool):
        near = [2 * default, default + 1] + ([default / 2] if isinstance(default, float) else [])
    plain = [value for kind in kinds if isinstance(kind, type) for value in NUMBERS.get(kind, ())]
    yield from dict.fromkeys(
        value for value in [*near, *named, *plain] if value != default and value is not None
    )


Outcome = tuple[Any, ...]


def refused_by_name(run: Callable[..., Outcome], name: str, value: Any) -> Outcome | None:
    """What comes of a value; None where it is refused, by a message that has the setting's name."""
    try:
        return run(**{name: value})
    except vt.InputError as error:
        said = str(error)
    assert name.rstrip("_") in said, f"{name}={value!r} is refused as: {said}"
    return None


def heeded(run: Callable[..., Outcome], name: str, values: Iterable[Any]) -> bool:
    """Whether a value changes what comes of a run, or every value is refused by name."""
    plain, tried, accepted = run(), 0, 0
    for tried, value in enumerate(values, 1):  # noqa: B007
        outcome = refused_by_name(run, name, value)
        accepted += outcome is not None
        if outcome not in (None, plain):
            return True
    assert tried, f"{name}: no other value follows from what it takes; give one in the table"
    return not accepted


def outcome_of(run: vt.Run, *modules: Any) -> Outcome:
    """Metrics without times, files, and weights."""
    rows = [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in run.history]
    files = sorted(
        file.relative_to(run.path).as_posix() for file in run.path.rglob("*") if file.is_dir()
    ) if run.path else None  # fmt: skip
    weights = [p.detach().numpy().tobytes() for m in modules if m for p in m.parameters()]
    return repr(rows), files, weights


# ---- estimators --------------------------------------------------------------------------------

ROWS = [
    (name, setting)
    for name in vt.estimators.TABLE
    for setting in inspect.signature(getattr(vt.estimators, name)).parameters
]


# with what a setting has something to say
BESIDE = {
    "vtrace.remainder": {"lambda_": 0.5},
    "clip_cov.fraction": {"low": 0.0},
    "clip_cov.high": {"low": 0.0},
    "acer.trust_region": {"lr": 0.1},  # Q beyond the returns: advantages of both signs
}
PENALISED = {"beta": 1.0}  # asks for all inputs that a row can


@cache
def batch_of(name: str, seed: int) -> tuple[vt.Batch, Any]:
    """A batch with all that any setting of a row asks for, and rewards of both signs."""
    batch, inputs = random_batch(getattr(vt.estimators, name)(**PENALISED), seed)
    reward = torch.where(batch.mask, batch.reward - seed / 2, 0)
    return replace(batch, reward=reward), inputs


def coefficients(name: str, seed: int, distance: float, **settings: Any) -> list[float]:
    """All that an estimator says of a batch whose policy has moved on by `distance`."""
    row = getattr(vt.estimators, name)(**settings)
    batch, inputs = batch_of(name, seed)
    generator = torch.Generator().manual_seed(seed)

    def moved(by: float) -> torch.Tensor:
        noise = torch.randn(batch.log_prob.shape, generator=generator, dtype=torch.float64)
        return batch.log_prob + by * noise

    log_prob, proximal = moved(distance), moved(distance / 2)
    weights = row.weights(batch, log_prob, **inputs, proximal_log_prob=proximal)
    return torch.stack([weights, row.entropy_weights(batch)]).flatten().tolist()


@pytest.mark.parametrize(("name", "setting"), ROWS)
def test_a_setting_of_an_estimator_is_heeded(name: str, setting: str) -> None:
    parameter = inspect.signature(getattr(vt.estimators, name)).parameters[setting]

    def looks(**changes: Any) -> Outcome:
        settings = BESIDE.get(f"{name}.{setting}", {}) | changes
        return tuple(
            coefficients(name, seed, distance, **settings)
            for distance, seed in ((0.5, 0), (0.5, 1), (1e-4, 0), (2.0, 1), (1.0, 4))
        )

    assert heeded(looks, setting, others(parameter.annotation, parameter.default))


# ---- algorithms --------------------------------------------------------------------------------

SMALL = {
    "fragment": 8, "batch": 4, "epochs": 3, "minibatches": 2, "value_epochs": 2, "phase": 2,
    "begin": 32, "capacity": 48,
}  # fmt: skip
PRESETS = [
    (name, setting)
    for name in vt.algorithms.TABLE
    for setting in vt.algorithms.settings_of(name)
]  # fmt: skip


@cache
def under(name: str, /, **changes: Any) -> Outcome:
    known = vt.algorithms.settings_of(name)
    small = {setting: value for setting, value in SMALL.items() if setting in known}
    algorithm = vt.algorithms.named(name, **(small | changes))
    if name == "ppo_atari":  # its network is one for pictures
        algorithm = algorithm.replace(name="ppo")
    updates = 3 if name == "impala" else 2  # in which a delay is felt
    run = vt.train(
        "tensor/CartPole-v1", algorithm, lanes=4, updates=updates, signal_every=None, progress=False
    )
    return outcome_of(run, run.policy, run.value)


@pytest.mark.parametrize(("name", "setting"), PRESETS)
def test_a_setting_of_an_algorithm_is_heeded(name: str, setting: str) -> None:
    parameter = vt.algorithms.settings_of(name)[setting]
    default = SMALL.get(setting, parameter.default)
    values = others(parameter.annotation, default)
    beside = BESIDE.get(f"{name}.{setting}", {})
    assert heeded(partial(under, name, **beside), setting, values)


# ---- train, in environments --------------------------------------------------------------------

WHERE = "where and when a run is written; tests of resuming compare the bits"
SAME = "changes no bit, which tests show"
CONTROL_EXEMPT = {
    "env": "what is learned in", "policy": "what learns", "estimator": "what weighs",
    "out": WHERE, "resume": WHERE, "checkpoint_seconds": WHERE, "threads": SAME, "track": SAME,
    "progress": "what is shown", "device": "needs another device; test_device.py",
    "environment_timeout": "a limit that faults alone meet; test_faults.py",
    "skip_non_finite": "acts where a number is not finite; test_faults.py",
    "compile": "the same numbers to rounding; test_compiled.py",
}  # fmt: skip


def ppo(**settings: Any) -> Any:
    return ("tensor/CartPole-v1", vt.algorithms.ppo(fragment=16, epochs=2, minibatches=2), settings)


def whole_episodes(**settings: Any) -> Any:
    return ("tensor/CartPole-v1", vt.estimators.reinforce_baseline(), {"batch": 8} | settings)


def in_groups(**settings: Any) -> Any:
    return (vt.MDP.garnet(5, 2, 3, seed=0, termination=0.3, horizon=4), vt.estimators.grpo(),
            {"batch": 24, "group_size": 8} | settings)  # fmt: skip


# setting -> the kind of run in which it acts, and values where its kind does not tell them
CONTROL: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "value": (lambda **s: whole_episodes(**({"value": None} | s)), ("value",)),
    "update": (whole_episodes, (vt.updates.Ascent(lr=0.1),)),
    "batch": (whole_episodes, (4, "auto")),
    "steps": (ppo, (64,)),
    "updates": (ppo, (1, 2)),
    "target_snr": (lambda **s: whole_episodes(**({"batch": "auto", "updates": 2} | s)), (50.0,)),
    "baseline": (whole_episodes, ("auto",)),
    "group_size": (in_groups, (4,)),
    "schedule": (ppo, ("linear", lambda done: 0.5)),
    "optimizer": (ppo, (lambda parameters: SGD(parameters, lr=0.1),)),
    "restart": (ppo, (20,)),
    "evaluation_episodes": (lambda **s: ppo(evaluate_every=1, **s), (4,)),
    "evaluation_env": (lambda **s: ppo(evaluate_every=1, **s), ("tensor/CartPole-v1",)),
    "keep_best": (lambda **s: ppo(out=True, **s), (True,)),
    "keep_last": (lambda **s: ppo(out=True, **s), (1,)),
    "stop_at": (lambda **s: ppo(evaluate_every=1, **s), (1.0,)),
    "callbacks": (ppo, ([lambda state, row: {"more": 1.0}],)),
}


def controlled(name: str, tmp_path: Path, /, **changes: Any) -> Outcome:
    kind = CONTROL.get(name, (ppo, ()))[0]
    where, what, settings = kind(**changes)
    given = {"updates": 3, "lanes": 4, "progress": False} | settings
    if given.get("out"):
        given["out"] = tmp_path / str(len(list(tmp_path.iterdir())))
    if given.get("value") == "value":
        where = vt.make(where, lanes=given.pop("lanes"))
        given["value"] = where.value(seed=5)
    if given.get("evaluation_env"):
        given["evaluation_env"] = vt.Normalized(vt.make(given["evaluation_env"], lanes=3))
    run = vt.train(where, what, **given)
    return outcome_of(run, run.policy, run.value)


CONTROL_SETTINGS = {
    name: parameter
    for name, parameter in inspect.signature(vt.train).parameters.items()
    if name not in CONTROL_EXEMPT
}


@pytest.mark.parametrize("name", CONTROL_SETTINGS)
def test_a_setting_of_training_is_heeded(name: str, tmp_path: Path) -> None:
    parameter = CONTROL_SETTINGS[name]
    values = CONTROL.get(name, (ppo, ()))[1] or others(parameter.annotation, parameter.default)
    assert heeded(partial(controlled, name, tmp_path), name, values)


# ---- train, of language models -----------------------------------------------------------------

LANGUAGE_EXEMPT = {
    "task": "what is learned", "policy": "what learns", "estimator": "what weighs",
    "out": WHERE, "resume": WHERE, "checkpoint_seconds": WHERE, "threads": SAME, "track": SAME,
    "watch": SAME, "progress": "what is shown",
    "engine": "draws by a law of its own; test_language_off_policy.py",
    "token_budget": "no result depends on it; test_language_training.py",
    "environment": "test_language_environment.py", "turns": "test_language_environment.py",
    "environment_timeout": "a limit that faults alone meet; test_faults.py",
    "skip_non_finite": "acts where a number is not finite; test_faults.py",
    "shared_prompts": "the same gradient, to rounding; test_language_training.py",
}  # fmt: skip


def uneven(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
    return [float(sum(ids) % 2) + len(ids) for ids in completion_ids]


def alike(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
    return [float(ids[0] % 3 == 0) for ids in completion_ids]


def spoken(estimator: Any = None, reward: Any = uneven, head: bool = False, **settings: Any) -> Any:
    rows = [{"prompt": letter} for letter in "abcdefghijklmnop"]
    task = vl.Task(rows, reward, num_generations=2, held_out=0.25, name="letters")
    policy = vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)
    value = vl.ValueHead(policy) if head else None
    if settings.get("reference") == "reference":
        settings["reference"] = vl.tiny.policy(
            hidden=16, layers=1, heads=2, max_completion_length=3, seed=7
        )
    if settings.get("value") == "value":
        value = settings.pop("value") and vl.ValueHead(policy)
    given = {"updates": 3, "batch": 8, "lr": 1e-2, "progress": False} | settings
    run = vl.train(task, policy, estimator or vt.estimators.rloo(), value=value, **given)
    return outcome_of(run, policy, value)


LANGUAGE: dict[str, tuple[Mapping[str, Any], tuple[Any, ...]]] = {
    "updates": ({}, (2,)),
    "batch": ({}, (4, "auto")),
    "target_snr": ({"batch": "auto"}, (50.0,)),
    "baseline": ({}, ("auto",)),
    "baseline_every": ({"baseline": "auto"}, (1,)),
    "schedule": ({}, ("linear",)),
    "optimizer": ({"lr": None}, (lambda parameters: SGD(parameters, lr=0.1),)),
    "reference": ({"estimator": vt.estimators.rloo(beta=0.5)}, ("reference",)),
    "value": ({}, ("value",)),
    "value_coefficient": ({"head": True, "estimator": vt.estimators.reinforce_baseline()}, (5.0,)),
    "resample_dead_groups": ({"reward": alike}, (1,)),
    "signal_every": ({}, (0, 2)),
    "decompose_every": ({}, (0, 1)),
    "keep_best": ({"out": True}, (True,)),
    "keep_last": ({"out": True}, (1,)),
    "stop_at": ({"evaluate_every": 1}, (0.1,)),
    "callbacks": ({}, ([lambda state, row: {"more": 1.0}],)),
}
LANGUAGE_SETTINGS = {
    name: parameter
    for name, parameter in inspect.signature(vl.train).parameters.items()
    if name not in LANGUAGE_EXEMPT
}


@pytest.mark.parametrize("name", LANGUAGE_SETTINGS)
def test_a_setting_of_training_a_language_model_is_heeded(name: str, tmp_path: Path) -> None:
    base, given = LANGUAGE.get(name, ({}, ()))
    parameter = LANGUAGE_SETTINGS[name]

    def run(**changes: Any) -> Outcome:
        settings = {**base, **changes}
        if settings.get("out"):
            settings["out"] = tmp_path / str(len(list(tmp_path.iterdir())))
        return spoken(**settings)

    values = given or others(parameter.annotation, parameter.default)
    assert heeded(run, name, values)


# ---- the tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "exempt", "table"),
    [(vt.train, CONTROL_EXEMPT, CONTROL), (vl.train, LANGUAGE_EXEMPT, LANGUAGE)],
)
def test_the_tables_name_settings_that_there_are(train: Any, exempt: Any, table: Any) -> None:
    known = set(inspect.signature(train).parameters)
    assert set(exempt) | set(table) <= known
    assert not set(exempt) & set(table)


def test_a_setting_that_is_ignored_is_seen() -> None:
    """A search that cannot fail would find nothing."""

    def run(ignored: float = 1.0, heard: float = 1.0) -> Outcome:
        return (heard,)

    assert heeded(run, "heard", [2.0])
    assert not heeded(run, "ignored", [2.0, 3.0])
    with pytest.raises(AssertionError, match="no other value"):
        heeded(run, "ignored", [])
    assert list(islice(others(float, 1.0), 2)) == [2.0, 0.5]
    assert not list(others(object, None))
    assert not list(others(NoneType, None))
