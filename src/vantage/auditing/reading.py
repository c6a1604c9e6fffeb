"""How to read every number of an audit: its name for people, its formula, one line of meaning."""

from typing import NamedTuple


class Reading(NamedTuple):
    """What a statistic is called, its formula, and how to read it."""

    title: str
    formula: str
    meaning: str


READING = {
    "bias": Reading(
        "relative bias",
        "‖G − G*‖ / ‖G*‖",
        "How far the mean gradient is from the reference, as a share of it. An interval that "
        "starts at 0 means that no bias is seen.",
    ),
    "scale": Reading(
        "scale",
        "G·G* / ‖G*‖²",
        "Length along the reference. A scale other than 1 acts as another learning rate; it does "
        "not turn the step.",
    ),
    "cosine": Reading(
        "cosine",
        "G·G* / (‖G‖ ‖G*‖)",
        "Direction of the mean gradient, sampling noise taken out. Below 1, the estimator climbs "
        "something else than J.",
    ),
    "squared_norm": Reading(
        "squared norm", "N = ‖G‖²", "The signal: squared length of the mean gradient. Not cut at 0."
    ),
    "variance": Reading(
        "variance",
        "tr Σ",
        "The noise of one trajectory's gradient; a batch of B has tr Σ / B. It scales with the "
        "square of the gradient: compare estimators of different scale by their SNR.",
    ),
    "variance_ratio": Reading(
        "variance ratio",
        "tr Σ / tr Σ*",
        "Variance over that of the reference on the same trajectories; below 1 is less noise.",
    ),
    "snr": Reading(
        "signal-to-noise ratio",
        "B N / tr Σ",
        "Signal over noise of a batch's gradient. An interval that holds 0 means that the gradient "
        "cannot be told from noise.",
    ),
    "noise_scale": Reading(
        "noise scale",
        "tr Σ / N",
        "Trajectories at which signal and noise are equal; B of them give SNR B / noise scale.",
    ),
    "batch_cosine": Reading(
        "batch cosine",
        "(1 + tr Σ / (B N))^(−1/2)",
        "Cosine of a batch's gradient with its mean: how far one step strays.",
    ),
    "pairwise_cosine": Reading(
        "pairwise cosine",
        "(1 + tr Σ / (B N))^(−1)",
        "Cosine of the gradients of two batches: how well two steps agree.",
    ),
    "between": Reading(
        "variance between starts",
        "tr Cov(E[g | start])",
        "Variance that more trajectories from one start cannot remove.",
    ),
    "within": Reading(
        "variance within starts",
        "E[tr Cov(g | start)]",
        "Variance of trajectories from one start: what larger groups average out.",
    ),
    "aggressiveness": Reading(
        "largest change of log-probability",
        "E max_t |∇ log π(a_t|s_t) · ĝ|",
        "Per unit of learning rate, to first order, on steps that the batch did not see: how "
        "violent a step is. A learning rate of 1 over this changes some probability by about e.",
    ),
    "cost": Reading(
        "cost",
        "seconds per trajectory",
        "Sampling, gradient passes (shared by all estimators) and the estimator's own weights, as "
        "measured on this machine.",
    ),
}

BEFORE = (
    "G = E ĝ is an estimator's mean gradient, G* the reference, Σ the covariance of one "
    "trajectory's gradient, B the batch. Numbers in brackets are 95 % intervals: over repeated "
    "audits they are made to hold the true value 19 times in 20. “Exact” numbers are solved or "
    "enumerated, not sampled. “Undetermined” means that the sample does not fix the number, and "
    "says why. * marks an optimistic interval, which may be too short, with its reason."
)


def reading(name: str) -> Reading:
    """Of a statistic; its bare name where nothing is written about it."""
    return READING.get(name, Reading(name.replace("_", " "), "", ""))
