"""What `benchmarks/control.py` measures: works, trainers and their settings, as data."""

from dataclasses import dataclass, field
from typing import Any

# One set of hyperparameters for every trainer; two separate tanh networks of 64-64.
EQUAL: dict[str, Any] = {
    "lr": 3e-4,  # constant
    "eps": 1e-5,  # Adam's
    "gamma": 0.99,
    "lambda_": 0.95,
    "clip": 0.2,
    "value_coefficient": 0.5,
    "entropy": 0.0,
    "max_grad_norm": 0.5,
    "standardise": True,  # each minibatch's advantages
}


@dataclass(frozen=True)
class Trainer:
    """A script that trains, and what it is told beyond the work.

    Attributes:
        script: below benchmarks/.
        peer: whose interpreter runs it; None: this one.
        extra: settings of its own.
    """

    script: str
    peer: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        env, lanes, fragment, epochs, minibatches: fragment is steps per lane and update.
        updates: that are timed, after `warmup` others that are not.
        trainers: by name; the first is ours.
        goals: the least ratio ours / other, where one was set.
        total: time the whole process, from its start, in place of the timed updates alone.
        task: what the scripts are asked to do.
    """

    env: str
    lanes: int
    fragment: int
    epochs: int
    minibatches: int
    updates: int
    trainers: tuple[str, ...]
    goals: dict[str, float] = field(default_factory=dict)
    warmup: int = 2
    total: bool = False
    task: str = "speed"


TRAINERS: dict[str, Trainer] = {
    "vantage": Trainer("control_ours.py"),
    "vantage, EnvPool": Trainer("control_ours.py", extra={"backend": "envpool"}),
    "vantage, tensor environment": Trainer("control_ours.py", extra={"backend": "tensor"}),
    "vantage, GPU": Trainer("control_ours.py", extra={"backend": "tensor", "device": "cuda"}),
    "raw": Trainer("control_ours.py", extra={"task": "raw"}),
    "SB3": Trainer("peers/ppo_sb3.py", "sb3"),
    "SBX": Trainer("peers/ppo_sbx.py", "sbx"),
    "Tianshou": Trainer("peers/ppo_tianshou.py", "tianshou"),
    "TorchRL": Trainer("peers/ppo_torchrl.py", "torchrl"),
    "TorchRL, compiled": Trainer("peers/ppo_torchrl.py", "torchrl", {"compile": True, "warmup": 3}),
    "rejax": Trainer("peers/ppo_rejax.py", "rejax"),
}

_PEERS = ("SB3", "SBX", "Tianshou", "TorchRL", "TorchRL, compiled")
_ENVS = ("vantage", "vantage, EnvPool", *_PEERS)
_AHEAD = dict.fromkeys(_PEERS, 1.0)
_COMPILED = ("vantage, tensor environment", "rejax")
_ROLLOUT = ("vantage", "raw")

WORKS: dict[str, Work] = {
    "CartPole 4": Work("CartPole-v1", 4, 128, 4, 4, 40, _ENVS, _AHEAD | {"SB3": 4.0}),
    "CartPole 64": Work("CartPole-v1", 64, 128, 4, 4, 6, _ENVS, _AHEAD | {"SB3": 4.0}),
    "HalfCheetah 1": Work("HalfCheetah-v5", 1, 2048, 10, 32, 5, _ENVS, _AHEAD | {"SB3": 3.0}),
    "HalfCheetah 16": Work("HalfCheetah-v5", 16, 128, 10, 32, 5, _ENVS, _AHEAD | {"SB3": 4.0}),
    # two million steps
    "tensor CartPole 64": Work(
        "CartPole-v1", 64, 128, 4, 4, 245, _COMPILED, {"rejax": 1.0}, 0, total=True
    ),
    "tensor CartPole 2048": Work(
        "CartPole-v1", 2048, 32, 4, 4, 31, _COMPILED, {"rejax": 1.0}, 0, total=True
    ),
    "rollout HalfCheetah 1": Work(
        "HalfCheetah-v5", 1, 2048, 0, 0, 5, _ROLLOUT, {"raw": 0.6}, task="rollout"
    ),
    "rollout HalfCheetah 16": Work(
        "HalfCheetah-v5", 16, 128, 0, 0, 5, _ROLLOUT, {"raw": 0.6}, task="rollout"
    ),
    "rollout CartPole 512": Work(
        "CartPole-v1", 512, 128, 0, 0, 10, _ROLLOUT, {"raw": 0.3}, task="rollout"
    ),
}

GPU = Work("CartPole-v1", 4096, 128, 4, 4, 20, ("vantage, GPU",))

TARGET = 475  # mean return of the last 100 training episodes

_ZOO = {  # RL Baselines3 Zoo, hyperparams/ppo.yml, CartPole-v1, tuned; both rates fall to 0
    "lanes": 8,
    "fragment": 32,
    "epochs": 20,
    "minibatches": 1,
    "lr": 1e-3,
    "gamma": 0.98,
    "lambda_": 0.8,
    "anneal": True,
    "steps": 100_000,
}

# Settings for CartPole-v1 of each trainer's own; what is not named is as in EQUAL.
SOLVE: dict[str, dict[str, Any]] = {
    "vantage, tensor environment": {
        "lanes": 32,
        "fragment": 64,
        "epochs": 10,
        "minibatches": 4,
        "lr": 2e-3,
        "gamma": 0.98,
        "lambda_": 0.9,
        "steps": 1_000_000,
    },
    "SB3": _ZOO,
    "SBX": _ZOO,
    # its test/discrete/test_ppo_discrete.py; advantages as they are
    "Tianshou": {
        "lanes": 20,
        "fragment": 100,
        "epochs": 10,
        "minibatches": 31,  # of 64 steps
        "eps": 1e-8,
        "standardise": False,
        "steps": 500_000,
    },
    # it publishes none for CartPole: the Zoo's, at a constant rate
    "TorchRL": _ZOO | {"anneal": False, "steps": 500_000},
    # its configs/gymnax/cartpole.yaml; also clips every element, with Adam's ε of 1e-8
    "rejax": {
        "lanes": 5,
        "fragment": 100,
        "epochs": 5,
        "minibatches": 5,
        "lr": 7.5e-4,
        "entropy": 0.01,
        "steps": 500_000,
    },
}


def asked(work: Work, trainer: str, seed: int, scale: float = 1.0) -> dict[str, Any]:
    """The settings that a trainer's script is given.

    Args:
        scale: of the updates that are timed; at least one is.
    """
    return {
        **EQUAL,
        "task": work.task,
        "env": work.env,
        "lanes": work.lanes,
        "fragment": work.fragment,
        "epochs": work.epochs,
        "minibatches": work.minibatches,
        "updates": max(1, round(work.updates * scale)),
        "warmup": work.warmup,
        "seed": seed,
        **TRAINERS[trainer].extra,
    }


def asked_to_solve(trainer: str, seed: int) -> dict[str, Any]:
    """The settings of a run to the target."""
    extra = {key: value for key, value in TRAINERS[trainer].extra.items() if key != "warmup"}
    common = {"task": "solve", "env": "CartPole-v1", "target": TARGET, "seed": seed}
    return EQUAL | common | extra | SOLVE[trainer]
