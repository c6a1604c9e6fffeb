"""First light: plain REINFORCE and REINFORCE with a learned baseline, from the same seed.

Trains CartPole-v1 twice with equal budgets, prints both results side by side with the
signal-to-noise ratio of their gradients, evaluates the better policy and draws the curves.

    python examples/first_light.py [--steps 300000] [--seed 0] [--out runs/first_light]
"""

import shutil
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

import vantage as vt
from vantage.runs.curves import learning_curves
from vantage.runs.progress import windowed_snr

ROWS = (vt.estimators.reinforce(), vt.estimators.reinforce_baseline())
# What is compared: the number of environment steps at which the SNR is read off.
SHARES = (0.1, 0.25, 0.5, 1.0)


def main(steps: int = 300_000, seed: int = 0, out: Path = Path("runs/first_light")) -> None:
    """Train, compare, evaluate, draw.

    Args:
        steps: environment steps of each run.
        seed: of both runs.
        out: folder for both runs and the figure; what an earlier demo left there is replaced.
    """
    console = Console(highlight=False)
    trained, policies = {}, {}
    for estimator in ROWS:
        console.print(f"\n[bold]{estimator.name}[/] on CartPole-v1, {steps:,} steps, seed {seed}")
        env = vt.Gymnasium("CartPole-v1", lanes=64)
        policy = env.policy()
        value = env.value() if "value" in estimator.needs else None
        folder = out / estimator.name
        shutil.rmtree(folder, ignore_errors=True)
        trained[estimator.name] = vt.train(
            env, policy, estimator, value=value, steps=steps, seed=seed, out=folder
        )
        policies[estimator.name] = policy
    console.print(comparison(trained, steps))

    final = {name: tail_mean(run) for name, run in trained.items()}
    better = max(final, key=lambda name: final[name])
    result = vt.evaluate(env, policies[better], episodes=100, seed=seed + 1)
    console.print(f"\nEvaluation of {better}: {result}")
    figure = learning_curves(
        {name: run.history for name, run in trained.items()},
        out / "learning_curves.png",
        f"CartPole-v1, one step per 64 episodes, seed {seed}",
    )
    console.print(f"Learning curves and signal-to-noise ratios: {figure}")
    console.print(f"Run folders: {', '.join(str(run.path) for run in trained.values())}")


def tail_mean(run: vt.Run) -> float:
    """Mean training return of the last two updates (128 episodes)."""
    last = run.history[-2:]
    return sum(row["return"] for row in last) / len(last)


def comparison(trained: dict[str, vt.Run], steps: int) -> Table:
    """Mean return and gradient SNR of both runs after equal numbers of steps."""
    table = Table(title="After equal numbers of environment steps")
    table.add_column("steps", justify="right")
    for name in trained:
        table.add_column(f"{name}\nreturn", justify="right")
        table.add_column("gradient\nSNR", justify="right")
    for share in SHARES:
        cells = [f"{int(share * steps):,}"]
        for run in trained.values():
            reached = [i for i, row in enumerate(run.history) if row["steps"] <= share * steps]
            i = len(run.history) - 1 if share == 1.0 else (reached or [0])[-1]
            cells += [
                f"{run.history[i]['return']:.1f}",
                f"{windowed_snr(run.history[max(0, i - 4) : i + 1]):.2f}",
            ]
        table.add_row(*cells)
    table.caption = "SNR of the gradient of one batch of 64 episodes, over 5 updates"
    return table


if __name__ == "__main__":
    tyro.cli(main)
