"""The house: rooms import one another in the order that the documentation states, in no circle."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vantage as vt
from vantage import language

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vantage"
LANGUAGE = ["model", "tasks", "sampling", "scoring", "training", "auditing", "transcripts"]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60

# A file or function may be longer where the reason is given here.
LONG_FILES = {
    "estimators/table.py": "one row after another, each a paragraph: the table is read as a whole",
    "training/algorithms.py": "one published algorithm after another, each mostly its settings",
}
LONG_FUNCTIONS = {
    # the docstring of a public function explains every argument
    "auditing/audit.py:audit",
    "comparing/compare.py:compare",
    "environments/contract.py:contract",
    "language/auditing/audit.py:audit",
    "language/auditing/group_size.py:group_sizes",
    "language/sampling/continuous_batching.py:generate",
    "language/sampling/rollout.py:rollout",
    "language/training/train.py:train",
    "training/loop.py:train",
    "environments/fitted.py:policy",
    "environments/fitted.py:value",
    # a command declares an argument a line, and `--help` is made of them
    "commands/audit.py:audit",
    "commands/audit_language.py:audit_lm",
    "commands/compare.py:compare_command",
    "commands/train.py:train",
    "commands/train_tiny.py:tiny_command",
}


PUBLIC = {
    "LQR",
    "MDP",
    "Acrobot",
    "Batch",
    "Bernoulli",
    "CartPole",
    "Categorical",
    "EnvPool",
    "Environment",
    "Estimator",
    "Evaluation",
    "Examination",
    "Gaussian",
    "Gymnasium",
    "InputError",
    "NonFiniteError",
    "MountainCar",
    "MountainCarContinuous",
    "MultiCategorical",
    "Normalized",
    "Pendulum",
    "Policy",
    "Recurrent",
    "Report",
    "Run",
    "Signal",
    "SoftmaxTable",
    "SquashedGaussian",
    "Tabular",
    "Value",
    "aggregates",
    "algorithms",
    "audit",
    "baselines",
    "compare",
    "conformance",
    "estimators",
    "evaluate",
    "exact",
    "gradient",
    "importance",
    "load",
    "make",
    "penalties",
    "ratios",
    "read_run",
    "record_video",
    "returns",
    "row_gradients",
    "scales",
    "schedules",
    "train",
    "tuned",
    "updates",
    "verify",
    "averages",
    "columns",
}
PUBLIC_LANGUAGE = {
    "Completions",
    "Conformance",
    "ContinuousBatching",
    "Decoding",
    "Engine",
    "Evaluation",
    "GroupSize",
    "GroupSizes",
    "Policy",
    "RewardCheck",
    "RewardError",
    "Rewards",
    "Rollout",
    "SamplingLaw",
    "Task",
    "ValueHead",
    "audit",
    "check_reward",
    "conformance",
    "enumerated",
    "evaluate",
    "expectation",
    "generate",
    "group_sizes",
    "read_transcripts",
    "recorder",
    "reward_model",
    "rollout",
    "tiny",
    "tiny_tasks",
    "train",
    "verifiers",
    "warm_up",
}


def dotted(path: Path) -> str:
    """The name by which a module is imported."""
    name = ".".join(("vantage", *path.relative_to(SOURCE).with_suffix("").parts))
    return name.removesuffix(".__init__")


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by dotted name."""
    return {
        dotted(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def imports(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """The modules of the package that a module imports, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in names else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def edges_of(tree: ast.Module) -> set[str]:
    """The modules of the package that a module of it imports."""
    targets = imports(tree, set(modules()))
    return {each for each in targets if each == "vantage" or each.startswith("vantage.")}


@functools.cache
def graph() -> dict[str, set[str]]:
    return {name: edges_of(tree) for name, tree in modules().items()}


def stated_order() -> list[str]:
    """The rooms of the reading order, from the first column of its table."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    table = text.split("## Reading order", 1)[1]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.M)
    return [room.rstrip("/") for cell in cells for room in re.findall(r"`(.*?)`", cell)]


def against_the_order(edges: dict[str, set[str]], rooms: list[str]) -> list[str]:
    place = {room: number for number, room in enumerate(rooms)}
    inner = {room: number for number, room in enumerate(LANGUAGE)}
    wrong = []
    for name, targets in edges.items():
        for target in sorted(targets):
            here, there = name.split(".")[1:], target.split(".")[1:]
            if not here:
                continue  # the package itself imports every room
            if not there or place[there[0]] > place[here[0]]:
                wrong.append(f"{name} imports {target}")
            elif here[0] == there[0] == "language" and len(here) > 2:
                below = inner.get(there[1], -1) if len(there) > 1 else len(LANGUAGE)
                if below > inner[here[1]]:
                    wrong.append(f"{name} imports {target}")
    return wrong


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Modules that can be reached from themselves.

    An import of a package counts as an import of what its `__init__` imports, unless the importer
    stands inside that package: it then runs before the rest of it.
    """
    reach: dict[str, set[str]] = {}
    for start in edges:
        pending, reached = list(edges[start]), set()
        while pending:
            name = pending.pop()
            if name in reached or name not in edges or start.startswith(f"{name}."):
                continue
            reached.add(name)
            pending.extend(edges[name])
        reach[start] = reached
    return sorted(name for name, reached in reach.items() if name in reached)


def test_rooms_import_in_the_order_of_reading() -> None:
    rooms = stated_order()
    here = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(rooms) == here - {"__init__", "__pycache__", "py", "citations"}
    assert against_the_order(graph(), rooms) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(graph()) == []


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("estimators/returns.py", "from vantage.training import loop", "returns imports"),
        ("batch.py", "def f():\n    from vantage.exact.mdp import MDP", "batch imports"),
        ("policies/policy.py", "import vantage", "policy imports vantage"),
        ("language/model/law.py", "from vantage.language.scoring import scoring", "law imports"),
        ("language/tasks/task.py", "from vantage.language import Task", "task imports"),
    ],
)
def test_an_import_against_the_order_is_seen(file: str, line: str, message: str) -> None:
    text = (SOURCE / file).read_text(encoding="utf-8")
    changed = {dotted(SOURCE / file): edges_of(ast.parse(f"{text}\n{line}\n"))}
    wrong = against_the_order(graph() | changed, stated_order())
    assert len(wrong) == 1
    assert message in wrong[0]


def test_a_circle_is_seen() -> None:
    edges = {"vantage.a": {"vantage.b"}, "vantage.b": {"vantage.c"}, "vantage.c": {"vantage.b"}}
    assert circles(edges) == ["vantage.b", "vantage.c"]


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    long_files, long_functions = set(), set()
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE:
            long_files.add(name)
        for node in ast.walk(modules()[dotted(path)]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                    long_functions.add(f"{name}:{node.name}")
    assert long_files == set(LONG_FILES)
    assert long_functions == LONG_FUNCTIONS


def test_public_names_stay() -> None:
    """What was once public is never taken away silently; new names are free to come."""
    assert set(vt.__all__) >= PUBLIC
    assert set(language.__all__) >= PUBLIC_LANGUAGE
    assert all(hasattr(vt, name) for name in vt.__all__)
    assert all(hasattr(language, name) for name in language.__all__)
    assert set(vt.estimators.TABLE) <= set(vt.estimators.__all__)


def test_what_an_argument_is_is_said_by_a_noun() -> None:
    """No `seed: of the weights.`, which only a reader of the signature completes."""
    fragment = re.compile(r"^ +[a-z_0-9]+: of ", re.MULTILINE)
    found = [
        f"{path.relative_to(SOURCE)}: {match.group().strip()}"
        for path in SOURCE.rglob("*.py")
        for match in fragment.finditer(path.read_text("utf-8"))
    ]
    assert not found, found
