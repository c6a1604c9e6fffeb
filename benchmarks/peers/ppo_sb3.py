"""PPO of Stable-Baselines3, as its documentation advises: on the CPU, DummyVecEnv."""

from types import SimpleNamespace
from typing import Any

import torch
from clock import Clock, Returns, Solved, settings
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


def arguments(given: SimpleNamespace) -> dict[str, Any]:
    """The settings of the work as its arguments, which SBX has as well."""
    anneal = getattr(given, "anneal", False)  # learning rate and clip, in a straight line to 0
    return {
        "policy": "MlpPolicy",
        "env": make_vec_env(given.env, n_envs=given.lanes, seed=given.seed),
        "learning_rate": (lambda left: left * given.lr) if anneal else given.lr,
        "n_steps": given.fragment,
        "batch_size": given.lanes * given.fragment // given.minibatches,
        "n_epochs": given.epochs,
        "gamma": given.gamma,
        "gae_lambda": given.lambda_,
        "clip_range": (lambda left: left * given.clip) if anneal else given.clip,
        "ent_coef": given.entropy,
        "vf_coef": given.value_coefficient,
        "max_grad_norm": given.max_grad_norm,
        "seed": given.seed,
        "device": "cpu",
    }


def trainer(given: SimpleNamespace) -> PPO:
    """The trainer with the settings of the work."""
    networks = {
        "net_arch": {"pi": [64, 64], "vf": [64, 64]},
        "activation_fn": torch.nn.Tanh,
        "optimizer_kwargs": {"eps": given.eps},
    }
    return PPO(**arguments(given), policy_kwargs=networks)


class Watch(BaseCallback):
    """Hands every episode's return to `returns` at the step that ends it."""

    def __init__(self, returns: Returns):
        super().__init__()
        self.returns = returns

    def _on_step(self) -> bool:
        ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        self.returns.add(ended, self.num_timesteps)
        return True


def speed(given: SimpleNamespace, make: Any) -> None:
    """Time updates after a warm-up."""
    clock, ppo, batch = Clock(given.started), make(given), given.lanes * given.fragment
    ppo.learn(given.warmup * batch)
    clock.begin()
    ppo.learn(given.updates * batch, reset_num_timesteps=False)
    clock.end(given.updates * batch)


def solve(given: SimpleNamespace, make: Any) -> None:
    """Train until the target is reached."""
    returns = Returns(given.target, given.started)
    ppo = make(given)
    try:
        ppo.learn(given.steps, callback=Watch(returns))
    except Solved:
        return
    returns.report(ppo.num_timesteps, solved=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = settings()
    {"speed": speed, "solve": solve}[asked.task](asked, trainer)
