"""The command line: `vantage train | check | audit | verify | exact | evaluate | compare | ...`.

Each command calls the public API; `main` turns bad input into one line and a failure.
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from vantage.commands import exact as exact_console
from vantage.commands import language as language
from vantage.commands.arguments import prepared, refuse_foreign_names
from vantage.commands.audit import audit
from vantage.commands.check import check
from vantage.commands.compare import compare_command
from vantage.commands.play import play
from vantage.commands.train import evaluate, train
from vantage.commands.verify import verify_command
from vantage.errors import InputError
from vantage.estimators import listing as estimator_table
from vantage.runs.progress import terminal
from vantage.runs.terminal import printable
from vantage.training import listing as algorithm_listing
from vantage.version import __version__


def exact(
    world: Positional[str],
    discount: float | None = None,
    horizon: int | None = None,
    figure: Path | None = None,
) -> None:
    """Print J, its gradient, variances and best baselines of a tabular problem, without sampling.

    Args:
        world: article, corridor, or a Gymnasium id with a table of transitions.
        discount: γ of an environment; 1 by default.
        horizon: length of an environment's episodes, if it is limited.
        figure: also draw the problem there (PNG, SVG or PDF).
    """
    exact_console.run(world, discount=discount, horizon=horizon, figure=figure, console=terminal)


def estimators(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None) -> None:
    """Print the table of estimators, or explain a row or a column of it.

    Args:
        name: a row or a column, such as rloo, gae or baselines.value.
    """
    terminal.print(estimator_table.table() if name is None else estimator_table.explain(name))


def algorithms(name: Annotated[Positional[str | None], arg(metavar="NAME")] = None) -> None:
    """Print the table of algorithms, or explain one: what it was published with, its settings.

    Args:
        name: an algorithm of the table; or "tuned", for the settings that are known to work,
            environment by environment.
    """
    if name == "tuned":
        terminal.print(algorithm_listing.tuned_table())
    else:
        view = algorithm_listing.table() if name is None else algorithm_listing.explain(name)
        terminal.print(view)


def main() -> None:
    """Entry point of the `vantage` command."""
    # modules of one's own lie where the command is given; last, so that they hide nothing
    sys.path.append(str(Path.cwd()))
    try:
        arguments = prepared(sys.argv[1:])
        if arguments in (["--version"], ["version"]):
            print(f"vantage {__version__}")
            return
        if language.dispatch(arguments):
            return
        refuse_foreign_names(arguments[0] if arguments else "", arguments)
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": train,
                "check": check,
                "audit": audit,
                "verify": verify_command,
                "exact": exact,
                "evaluate": evaluate,
                "compare": compare_command,
                "estimators": estimators,
                "algorithms": algorithms,
                "transcripts": language.transcripts,
                "play": play,
            },
            args=arguments,
            prog="vantage",
            description="Policy gradients you can see.",
        )
    except InputError as error:
        notes = getattr(error, "__notes__", [])
        print(printable(" ".join([f"vantage: {error}", *notes])), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
