"""Stale batches: what ratios and clipping do to a gradient some updates after sampling.

A batch is sampled, then several gradient steps are taken on it, as PPO's epochs do. At 0, 4 and 16
steps the gradient of the policy so reached is estimated from trajectories of the old one, in three
ways, and compared with one from trajectories of its own.

    python examples/stale_batches.py [--trajectories 2048]
"""

import tyro
from rich.console import Console
from rich.table import Table

import vantage as vt
from vantage.auditing.stale import audit_stale
from vantage.pages.numbers import text


def main(trajectories: int = 2048, seed: int = 0) -> None:
    """Train a little, then audit stale batches.

    Args:
        trajectories: of each audit.
        seed: of training and audits.
    """
    env = vt.Gymnasium("CartPole-v1", lanes=64, max_episode_steps=50)
    policy, value = env.policy(), env.value()
    vt.train(
        env, policy, vt.estimators.reinforce_baseline(), value=value, updates=5, seed=seed
    )  # fmt: skip
    clipped = vt.estimators.ppo()
    rows = [
        clipped,
        clipped.replace(clip=vt.ratios.unclipped, name="unclipped"),
        clipped.replace(clip=vt.ratios.unclipped, ratio=vt.ratios.none, name="no ratio"),
    ]
    # the reference is the same advantage on the policy's own trajectories
    reports = audit_stale(
        env, policy, rows, updates=(0, 4, 16), value=value, trajectories=trajectories, seed=seed,
        reference=rows[2].replace(name="fresh"),
    )  # fmt: skip
    table = Table(title="PPO's gradient, k steps after its batch was sampled")
    for heading in ("k", "estimator", "cosine with fresh", "scale", "SNR, batch 64"):
        table.add_column(heading, justify="right")
    for k, report in reports.items():
        for row in report.rows:
            table.add_row(str(k), row.estimator, text(row.cosine), text(row.scale), text(row.snr))
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
