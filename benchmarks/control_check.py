"""Do Vantage and Stable-Baselines3 compute the same? Asked before anything is timed.

On one batch, with one set of weights: PPO's loss, its gradient in every parameter of both networks,
and the generalised advantages of a rollout with terminations and truncations. Once with the policy
that sampled, where every ratio is 1, and once with one that has moved so far that the clip binds.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from control_work import EQUAL
from gymnasium.vector import AutoresetMode
from torch import Tensor

import vantage as vt
from vantage.batch import Batch
from vantage.environments.fragments import Fragments
from vantage.gradients.mlp_passes import fastest
from vantage.gradients.passes import Passes

ALLOWED = 1e-5
STEPS, LANES = 128, 4
CASES = {  # environment: its time limit, short enough to truncate; how far the weights move
    "CartPole-v1": (25, 0.3),
    "HalfCheetah-v5": (50, 0.1),
}


def check(run: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences of every case, relative to the size of what is compared.

    Args:
        run: starts the peer's script with settings, and gives back what it said.
    """
    rows = []
    for env, (horizon, far) in CASES.items():
        for moved in (0.0, far):
            rows += _case(env, horizon, moved, run)
    return rows


def _case(
    env: str, horizon: int, moved: float, run: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    ours = _ours(env, horizon, moved)
    with TemporaryDirectory() as folder:
        paths = {"ours": f"{folder}/ours.npz", "theirs": f"{folder}/theirs.npz"}
        np.savez(paths["ours"], **ours)  # type: ignore[arg-type]
        said = run({**EQUAL, **paths, "env": env})
        label = f"{env}, {'ratio 1' if moved == 0 else 'moved policy'}"
        if "error" in said:
            return [{"name": label, "error": said["error"]}]
        with np.load(Path(paths["theirs"])) as file:
            theirs = dict(file)
    names = sorted(key for key in ours if key.startswith("gradient."))
    flat = [np.concatenate([arrays[name].ravel() for name in names]) for arrays in (ours, theirs)]
    facts = {"clipped": float(ours["clipped"]), "ends": ours["ends"].tolist()}
    compared = {
        "loss": (ours["loss"], theirs["loss"]),
        "gradient": (flat[0], flat[1]),
        "advantages": (ours["advantage"], theirs["advantage"]),
    }
    return [
        {
            "name": f"{label}: {what}",
            "difference": difference(*pair),
            "allowed": ALLOWED,
            **facts,
        }
        for what, pair in compared.items()
    ]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """‖one − other‖ / ‖one‖."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def _ours(name: str, horizon: int, moved: float) -> dict[str, np.ndarray]:
    """A batch, the weights, and our loss and gradient there."""
    env = vt.Gymnasium(
        name,
        LANES,
        EQUAL["gamma"],
        max_episode_steps=horizon,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    policy, value = env.policy(seed=0), env.value(seed=1)
    passes = fastest(policy, value)
    _shift(passes, 0.1, seed=2)  # initial outputs are nearly nothing: that would test little
    fragments = Fragments(env, passes)
    fragments.restart(seed=0)
    batch, _ = fragments.collect(STEPS, seed=0)
    with torch.no_grad():
        _shift(passes, moved, seed=3)
        log_prob, now = passes.forward(batch.observation, batch.action)
        batch = replace(batch, value=now)
        loss, more = _loss(passes, batch, log_prob, moved > 0)
    gradient = _named(policy, value, lambda p: p.grad.clone())
    weights = _named(policy, value, lambda p: p.detach())
    arrays = {f"weight.{key}": tensor for key, tensor in weights.items()}
    arrays |= {f"gradient.{key}": tensor for key, tensor in gradient.items()}
    over = batch.boundary[:, :-1]
    ends = [
        (over & (batch.discount[:, :-1] == 0)).sum(),
        (over & (batch.discount[:, :-1] > 0)).sum(),
    ]
    fields = (
        "observation",
        "action",
        "reward",
        "discount",
        "boundary",
        "bootstrap",
        "log_prob",
        "value",
    )
    more |= {field: getattr(batch, field) for field in fields}
    arrays |= {key: tensor.transpose(0, 1) for key, tensor in more.items() if tensor.dim() > 1}
    arrays |= {"clipped": more["clipped"], "loss": loss, "ends": torch.stack(ends)}
    return {key: tensor.detach().contiguous().numpy() for key, tensor in arrays.items()}


def _shift(passes: Passes, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in passes.parameters:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def _loss(
    passes: Passes, batch: Batch, log_prob: Tensor, moved: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one `Epochs` step over the whole batch; the step leaves its gradient in `.grad`.

    Training needs no loss, only the weights of ∇ log π and the slope in V: it is written out here,
    from our log-probabilities, advantages and values.
    """
    rule = vt.algorithms.ppo(epochs=1, minibatches=1, max_grad_norm=None)
    estimator = rule.estimator
    step: torch.optim.Optimizer = torch.optim.SGD(passes.parameters, lr=1e-9)
    generator = torch.Generator().manual_seed(0)
    rule.update.update(passes, {"policy": step}, estimator, batch, generator, stale=moved)
    advantage, target = estimator.advantage_and_worth(batch)
    standard = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = (log_prob - batch.log_prob).exp()
    held = ratio.clamp(1 - EQUAL["clip"], 1 + EQUAL["clip"])
    surrogate = torch.minimum(ratio * standard, held * standard)
    assert batch.value is not None
    error = (batch.value - target).square().mean()
    loss = -surrogate.mean() + EQUAL["value_coefficient"] * error
    clipped = (surrogate != ratio * standard).float().mean()
    return loss, {"advantage": advantage, "target": target, "clipped": clipped}


def _named(policy: Any, value: Any, read: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """Parameters as pi.0.weight, ..., vf.2.bias and log_std."""
    found = {}
    for net, module in (("pi", policy), ("vf", value)):
        for number, layer in enumerate(list(module.net)[::2]):
            found[f"{net}.{number}.weight"] = read(layer.weight)
            found[f"{net}.{number}.bias"] = read(layer.bias)
    if hasattr(policy, "log_std"):
        found["log_std"] = read(policy.log_std)
    return found
