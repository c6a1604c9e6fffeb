"""Break the source on purpose, one piece at a time, and see whether a test turns red.

    python benchmarks/mutations.py border mathematics     the lists of that name
    python benchmarks/mutations.py sample --count 100     random ones of the mathematics

A list holds pieces of source and what stands in their place. A sample is drawn with a fixed seed
from all places in estimators/, statistics/, exact/ and gradients/ where an operator, a comparison
or a number can be changed; it meets the test files of its module. Mutants are put into a copy of
the tree; what survives all tests of its kind is a missing test, or code that makes no difference.
Results go to benchmarks/results/mutations.json after every mutant, and what is there is not tried
again while source and tests of it are the same.
"""

import ast
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from machines import processor
from mutations_border import M as BORDER
from mutations_mathematics import MATHEMATICS

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "mutations.json"
SOURCE = Path("src") / "vantage"


class Mutation(NamedTuple):
    """One piece of source and what stands in its place, and the tests that should see it.

    Attributes:
        kind: what it is of, for people.
        file: in src/vantage.
        before, after: the piece, the first of its like in the file; or, of a sample, after `place`.
        tests: files, and an expression for pytest -k.
        place: where in the file the piece begins, in characters; -1: wherever it is first.
    """

    kind: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    chosen: str = ""
    place: int = -1


def border() -> list[Mutation]:
    """What stands between environments and the package."""
    files = ("tests/test_border.py", "tests/test_arguments.py")
    rows = []
    for kind, file, before, after, chosen in BORDER:
        path = (SOURCE / "environments" / file).as_posix()
        relative = os.path.relpath(path, SOURCE)
        rows.append(Mutation(kind, relative, before, after, files, chosen))
    return rows


def mathematics() -> list[Mutation]:
    """What estimators, statistics and update rules were once seen to survive."""
    return [Mutation(*row) for row in MATHEMATICS]


LISTS = {"border": border, "mathematics": mathematics}


# ---- random mutants ----------------------------------------------------------------------------

# module -> the few test files that are of it; a module's own examples are tests of it too
TESTS = {
    "estimators": (
        "test_returns.py", "test_by_hand.py", "test_estimators.py", "test_published_rows.py",
        "test_selections.py",
    ),
    "estimators/baselines.py": ("test_baselines.py", "test_estimators.py"),
    "estimators/shrinkage.py": ("test_baselines.py", "test_estimators.py"),
    "estimators/table.py": ("test_estimators.py", "test_exact_enumeration.py"),
    "exact": ("test_exact_solve.py", "test_exact_moments.py", "test_mdp.py"),
    "exact/enumeration.py": ("test_exact_enumeration.py",),
    "exact/gaussian.py": ("test_exact_gaussian.py",),
    "exact/row_moments.py": ("test_row_moments.py",),
    "exact/values_ahead.py": ("test_row_moments.py",),
    "exact/to_go.py": ("test_row_moments.py",),
    "exact/total.py": ("test_row_moments.py",),
    "gradients": ("test_gradients.py", "test_trajectory_gradients.py"),
    "gradients/mlp_passes.py": ("test_passes.py",),
    "gradients/passes.py": ("test_passes.py",),
    "gradients/linear_layers.py": ("test_linear_layers.py",),
    "statistics": ("test_intervals.py", "test_signal.py"),
    "statistics/signal.py": ("test_signal.py", "test_gradients.py"),
    "statistics/pieces.py": ("test_signal.py", "test_monitor.py"),
}  # fmt: skip
LEFT_OUT = ("figures.py", "kinds.py", "listing.py", "__init__.py")  # pictures and words
OPERATORS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.Lt: "<=",
    ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.And: "or",
    ast.Or: "and",
}  # fmt: skip


def every_mutant() -> list[Mutation]:
    """All places in the mathematics where one token can be another."""
    mutants = []
    for room in ("estimators", "statistics", "exact", "gradients"):
        for path in sorted((ROOT / SOURCE / room).glob("*.py")):
            if path.name in LEFT_OUT:
                continue
            file = path.relative_to(ROOT / SOURCE).as_posix()
            files = tuple(f"tests/{name}" for name in TESTS.get(file, TESTS[room]))
            own = (SOURCE / file).as_posix()
            text = path.read_text()
            mutants += [
                Mutation("sample", file, before, after, (*files, own), place=place)
                for place, before, after in changes(text)
            ]
    return mutants


def changes(text: str) -> Iterator[tuple[int, str, str]]:
    """(place, before, after) of every change of one token; words and annotations are left alone.

    >>> sorted(changes("y = 2 * x\\n"))
    [(4, '2', '3'), (5, ' * ', ' / ')]
    """
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw = text.encode()

    def between(left: Any, right: Any) -> tuple[int, str]:
        begin = starts[left.end_lineno - 1] + left.end_col_offset
        end = starts[right.lineno - 1] + right.col_offset
        return len(raw[:begin].decode()), raw[begin:end].decode()

    for node in _looked_at(ast.parse(text)):
        pairs: list[tuple[Any, Any, Any]] = []
        if isinstance(node, ast.BinOp):
            pairs = [(node.left, node.op, node.right)]
        elif isinstance(node, ast.Compare):
            lefts = [node.left, *node.comparators]
            pairs = list(zip(lefts, node.ops, node.comparators, strict=False))
        elif isinstance(node, ast.BoolOp):
            pairs = [(a, node.op, b) for a, b in zip(node.values, node.values[1:], strict=False)]
        for left, operator, right in pairs:
            place, piece = between(left, right)
            sign = _SIGNS.get(type(operator), "")
            if piece.count(sign) == 1 and type(operator) in OPERATORS:
                yield place, piece, piece.replace(sign, OPERATORS[type(operator)])
        if isinstance(node, ast.Constant):
            number = node.value
            if isinstance(number, int | float) and not isinstance(number, bool):
                begin = starts[node.lineno - 1] + node.col_offset
                place = len(raw[:begin].decode())
                yield place, ast.get_source_segment(text, node) or "", repr(number + 1)


_SIGNS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.Lt: "<",
    ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.And: "and",
    ast.Or: "or",
}  # fmt: skip


def _looked_at(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but annotations, words of messages, decorators and imports."""
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list") or isinstance(
            tree, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Raise
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _looked_at(child)


# ---- tests in a process of their own -----------------------------------------------------------


def survives(mutation: Mutation, tree: Path, seconds: float) -> str:
    """ "survives" where all tests of it pass, else "killed", or "killed by time"."""
    file = (tree / SOURCE / mutation.file).resolve()
    text = file.read_text()
    place = mutation.place if mutation.place >= 0 else text.find(mutation.before)
    if place < 0 or not text.startswith(mutation.before, place):
        raise SystemExit(f"{mutation.file} has no {mutation.before!r} there: mend the list.")
    file.write_text(text[:place] + mutation.after + text[place + len(mutation.before) :])
    try:
        code = _tested(mutation, tree, seconds)
    finally:
        file.write_text(text)
    return {0: "survives", None: "killed by time"}.get(code, "killed")


def _tested(mutation: Mutation, tree: Path, seconds: float) -> int | None:
    """pytest's exit code; None where it took too long."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.chdir(tree)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            sys.path.insert(0, str(tree / "src"))
            sys.dont_write_bytecode = True
            import pytest

            chosen = ["-k", mutation.chosen] if mutation.chosen else []
            # tyro has loaded typeguard, which brings a plugin of pytest's
            plain = [
                "-x",
                "-p",
                "no:cacheprovider",
                "-W",
                "ignore::pytest.PytestAssertRewriteWarning",
            ]
            code = int(pytest.main([*plain, *mutation.tests, *chosen]))
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return None


def identity(mutation: Mutation) -> str:
    """Of a mutant with the source and the tests that it meets."""
    digest = hashlib.sha256(repr(mutation).encode())
    for name in ((SOURCE / mutation.file).as_posix(), *mutation.tests):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def main(
    themes: tyro.conf.Positional[tuple[str, ...]],
    count: int = 100,
    seed: int = 0,
    minutes: float = float("inf"),
    seconds: float = 300.0,
    results: Path = RESULTS,
) -> None:
    """Try mutants, and write which of them a test saw.

    Args:
        themes: border, mathematics, sample.
        count: mutants of a sample.
        seed: of the sample.
        minutes: after which to stop.
        seconds: that the tests of one mutant may take; longer counts as killed, and is told apart.
    """
    until = time.monotonic() + 60 * minutes
    held = json.loads(results.read_text()) if results.exists() else {"rows": {}}
    sound: set[tuple[tuple[str, ...], str]] = set()  # tests that pass on the source as it is
    for name in PRELOADED:
        __import__(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name in ("src", "tests", "benchmarks", "docs", "examples"):
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, tree / name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, tree)
        for theme in themes:
            if theme == "sample":
                mutants = every_mutant()
                random.Random(seed).shuffle(mutants)
                mutants = mutants[:count]
            else:
                mutants = LISTS[theme]()
            for mutation in mutants:
                key = identity(mutation)
                if key in held["rows"]:
                    continue
                if time.monotonic() > until:
                    return
                met = (mutation.tests, mutation.chosen)
                if met not in sound:
                    if _tested(mutation, tree, 2 * seconds) != 0:
                        raise SystemExit(f"{met} fails, or takes long, without a mutation.")
                    sound.add(met)
                outcome = survives(mutation, tree, seconds)
                held["rows"][key] = {"theme": theme, "outcome": outcome, **mutation._asdict()}
                write(results, held)
                print(f"{outcome:15} {mutation.file}: {mutation.before!r} -> {mutation.after!r}",
                      flush=True)  # fmt: skip


PRELOADED = (
    "torch",
    "scipy.stats",
    "numpy",
    "pytest",
    "gymnasium",
    "matplotlib.figure",
)


def write(results: Path, held: dict[str, Any]) -> None:
    """Results with their counts by theme; reasons that people gave for survivors stay."""
    themes: dict[str, dict[str, int]] = {}
    for row in held["rows"].values():
        tally = themes.setdefault(row["theme"], {"tried": 0, "killed": 0})
        tally["tried"] += 1
        tally["killed"] += row["outcome"] != "survives"
    plain = {
        "command": "python benchmarks/mutations.py border mathematics sample",
        "processor": processor(),
        "themes": themes,
        "rows": held["rows"],
    }
    results.parent.mkdir(exist_ok=True)
    new = results.with_name(results.name + ".new")
    new.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    new.replace(results)


if __name__ == "__main__":
    tyro.cli(main)
