"""The same estimators at four moments of training, from the start to the end.

Trains CartPole-v1 in stages of one run, audits six estimators at each stage with the value
function as trained so far, prints one table and draws how noise and bias change.

    python examples/audit_checkpoints.py [--trajectories 2048] [--seed 0]
"""

import math
import shutil
from pathlib import Path

import matplotlib
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import vantage as vt
from vantage.pages.numbers import number, text
from vantage.statistics.intervals import Estimate

ESTIMATORS = (
    vt.estimators.reinforce(),
    vt.estimators.reward_to_go(),
    vt.estimators.reinforce_baseline(),
    vt.estimators.rloo(),
    vt.estimators.a2c(),
    vt.estimators.ppo(),
)
STAGES = {"start": 1, "middle": 8, "late": 14, "end": 20}  # updates made before each audit


def main(
    trajectories: int = 2048,
    batch: int = 64,
    seed: int = 0,
    out: Path = Path("runs/audit_checkpoints"),
    figure: Path = Path("docs/figures/audit_checkpoints.svg"),
) -> None:
    """Train, audit, compare.

    Args:
        trajectories: sampled for each audit.
        batch: trajectories of one gradient step.
        seed: of training and audits.
        out: run folder; what an earlier run left there is replaced.
        figure: where the figure goes.
    """
    console = Console(highlight=False, width=150)
    env = vt.Gymnasium("CartPole-v1", lanes=64)
    torch.manual_seed(seed)  # the networks' first weights
    policy, value = env.policy(), env.value()
    shutil.rmtree(out, ignore_errors=True)
    reports: dict[str, vt.Report] = {}
    for stage, updates in STAGES.items():
        vt.train(
            env,
            policy,
            vt.estimators.reinforce_baseline(),
            value=value,
            updates=updates,
            batch=batch,
            seed=seed,
            out=out / "run",
            resume=bool(reports),
            progress=False,
        )
        reports[stage] = vt.audit(
            env, policy, ESTIMATORS, value=value, trajectories=trajectories, batch=batch, seed=seed
        )
        reports[stage].save(out / f"{stage}.html")
    console.print(comparison(reports))
    for stage, report in reports.items():
        console.print(f"{stage}: {report.summary[-1]}")
    draw(reports, figure)
    console.print(f"Reports: {out}/*.html. Figure: {figure}")


def comparison(reports: dict[str, vt.Report]) -> Table:
    """Every estimator at every stage."""
    statistics = ("scale", "cosine", "snr", "noise_scale", "aggressiveness")
    table = Table(caption="95 % intervals in brackets; * optimistic; – undetermined")
    for heading in ("stage", "estimator", "scale", "cosine", "SNR", "noise scale", "max |Δ log π|"):
        table.add_column(heading)
    for stage, report in reports.items():
        settings = report.settings
        first = f"{stage}\nreturn {settings['mean_return']:.0f}\n"
        for row in report.rows:
            cells = [text(getattr(row, name)).replace("\n", " ") for name in statistics]
            table.add_row(first, row.estimator, *cells)
            first = ""
        table.add_section()
    return table


def draw(reports: dict[str, vt.Report], path: Path) -> None:
    """Noise scale, cosine and scale at each stage, with intervals."""
    with matplotlib.rc_context({"svg.hashsalt": "vantage", "font.size": 9}):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, name in zip(panels, ("noise_scale", "cosine", "scale"), strict=True):
            panel(axes, reports, name)
        panels[0].set(ylabel="noise scale tr Σ / N, trajectories", yscale="log")
        bottom, top = panels[0].get_ylim()
        panels[0].set_ylim(bottom, 5 * top)  # room for what is written above the triangles
        panels[1].set(ylabel="cosine with the reference")
        panels[2].set(ylabel="scale G·G* / ‖G*‖²", yscale="log")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=6,
            frameon=False,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def panel(axes: Axes, reports: dict[str, vt.Report], name: str) -> None:
    """One statistic; an arrow where only a lower limit is known."""
    stages = list(reports)
    for k, estimator in enumerate(ESTIMATORS):
        shift = (k - (len(ESTIMATORS) - 1) / 2) * 0.11
        found = [getattr(reports[stage].row(estimator.name), name) for stage in stages]
        label: str | None = estimator.name
        for place, estimate in enumerate(found):
            interval(axes, place + shift, estimate, f"C{k}", label)
            label = None
    named = [f"{s}\nreturn {reports[s].settings['mean_return']:.0f}" for s in stages]
    axes.set_xticks(range(len(stages)), named)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def interval(axes: Axes, place: float, estimate: Estimate, colour: str, label: str | None) -> None:
    """A point with its interval; a triangle at the lower limit where that is all there is."""
    if math.isfinite(estimate.value):
        errors = [[estimate.value - estimate.low], [max(estimate.high - estimate.value, 0)]]
        finite = all(math.isfinite(error) for [error] in errors)
        axes.errorbar(
            [place],
            [estimate.value],
            yerr=errors if finite else None,
            fmt="o",
            markersize=4,
            color=colour,
            label=label,
        )
    elif math.isfinite(estimate.low) and estimate.low > 0:
        axes.plot([place], [estimate.low], "^", markersize=6, color=colour, label=label)
        axes.annotate(
            f" > {number(estimate.low)}",
            (place, estimate.low),
            rotation=90,
            fontsize=7,
            ha="center",
            va="bottom",
            xytext=(0, 4),
            textcoords="offset points",
        )
    else:
        axes.plot([], [], "o", color=colour, label=label)


if __name__ == "__main__":
    tyro.cli(main)
