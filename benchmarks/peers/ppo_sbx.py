"""PPO of SBX (Stable-Baselines3 in JAX), on the CPU; its two optimisers clip each for itself."""

from types import SimpleNamespace

import torch
from clock import settings
from ppo_sb3 import arguments, solve, speed
from sbx import PPO


def trainer(given: SimpleNamespace) -> PPO:
    """The trainer with the settings of the work; two tanh networks of 64-64 are its default."""
    return PPO(**arguments(given), policy_kwargs={"optimizer_kwargs": {"eps": given.eps}})


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = settings()
    {"speed": speed, "solve": solve}[asked.task](asked, trainer)
