"""What `import vantage` and the command line load, and when: nothing before it is used."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import vantage as vt
from vantage.commands import main as console

SOURCE = Path(vt.__file__)
HEAVY = [
    "torch", "torch._dynamo", "sympy", "scipy.sparse", "scipy.stats", "gymnasium", "matplotlib",
    "transformers", "rich",
]  # fmt: skip


def loaded(code: str) -> set[str]:
    """The heavy modules that are in memory after this code, in an interpreter of its own."""
    script = f"{code}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)), sep='\\n')"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.split("loaded:")[-1].split())


GRADIENTS = """
import vantage as vt
vt.gradient, vt.estimators.rloo(), vt.Monitor, vt.verify, vt.Categorical
mdp = vt.MDP.article()
vt.exact.objective(mdp, vt.SoftmaxTable(mdp.observations, mdp.actions))
"""
# torch's compiler and its algebra take a second or two to load, and nothing here is compiled
PPO = """
import vantage as vt
algorithm = vt.algorithms.ppo(fragment=8, minibatches=2)
vt.train("CartPole-v1", algorithm, updates=2, progress=False)
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import vantage; vantage.InputError, vantage.__version__, dir(vantage)", set()),
        (GRADIENTS, {"torch"}),
        ("import vantage as vt; vt.train, vt.audit, vt.CartPole", {"torch", "gymnasium", "rich"}),
        (PPO, {"torch", "gymnasium", "rich"}),
        ("import vantage, scipy.stats", {"scipy.sparse", "scipy.stats"}),
    ],
    ids=["import", "gradients", "train", "ppo", "what is loaded is seen"],
)
def test_what_is_not_used_is_not_loaded(code: str, expected: set[str]) -> None:
    assert loaded(code) == expected


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["trian"]])
def test_help_and_refusals_need_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {['vantage', *arguments]!r}; "
        "from vantage.commands.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('loaded:')"
    )
    assert loaded(code) <= {"rich"}


def test_commands_are_listed_with_their_docstrings() -> None:
    for name in console.COMMANDS:
        assert console.listed(name).__doc__ == inspect.getdoc(console.loaded(name))
        with pytest.raises(AssertionError, match=f"vantage {name}: listed and not loaded"):
            console.listed(name)()


def test_every_public_name_has_one_home() -> None:
    """What a type checker reads, what is loaded, and `__all__` are one list."""
    blocks = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    read = sorted((str(node.module), name.name) for node in imports for name in node.names)
    homes = sorted((home, name) for home, names in vt.HOMES.items() for name in names.split())
    assert read == homes
    assert sorted(vt.__all__) == sorted(["__version__", *(name for _, name in homes)])
    for home, name in homes:
        if home == "vantage":
            assert getattr(vt, name) is import_module(f"vantage.{name}")
        else:
            assert getattr(vt, name) is getattr(import_module(home), name)


def test_names_that_are_not_there_are_refused() -> None:
    assert not hasattr(vt, "reinforce_plus_minus")
    with pytest.raises(AttributeError, match="has no attribute 'Cartpole'"):
        vt.Cartpole  # type: ignore[attr-defined]  # noqa: B018
    assert vt.environments.CartPole is vt.CartPole  # type: ignore[attr-defined]
