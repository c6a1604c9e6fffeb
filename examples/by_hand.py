"""The training loop by hand: collect, weigh, gradient, step. The first thing to read.

REINFORCE with rewards-to-go on CartPole-v1, from functions that `vt.train` calls too: the policy
it ends with has the same bits. `train` adds value functions, other update rules and run folders.

    python examples/by_hand.py
"""

import torch

import vantage as vt
from vantage.environments.rollout import episodes
from vantage.runs.seeds import seed_of
from vantage.statistics.signal import unit_signal

EPISODES = 64  # N, of a batch; a power of two, so that N g / N is g to the bit


def main(updates: int = 30, seed: int = 0, lr: float = 1e-2) -> vt.Policy:
    """Train, print a line per update, and return the policy."""
    env = vt.Gymnasium("CartPole-v1", lanes=EPISODES)
    policy = env.policy(hidden=(32,))
    estimator = vt.estimators.reward_to_go()
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr, fused=True)

    for update in range(updates):
        # Collect: N episodes as rows of parallel tensors [N, T], drawn from (seed, update).
        batch = episodes(env, policy, EPISODES, seed_of(seed, update, 0))

        # Weigh: w_nt = 1/N Σ_{k ≥ t} r_nk, a number for every step [N, T], without a graph.
        weights = estimator.weights(batch)

        # Gradient: ĝ_n = Σ_t w_nt ∇ log π(a_nt|s_nt) of every episode [N, P]; their sum is ĝ.
        rows = vt.row_gradients(policy, batch, weights)
        gradient = rows.sum(0)

        # How good is it? N times a row is an estimate of ∇J by itself: N of them show the noise.
        units = EPISODES * rows
        signal = unit_signal(units.sum(0), float(units.square().sum()), EPISODES)

        # Step: θ ← θ + α ĝ. Torch's optimisers go downhill, so they are given −ĝ.
        parameters = list(policy.parameters())
        pieces = gradient.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = -piece.view_as(parameter)
        optimizer.step()

        mean = float(batch.reward.sum(1).mean())
        print(f"update {update + 1}: return {mean:.1f}, SNR {signal.snr:.2f}")
    return policy


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
