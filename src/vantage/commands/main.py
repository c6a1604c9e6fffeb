"""The command line: `vantage train | check | audit | verify | exact | evaluate | compare | ...`.

Each command calls the public API; `main` turns bad input into one line and a failure. Only the
command that is asked for is imported: of the others, `--help` reads the docstrings.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from vantage.commands.arguments import prepared, refuse_foreign_names
from vantage.errors import InputError
from vantage.version import __version__

# The module of `vantage.commands` and the function in it that each command is.
COMMANDS = {
    "train": ("train", "train"),
    "check": ("check", "check"),
    "audit": ("audit", "audit"),
    "verify": ("verify", "verify_command"),
    "exact": ("exact", "exact_command"),
    "evaluate": ("train", "evaluate"),
    "compare": ("compare", "compare_command"),
    "estimators": ("tables", "estimators"),
    "algorithms": ("tables", "algorithms"),
    "transcripts": ("language", "transcripts"),
    "report": ("report", "report_command"),
    "play": ("play", "play"),
}


def loaded(name: str) -> Callable[..., None]:
    """The function of a command; its module is imported."""
    module, function = COMMANDS[name]
    command: Callable[..., None] = getattr(import_module(f"vantage.commands.{module}"), function)
    return command


def listed(name: str) -> Callable[..., None]:
    """What `--help` shows of a command that is not imported: a function with its docstring."""
    module, function = COMMANDS[name]
    source = files("vantage.commands").joinpath(f"{module}.py").read_text(encoding="utf-8")
    (definition,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )

    def command() -> None:
        raise AssertionError(f"vantage {name}: listed and not loaded")

    command.__doc__ = ast.get_docstring(definition)
    return command


def dispatch(arguments: list[str]) -> None:
    """Run the command that these words name."""
    name = arguments[0] if arguments else ""
    if name in ("train", "audit"):
        from vantage.commands import language

        if language.dispatch(arguments):
            return
    refuse_foreign_names(name, arguments)
    import tyro

    tyro.extras.subcommand_cli_from_dict(
        {command: (loaded if command == name else listed)(command) for command in COMMANDS},
        args=arguments,
        prog="vantage",
        description="Policy gradients you can see.",
    )


def main() -> None:
    """Entry point of the `vantage` command."""
    # modules of one's own lie where the command is given; last, so that they hide nothing
    sys.path.append(str(Path.cwd()))
    try:
        arguments = prepared(sys.argv[1:])
        if arguments in (["--version"], ["version"]):
            print(f"vantage {__version__}")
            return
        dispatch(arguments)
    except InputError as error:
        from vantage.runs.terminal import printable

        notes = getattr(error, "__notes__", [])
        print(printable(" ".join([f"vantage: {error}", *notes])), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
