"""More problems of the calibration: rare large rewards, a tree under group rewards, two prompts.

Truth is enumerated, and nothing here imports the package; see `calibration_cases.py`.
"""

from itertools import product

import numpy as np
from calibration_cases import Array, Case, finite_moments, groups, of_groups, softmax


def jackpot() -> Case:
    """A bandit of two arms, one of which pays 10 and is drawn in 1 of 20 times; groups of 8."""
    return groups("groups jackpot", np.array([0.05, 0.95]), np.array([10.0, 0.0]), tags=("sparse",))


def tree(depth: int = 4, size: int = 4) -> Case:
    """A binary tree: a decision with logits of its own at every node, a reward at three leaves.

    Groups of `size` descents; a group's gradient depends on the counts of its leaves only.
    """
    generator = np.random.default_rng(0)
    nodes = 2**depth - 1
    policy = softmax(0.5 * generator.standard_normal((nodes, 2)))
    leaves = list(product(range(2), repeat=depth))
    probability, scores = np.ones(len(leaves)), np.zeros((len(leaves), nodes, 2))
    for leaf, turns in enumerate(leaves):
        node = 0
        for turn in turns:
            scores[leaf, node] -= policy[node]
            scores[leaf, node, turn] += 1
            probability[leaf] *= policy[node, turn]
            node = 2 * node + 1 + turn
    reward = np.zeros(len(leaves))
    reward[[0, 5, 10]] = 1.0, 0.5, 1.0
    flat = scores.reshape(len(leaves), -1)
    return of_groups("groups tree of depth 4", probability, flat, reward, size)


def signs() -> Case:
    """Episodes of three steps on six states, three actions, rewards of 1 and −1: REINFORCE.

    Every trajectory is enumerated: 729 sequences of states and actions of nonzero probability.
    """
    generator = np.random.default_rng(1)
    states, actions, horizon = 6, 3, 3
    policy = softmax(generator.standard_normal((states, actions)))
    following = generator.integers(0, states, size=(states, actions, 3))  # 3 branches, alike likely
    reward = generator.choice([-1.0, 1.0], size=(states, actions))
    weight, total, to_go = [], [], []
    for path in product(range(actions), range(3), repeat=horizon):
        state, chance, scores, gains = 0, 1.0, [], []
        for action, branch in zip(path[::2], path[1::2], strict=True):
            score = np.zeros((states, actions))
            score[state] -= policy[state]
            score[state, action] += 1
            chance *= policy[state, action] / 3
            scores.append(score.reshape(-1))
            gains.append(reward[state, action])
            state = following[state, action, branch]
        after = np.cumsum(gains[::-1])[::-1]
        weight.append(chance)
        total.append(np.sum(scores, 0) * after[0])
        to_go.append(np.einsum("t,tp->p", after, np.array(scores)))
    outcomes = {"total": np.array(total), "to_go": np.array(to_go)}
    mean, trace = finite_moments(outcomes, np.array(weight))
    chances = np.array(weight) / np.sum(weight)

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        row = rng.choice(chances.size, size=(audits, units), p=chances)
        return {name: table[row] for name, table in outcomes.items()}

    return Case("signs of three steps", sample, mean, trace, "enumeration", reference="to_go")


def two_prompts() -> Case:
    """Groups of 4 completions of two prompts in turn, as a task of two prompts hands them out.

    The audit takes units for independent draws; prompts in turn are strata, which vary less.
    Variance and SNR are those of a prompt drawn at random. Rewards differ by a factor of five.
    """
    sides = [
        groups("easy", np.array([0.6, 0.4]), np.array([1.0, 0.0]), size=4),
        groups("hard", np.array([0.2, 0.8]), np.array([0.2, 0.0]), size=4),
    ]
    names = list(sides[0].mean)
    blocks = {
        name: [
            np.append(sides[0].mean[name], np.zeros(2)),
            np.append(np.zeros(2), sides[1].mean[name]),
        ]
        for name in names
    }
    mean = {name: np.mean(pair, 0) for name, pair in blocks.items()}
    trace = {
        name: float(
            np.mean([s.trace[name] for s in sides])
            + np.mean([((block - mean[name]) ** 2).sum() for block in blocks[name]])
        )
        for name in names
    }

    def sample(rng: np.random.Generator, audits: int, units: int) -> dict[str, Array]:
        halves = [side.sample(rng, audits, units // 2) for side in sides]
        drawn = {}
        for name in names:
            vectors = np.zeros((audits, units, 4))
            vectors[:, 0::2, :2], vectors[:, 1::2, 2:] = halves[0][name], halves[1][name]
            drawn[name] = vectors
        return drawn

    return Case("groups of two prompts", sample, mean, trace, "enumeration", reference="rloo")


WORLDS = (jackpot(), tree(), signs(), two_prompts())
