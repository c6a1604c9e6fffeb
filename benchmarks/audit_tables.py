"""The results of `benchmarks/audit.py` as tables."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from vantage.gradients.per_trajectory import METHODS

Found = dict[str, Any]
console = Console(highlight=False)


def show(found: Found) -> None:
    """The results as tables."""
    console.print(_costs(found["one_estimator"]))
    console.print(_audits(found["audits"]))
    memory = Table("trajectories", "peak MiB", title=f"memory={found['memory']['memory_mib']} MiB")
    for peak in found["memory"]["peaks"]:
        memory.add_row(str(peak["trajectories"] or "nothing audited"), f"{peak['peak_mib']:.0f}")
    console.print(memory)
    table = Table("model", *METHODS, title="ms per trajectory")
    for name, case in found["methods"].items():
        table.add_row(name, *(f"{case['ms'].get(m, math.nan):.2f}" for m in METHODS))
    console.print(table)


def _costs(one: Found) -> Table:
    table = Table(
        "",
        "seconds",
        "× gradient",
        title=f"{one['trajectories']} trajectories, {one['steps']} steps",
    )
    table.add_row("one gradient", f"{one['gradient_seconds']:.3f}", "1")
    for name, seconds in one["seconds"].items():
        table.add_row(f"each, by {name}", f"{seconds:.3f}", f"{one['over_gradient'][name]:.2f}")
    return table


def _audits(audits: Found) -> Table:
    title = (
        f"audits of {audits['trajectories']} trajectories of "
        f"{audits['steps_per_trajectory']:.0f} steps, seconds"
    )
    table = Table("estimators", "total", "sampling", "without sampling", title=title)
    for count, parts in audits["seconds"].items():
        table.add_row(count, *(f"{seconds:.1f}" for seconds in parts.values()))
    table.caption = (
        f"ratio of totals {audits['ratio']:.2f}, without sampling "
        f"{audits['ratio_without_sampling']:.2f}"
    )
    return table
