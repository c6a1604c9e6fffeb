"""What each station of the page must show at a setting, by `vantage.exact`: name to number.

Each function takes the settings of a station as the page names them, and what the page shows, where
that holds a draw (how often each pair was sampled) that the expectation starts from.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import vantage as vt

Numbers = dict[str, Any]
COMPLETIONS = ("⊣", "a⊣", "b⊣", "aa", "ab", "ba", "bb")


def table(*rows: list[float]) -> vt.SoftmaxTable:
    """A softmax policy with these logits."""
    policy = vt.SoftmaxTable(len(rows), len(rows[0]))
    policy.logits.data = torch.tensor(rows, dtype=torch.float64)
    return policy


def chances(*rows: list[float]) -> vt.SoftmaxTable:
    """A softmax policy with these probabilities."""
    return table(*([math.log(p) for p in row] for row in rows))


def article(values: Mapping[str, Any]) -> vt.SoftmaxTable:
    return table([values["u"], -values["u"]], [values["v"], -values["v"]])


def right(values: Mapping[str, Any]) -> vt.SoftmaxTable:
    return chances([1 - values["right"], values["right"]])


def trajectories(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    """`walk` is the start state and the actions taken."""
    start, *actions = values["walk"]
    if values["world"] == "article":
        mdp = vt.MDP.article()
        policy = chances(*([p, 1 - p] for p in (values["first"], values["second"])))
    else:
        mdp, policy = vt.MDP.short_corridor(), right(values)
    J = vt.exact.objective(mdp, policy)
    if not actions:
        return {"probability": mdp.initial[start], "reward": 0.0, "part": 0.0, "J": J}
    batch = vt.exact.enumerate(mdp, policy, horizon=len(actions))
    wanted = torch.tensor(actions)
    same = (batch.group == start) & ((batch.action == wanted) & batch.mask).all(1)
    [row] = same.nonzero().flatten().tolist()
    reward = batch.reward[row].sum()
    probability = batch.weight[row]
    return {"probability": probability, "reward": reward, "part": probability * reward, "J": J}


def ascent(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    mdp, policy = vt.MDP.article(), article(values)
    J, G = vt.exact.objective(mdp, policy), vt.exact.gradient(mdp, policy)
    moved = table(*(policy.logits.detach().flatten() + values["alpha"] * G).reshape(2, 2).tolist())
    return {
        "J": J,
        "gradient": G,
        "promised": values["alpha"] * G @ G,
        "brought": vt.exact.objective(mdp, moved) - J,
    }


def theorem(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    world, slip = vt.MDP.short_corridor(), values["slip"]
    mixed = (1 - slip) * world.transition + slip * world.transition.flip(1)
    mdp = replace(world, transition=mixed, horizon=values["horizon"])
    policy = table([0.0, values["theta"]])
    return {
        "J": vt.exact.objective(mdp, policy),
        "solved": vt.exact.gradient(mdp, policy, "autograd"),
        "visited": vt.exact.gradient(mdp, policy, "occupancy"),
        "scored": vt.exact.gradient(mdp, policy, "enumeration"),
        "difference": 0.0,
        "count": len(vt.exact.enumerate(mdp, policy).weight),
    }


def reinforce(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    mdp, policy = vt.MDP.article(), article(values)
    G, V = vt.exact.gradient(mdp, policy), vt.exact.value(mdp, policy).V
    advantage = values["weights"] == "advantage"
    everything = vt.exact.enumerate(mdp, policy, value=V)  # rows: s₁a₁, s₁a₂, s₂a₁, s₂a₂
    counts = torch.tensor(shown["counts"], dtype=torch.float64)
    sampled = replace(everything, weight=counts / counts.sum())
    estimators = vt.estimators
    chosen = estimators.reinforce_baseline() if advantage else estimators.reinforce()
    estimate = vt.gradient(policy, sampled, chosen)
    trace = vt.exact.moments(mdp, policy, "value" if advantage else "none").trace / counts.sum()
    reward = torch.tensor([12.0, 7.0, 2.0, 5.0], dtype=torch.float64)
    return {
        "m": max(1, round(10 ** values["size"])),
        "counts": shown["counts"],
        "pushes": reward - (V.repeat_interleave(2) if advantage else 0),
        "estimate": estimate,
        "gradient": G,
        "cosine": torch.nn.functional.cosine_similarity(estimate, G, dim=0),
        "trace": trace,
        "snr": G @ G / trace,
    }


def baseline(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    """An addition for a₁ is a world whose a₁ earns less."""
    mdp, p = vt.MDP.article(), values["chance"]
    policy = chances([p, 1 - p], [p, 1 - p])
    earned = torch.tensor([[12.0, 7.0], [2.0, 5.0]], dtype=torch.float64)
    earned[:, 0] -= values["extra"]
    b = torch.tensor([values["first"], values["second"]], dtype=torch.float64)
    moved = vt.exact.moments(vt.MDP.bandit(earned), policy, b)
    G = vt.exact.gradient(mdp, policy)
    return {
        "mean": moved.mean,
        "gradient": G,
        "bias": (moved.mean - G).norm(),
        "trace": moved.trace,
        "raw": vt.exact.moments(mdp, policy).trace,
        "least": vt.exact.moments(mdp, policy, "trajectory").trace,
    }


def optimum(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    if values["world"] == "bandit":
        mdp = vt.MDP.bandit([values["first"], values["second"]])
        policy, states = chances([values["chance"], 1 - values["chance"]]), 1
        levels = [values["b"]]
    else:
        mdp, policy, states = vt.MDP.short_corridor(), right(values), 3
        levels = [values["one"], values["two"], values["three"]]
    b = torch.zeros(mdp.states, dtype=torch.float64)
    b[:states] = torch.tensor(levels, dtype=torch.float64)
    named = {
        name: vt.exact.moments(mdp, policy, kind)
        for name, kind in (
            ("none", "none"),
            ("value", "value"),
            ("normWeighted", "norm_weighted"),
            ("trajectory", "trajectory"),
        )
    }
    numbers: Numbers = {name: found.baseline[:states] for name, found in named.items()}
    return numbers | {
        "b": levels,
        "trace": vt.exact.moments(mdp, policy, b).trace,
        "traces": [found.trace for found in named.values()],
    }


def credit(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    mdp = replace(vt.MDP.short_corridor(), discount=values["gamma"])
    policy = right(values)
    found = [
        vt.exact.moments(mdp, policy, "none", "total"),
        vt.exact.moments(mdp, policy, "none"),
        vt.exact.moments(mdp, policy, "value"),
    ]
    return {
        "totalMean": found[0].mean,
        "toGoMean": found[1].mean,
        "advantageMean": found[2].mean,
        "traces": [one.trace for one in found],
    }


def language_model(values: Mapping[str, Any]) -> tuple[vt.MDP, vt.SoftmaxTable]:
    """Three tokens, two at most: states are the prompt, a, b and the end."""
    reward = torch.zeros(4, 3, dtype=torch.float64)
    transition = torch.zeros(4, 3, 4, dtype=torch.float64)
    transition[3, :, 3] = 1
    for s, written in enumerate(("", "a", "b")):
        for a, token in enumerate("ab⊣"):
            text = written + token
            complete = text in COMPLETIONS
            transition[s, a, 3 if complete else 1 + a] = 1
            reward[s, a] = values[f"reward{COMPLETIONS.index(text)}"] if complete else 0.0
    mdp = vt.MDP(
        transition,
        reward,
        torch.eye(4)[0],
        terminal=torch.arange(4) == 3,
        observation=torch.zeros(4, dtype=torch.int64),
    )
    return mdp, table([values["a"], values["b"], values["end"]])


def language(values: Mapping[str, Any], shown: Numbers) -> Numbers:
    mdp, policy = language_model(values)
    G = vt.exact.gradient(mdp, policy)
    rows = vt.estimators.rloo(), vt.estimators.grpo(), vt.estimators.dr_grpo()
    found = [vt.exact.expectation(mdp, policy, row, group_size=values["size"]) for row in rows]
    pi = torch.softmax(policy.logits.detach()[0], 0)
    a, b, end = pi.tolist()
    return {
        "gradient": G,
        "rloo": found[0].mean,
        "grpo": found[1].mean,
        "drGrpo": found[2].mean,
        "tilts": [angle(one.mean, G) for one in found],
        "traces": [one.trace for one in found],
        "chances": [end, a * end, b * end, a * a, a * b, b * a, b * b],
    }


def angle(one: Tensor, other: Tensor) -> float:
    """In degrees; by the part across, which is exact where the angle is small."""
    along = one @ other / other.norm()
    across = (one - along * other / other.norm()).norm()
    return math.degrees(math.atan2(float(across), float(along)))
