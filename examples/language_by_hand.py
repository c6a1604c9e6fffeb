"""The training loop of a language model by hand: draw, score, weigh, gradient, step.

RLOO on a task of one token, from functions that `vl.train` calls too: the model it ends with has
the same bits. Compare with `by_hand.py`: a completion is an episode, a token an action, a prompt a
start state, and all else is the same.

    python examples/language_by_hand.py
"""

import torch

import vantage as vt
from vantage import language as vl
from vantage.language.scoring.scoring import plan_passes, scored_passes
from vantage.runs.seeds import generator_of

PROMPTS = 8  # of a batch; each is completed `task.num_generations` times


def even(completions: list[str]) -> list[float]:
    """1 for an even digit."""
    return [float(text in set("02468")) for text in completions]


def main(updates: int = 30, seed: int = 0, lr: float = 3e-3) -> vl.Policy:
    """Train, print a line per update, and return the policy."""
    rows = [{"prompt": letter} for letter in "abcdefghijklmnop"]
    task = vl.Task(rows, even, num_generations=8, held_out=0)
    policy = vl.tiny.policy(hidden=32, layers=1, heads=2, max_completion_length=1)
    estimator = vt.estimators.rloo()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, weight_decay=0.0, fused=True)

    for update in range(updates):
        # Draw and score: 8 prompts × 8 completions as rows [N, T], a reward at each last token.
        prompts = task.stream(update * PROMPTS, PROMPTS, seed)
        batch = vl.rollout(task, policy, prompts, generator_of(seed, update, 0, 0)).batch

        # Weigh: w_nt = 1/N (R_n − mean R of the other completions of the prompt).
        weights = estimator.weights(batch)

        # Gradient of Σ w log π, in passes of so many tokens that memory holds.
        optimizer.zero_grad()
        for one in scored_passes(policy, batch, plan_passes(batch, policy)):
            gain = (weights[one.rows][one.mask] * one.log_prob).sum()
            (-gain).backward()

        # Step: θ ← θ + α ĝ; torch's optimisers go downhill, and −gain falls.
        optimizer.step()
        print(f"update {update + 1}: reward {float(batch.reward.sum(1).mean()):.3f}")
    return policy


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
