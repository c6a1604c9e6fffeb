"""What each importance costs and saves: exact bias and variance under a stated mismatch.

A sampler μ whose logits are the policy's plus noise draws trajectories of five steps; every one of
them is listed, so that E ĝ and the variance are sums and not samples. `python
benchmarks/off_policy_bias.py` prints the table that docs/estimators.md shows.
"""

from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

import vantage as vt
from vantage import exact

IMPORTANCES = {
    "none": vt.importance.none,
    "truncated": vt.importance.truncated,
    "truncated(maximum=2.0)": partial(vt.importance.truncated, maximum=2.0),
    "masked(minimum=0.5, maximum=5.0)": partial(vt.importance.masked, minimum=0.5, maximum=5.0),
    "truncated(ratio=trajectory)": partial(vt.importance.truncated, ratio=vt.ratios.trajectory),
    "truncated(ratio=trajectory, maximum=2.0)": partial(
        vt.importance.truncated, ratio=vt.ratios.trajectory, maximum=2.0
    ),
    "masked(ratio=trajectory, maximum=2.0)": partial(
        vt.importance.masked, ratio=vt.ratios.trajectory, maximum=2.0
    ),
    "rejected(minimum=0.8, maximum=1.25)": partial(
        vt.importance.rejected, minimum=0.8, maximum=1.25
    ),
}
NOISE = (0.1, 0.3, 1.0)


class Cell(NamedTuple):
    """Of one importance under one mismatch.

    Attributes:
        bias: ‖E ĝ − ∇J‖/‖∇J‖.
        angle: between E ĝ and ∇J, degrees.
        variance: of one trajectory's estimate, tr Cov/‖∇J‖².
    """

    bias: float
    angle: float
    variance: float

    def error(self, batch: int) -> float:
        """E ‖ĝ − ∇J‖²/‖∇J‖² of a batch of so many trajectories."""
        return self.bias**2 + self.variance / batch


class Mismatch(NamedTuple):
    """A policy, the one that samples, and how far apart they are.

    Attributes:
        kl: KL(μ‖π) of whole trajectories, nats.
        ess: 1/E_μ ρ², the effective sample size of whole trajectories as a share.
    """

    mdp: vt.MDP
    policy: vt.SoftmaxTable
    every: vt.Batch  # of the sampler's trajectories, with their probabilities
    kl: float
    ess: float


@cache
def mismatch(noise: float) -> Mismatch:
    """Three states, three actions, five steps; logits of μ are those of π plus noise · N(0, 1)."""
    generator = torch.Generator().manual_seed(0)
    mdp = vt.MDP.garnet(3, 3, 1, horizon=5, discount=1.0, seed=0)
    policy, sampler = (vt.SoftmaxTable(mdp.observations, 3) for _ in range(2))
    shape = policy.logits.shape
    policy.logits.data = torch.randn(shape, generator=generator).double()
    apart = torch.randn(shape, generator=generator).double()
    sampler.logits.data = policy.logits.data + noise * apart
    every = exact.enumerate(mdp, sampler)
    log_prob = policy.log_prob(every.observation, every.action).detach()
    log_ratio = torch.where(every.mask, log_prob - every.log_prob, 0).sum(1)
    return Mismatch(
        mdp,
        policy,
        every,
        float(-(every.weight @ log_ratio)),
        float(1 / (every.weight @ log_ratio.exp().square())),
    )


@cache
def measured(noise: float) -> dict[str, Cell]:
    """Every importance on REINFORCE, with J as a constant baseline: unbiased on policy."""
    found = mismatch(noise)
    target = exact.gradient(found.mdp, found.policy).detach()
    level = float(exact.objective(found.mdp, found.policy).detach())
    plain = vt.Estimator(baseline=partial(vt.baselines.constant, level=level))
    return {
        name: _cell(found, plain.replace(importance=column), target)
        for name, column in IMPORTANCES.items()
    }


def _cell(found: Mismatch, estimator: vt.Estimator, target: Tensor) -> Cell:
    every, chance = found.every, found.every.weight
    log_prob = found.policy.log_prob(every.observation, every.action).detach()
    weights = estimator.weights(every, log_prob)
    mean = vt.gradient(found.policy, every, estimator)
    each = vt.row_gradients(found.policy, every, weights / chance[:, None])
    second = float(chance @ each.square().sum(1))
    size = float(target.square().sum())
    cosine = torch.cosine_similarity(mean, target, dim=0).clamp(-1, 1)
    return Cell(
        float((mean - target).norm() / target.norm()),
        float(torch.rad2deg(torch.arccos(cosine))),
        (second - float(mean.square().sum())) / size,
    )


def markdown() -> str:
    """Bias, angle and variance under every mismatch."""
    every = {noise: mismatch(noise) for noise in NOISE}
    cells = {noise: measured(noise) for noise in NOISE}
    heads = [
        f"noise {noise:g}: KL {found.kl:.2g}, ESS {found.ess:.2f}" for noise, found in every.items()
    ]
    lines = ["| importance | " + " | ".join(heads) + " |", "|" + " --- |" * (1 + len(heads))]
    for name in IMPORTANCES:
        own = (cells[noise][name] for noise in NOISE)
        texts = [f"{100 * c.bias:.1f} %, {c.angle:.1f}°, {c.variance:.3g}" for c in own]
        lines.append(f"| `{name}` | " + " | ".join(texts) + " |")
    for batch in (64, 1024, 16384):
        best = [min(IMPORTANCES, key=lambda n: cells[noise][n].error(batch)) for noise in NOISE]
        lines.append(f"| least error with {batch:,} | " + " | ".join(f"`{n}`" for n in best) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
