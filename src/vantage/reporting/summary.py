"""A run in sentences: whether it learned, whether its gradient is signal, and what to change."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vantage.pages.numbers import number
from vantage.reporting.subject import LEAST, Subject
from vantage.statistics.estimate import Estimate
from vantage.statistics.gram import Array
from vantage.statistics.pieces import is_trusted, window_snr

RECENT = 40  # measured updates whose signal is that of the end
PLENTY = 20.0  # SNR beyond which a batch is larger than a step needs
GOOD = 2.0  # SNR that a batch is recommended for


@dataclass(frozen=True)
class Finding:
    """An observation, and what to do about it, where there is something to be done."""

    sentence: str
    remedy: str = ""


def summarise(subject: Subject) -> list[str]:
    """Sentences; the last is the advice."""
    if not subject.history:
        return ["No update is finished yet."]
    findings = [finding for rule in RULES if (finding := rule(subject)) is not None]
    remedies = [finding.remedy for finding in findings if finding.remedy]
    advice = " ".join(remedies[:2]) or "Nothing in these numbers asks for a change."
    return [*(finding.sentence for finding in findings), advice]


def difference(after: Array, before: Array) -> Estimate:
    """Mean after − mean before, with Welch's 95 % interval; undetermined of fewer than two each.

    Updates are taken as independent: each draws its own batch.
    """
    if min(len(after), len(before)) < 2:
        return Estimate(math.nan, math.nan, math.nan, note="undetermined: too few updates")
    with np.errstate(all="ignore"):
        variances = np.array([after.var(ddof=1) / len(after), before.var(ddof=1) / len(before)])
        value, spread = float(after.mean() - before.mean()), float(variances.sum())
        if not spread > 0:
            return Estimate(value, value, value)
        freedom = spread**2 / (variances**2 / [len(after) - 1, len(before) - 1]).sum()
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(spread)
    return Estimate(value, value - half, value + half)


def signal_at_end(subject: Subject) -> Estimate | None:
    """The SNR of an update's gradient over the last measured updates; None without measurements."""
    window = _measured(subject)
    return None if window is None else window_snr(window[0], window[1])


# ---- what is looked at ---------------------------------------------------------------------------


def _learned(subject: Subject) -> Finding:
    name, before, after = subject.worth, subject.early("return"), subject.late("return")
    if len(before) < 2:
        return Finding(f"Too few updates with a {name} to say whether it learned.", "Train longer.")
    change = difference(after, before)
    numbers = (
        f"The {name} went from {number(before.mean())} (the first {len(before)} updates) to "
        f"{number(after.mean())} (the last {len(after)}): a difference of {number(change.value)} "
        f"[{number(change.low)}, {number(change.high)}]."
    )
    if change.low > 0:
        return Finding(f"It learned. {numbers}")
    if change.high < 0:
        return Finding(
            f"It got worse. {numbers}",
            "Lower the learning rate, and look at KL and gradient norm where it turned.",
        )
    return Finding(f"Nothing says that it learned. {numbers}")


def _evaluated(subject: Subject) -> Finding | None:
    """Evaluations, the first against the last: each has an interval of its own."""
    scores = subject.metric("eval/return")
    if len(scores) == 0:
        return None
    last, ends = subject.evaluation() or ("", "")
    first = f", the first {number(scores[0])}" if len(scores) > 1 else ""
    best = f", the best of all {len(scores)} {number(scores.max())}" if len(scores) > 2 else ""
    sets = [(name, subject.evaluation(f"eval/{name}")) for name in subject.evaluation_sets]
    each = ", ".join(f"{name} {result[0]}{result[1]}" for name, result in sets if result)
    by_set = f" By set: {each}." if each else ""
    return Finding(f"Evaluated: the last {last}{ends}{first}{best}.{by_set}")


def _trend(subject: Subject) -> Finding | None:
    """Whether it still rises, or has fallen from its best."""
    values = subject.metric("return")
    size = len(subject.late("return"))
    if len(values) < 4 * LEAST:
        return None
    blocks = [values[end - size : end] for end in range(len(values), size - 1, -size)]
    best = max(blocks, key=lambda block: block.mean())
    fallen = difference(blocks[0], best)
    whole = max(float(values.max() - values.min()), 1e-12)
    if fallen.high < 0 and -fallen.value > 0.15 * whole:
        return Finding(
            f"It was better before: a {subject.worth} of {number(best.mean())} at its best, "
            f"{number(blocks[0].mean())} at the end.",
            "Keep the best policy (keep_best=True), and let the learning rate fall "
            '(schedule="linear").',
        )
    rising = difference(blocks[0], blocks[1])
    if rising.low > 0:
        return Finding(
            f"The {subject.worth} still rises at the end.", "Train longer: it was still rising."
        )
    return None


def _signal(subject: Subject) -> Finding | None:
    ratio = signal_at_end(subject)
    window = _measured(subject)
    if ratio is None or window is None:
        return Finding(
            "The signal of the gradient was not measured.",
            "" if subject.language else "Measure the signal: signal_every=10, with two lanes.",
        )
    count, batch = len(window[0]), float(window[2].mean())
    bounded = math.isfinite(ratio.low) and math.isfinite(ratio.high)
    ends = f" [{number(ratio.low)}, {number(ratio.high)}]" if bounded else ""
    where = f"over the last {count} measured updates, at {batch:,.0f} {subject.rows} each"
    sentence = f"The gradient's signal-to-noise ratio is {number(ratio.value)}{ends} {where}"
    if not bounded:
        return Finding(f"{sentence}; its interval is {ratio.note}.")
    if not is_trusted(ratio):
        sentence += f", the interval {ratio.note}"
    scale = batch / ratio.value if ratio.value > 0 else math.inf
    if ratio.low <= 0:
        return Finding(f"{sentence}: it cannot be told from noise.", _larger(subject, batch, scale))
    if ratio.high < 1:
        return Finding(f"{sentence}: more noise than signal.", _larger(subject, batch, scale))
    if ratio.low > PLENTY:
        return Finding(
            f"{sentence}: far more signal than a step needs.",
            f"A batch of {number(max(2.0, GOOD * scale))} {subject.rows} would have an SNR of "
            f"{GOOD:g}: smaller batches step more often for the same work.",
        )
    return Finding(f"{sentence}: the gradient is signal.")


def _larger(subject: Subject, batch: float, scale: float) -> str:
    """What to do about noise: where it learns all the same, more of each batch saves updates."""
    size = f"about {number(GOOD * scale)}" if math.isfinite(scale) else f"{number(4 * batch)}"
    if difference(subject.late("return"), subject.early("return")).low > 0:
        return (
            f"It learns in spite of the noise: larger batches (up to {size} {subject.rows}) would "
            "take fewer updates."
        )
    return (
        f"Take a larger batch ({size} {subject.rows} for an SNR of {GOOD:g}), or a baseline of "
        'less variance (baseline="auto").'
    )


def _measured(subject: Subject) -> tuple[Array, Array, Array] | None:
    """N̂, the variance of ĝ and its batch at the last measured updates."""
    names = ("units", "unit", "gradient_squared_norm", "gradient_variance")
    columns = [subject.curves.columns.get(name) for name in names]
    if any(column is None for column in columns):
        return None
    with np.errstate(all="ignore"):
        stacked = np.stack([column for column in columns if column is not None])
        units, unit, norm, variance = stacked[:, np.isfinite(stacked).all(0) & (stacked[0] > 0)]
        return (
            None
            if len(units) == 0
            else (norm[-RECENT:], (variance / units)[-RECENT:], (units * unit)[-RECENT:])
        )


@dataclass(frozen=True)
class Threshold:
    """A metric whose mean over the last tenth of the updates says something beyond a limit."""

    metric: str
    beyond: Callable[[float], bool]
    sentence: str  # with {} for the mean
    remedy: str
    language: bool | None = None  # of which runs; None: of both

    def __call__(self, subject: Subject) -> Finding | None:
        mean = subject.late_mean(self.metric)
        if mean is None or not self.beyond(mean) or self.language not in (None, subject.language):
            return None
        return Finding(self.sentence.format(number(mean)), self.remedy)


def _entropy(subject: Subject) -> Finding | None:
    before, after = subject.early("entropy"), subject.late("entropy")
    if len(before) == 0 or not before.mean() > 0 or not 0 <= after.mean() < 0.02 * before.mean():
        return None
    return Finding(
        f"The policy has become all but deterministic: entropy {number(after.mean())}, "
        f"{number(before.mean())} at the start.",
        "If it stopped learning too early, add an entropy bonus or lower the learning rate.",
    )


def _value(subject: Subject) -> Finding | None:
    """Whether V helps; where all returns are alike it has nothing to explain."""
    mean, spread = subject.late_mean("explained_variance"), subject.late_mean("return_std")
    worth = subject.late_mean("return") or 0.0
    if mean is None or mean >= 0.05 or (spread is not None and spread < 0.01 * abs(worth)):
        return None
    return Finding(
        f"V explains a share of {number(mean)} of the variance of the returns: as a baseline it "
        "helps little.",
        "Fit V better: more steps of V, or a larger learning rate for it.",
    )


RULES: tuple[Any, ...] = (
    _learned,
    _evaluated,
    _trend,
    _signal,
    _entropy,
    Threshold(
        "kl", lambda mean: mean > 0.05,
        "Updates move the policy far: a KL of {} each at the end.",
        "Fewer epochs, a lower learning rate or a target_kl would keep updates near the policy "
        "that collected.", language=False,
    ),
    Threshold(
        "clip_fraction", lambda mean: mean > 0.3,
        "A share of {} of the steps is clipped, and teaches nothing in later epochs.",
        "Make fewer epochs, or lower the learning rate.",
    ),
    _value,
    Threshold(
        "frac_reward_zero_std", lambda mean: mean > 0.5,
        "In a share of {} of the groups all completions got the same reward: they teach nothing.",
        "Choose prompts of middling difficulty, or draw more completions each (num_generations).",
    ),
    Threshold(
        "completions/clipped_ratio", lambda mean: mean > 0.2,
        "A share of {} of the completions is cut at the limit.",
        "Raise max_completion_length, or reward shorter completions.",
    ),
    Threshold(
        "scorable", lambda mean: mean < 0.9,
        "Only a share of {} of the completions could be scored.",
        "Mend the reward: vantage.language.check_reward says where it fails.",
    ),
    Threshold(
        "ess", lambda mean: mean < 0.5,
        "The effective sample size is a share of {} of the batch: its last epochs are far off the "
        "policy that drew it.", "Fewer epochs, or a lower learning rate.",
    ),
)  # fmt: skip
