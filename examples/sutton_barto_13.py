"""Sutton & Barto 2018, chapter 13, on the short corridor: figures 13.1 and 13.2, and actor-critic.

Run: python examples/sutton_barto_13.py [--out DIR] [--runs 100] [--episodes 1000] [--seed 0]

What the book leaves open is chosen here and said:

* The policy has one preference per action, softmax, and starts at p(right) = 0.05, the ε-greedy
  left policy of the book's example (J ≈ −82). Its probabilities are kept within [0.05, 0.95]: with
  nothing to stop it, an unlucky run at the larger step sizes becomes so sure of one action that an
  episode lasts many thousands of steps (10,919 was seen), and some never come back.
* Updates follow the boxes of the book: after an episode, step by step from its first, each step
  with the parameters that the step before left (not one sum at the end). γ = 1.
* Figure 13.1: REINFORCE with α = 2⁻¹², 2⁻¹³, 2⁻¹⁴. Figure 13.2: REINFORCE with α = 2⁻¹³, and with a
  baseline, one weight for all states as they look the same, α^θ = 2⁻⁹, α^w = 2⁻⁶.
* Actor-critic: the book gives no run, so the step sizes are ours, α^θ = 2⁻⁷, α^w = 2⁻⁴, λ = 0.8
  for both traces. The critic is told the state. With the actor's single observation its value would
  be the same everywhere, δ would be −1 on every step but the last, and the actor could not learn.

All runs step side by side in one array, so a figure takes seconds on one core. The dashed line is
the best a policy can do that cannot tell the states apart, J = −11.66, from the exact solver.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.random import Generator

import vantage as vt

CORRIDOR = vt.MDP.short_corridor()
NEXT = CORRIDOR.transition.argmax(2).numpy()  # [S, A]: the corridor is deterministic
END = int(CORRIDOR.terminal.nonzero())
FLOOR = 0.05
START_LOGIT = np.log(0.05 / 0.95)  # preference for right over left


def chance(logit: np.ndarray) -> np.ndarray:
    """p(right), kept within [FLOOR, 1 − FLOOR]."""
    return np.clip(1 / (1 + np.exp(-logit)), FLOOR, 1 - FLOOR)


def episode(p: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """One episode in every run: [T, runs] whether each step went right, and whether it counts."""
    state = np.zeros(len(p), dtype=int)
    rights, counts = [], []
    while (state != END).any():
        right = rng.random(len(p)) < p
        counts.append(state != END)
        rights.append(right)
        state = np.where(state != END, NEXT[np.minimum(state, END), right.astype(int)], END)
    return np.array(rights), np.array(counts)


def reinforce(
    step: float, runs: int, episodes: int, rng: Generator, value_step: float = 0.0
) -> np.ndarray:
    """REINFORCE (with a baseline where value_step > 0): total reward, [episodes, runs]."""
    logit = np.full(runs, START_LOGIT)
    w = np.zeros(runs)
    rewards = np.empty((episodes, runs))
    for i in range(episodes):
        rights, counts = episode(chance(logit), rng)
        lengths = counts.sum(0)
        rewards[i] = -lengths
        for t, (right, count) in enumerate(zip(rights, counts, strict=True)):
            G = -(lengths - t)
            above = (G - w) * count
            w += value_step * above
            # ∇ log π in the two preferences is ±(1[right] − p): their difference moves twice.
            logit += 2 * step * above * (right - chance(logit))
    return rewards


def actor_critic(
    step: float, value_step: float, decay: float, runs: int, episodes: int, rng: Generator
) -> np.ndarray:
    """Actor-critic with eligibility traces (one-step where decay = 0): [episodes, runs]."""
    logit = np.full(runs, START_LOGIT)
    w = np.zeros((runs, END + 1))
    actor_trace, critic_trace = np.zeros(runs), np.zeros((runs, END + 1))
    state, length, done = (np.zeros(runs, dtype=int) for _ in range(3))
    rewards = np.full((episodes, runs), np.nan)
    lane = np.arange(runs)
    while (done < episodes).any():
        p = chance(logit)
        right = rng.random(runs) < p
        following = NEXT[state, right.astype(int)]
        active = done < episodes
        delta = (-1 + w[lane, following] - w[lane, state]) * active  # w of the end stays 0
        actor_trace = decay * actor_trace + (right - p)
        critic_trace *= decay
        critic_trace[lane, state] += 1
        w += value_step * delta[:, None] * critic_trace
        logit += 2 * step * delta * actor_trace
        length += 1
        ended = following == END
        finished = ended & active
        rewards[done[finished], lane[finished]] = -length[finished]
        done += finished
        state, length = np.where(ended, 0, following), np.where(ended, 0, length)
        actor_trace[ended] = 0
        critic_trace[ended] = 0
    return rewards


def optimum() -> float:
    """The best J of a policy that sees the same everywhere, at p(right) = 2 − √2."""
    policy = vt.SoftmaxTable(1, 2)
    p = 2 - 2**0.5
    policy.logits.data = torch.tensor([[1 - p, p]], dtype=torch.float64).log()
    return vt.exact.objective(CORRIDOR, policy).item()


def draw(title: str, curves: dict[str, np.ndarray], path: Path) -> None:
    """Mean over runs of the total reward per episode, with ± 2 standard errors."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, rewards in curves.items():
        mean = rewards.mean(1)
        error = 2 * rewards.std(1, ddof=1) / rewards.shape[1] ** 0.5
        (line,) = axes.plot(mean, linewidth=0.9, label=label)
        axes.fill_between(
            range(len(mean)), mean - error, mean + error, color=line.get_color(), alpha=0.2
        )
        last = rewards[-100:].mean(0)
        print(
            f"{title}: {label}: mean of the last 100 episodes {last.mean():.2f} "
            f"± {2 * last.std(ddof=1) / len(last) ** 0.5:.2f}"
        )
    axes.axhline(optimum(), linestyle="--", color="grey", linewidth=1)
    axes.set_xlabel("episode")
    axes.set_ylabel(f"total reward, mean of {rewards.shape[1]} runs")
    axes.set_ylim(-95, -5)
    axes.set_title(title)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"saved {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/sutton_barto_13"))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng, size = np.random.default_rng(args.seed), (args.runs, args.episodes)
    plain = {
        f"REINFORCE, α = {step}": reinforce(2.0**-k, *size, rng)
        for step, k in (("2⁻¹²", 12), ("2⁻¹³", 13), ("2⁻¹⁴", 14))
    }
    draw("Figure 13.1", plain, args.out / "figure_13_1.png")
    second = {
        "REINFORCE, α = 2⁻¹³": plain["REINFORCE, α = 2⁻¹³"],
        "with baseline, policy 2⁻⁹, value 2⁻⁶": reinforce(2.0**-9, *size, rng, 2.0**-6),
    }
    draw("Figure 13.2", second, args.out / "figure_13_2.png")
    third = {
        "one-step actor-critic": actor_critic(2.0**-7, 2.0**-4, 0.0, *size, rng),
        "with eligibility traces, λ = 0.8": actor_critic(2.0**-7, 2.0**-4, 0.8, *size, rng),
    }
    draw("Actor-critic on the short corridor", third, args.out / "actor_critic.png")


if __name__ == "__main__":
    main()
