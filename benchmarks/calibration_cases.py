"""Problems whose gradients have a known mean and covariance trace: the truth of the calibration.

A case draws `audits x units` unit gradients of one or more estimators on the same units, and knows
for each the exact mean G and trace of the one-unit covariance. Nothing here imports the package:
the truth is independent of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sampler = Callable[[np.random.Generator, int, int], dict[str, Array]]


@dataclass(frozen=True)
class Case:
    """One problem: `sample(rng, audits, units)`: estimator name -> gradients [audits, units, P]."""

    name: str
    sample: Sampler
    mean: dict[str, Array]
    trace: dict[str, float]
    truth: str  # how mean and trace are known
    reference: str = ""  # estimator that serves as the sampled, unbiased reference
    between: float | None = None  # two-level designs only: K completions per prompt, unit = prompt
    within: float | None = None
    completions: int = 0
    tags: tuple[str, ...] = field(default=())


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


# ---- a. two states, one step ---------------------------------------------------------------------


def article() -> Case:
    """Two states, uniform start and policy; three baselines. Enumerated over 4 outcomes."""
    reward = np.array([[12.0, 7.0], [2.0, 5.0]])
    baselines = {"raw": np.zeros(2), "constant": np.full(2, 6.5), "value": reward.mean(1)}
    outcomes = {name: np.zeros((4, 4)) for name in baselines}
    for row, (state, action) in enumerate(product(range(2), range(2))):
        score = np.zeros((2, 2))
        score[state] = -0.5
        score[state, action] += 1.0
        for name, baseline in baselines.items():
            outcomes[name][row] = (score * (reward[state, action] - baseline[state])).reshape(-1)

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        row = rng.integers(0, 4, size=(audits, units))
        return {name: table[row] for name, table in outcomes.items()}

    return Case(
        "article",
        sample,
        *finite_moments(outcomes, np.full(4, 0.25)),
        truth="enumeration",
        reference="value",
    )


def finite_moments(
    outcomes: dict[str, Array], weight: Array
) -> tuple[dict[str, Array], dict[str, float]]:
    mean = {name: weight @ table for name, table in outcomes.items()}
    trace = {name: float(weight @ ((t - mean[name]) ** 2).sum(1)) for name, t in outcomes.items()}
    return mean, trace


# ---- b. short corridor with switched actions -----------------------------------------------------


def corridor(right: float) -> Case:
    """Sutton & Barto example 13.1: three aliased states, the second one reversed, reward -1 a step.

    All gradients lie along (1, -1): every sum of scores is a scalar times it. Truth by linear
    solves (moments of the return, the score sum and their products, state by state).
    """
    probability = np.array([right, 1.0 - right])
    score = np.array([1.0 - right, -right])  # along (1, -1)
    following = np.array([[1, 0], [0, 2], [3, 1]])  # [state, action right/left] -> state, 3 = end
    transition = np.zeros((4, 4))
    for state, action in product(range(3), range(2)):
        transition[state, following[state, action]] += probability[action]
    inner = np.linalg.inv(np.eye(3) - transition[:3, :3])

    def solve(source: Callable[[int, int, int], float]) -> Array:
        right_side = [
            sum(probability[a] * source(s, a, following[s, a]) for a in range(2)) for s in range(3)
        ]
        return np.append(inner @ np.array(right_side), 0.0)

    # mixed moments E[R^i S^j | s], i, j <= 2, of return R = -1 + R' and score sum S = psi + S'
    mixed = {(0, 0): np.ones(4)}
    choose = np.array([[1, 0, 0], [1, 1, 0], [1, 2, 1]])
    for i, j in sorted(product(range(3), range(3)), key=sum):
        if (i, j) == (0, 0):
            continue

        def lower(s: int, a: int, t: int, i: int = i, j: int = j) -> float:
            total = 0.0
            for k, m in product(range(i + 1), range(j + 1)):
                if (k, m) != (i, j):
                    term = choose[i, k] * choose[j, m] * (-1.0) ** (i - k) * score[a] ** (j - m)
                    total += float(term * mixed[k, m][t])
            return total

        mixed[i, j] = solve(lower)
    value, second = mixed[1, 0], mixed[2, 0]

    def to_go(baseline: Array) -> tuple[float, float]:
        mean = solve(lambda s, a, t: score[a] * (value[t] - 1 - baseline[s]))

        def cross_source(s: int, a: int, t: int) -> float:
            q, q2 = value[t] - 1, 1 - 2 * value[t] + second[t]
            return float(score[a] * (q2 - baseline[s] * q) - mean[t])

        cross = solve(cross_source)

        def square_source(s: int, a: int, t: int) -> float:
            q, q2, b = value[t] - 1, 1 - 2 * value[t] + second[t], baseline[s]
            return float(
                score[a] ** 2 * (q2 - 2 * b * q + b * b)
                + 2 * score[a] * ((-1 - b) * mean[t] + cross[t])
            )

        return float(mean[0]), float(solve(square_source)[0])

    moments = {
        "total": (float(mixed[1, 1][0]), float(mixed[2, 2][0])),
        "to_go": to_go(np.zeros(4)),
        "value": to_go(value),
    }
    along = np.array([1.0, -1.0])
    mean = {name: first * along for name, (first, _) in moments.items()}
    trace = {name: 2 * (square - first**2) for name, (first, square) in moments.items()}

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        count = audits * units
        state, alive = np.zeros(count, dtype=np.int64), np.arange(count)
        length, total = np.zeros(count), np.zeros(count)
        weighted, baselined = (
            np.zeros(count),
            np.zeros(count),
        )  # sum_t t psi_t, sum_t psi_t (t + b(s_t))
        step = 0
        while alive.size:
            action = (rng.random(alive.size) >= right).astype(np.int64)
            psi = score[action]
            total[alive] += psi
            weighted[alive] += step * psi
            baselined[alive] += psi * (step - value[state[alive]])
            state[alive] = following[state[alive], action]
            step += 1
            length[alive] = step
            alive = alive[state[alive] != 3]
        scalars = {
            "total": -length * total,
            "to_go": weighted - length * total,
            "value": baselined - length * total,
        }
        return {name: (x.reshape(audits, units, 1) * along) for name, x in scalars.items()}

    tags = ("heavy",) if right < 0.2 else ()
    return Case(
        f"corridor p={right}",
        sample,
        mean,
        trace,
        truth="moment recursion",
        reference="value",
        tags=tags,
    )


# ---- c. bandits ----------------------------------------------------------------------------------


def bandit(
    name: str, probability: Array, location: Array, law: str, tags: tuple[str, ...] = ()
) -> Case:
    """K-armed bandit, softmax logits; reward of arm a: location_a + noise. Three baselines.

    law: "gaussian" (sd 1), "lognormal" (exp of sd 1, centred) or "fixed" (no noise). Closed form.
    """
    arms = probability.size
    scores = np.eye(arms) - probability
    noise_variance = {"gaussian": 1.0, "lognormal": (np.e - 1) * np.e, "fixed": 0.0}[law]
    value = float(probability @ location)
    baselines = {"raw": 0.0, "value": value}
    if noise_variance:
        baselines["poor"] = float(location.mean() - 1)
    mean, trace = {}, {}
    for key, baseline in baselines.items():
        mean[key] = probability @ (scores * (location - baseline)[:, None])
        square = probability @ ((scores**2).sum(1) * ((location - baseline) ** 2 + noise_variance))
        trace[key] = float(square - mean[key] @ mean[key])

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        action = rng.choice(arms, size=(audits, units), p=probability)
        reward = location[action]
        if law == "gaussian":
            reward = reward + rng.standard_normal(action.shape)
        if law == "lognormal":
            reward = reward + np.exp(rng.standard_normal(action.shape)) - np.exp(0.5)
        return {key: scores[action] * (reward - b)[..., None] for key, b in baselines.items()}

    return Case(name, sample, mean, trace, truth="closed form", reference="value", tags=tags)


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(total,)]
    return [(k, *rest) for k in range(total + 1) for rest in compositions(total - k, parts - 1)]


def groups(
    name: str, probability: Array, reward: Array, size: int = 8, tags: tuple[str, ...] = ()
) -> Case:
    """Groups of `size` completions of one prompt: leave-one-out, group mean, group std.

    The reward is fixed by the arm, so a group's gradient depends on the counts of its arms only,
    and the truth is a sum over all count vectors.
    """
    scores = np.eye(probability.size) - probability
    return of_groups(name, probability, scores, reward, size, tags)


def of_groups(
    name: str,
    probability: Array,
    scores: Array,
    reward: Array,
    size: int,
    tags: tuple[str, ...] = (),
) -> Case:
    """The same for outcomes with scores [outcomes, P] of their own."""
    counts = np.array(compositions(size, probability.size))
    weight = np.array(
        [factorial(size) / np.prod([factorial(k) for k in row]) for row in counts.tolist()]
    )
    weight = weight * np.prod(probability**counts, axis=1)
    average = counts @ reward / size
    deviation = np.sqrt(np.maximum(counts @ reward**2 / size - average**2, 0))
    advantage = reward - average[:, None]
    safe = np.where(deviation > 1e-9, deviation, np.inf)[:, None]
    advantages = {
        "rloo": advantage * size / (size - 1),
        "dr_grpo": advantage,
        "grpo": advantage / safe,
    }
    outcomes = {key: (counts * a / size) @ scores for key, a in advantages.items()}
    mean, trace = finite_moments(outcomes, weight)

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        row = rng.choice(weight.size, size=(audits, units), p=weight / weight.sum())
        return {key: table[row] for key, table in outcomes.items()}

    return Case(name, sample, mean, trace, truth="enumeration", reference="rloo", tags=tags)


# ---- d. many parameters --------------------------------------------------------------------------


def spectrum(
    name: str, signal: float, tail: float = np.inf, size: int = 1000, power: float = 1.0
) -> Case:
    """g = mean + A z, eigenvalues i^-power, SNR `signal` per unit; z Gaussian or spherical t.

    The second estimator shares the noise (correlation 0.9) and is shrunk by 7/8: a biased reading
    of the same units.
    """
    scale = np.arange(1, size + 1) ** (-power / 2)
    direction = np.ones(size) / np.sqrt(size)
    noise = float((scale**2).sum())
    centre = np.sqrt(signal * noise) * direction
    spread = 1.0 if np.isinf(tail) else tail / (tail - 2)
    mean = {"clean": centre * np.sqrt(spread), "shrunk": centre * np.sqrt(spread) * 7 / 8}
    trace = {"clean": noise * spread, "shrunk": noise * spread * (7 / 8) ** 2}

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        first = rng.standard_normal((audits, units, size)) * scale
        second = (
            0.9 * first + np.sqrt(1 - 0.81) * rng.standard_normal((audits, units, size)) * scale
        )
        if not np.isinf(tail):
            factor = np.sqrt(tail / rng.chisquare(tail, size=(audits, units, 1)))
            first, second = first * factor, second * factor
        return {"clean": first + mean["clean"], "shrunk": second * 7 / 8 + mean["shrunk"]}

    return Case(name, sample, mean, trace, truth="closed form", reference="clean", tags=("large",))


# ---- two-level designs ---------------------------------------------------------------------------


def prompts(
    name: str, completions: int, between: float, tail: float = np.inf, size: int = 8
) -> Case:
    """Unit = prompt; gradients in blocks of completions: mean + prompt effect + noise."""
    mean = np.full(size, 0.5)
    inner = np.arange(1, size + 1) ** -1.0
    outer = between * np.arange(size, 0, -1) ** -1.0

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        effect = rng.standard_normal((audits, units, 1, size)) * np.sqrt(outer)
        noise = rng.standard_normal((audits, units, completions, size)) * np.sqrt(inner)
        if not np.isinf(tail):
            scale = np.sqrt((tail - 2) / tail)
            effect = (
                effect * scale * np.sqrt(tail / rng.chisquare(tail, size=(audits, units, 1, 1)))
            )
            noise = (
                noise
                * scale
                * np.sqrt(tail / rng.chisquare(tail, size=(audits, units, completions, 1)))
            )
        return {"all": (mean + effect + noise).reshape(audits, units * completions, size)}

    total = float(inner.sum() + outer.sum())
    return Case(
        name,
        sample,
        {"all": mean},
        {"all": total},
        "closed form",
        between=float(outer.sum()),
        within=float(inner.sum()),
        completions=completions,
    )


def article_prompts(completions: int, weight: str) -> Case:
    """The two states of the article as prompts drawn uniformly, `completions` actions each."""
    reward = np.array([[12.0, 7.0], [2.0, 5.0]])
    baseline = {"raw": np.zeros(2), "value": reward.mean(1)}[weight]
    table = np.zeros((2, 2, 4))
    for state, action in product(range(2), range(2)):
        score = np.zeros((2, 2))
        score[state] = -0.5
        score[state, action] += 1.0
        table[state, action] = (score * (reward[state, action] - baseline[state])).reshape(-1)
    centre = table.mean(1)
    mean = centre.mean(0)
    between = float(((centre - mean) ** 2).sum(1).mean())
    within = float(((table - centre[:, None]) ** 2).sum(2).mean())

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        state = rng.integers(0, 2, size=(audits, units, 1)).repeat(completions, 2)
        action = rng.integers(0, 2, size=(audits, units, completions))
        return {"all": table[state, action].reshape(audits, units * completions, 4)}

    return Case(
        f"article prompts {weight}",
        sample,
        {"all": mean},
        {"all": between + within},
        "enumeration",
        between=between,
        within=within,
        completions=completions,
    )


def peaked(top: float, arms: int = 10) -> Array:
    return np.append(np.full(arms - 1, (1 - top) / (arms - 1)), top)


LADDER = np.linspace(0.0, 2.0, 10)
CASES = (
    article(),
    corridor(0.05),
    corridor(0.3),
    corridor(0.59),
    corridor(0.9),
    bandit("bandit gaussian", softmax(LADDER), LADDER, "gaussian"),
    bandit("bandit lognormal", softmax(LADDER), LADDER, "lognormal"),
    bandit("bandit no signal", softmax(LADDER), np.zeros(10), "gaussian"),
    bandit("bandit peaked 0.98", peaked(0.98), LADDER, "fixed", ("sparse",)),
    bandit(
        "bandit rare success 0.02",
        np.append(0.02, np.full(9, 0.98 / 9)),
        np.eye(10)[0],
        "fixed",
        ("sparse",),
    ),
    groups("groups graded", np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.2, 0.5, 1.0])),
    groups("groups binary 0.3", np.array([0.3, 0.4, 0.2, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])),
    groups(
        "groups rare 0.02",
        np.array([0.02, 0.58, 0.3, 0.1]),
        np.array([1.0, 0.0, 0.0, 0.0]),
        tags=("sparse",),
    ),
    spectrum("gaussian P=1000 snr 0", 0.0),
    spectrum("gaussian P=1000 snr 0.01", 0.01),
    spectrum("gaussian P=1000 snr 0.1", 0.1),
    spectrum("gaussian P=1000 snr 10", 10.0),
    spectrum("t5 P=1000 snr 0", 0.0, tail=5.0),
    spectrum("t5 P=1000 snr 0.1", 0.1, tail=5.0),
    spectrum("t5 P=1000 snr 10", 10.0, tail=5.0),
    prompts("prompts gaussian", 8, between=0.5),
    prompts("prompts no between", 8, between=0.0),
    prompts("prompts t5", 8, between=0.5, tail=5.0),
    article_prompts(8, "raw"),
    article_prompts(8, "value"),
)
