"""Which figures a report has: metrics that belong together, under their title and in order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vantage.pages.numbers import number
from vantage.reporting.subject import Subject

# What is no curve of its own: counts, and ends of intervals that are drawn with their value.
BOOKKEEPING = {
    "update", "steps", "num_tokens", "prompts_drawn", "completions", "episodes", "units", "unit",
    "gradient_squared_norm", "gradient_variance", "snr", "noise_scale", "reward",
    "completions/mean_length", "optimizer_steps", "skipped", "phase",
    "replayed", "remembered",
}  # fmt: skip
MOST_OTHERS = 24  # figures of metrics that callbacks added


@dataclass(frozen=True)
class Panel:
    """A figure of one or several metrics.

    Attributes:
        section: under which heading.
        title, note: what is shown, in words.
        metrics: label by metric; those that a run lacks are left out.
        log: logarithmic axis, where all values are positive and far apart.
    """

    section: str
    title: str
    note: str
    metrics: dict[str, str]
    log: bool = False


PANELS = (
    Panel("Learning", "Return", "Mean over the episodes that ended in an update.",
          {"return": "training", "eval/return": "evaluation", "return_100": "last 100 episodes"}),
    Panel("Learning", "Length", "Steps of an episode, tokens of a completion.",
          {"length": "mean", "completions/mean_terminated_length": "mean of those that ended",
           "completions/max_length": "longest"}),
    Panel("Learning", "Spread of the return", "Standard deviation within an update.",
          {"return_std": "of episodes", "reward_std": "within prompts",
           "reward_std/between_prompts": "between prompts"}),
    Panel("Signal", "Gradient norm", "Before clipping, mean over optimiser steps.",
          {"grad_norm": "norm"}, log=True),
    Panel("Signal", "Dead groups",
          "Groups whose completions all got the same reward, and teach nothing.",
          {"frac_reward_zero_std": "share of groups"}),
    Panel("Signal", "Effective sample size", "1 on policy; of importance weights, last epoch.",
          {"ess": "share of the batch"}),
    Panel("Signal", "Noise between and within prompts",
          "tr Cov of the gradient: within falls with more completions a prompt, between with more "
          "prompts.", {"noise/between_prompts": "between", "noise/within_prompts": "within"}),
    Panel("Policy", "Entropy", "Of the policy, mean over steps, in nats.", {"entropy": "entropy"}),
    Panel("Policy", "KL", "Of the update, or to the reference policy of a language model.",
          {"kl": "KL", "auxiliary/kl": "of an auxiliary phase"}, log=True),
    Panel("Policy", "Clipped", "Share of steps whose ratio was clipped.",
          {"clip_fraction": "share", "truncated": "weight cut to its bound",
           "held": "held by the trust region",
           "clip_ratio/low": "below 1", "clip_ratio/high": "above 1"}),
    Panel("Policy", "Cut completions", "Share that reached the longest length.",
          {"completions/clipped_ratio": "share cut"}),
    Panel("Policy", "Sampler against policy",
          "|Δ log π| between the engine that drew tokens and the policy that learns.",
          {"sampling/log_prob_difference_mean": "mean", "sampling/log_prob_difference_max": "most"},
          log=True),
    Panel("Policy", "Learning rate", "Of the policy's optimiser, and what a bound left of it.",
          {"learning_rate": "rate", "step_size": "within the KL"}),
    Panel("Losses", "Value loss", "Of the predictions that the batch was weighed with.",
          {"value_loss": "value loss"}, log=True),
    Panel("Losses", "Explained variance", "1: V knows the returns; 0: it knows their mean.",
          {"explained_variance": "share"}),
    Panel("Losses", "Auxiliary phase", "Mean squared errors, last epoch.",
          {"auxiliary/value_loss": "V", "auxiliary/head_loss": "on the policy's layers"}, log=True),
    Panel("Speed", "Throughput", "Of whole updates, collection included.",
          {"steps_per_second": "steps/s", "tokens_per_second": "tokens/s"}),
    Panel("Speed", "Seconds of an update", "And of drawing completions, where there are any.",
          {"step_time": "update", "generation_time": "generation"}),
)  # fmt: skip


def charts(subject: Subject) -> list[dict[str, Any]]:
    """The figures as the page's script draws them, those without anything to see left out."""
    drawn = []
    for panel in [*_in_words(subject), *_others(subject)]:
        curves: list[dict[str, Any]] = []
        for metric, label in panel.metrics.items():
            curve = subject.curves.curve(metric) if _varies(subject, metric) else None
            if curve is not None and not any(curve["y"] == other["y"] for other in curves):
                curves.append({"label": label, **curve})
        if curves:
            drawn.append(_chart(panel, curves))
    signal = subject.curves.signal()
    if signal is not None:
        drawn += _signal_charts(subject, *signal)
    order = [*dict.fromkeys(panel.section for panel in PANELS), "Other metrics"]
    return sorted(drawn, key=lambda chart: (order.index(chart["section"]), chart["place"]))


def constant(subject: Subject) -> dict[str, str]:
    """Metrics that never changed, with their value: no figure shows them."""
    return {
        name: number(float(column[np.isfinite(column)][0]))
        for name, column in subject.curves.columns.items()
        if name not in BOOKKEEPING and not _varies(subject, name) and len(subject.history) > 1
    }


def _chart(panel: Panel, curves: list[dict[str, Any]], place: int = 1) -> dict[str, Any]:
    return {
        "section": panel.section, "title": panel.title, "note": panel.note, "log": panel.log,
        "series": curves, "lines": [], "place": place,
    }  # fmt: skip


def _in_words(subject: Subject) -> Iterator[Panel]:
    """The panels, in the words of the run."""
    for panel in PANELS:
        if panel.title == "Return" and subject.language:
            yield replace(panel, title="Reward", note="Mean over the completions of an update.")
            yield from _evaluations(subject)
            yield _parts(subject)
        else:
            yield panel


def _evaluations(subject: Subject) -> list[Panel]:
    """The reward on every held-out set that has a name, a figure each."""
    note = "Mean over greedy completions of the prompts of this set."
    return [
        Panel("Learning", f"Reward on {name}", note, {f"eval/{name}/return": "evaluation"})
        for name in subject.evaluation_sets[:MOST_OTHERS]
    ]


def _parts(subject: Subject) -> Panel:
    """Rewards by part, where there are several."""
    names = [name for name in subject.curves.columns if name.startswith("rewards/")]
    several = {name: name.removeprefix("rewards/") for name in names} if len(names) > 1 else {}
    return Panel("Learning", "Rewards by part", "Mean of each, before its weight.", several)


def _others(subject: Subject) -> list[Panel]:
    """What callbacks have added, a figure each."""
    shown = {metric for panel in PANELS for metric in panel.metrics} | BOOKKEEPING
    shown |= {f"eval/{name}/return" for name in subject.evaluation_sets}
    columns = subject.curves.columns
    ends = {f"{name}_{end}" for name in columns for end in ("low", "high")}
    others = [n for n in columns if not (n in shown or n in ends or n.startswith("rewards/"))]
    return [Panel("Other metrics", name, "", {name: name}) for name in others[:MOST_OTHERS]]


def _signal_charts(
    subject: Subject, snr: dict[str, Any], scale: dict[str, Any]
) -> list[dict[str, Any]]:
    banded = any(low is not None for low in snr["low"])
    note = (
        "Of an update's gradient, over trailing windows of measured updates, with 95 % intervals. "
        "0: all noise."
        if banded
        else "Of an update's gradient, over five measured updates: too few for intervals. "
        "0: all noise."
    )
    first = _chart(Panel("Signal", "Signal-to-noise ratio", note, {}), [{"label": "SNR", **snr}], 0)
    first["lines"] = [{"y": 0, "label": ""}, {"y": 1, "label": "as much noise as signal"}]
    sized = Panel(
        "Signal", "Noise scale", f"The batch at which signal and noise are equal, in {subject.rows}"
        "; without an upper end where there is no signal.", {}, log=True,
    )  # fmt: skip
    second = _chart(sized, [{"label": "noise scale", **scale}], 0)
    batch = subject.last("batch")
    second["lines"] = [] if batch is None else [{"y": batch, "label": "batch"}]
    return [first, second] if any(y is not None for y in scale["y"]) else [first]


def _varies(subject: Subject, name: str) -> bool:
    values = subject.metric(name)
    if len(values) < 2:
        return len(values) == 1
    return bool(values.max() - values.min() > 1e-6 * np.abs(values).max())  # beyond rounding
