"""`vantage estimators`, `vantage algorithms`: the tables, a row of them, a column."""

from typing import Annotated

from tyro.conf import Positional, arg

from vantage.estimators import listing as estimator_table
from vantage.runs.progress import terminal
from vantage.training import listing as algorithm_listing


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
