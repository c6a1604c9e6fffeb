"""PPO's loss and gradient, and generalised advantages, by the code of Stable-Baselines3 itself.

Reads the arrays that `benchmarks/control_check.py` wrote, writes its own beside them: the gradient
that `PPO.train` leaves behind after one step over the whole batch, and what
`RolloutBuffer.compute_returns_and_advantage` makes of the same rollout.
"""

from types import SimpleNamespace

import gymnasium
import numpy as np
import torch
from clock import say, settings
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv


def loaded(given: SimpleNamespace, arrays: dict[str, np.ndarray]) -> tuple[PPO, dict[str, str]]:
    """A trainer with the weights given, and its names of our parameters."""
    steps, lanes = arrays["reward"].shape
    ppo = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: gymnasium.make(given.env)] * lanes),
        n_steps=steps,
        batch_size=steps * lanes,
        n_epochs=1,
        clip_range=given.clip,
        vf_coef=given.value_coefficient,
        ent_coef=given.entropy,
        max_grad_norm=1e9,
        policy_kwargs={
            "net_arch": {"pi": [64, 64], "vf": [64, 64]},
            "optimizer_class": torch.optim.SGD,
        },
        learning_rate=1e-9,
        device="cpu",
    )
    places = {
        "pi": ("mlp_extractor.policy_net", "action_net"),
        "vf": ("mlp_extractor.value_net", "value_net"),
    }
    names = {"log_std": "log_std"} if "weight.log_std" in arrays else {}
    for net, (hidden, last) in places.items():
        for layer, module in enumerate((f"{hidden}.0", f"{hidden}.2", last)):
            for kind in ("weight", "bias"):
                names[f"{net}.{layer}.{kind}"] = f"{module}.{kind}"
    state = {theirs: torch.from_numpy(arrays[f"weight.{ours}"]) for ours, theirs in names.items()}
    ppo.policy.load_state_dict(state)
    return ppo, names


def gradient(
    ppo: PPO, names: dict[str, str], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Loss and gradient of one step over the whole batch."""
    buffer = ppo.rollout_buffer
    buffer.reset()
    buffer.observations[...] = arrays["observation"]
    buffer.actions[...] = arrays["action"].reshape(buffer.actions.shape)
    for theirs, ours in (
        ("log_probs", "log_prob"),
        ("advantages", "advantage"),
        ("returns", "target"),
    ):
        getattr(buffer, theirs)[...] = arrays[ours]
    buffer.values[...] = arrays["value"]
    buffer.full, buffer.pos = True, buffer.buffer_size
    ppo._setup_learn(1)  # a logger
    ppo.train()
    parameters = dict(ppo.policy.named_parameters())
    found = {f"gradient.{ours}": parameters[theirs].grad.numpy() for ours, theirs in names.items()}
    return found | {"loss": np.array(ppo.logger.name_to_value["train/loss"])}


def advantages(given: SimpleNamespace, ppo: PPO, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Generalised advantages; a truncation's worth goes into its reward, as its rollouts do it."""
    steps, lanes = arrays["reward"].shape
    boundary, terminated = arrays["boundary"], arrays["discount"] == 0
    buffer = RolloutBuffer(
        steps,
        ppo.observation_space,
        ppo.action_space,
        gamma=given.gamma,
        gae_lambda=given.lambda_,
        n_envs=lanes,
    )
    cut = boundary & ~terminated
    cut[-1] = False  # the fragment's own end is given as the last value
    buffer.rewards[...] = arrays["reward"] + given.gamma * np.where(cut, arrays["bootstrap"], 0)
    buffer.values[...] = arrays["value"]
    buffer.episode_starts[0] = 0
    buffer.episode_starts[1:] = boundary[:-1]
    last = torch.from_numpy(arrays["bootstrap"][-1].astype(np.float32))
    buffer.compute_returns_and_advantage(last_values=last, dones=terminated[-1])
    return buffer.advantages


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = settings()
    with np.load(asked.ours) as file:
        read = dict(file)
    trainer, named = loaded(asked, read)
    np.savez(
        asked.theirs, advantage=advantages(asked, trainer, read), **gradient(trainer, named, read)
    )
    say(written=asked.theirs)
