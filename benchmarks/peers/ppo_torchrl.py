"""PPO of TorchRL, from the parts and in the order of its own PPO example, on the CPU.

With `compile`, the update, advantages and acting policy are compiled, as that example offers.
"""

from types import SimpleNamespace
from typing import Any

import gymnasium
import torch
from clock import settings, solved, timed
from gymnasium.vector import AutoresetMode
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torch.distributions import Categorical, Independent, Normal
from torchrl._utils import compile_with_warmup
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer
from torchrl.envs import (
    DoubleToFloat,
    GymEnv,
    GymWrapper,
    RewardSum,
    TransformedEnv,
)
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


class DiagonalNormal(Independent):
    """A Gaussian over vectors."""

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor):
        super().__init__(Normal(loc, scale), 1)


def environment(given: SimpleNamespace) -> TransformedEnv:
    """All lanes in this process; returns are summed as episodes go."""
    if given.lanes == 1:
        lanes = GymEnv(given.env, categorical_action_encoding=True)
    else:
        vector = gymnasium.make_vec(
            given.env,
            num_envs=given.lanes,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
        )
        lanes = GymWrapper(vector, categorical_action_encoding=True)
    env = TransformedEnv(lanes)
    if env.observation_spec["observation"].dtype == torch.float64:
        env.append_transform(DoubleToFloat(in_keys=["observation"]))
    env.append_transform(RewardSum())
    env.set_seed(given.seed)
    return env


def perceptron(inputs: int, outputs: int, gain: float) -> MLP:
    """Two tanh layers; orthogonal weights as in its example."""
    made = MLP(
        in_features=inputs,
        out_features=outputs,
        num_cells=[64, 64],
        activation_class=torch.nn.Tanh,
    )
    for layer in made:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.orthogonal_(layer.weight, gain)
            layer.bias.data.zero_()
    return made


def networks(env: TransformedEnv) -> tuple[ProbabilisticActor, ValueOperator]:
    """Policy and value function."""
    inputs = env.observation_spec["observation"].shape[-1]
    spec = env.full_action_spec_unbatched
    space = spec["action"]
    discrete = hasattr(space, "n")
    net: torch.nn.Module = perceptron(inputs, space.n if discrete else space.shape[-1], 1.0)
    if not discrete:
        net = torch.nn.Sequential(net, AddStateIndependentNormalScale(space.shape[-1]))
    keys = ["logits"] if discrete else ["loc", "scale"]
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        spec=spec,
        distribution_class=Categorical if discrete else DiagonalNormal,
        return_log_prob=True,
    )
    return actor, ValueOperator(perceptron(inputs, 1, 0.01), in_keys=["observation"])


class Trainer:
    """Collects and updates by turns."""

    def __init__(self, given: SimpleNamespace):
        torch.manual_seed(given.seed)
        self.given, self.batch = given, given.lanes * given.fragment
        compiled = getattr(given, "compile", False)
        env = environment(given)
        actor, critic = networks(env)
        self.advantages: Any = GAE(
            gamma=given.gamma, lmbda=given.lambda_, value_network=critic, average_gae=False
        )
        self.loss = ClipPPOLoss(
            actor_network=actor,
            critic_network=critic,
            clip_epsilon=given.clip,
            loss_critic_type="l2",
            entropy_bonus=given.entropy > 0,
            entropy_coeff=given.entropy,
            critic_coeff=given.value_coefficient,
            normalize_advantage=given.standardise,
        )
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=given.lr, eps=given.eps)
        self.update: Any = self.step
        if compiled:
            self.update = compile_with_warmup(self.step, warmup=1)
            self.advantages = compile_with_warmup(self.advantages, warmup=1)
        self.minibatches = TensorDictReplayBuffer(
            storage=LazyTensorStorage(self.batch, compilable=compiled),
            sampler=SamplerWithoutReplacement(),
            batch_size=self.batch // given.minibatches,
            compilable=compiled,
        )
        self.collector = Collector(
            env,
            actor,
            frames_per_batch=self.batch,
            total_frames=-1,
            max_frames_per_traj=-1,
            trust_policy=True,
            compile_policy={"warmup": 1} if compiled else None,
        )
        self.batches = iter(self.collector)

    def step(self, minibatch: Any) -> Any:
        """One optimiser step."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.loss(minibatch)
        total = losses["loss_objective"] + losses["loss_critic"]
        if self.given.entropy > 0:
            total = total + losses["loss_entropy"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.loss.parameters(), self.given.max_grad_norm)
        self.optimizer.step()
        return losses.detach()

    def learn(self) -> torch.Tensor:
        """One update; returns the returns of the episodes that ended, in order of time."""
        data = next(self.batches)
        ended = data["next", "done"].squeeze(-1)
        returns = data["next", "episode_reward"].squeeze(-1)
        if ended.dim() == 2:
            ended, returns = ended.T, returns.T
        with torch.no_grad():
            data = self.advantages(data)
        flat = data.reshape(-1)
        for _ in range(self.given.epochs):
            self.minibatches.extend(flat)
            for minibatch in self.minibatches:
                self.update(minibatch)
        self.collector.update_policy_weights_()
        return returns[ended]


def speed(given: SimpleNamespace) -> None:
    """Time updates after a warm-up."""
    trainer = Trainer(given)
    timed(given, trainer.batch, trainer.learn)


def solve(given: SimpleNamespace) -> None:
    """Train until the target is reached."""
    trainer = Trainer(given)
    solved(given, trainer.batch, lambda: trainer.learn().tolist())


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = settings()
    {"speed": speed, "solve": solve}[asked.task](asked)
