"""The figure of `vantage exact`: variance under every baseline, and what the baselines are."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from vantage.exact.mdp import MDP
from vantage.exact.moments import Moments, moments
from vantage.exact.solve import objective
from vantage.policies import SoftmaxTable

BASELINES = ("none", "constant", "value", "norm_weighted", "trajectory")
PARTS = (("state", "between start states"), ("action", "a baseline's"), ("rest", "rest"))


def save(mdp: MDP, policy: SoftmaxTable, world: str, path: Path) -> None:
    """Draw the world and save the figure at `path`."""
    draw(mdp, policy, world).savefig(path, dpi=150)


def draw(mdp: MDP, policy: SoftmaxTable, world: str) -> Figure:
    """Variances and baselines of a world, or J and variances against its one number."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_baseline = {name: moments(mdp, policy, name) for name in BASELINES}
    if (mdp.observations, mdp.actions) == (1, 2):
        _sweep(mdp, left, right)
    else:
        _bars(left, by_baseline)
        _levels(mdp, right, by_baseline)
    figure.suptitle(f"{world}: one trajectory, reward-to-go, exact")
    return figure


def _bars(axes: Axes, by_baseline: dict[str, Moments]) -> None:
    """tr Cov of each baseline, in its three parts."""
    below = torch.zeros(len(by_baseline))
    for component, label in PARTS:
        height = torch.tensor([float(getattr(m, component)) for m in by_baseline.values()])
        axes.bar(list(by_baseline), height, bottom=below, label=label)
        below = below + height
    axes.set_ylabel("tr Cov")
    axes.margins(y=0.3)
    axes.tick_params(axis="x", rotation=20)
    axes.legend(frameon=False)


def _levels(mdp: MDP, axes: Axes, by_baseline: dict[str, Moments]) -> None:
    """The baselines over the states that act."""
    live = (~mdp.terminal).nonzero().squeeze(1)
    style = "o-" if len(live) <= 64 else "-"
    for name in BASELINES[1:]:
        axes.plot(live, by_baseline[name].baseline[live], style, markersize=3, label=name)
    axes.set_xlabel("state")
    axes.set_ylabel("b(s)")
    axes.legend(frameon=False)


def _sweep(mdp: MDP, left: Axes, right: Axes) -> None:
    """J and tr Cov against the probability of the second action, where one number is the policy."""
    chances = torch.linspace(0.2, 0.9, 71, dtype=torch.float64)
    policy, J = SoftmaxTable(1, 2), []
    traces: dict[str, list[float]] = {name: [] for name in BASELINES}
    for p in chances:
        policy.logits.data = torch.stack([1 - p, p]).log()[None]
        J.append(objective(mdp, policy).item())
        for name, trace in traces.items():
            trace.append(moments(mdp, policy, name).trace.item())
    left.plot(chances, J)
    best = int(torch.tensor(J).argmax())
    left.plot(chances[best], J[best], "o")
    label = f"p = {chances[best]:.2f}, J = {J[best]:.2f}"
    left.annotate(label, (float(chances[best]), J[best] - 4), ha="center")
    left.set_xlabel("p(second action)")
    left.set_ylabel("J")
    for name, trace in traces.items():
        right.semilogy(chances, trace, label=name)
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_locator(NullLocator())
    right.set_xlabel("p(second action)")
    right.set_ylabel("tr Cov")
    right.legend(frameon=False)
