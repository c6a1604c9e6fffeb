"""Signal and noise of a step from its pieces, and the SNR of a window of steps with its interval.

A step's gradient is ĝ = Σ_k c_k over K independent pieces (accumulation passes, ranks) with
E c_k = p_k G, Σ p_k = 1. Norms are all that is needed:

    N̂ = (‖ĝ‖² − Σ ‖c_k‖²) / (1 − Σ p_k²)      unbiased for ‖G‖², whatever the weights
    v̂ = ‖ĝ‖² − N̂                              unbiased for tr Cov(ĝ)

Neither is ever clamped. With two pieces of equal weight this is appendix A of McCandlish et al.
2018. Ratios are not unbiased: over a window, numerator and denominator are averaged apart first.
"""

import numpy as np
from scipy.special import stdtrit

from vantage.errors import refuse_unless
from vantage.statistics.bootstrap import FEWEST, effective, tail
from vantage.statistics.estimate import Estimate
from vantage.statistics.gram import TINY, Array


def piece_signal(total: float, squares: float, share: float) -> tuple[float, float]:
    """(N̂, v̂) of one step, unbiased for ‖G‖² and tr Cov(ĝ).

    Args:
        total: ‖Σ c_k‖², squared norm of the step's gradient.
        squares: Σ ‖c_k‖², of what each piece contributes to it.
        share: Σ p_k² of the weights, normalised to Σ p_k = 1; 1/K where they are equal.

    Raises:
        InputError: one piece carries all the weight.

    >>> piece_signal(total=4.0, squares=2.5, share=0.5)  # contributions 1/2 and 3/2: as unit_signal
    (3.0, 1.0)
    """
    refuse_unless(
        share < 1 - 1e-9,
        f"piece_signal(share={share:g}): one piece carries all the weight; split the step into two "
        "independent pieces or more.",
    )
    squared_norm = (total - squares) / (1 - share)
    return squared_norm, total - squared_norm


def window_snr(squared_norms: Array, variances: Array) -> Estimate:
    """Σ N̂_t / Σ v̂_t over steps [W], with a jackknife interval over steps.

    The interval is Student's, of the pseudo-values of log(1 + SNR): the distribution of the SNR is
    skewed, that of log(1 + SNR) much less so, and it is defined for every SNR above −1, as an
    estimate may well be negative. Steps are taken as independent; where the signal drifts within
    the window, the drift is counted as noise and the interval is too wide rather than too short.
    (Miller 1974 for the jackknife of a ratio.)

    >>> found = window_snr(np.tile([1.0, 3.0], 8), np.tile([2.0, 2.0], 8))
    >>> bool(found.low < found.value == 1.0 < found.high)
    True
    """
    steps = len(squared_norms)
    norm, variance = squared_norms.sum(), variances.sum()
    value = float(norm / variance) if abs(variance) > TINY else float("nan")
    without = variance - variances
    if steps < 2 * FEWEST or without.min() <= 0 or (norm + variance) <= 0:
        note = f"undetermined: {steps} steps; an interval needs {2 * FEWEST}"
        if steps >= 2 * FEWEST:
            note = "undetermined: the variance cannot be told from zero; more steps are needed"
        return Estimate(value, -np.inf, np.inf, note=note)
    whole = float(np.log1p(value))
    pseudo = steps * whole - (steps - 1) * np.log1p((norm - squared_norms) / without)
    size = (pseudo - pseudo.mean()) ** 2
    if size.max() <= 1e-24 * max(whole**2, TINY):
        return Estimate(value, value, value, note="every step is the same")
    if (carriers := effective(size)) < FEWEST:
        note = f"undetermined: {carriers:.1f} of {steps} steps carry it; more steps are needed"
        return Estimate(value, -np.inf, np.inf, note=note)
    half = stdtrit(steps - 1, 0.975) * np.sqrt(size.sum() / (steps - 1) / steps)
    ends = np.expm1([pseudo.mean() - half, pseudo.mean() + half])
    note = tail(size).replace("units", "steps").replace("draw more", "wait for more")
    return Estimate(value, float(ends[0]), float(ends[1]), note=note)


def is_trusted(estimate: Estimate) -> bool:
    """Whether the window bears the interval: it is bounded, and more than a few steps carry it.

    Where what matters is rare (a reward in one of forty trajectories), two of it must meet in one
    step to be seen, and a window without such a step looks harmless: an interval that is not
    trusted held the exact value in 3 of 100 windows there.
    """
    return bool(np.isfinite([estimate.low, estimate.high]).all()) and not estimate.note.startswith(
        ("optimistic", "undetermined")
    )
