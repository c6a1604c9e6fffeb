"""The pictures of the documentation, made by one command: small SVG files, light and dark.

Nine figures: a learning curve with its signal, curves of two reports (of a control run and of a
language model), estimates of the worked example, variance against baseline, the corridor, an audit,
a plan of group sizes, a transcript. Five of them train something first; all nine take about five
minutes on one core.

    python examples/gallery.py [--out docs/figures] [--only clouds corridor ...]
"""

import html
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from rich.console import Console

import vantage as vt
from vantage import language as vl
from vantage.batch import Batch
from vantage.exact.figures import draw
from vantage.language.transcripts.records import Record
from vantage.language.transcripts.view import LOWERED, RAISED, largest_advantage, visible
from vantage.pages.forest import ACCENT, FAINT, GRID, INK, MARK, SETTINGS, Forest, forest, svg
from vantage.pages.series import PLACES, coloured
from vantage.pages.standalone import standalone
from vantage.reporting.panels import charts
from vantage.reporting.subject import Subject
from vantage.runs.curves import learning_figure
from vantage.statistics.estimate import Estimate

SEED = 0
COLOURS: dict[Any, Any] = SETTINGS | {
    "axes.prop_cycle": cycler(color=PLACES),
    "legend.labelcolor": INK,
}
GROUP_SIZES = Path("benchmarks/results/language_group_sizes.json")


def learning() -> str:
    """Return and SNR of REINFORCE on CartPole, without and with a learned baseline."""
    histories = {}
    for estimator in (vt.estimators.reinforce(), vt.estimators.reinforce_baseline()):
        torch.manual_seed(SEED)  # the networks' first weights
        env = vt.Gymnasium("CartPole-v1", lanes=64)
        value = env.value() if "value" in estimator.needs else None
        run = vt.train(
            env, env.policy(), estimator, value=value, steps=200_000, seed=SEED, progress=False
        )
        histories[estimator.name] = run.history
    last = {name: f"{history[-1]['return']:.0f}" for name, history in histories.items()}
    with matplotlib.rc_context(COLOURS):
        figure = learning_figure(histories)
        figure.set_size_inches(7.8, 3.2)
        said = ", ".join(f"{value} with {name}" for name, value in last.items())
        return _svg(figure, f"Return and gradient SNR on CartPole-v1; mean return at last: {said}.")


def report() -> str:
    """Return and SNR of a run on CartPole, as its report draws them."""
    torch.manual_seed(SEED)
    env = vt.make("tensor/CartPole-v1", lanes=64)
    run = vt.train(
        env, env.policy(), vt.estimators.reinforce_baseline(), value=env.value(), updates=60,
        batch=16, lr=3e-3, evaluate_every=10, seed=SEED, progress=False,
    )  # fmt: skip
    return reported(Subject(run.config, run.history), ("Return", "Signal-to-noise ratio"))


def language_run() -> str:
    """Reward, signal and dead groups of the tutorial's language model, as its report draws them."""

    def letters_asked_for(completions: list[str], letter: list[str]) -> list[float]:
        return [text.count(one) / 4 for text, one in zip(completions, letter, strict=True)]

    rows = [{"prompt": f"{one}>", "letter": one} for one in "abc"]
    task = vl.Task(rows, letters_asked_for, num_generations=8, held_out=0)
    words = vl.tiny.tokenizer("abc>")
    model = vl.tiny.model(words, hidden=32, layers=1, heads=2, seed=SEED)
    run = vl.train(
        task, vl.Policy(model, words, max_completion_length=4), vt.estimators.rloo(), batch=48,
        updates=40, lr=1e-2, signal_every=1, seed=SEED, progress=False,
    )  # fmt: skip
    subject = Subject({**run.config, "task": {"name": "letters asked for"}}, run.history)
    return reported(subject, ("Reward", "Signal-to-noise ratio", "Dead groups"))


def reported(subject: Subject, titles: Sequence[str]) -> str:
    """Charts of a report side by side: means of updates, their range or 95 % interval."""
    drawn = {chart["title"]: chart for chart in charts(subject)}
    said = []
    with matplotlib.rc_context(COLOURS):
        figure = Figure(figsize=(7.8, 2.7), layout="constrained")
        for axes, title in zip(figure.subplots(1, len(titles)).flat, titles, strict=True):
            for place, series in enumerate(drawn[title]["series"]):
                at, *lines = (
                    np.array(values, dtype=float)
                    for values in (
                        subject.curves.grids[series["grid"]]["updates"],
                        *(series[name] for name in ("y", "low", "high")),
                    )
                )
                there = np.isfinite(lines[0])
                axes.plot(at[there], lines[0][there], color=PLACES[place], label=series["label"])
                axes.fill_between(at, *lines[1:], color=PLACES[place], alpha=0.2, linewidth=0)
                first, last = lines[0][there][[0, -1]]
                said.append(f"{title}, {series['label']}: {first:.3g} at first, {last:.3g} at last")
            axes.set_title(title, fontsize=9)
            axes.axhline(0, color=FAINT, linewidth=0.6)  # estimates are not clamped
            axes.set(xlabel="update")
            if len(drawn[title]["series"]) > 1:
                axes.legend(frameon=False, fontsize=8)
            _plain(axes)
        return _svg(figure, f"{subject.title}. {'; '.join(said)}.")


def clouds() -> str:
    """Estimates ĝ of the worked example by four estimators, around ∇J."""
    mdp, policy = vt.MDP.article(), vt.SoftmaxTable(2, 2)
    everything = vt.exact.enumerate(mdp, policy, value=vt.exact.value(mdp, policy).V)
    G = vt.exact.gradient(mdp, policy)
    rows = {
        "reinforce": ("R", vt.estimators.reinforce()),
        "reinforce_leave_one_out": ("R − mean of the others", None),
        "rloo": ("R − mean of the others in the state", vt.estimators.rloo()),
        "reinforce_baseline": ("R − V(s)", vt.estimators.reinforce_baseline()),
    }
    said = []
    with matplotlib.rc_context(COLOURS):
        figure = Figure(figsize=(6.2, 4.2), layout="constrained")
        for axes, (name, (title, estimator)) in zip(
            figure.subplots(2, 2, sharex=True, sharey=True).flat, rows.items(), strict=True
        ):
            estimator = estimator or getattr(vt.estimators, name)()
            generator = torch.Generator().manual_seed(SEED)
            drawn = [
                vt.gradient(policy, _sampled(everything, 20, generator), estimator)
                for _ in range(150)
            ]
            cloud = torch.stack(drawn)
            axes.plot(cloud[:, 0], cloud[:, 2], "o", color=MARK, markersize=2.5, alpha=0.5, mew=0)
            tip = (float(G[0]), float(G[2]))
            look: dict[str, Any] = {
                "arrowstyle": "-|>",
                "mutation_scale": 11,
                "linewidth": 1.6,
                "color": ACCENT,
            }
            axes.add_patch(FancyArrowPatch((0, 0), tip, shrinkA=0, shrinkB=0, **look))
            _crossed(axes)
            axes.set_title(f"weight: {title}", fontsize=9)
            axes.set(xlim=(-2.1, 3.1), ylim=(-1.7, 1.1), aspect="equal")
            spread = (cloud - G).square().sum(1).mean().sqrt()
            said.append(f"{title}: {spread:.3g}")
        figure.supxlabel("ĝ, entry of (s₁, a₁)", fontsize=9)
        figure.supylabel("ĝ, entry of (s₂, a₁)", fontsize=9)
        return _svg(
            figure,
            "Estimates from 20 trajectories of the worked example, 150 draws, and the true "
            f"gradient. Root mean square distance from it, weight by weight. {'; '.join(said)}.",
        )


def _sampled(everything: Batch, m: int, generator: torch.Generator) -> Batch:
    """m trajectories drawn by their probability, at least two from each state."""
    while True:
        rows = torch.multinomial(everything.weight, m, replacement=True, generator=generator)
        batch = everything.select(rows)
        if min(torch.bincount(batch.group, minlength=2)) >= 2:
            break
    apart = torch.arange(m)[:, None].expand_as(batch.episode)
    return replace(batch, episode=apart, weight=torch.full_like(batch.weight, 1 / m))


def variance() -> str:
    """tr Cov of one trajectory's estimate as a parabola in the baseline."""
    bandit, skewed = vt.MDP.bandit([1.0, 0.0, 4.0]), vt.SoftmaxTable(1, 3)
    skewed.logits.data = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    corridor, blind = vt.MDP.short_corridor(), vt.SoftmaxTable(1, 2)
    with matplotlib.rc_context(COLOURS):
        figure = Figure(figsize=(8, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        said = _parabola(left, bandit, skewed, (-1.0, 3.2), ("none", "value", "norm_weighted"))
        said += _parabola(right, corridor, blind, (-26.0, 4.0), ("none", "constant"))
        for k, name in enumerate(("value", "trajectory")):
            trace = float(vt.exact.moments(corridor, blind, name).trace)
            right.axhline(trace, color=PLACES[2 + k], linewidth=1.2, dashes=(4, 3))
            above = {"value": (4, "bottom"), "trajectory": (-4, "top")}[name]
            right.annotate(
                f"{name}, state by state: {trace:.0f}", (4.0, trace), (0, above[0]),
                textcoords="offset points", ha="right", va=above[1], color=PLACES[2 + k],
            )  # fmt: skip
            said.append(f"{name} state by state {trace:.4g}")
        left.set_title("bandit, three arms of unequal chance", fontsize=9)
        right.set_title("short corridor, one number for all states", fontsize=9)
        return _svg(figure, f"tr Cov against the baseline b. {'; '.join(said)}.")


def _parabola(
    axes: Axes,
    mdp: vt.MDP,
    policy: vt.SoftmaxTable,
    reach: tuple[float, float],
    named: tuple[str, ...],
) -> list[str]:
    """The curve over one number b for all states, and named baselines on it."""

    def trace(b: float) -> float:
        level = torch.full((mdp.states,), b, dtype=torch.float64)
        return float(vt.exact.moments(mdp, policy, level).trace)

    b = torch.linspace(*reach, 61, dtype=torch.float64).tolist()
    axes.plot(b, [trace(x) for x in b], color=INK, linewidth=1.6)
    best = float(vt.exact.moments(mdp, policy, "constant").baseline[0])
    said, stacked = [], 0
    for k, name in enumerate(named):
        found = vt.exact.moments(mdp, policy, name)
        place, height = float(found.baseline[0]), float(found.trace)
        axes.plot([place], [height], "o", color=PLACES[k], markersize=6)
        label = {"norm_weighted": "[7]", "value": "V", "constant": "the best"}.get(name, name)
        near = abs(place - best) < 0.15 * (reach[1] - reach[0])
        shift = (0, 8 + 13 * stacked) if near else (9 if place < best else -9, 4)
        side = "center" if near else "left" if place < best else "right"
        axes.annotate(
            f"{label}: {height:.4g}", (place, height), shift,
            textcoords="offset points", ha=side, color=PLACES[k],
        )  # fmt: skip
        stacked += near
        said.append(f"{label} {height:.4g} at b = {place:.3g}")
    axes.set(xlabel="b", ylabel="tr Cov of one trajectory", ylim=(0, None), xlim=reach)
    _plain(axes)
    return said


def corridor() -> str:
    """J and the variance under each baseline against the corridor's one parameter."""
    with matplotlib.rc_context(COLOURS):
        figure = draw(vt.MDP.short_corridor(), vt.SoftmaxTable(1, 2), "short corridor")
        figure.set_size_inches(7.8, 3.2)
        for axes in figure.axes:
            _plain(axes)
        return _svg(
            figure,
            "The short corridor: J against the probability of going right, with its optimum at "
            "0.59, and tr Cov of one trajectory's estimate under five baselines.",
        )


def audit() -> str:
    """Noise scales of six estimators on a CartPole policy in the middle of its training."""
    torch.manual_seed(SEED)
    env = vt.Gymnasium("CartPole-v1", lanes=64)
    policy, value = env.policy(), env.value()
    baseline = vt.estimators.reinforce_baseline()
    vt.train(env, policy, baseline, value=value, updates=8, batch=64, seed=SEED, progress=False)
    names = ("reinforce", "reward_to_go", "reinforce_baseline", "rloo", "a2c", "ppo")
    report = vt.audit(
        env,
        policy,
        [getattr(vt.estimators, name)() for name in names],
        value=value,
        trajectories=1024,
        batch=64,
        seed=SEED,
    )
    scales = {row.estimator: row.noise_scale for row in report.rows}
    label = "noise scale tr Σ / N, trajectories"
    return forest(Forest("Noise scale of six estimators on CartPole", label, scales), 1)


def group_sizes() -> str:
    """Seconds of a step with an SNR of 1, by estimator and completions per prompt, as measured."""
    [measured] = json.loads(GROUP_SIZES.read_text(encoding="utf-8"))
    words = {"half": "half a mean", "reinforce_leave_one_out": "mean of the others"}
    estimates = {}
    for row in sorted(measured["rows"], key=lambda row: row["num_generations"]):
        name = words.get(row["estimator"], row["estimator"])
        estimates[f"{row['num_generations']} × {name}"] = Estimate(**row["noise_scale"])
    title = "Completions per prompt × estimator on two-digit addition"
    return forest(Forest(title, "completions for an SNR of 1", estimates), 1)


def transcript() -> str:
    """Three prompts, four completions each: tokens coloured by their advantage."""
    task = vl.tiny_tasks.addition(num_generations=4, seed=SEED)
    policy = vl.tiny.policy(SEED, max_completion_length=4)
    vl.warm_up(policy, task, steps=600, seed=SEED, until=0.4)
    with tempfile.TemporaryDirectory() as folder:
        watch = vl.recorder(folder, task, policy.tokenizer)
        vl.train(
            task, policy, vt.estimators.rloo(), updates=1, batch=64, lr=1e-4, watch=watch,
            seed=SEED, progress=False,
        )  # fmt: skip
        records = vl.read_transcripts(folder, update=1)
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    mixed = [g for g in groups.values() if len({r["reward"] for r in g}) > 1]
    return transcript_svg([record for group in mixed[:3] for record in group])


def transcript_svg(records: list[Record]) -> str:
    """A line for each completion: prompt, tokens on their advantage's colour, reward."""
    scale, width, line, cell = largest_advantage(records), 460, 24, 11
    parts, last = [], None
    for n, record in enumerate(records):
        y = 30 + line * n + 10 * (n // 4)
        if record["prompt"] != last:
            parts.append(_text(12, y, record["prompt"], "fill: var(--ink)"))
        last = record["prompt"]
        for t, (token, advantage) in enumerate(
            zip(record["tokens"], record["advantage"], strict=True)
        ):
            shown = visible(token) if len(token) == 1 else "⊣"
            x = 130 + t * (cell + 7)
            red, green, blue = RAISED if advantage > 0 else LOWERED
            colour = f"rgba({red},{green},{blue},{0.6 * min(1.0, abs(advantage) / scale):.2f})"
            parts.append(
                f'<rect x="{x}" y="{y - 15}" width="{cell + 5}" height="20" rx="3" '
                f'style="fill: {colour}"/>{_text(x + 4, y, shown, "fill: var(--ink)")}'
            )
        said = f"reward {record['reward']:g}   advantage {record['advantage'][0]:+.2f}"
        parts.append(_text(240, y, said.replace("-", "−"), "fill: var(--faint)"))
    height = 30 + line * len(records) + 10 * ((len(records) - 1) // 4)
    right = sum(record["reward"] == 1 for record in records)
    alternative = (
        f"{len(records)} completions of three sums, {right} of them right: their tokens are green "
        "where the advantage raises their probability, red where it lowers it."
    )
    return (
        f'<svg role="img" aria-label="{alternative}" viewBox="0 0 {width} {height}">'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    mono = "font: 14px ui-monospace, 'DejaVu Sans Mono', monospace; white-space: pre"
    return f'<text x="{x}" y="{y}" style="{mono}; {style}">{html.escape(text)}</text>'


def _svg(figure: Figure, description: str) -> str:
    return coloured(svg(figure, description, 1))


def _plain(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _crossed(axes: Axes) -> None:
    """Axes through the origin."""
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.axvline(0, color=FAINT, linewidth=0.6)


FIGURES: dict[str, Callable[[], str]] = {
    "learning": learning,
    "report": report,
    "language_run": language_run,
    "clouds": clouds,
    "variance": variance,
    "corridor": corridor,
    "audit": audit,
    "group_sizes": group_sizes,
    "transcript": transcript,
}


def main(out: Path = Path("docs/figures"), only: tuple[str, ...] = tuple(FIGURES)) -> None:
    """Draw the figures.

    Args:
        out: folder for the SVG files.
        only: which figures; all of them by default.
    """
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    for name in only:
        path = out / f"{name}.svg"
        path.write_text(standalone(FIGURES[name]()), encoding="utf-8")
        console.print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    tyro.cli(main)
