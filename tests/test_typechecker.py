"""Shapes and types are checked on the first calls of every function, in every test anew."""

import pytest
import torch
import typechecker
from jaxtyping import TypeCheckError

import vantage as vt
from vantage.environments.rollout import episodes


@pytest.mark.parametrize("test", [1, 2])
def test_every_test_checks_the_first_calls_of_a_function(test: int) -> None:
    """It rests after them, and is checked again in the test that follows."""
    mdp = vt.MDP.article()
    env = vt.Tabular(mdp, lanes=2)
    batch = episodes(env, vt.SoftmaxTable(mdp.observations, 2), 2, seed=0)
    for _ in range(typechecker.CALLS - 1):
        assert vt.returns.to_go(batch).shape == batch.reward.shape
    with pytest.raises(TypeCheckError, match="to_go"):
        vt.returns.to_go(torch.zeros(3))  # type: ignore[arg-type]
    vt.returns.to_go(batch)
    with pytest.raises(AttributeError, match="mask"):
        vt.returns.to_go(torch.zeros(3))  # type: ignore[arg-type]


def test_functions_within_functions_rest_too() -> None:
    """They have no name that leads to them: their check is passed over instead."""

    def asked(number: int) -> None:
        pass

    check = typechecker.check(asked)
    for _ in range(2 * typechecker.CALLS):
        check(1)
    assert check("text") is None
    typechecker.pytest_runtest_setup()
    with pytest.raises(Exception, match="number"):
        check("text")
