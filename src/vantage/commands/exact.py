"""What `vantage exact WORLD` prints: the exact numbers of a world under a policy, as tables."""

from pathlib import Path

import scipy
import torch
from jaxtyping import Float
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

from vantage.batch import Batch
from vantage.errors import InputError, refuse_unless
from vantage.estimators.table import reinforce
from vantage.exact.enumeration import enumerate
from vantage.exact.mdp import MDP
from vantage.exact.moments import moments
from vantage.exact.solve import discounting_angle, gradient, objective, value
from vantage.gradients.weighted import weighted_score
from vantage.policies import SoftmaxTable
from vantage.runs.progress import terminal
from vantage.runs.terminal import Terminal

BASELINES = ("none", "constant", "value", "norm_weighted", "trajectory")


def exact_command(
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
    run(world, discount=discount, horizon=horizon, figure=figure, console=terminal)


def run(
    world: str,
    *,
    discount: float | None = None,
    horizon: int | None = None,
    figure: Path | None = None,
    console: Console | None = None,
) -> None:
    """Print J, ∇J and the variance under every baseline, for the uniform policy, without sampling.

    Args:
        world: "article" (the worked example), "corridor" (Sutton & Barto 2018, example 13.1, with
            its optimum), or the id of a Gymnasium environment with a transition table.
        discount: γ of an environment; default 1. The first two worlds have their own.
        horizon: length of an episode of an environment, if it is limited.
        figure: where to save a figure, PNG or any format of matplotlib.
        console: where to print; default standard output.

    Raises:
        InputError: no such world, or one without a table.
    """
    out = console or Terminal(soft_wrap=True)
    if world in ("article", "corridor"):
        refuse_unless(
            discount is None and horizon is None,
            f"vantage exact {world}: this world has its own discount and horizon; drop the option, "
            "or name a Gymnasium environment.",
        )
        mdp = MDP.article() if world == "article" else MDP.short_corridor()
    else:
        mdp = _environment(world, 1.0 if discount is None else discount, horizon)
    policy = SoftmaxTable(mdp.observations, mdp.actions)
    if world == "article":
        _article(out, mdp, policy)
    if world == "corridor":
        _corridor(out, mdp, policy)
    else:
        _summary(out, world, mdp, policy)
    if figure is not None:
        from vantage.exact.figures import save

        save(mdp, policy, world, figure)
        out.print(f"figure: {figure}")


def _environment(world: str, discount: float, horizon: int | None) -> MDP:
    import gymnasium

    try:
        return MDP.from_gymnasium(world, discount=discount, horizon=horizon)
    except gymnasium.error.Error as error:
        raise InputError(
            f"vantage exact {world!r}: {error} Give article, corridor, or a Gymnasium id with a "
            "transition table, such as FrozenLake-v1."
        ) from error


def _article(out: Console, mdp: MDP, policy: SoftmaxTable) -> None:
    """Two samples, (s1, a2) and (s2, a2), weighed without and with the state's average."""
    batch = enumerate(mdp, policy)
    taken = (batch.action[:, 0] == 1).nonzero().squeeze(1)  # the second action of either state
    samples = batch.select(taken[batch.observation[taken, 0].argsort()]).reweighted()
    V = value(mdp, policy).V
    raw = samples.reward[:, 0]
    state = samples.observation[:, 0]
    table = Table(title="Two samples of the worked example, uniform policy")
    for name in ("sample", "raw weight R", "baseline V(s)", "advantage R − V(s)"):
        table.add_column(name, justify="right")
    for s, r in zip(state.tolist(), raw.tolist(), strict=True):
        row = (r, V[s].item(), r - V[s].item())
        table.add_row(f"(s{s + 1}, a2)", *(f"{x:+g}" if x < 0 else f"{x:g}" for x in row))
    out.print(table)
    G = gradient(mdp, policy)
    weighed = weighted_score(policy, samples, reinforce().weights(samples))
    above = weighted_score(policy, samples, _with_baseline(samples, V))
    out.print(f"exact gradient ∇J      {_vector(G)}   in the order (s1 a1, s1 a2, s2 a1, s2 a2)")
    for name, g in (("raw      ", weighed), ("advantage", above)):
        out.print(f"two samples, {name} {_vector(g)}   cosine with ∇J {_cosine(g, G):+.3f}")


def _with_baseline(samples: Batch, V: Float[Tensor, " S"]) -> Float[Tensor, "N 1"]:
    """(R − V(s)) / m for one-step samples."""
    return (samples.reward - V[samples.observation]) * samples.weight[:, None]


def _corridor(out: Console, mdp: MDP, policy: SoftmaxTable) -> None:
    """The corridor at the uniform policy and at its optimum."""
    best = scipy.optimize.minimize_scalar(
        lambda p: -_at(mdp, p)[1], bounds=(0.05, 0.95), method="bounded", options={"xatol": 1e-10}
    ).x
    optimum, J = _at(mdp, float(best))
    _summary(out, "corridor, uniform policy", mdp, policy)
    _summary(out, "corridor, at its optimum", mdp, optimum)
    out.print(f"optimum: p(right) = {best:.6f} (2 − √2 = {2 - 2**0.5:.6f}), J = {J:.4f}")


def _at(mdp: MDP, right: float) -> tuple[SoftmaxTable, float]:
    policy = SoftmaxTable(1, 2)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([[1 - right, right]], dtype=torch.float64).log())
    return policy, objective(mdp, policy).item()


def _summary(out: Console, name: str, mdp: MDP, policy: SoftmaxTable) -> None:
    """J, ∇J, and one line for each baseline and kind of returns."""
    G = gradient(mdp, policy)
    limit = "until termination" if mdp.horizon is None else f"horizon {mdp.horizon}"
    out.print(
        f"{name}: {mdp.states} states, {mdp.actions} actions, "
        f"{len(mdp.edges.state)} transitions, γ = {mdp.discount:g}, {limit}"
    )
    out.print(f"J = {objective(mdp, policy).item():.6g}   ‖∇J‖ = {G.norm().item():.6g}")
    if G.numel() <= 8:
        out.print(f"∇J = {_vector(G)}")
    if mdp.discount < 1:
        out.print(f"angle of ∇J and the same without γ^t: {_angle(mdp, policy)}")
    for returns in ("total", "to_go"):
        out.print(_variances(mdp, policy, returns))


def _angle(mdp: MDP, policy: SoftmaxTable) -> str:
    try:
        return f"{discounting_angle(mdp, policy):.4g}°"
    except InputError:
        return "not defined, as an undiscounted episode may never end"


def _variances(mdp: MDP, policy: SoftmaxTable, returns: str) -> RenderableType:
    # narrow enough for a terminal of 80 columns
    table = Table(
        title=f"Variance of one trajectory's estimate, exact; returns: {returns}",
        caption="state: between starts. action: what the best b(s) would still remove.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("baseline", no_wrap=True)
    for name in ("tr Cov", "state", "action", "rest", "SNR", "b(s) from … to"):
        table.add_column(name, justify="right", no_wrap=True)
    for baseline in BASELINES:
        try:
            exact = moments(mdp, policy, baseline, returns)
        except InputError as error:
            return f"Variance, returns {returns}: not finite. {error}"
        signal = exact.mean @ exact.mean / exact.trace if exact.trace > 0 else torch.inf
        parts = (exact.trace, exact.state, exact.action, exact.rest)
        levels = exact.baseline[~mdp.terminal]
        spread = f"{levels.min().item():.3g} … {levels.max().item():.3g}"
        table.add_row(baseline, *(_number(float(x)) for x in parts), f"{float(signal):.3g}", spread)
    return table


def _number(x: float) -> str:
    return "0" if abs(x) < 1e-12 else f"{x:.5g}"


def _vector(x: Float[Tensor, " P"]) -> str:
    return "(" + ", ".join(_number(float(v)) for v in x) + ")"


def _cosine(one: Float[Tensor, " P"], other: Float[Tensor, " P"]) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))
