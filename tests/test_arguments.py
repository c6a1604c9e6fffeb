"""Numbers given to public functions are held to their annotations before anything is done."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import vantage as vt
from vantage import language
from vantage.arguments import checked, kinds_of

NAN = float("nan")
WRONG: dict[Any, tuple[Any, ...]] = {
    int: (1.5, NAN, "three", object()),
    float: (NAN, "three", object()),
    bool: ("yes", 2, NAN),
}
TRUTHS = (True, np.True_)  # no numbers, though Python counts them among the whole ones
# Records of results, which nobody makes by hand, and Protocols.
RESULTS = {
    "InputError", "NonFiniteError", "RewardError",
    "Environment", "Evaluation", "Examination", "Report", "Run", "RunState", "Signal",
    "Completions", "Conformance", "GroupSize", "GroupSizes", "RewardCheck", "Rollout",
}  # fmt: skip


def _public() -> Iterator[tuple[str, Callable[..., Any], str]]:
    for module in (vt, language, vt.updates):
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            if not callable(thing) or name in RESULTS or name.startswith("_"):
                continue
            function = inspect.unwrap(thing)
            for parameter in inspect.signature(function).parameters.values():
                if kinds_of(parameter.annotation):
                    yield f"{module.__name__}.{name}", thing, parameter.name


PUBLIC = list(_public())


@pytest.mark.parametrize(
    ("function", "name"), [each[1:] for each in PUBLIC], ids=[f"{a}-{c}" for a, _, c in PUBLIC]
)
def test_a_number_of_another_kind_is_refused_by_name(function: Any, name: str) -> None:
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    needed = {k: each for k, each in parameters.items() if each.default is each.empty}
    right = {k: 1 if kinds_of(each.annotation) else object() for k, each in needed.items()}
    kinds = kinds_of(parameters[name].annotation)
    wrong = WRONG[next(kind for kind in (float, int, bool) if kind in kinds)]
    for value in wrong + (() if bool in kinds else TRUTHS):
        given = right | {name: value}
        first = [
            given.pop(k)
            for k, each in needed.items()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.POSITIONAL_ONLY)
        ]
        rest = {
            k: v
            for k, v in given.items()
            if parameters[k].kind is not inspect.Parameter.VAR_KEYWORD
        }
        with pytest.raises(vt.InputError, match=f"{name}="):
            function(*first, **rest)


def test_there_is_something_to_check() -> None:
    assert len(PUBLIC) > 60


def test_a_seed_is_a_whole_number_from_0() -> None:
    env = vt.make("CartPole-v1", lanes=2)
    with pytest.raises(vt.InputError, match="seed=-1 must be a whole number from 0"):
        vt.evaluate(env, env.policy(), 2, seed=-1)
    with pytest.raises(vt.InputError, match="seed=-1"):
        vt.train(env, "ppo", updates=1, seed=-1, progress=False)


def test_a_number_beyond_all_floats_is_refused() -> None:
    with pytest.raises(vt.InputError, match="lr="):
        vt.train("CartPole-v1", "ppo", updates=1, lr=10**400, progress=False)


def test_numbers_of_numpy_and_whole_floats_become_pythons() -> None:
    @checked
    def given(count: int, share: float = 0.5, name: str = "") -> list[type]:
        return [type(count), type(share)]

    assert given(np.int64(3), np.float32(0.5)) == [int, float]
    assert given(1e6) == [int, float]
    assert given(1, 1) == [int, int]
    with pytest.raises(TypeError, match="missing"):
        given()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("column", "settings"),
    [
        (vt.returns.gae, {"lambda_": 1.5}),
        (vt.returns.gae, {"lambda_": -0.1}),
        (vt.returns.gae, {"lambda_": NAN}),
        (vt.returns.n_step, {"n": 0}),
        (vt.returns.n_step, {"n": 2.5}),
        (vt.returns.n_step, {"n": float("inf")}),
        (vt.returns.vtrace, {"rho_max": 0.0}),
        (vt.returns.vtrace, {"c_max": -1.0}),
        (vt.returns.vtrace, {"lambda_": 2.0}),
    ],
)
def test_settings_of_a_column_that_mean_nothing_are_refused(column: Any, settings: Any) -> None:
    (name,) = settings
    with pytest.raises(vt.InputError, match=f"{name}="):
        vt.Estimator(returns=partial(column, **settings))


def test_settings_of_published_rows_are_held_to_the_same() -> None:
    for row, settings in (
        (vt.estimators.ppo, {"epsilon": -0.2}),
        (vt.estimators.a2c, {"entropy": NAN}),
        (vt.estimators.vtrace, {"lambda_": 3.0}),
    ):
        with pytest.raises(vt.InputError, match="="):
            row(**settings)  # type: ignore[operator]
    assert vt.estimators.vtrace(rho_max=float("inf")).name == "vtrace"
