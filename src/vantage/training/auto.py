"""Settings that follow the measured signal: the batch size, and the baseline.

Both are functions of the history alone, so that a resumed run makes the choices it would have made;
and both look at earlier batches only, so that no choice depends on the sample it is applied to.
"""

from functools import partial
from typing import Any, Literal

from vantage.errors import refuse_unless
from vantage.estimators import baselines
from vantage.estimators.columns import describe
from vantage.estimators.estimator import Column, Estimator

WINDOW = 5  # updates over which numerators and denominators are summed
SMALLEST, LARGEST = 16, 1024

History = list[dict[str, Any]]


def next_batch(history: History, first: int, target_snr: float) -> tuple[int, str]:
    """The batch that would have had the target SNR over the last updates, and why.

    B = SNR · Σ tr Σ̂ / Σ N̂, with tr Σ̂ per trajectory and N̂ summed over a window of updates before
    they are divided. It changes by a factor of two at the most and stays in [16, 1024]; where no
    signal is seen (Σ N̂ ≤ 0), it doubles.

    Args:
        history: rows of the run so far.
        first: the batch to begin with.
        target_snr: what to hold.

    Source: McCandlish et al. 2018 (noise scale).
    """
    if not history:
        return first, f"the first batch; then what holds an SNR of {target_snr:g}"
    current, recent = history[-1]["batch"], history[-WINDOW:]
    signal = sum(row["gradient_squared_norm"] for row in recent)
    noise = sum(row["gradient_variance"] * row["unit"] for row in recent)
    if signal <= 0:
        wanted, why = 2.0 * current, f"no signal in {len(recent)} updates: doubled"
    else:
        wanted = target_snr * noise / signal
        why = f"noise scale {noise / signal:.3g}, target SNR {target_snr:g}"
    bounded = min(max(wanted, current / 2), current * 2, LARGEST)
    return max(SMALLEST, round(bounded)), why


def candidates(estimator: Estimator, with_value: bool, grouped: bool) -> dict[str, Estimator]:
    """The estimator with each baseline that leaves it unbiased, by the baseline's name.

    The most informed stands first: a run begins with it. Means are offered whole and by half: the
    baseline of least variance lies below the mean return where bad trajectories have longer scores.

    Args:
        with_value: there is a learned V.
        grouped: trajectories are drawn in groups that may be compared.
    """
    means: list[Column] = [baselines.leave_one_out] if grouped else []
    means += [baselines.batch_leave_one_out]
    columns: list[Column] = [baselines.value] if with_value else []
    for mean in means:
        columns += [mean, partial(mean, fraction=0.5)]
    rows = {
        describe(column): estimator.replace(baseline=column)
        for column in [*columns, baselines.none]
    }
    return {name: row for name, row in rows.items() if row.bias == "none"}


def rules(
    estimator: Estimator, baseline: Literal["auto"] | None, with_value: bool, grouped: bool
) -> dict[str, Estimator]:
    """The estimators to choose from at every update, by baseline; one unless baseline="auto".

    Raises:
        InputError: baseline="auto" with an estimator that no baseline leaves unbiased.
    """
    if baseline is None:
        return {"": estimator}
    unbiased = candidates(estimator, with_value, grouped)
    refuse_unless(
        unbiased,
        f"train(baseline='auto'): no baseline leaves {estimator.name!r} unbiased; "
        "its other columns do not.",
    )
    return unbiased


def best_baseline(history: History, names: list[str]) -> tuple[str, str]:
    """The baseline whose gradient had the least variance when last measured, and why."""
    if len(names) == 1:
        return names[0], "no other baseline to choose"
    recent = [row["baseline_variance"] for row in history if "baseline_variance" in row][-WINDOW:]
    if not recent:
        return names[0], "nothing measured yet"
    total = {name: sum(row[name] for row in recent) for name in names}
    best = min(names, key=lambda name: total[name])
    measured = ", ".join(f"{name} {total[name] / len(recent):.3g}" for name in names)
    return best, f"variance of a trajectory's gradient over {len(recent)} updates: {measured}"
