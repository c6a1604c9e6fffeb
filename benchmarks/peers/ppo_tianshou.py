"""PPO of Tianshou, by its procedural interface: DummyVectorEnv, Collector, Algorithm.update."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from clock import settings, solved, timed
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch.distributions import Distribution, Independent, Normal


def gaussian(location_scale: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
    """A diagonal Gaussian."""
    return Independent(Normal(*location_scale), 1)


def network(width: int) -> Net:
    """Two hidden layers."""
    return Net(state_shape=(width,), hidden_sizes=(64, 64), activation=torch.nn.Tanh)


def acting(env: gymnasium.Env) -> ProbabilisticActorPolicy:
    """The policy for an environment's actions; a mean has no bounds, actions are clipped."""
    width, space = env.observation_space.shape[0], env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        actor = DiscreteActor(
            preprocess_net=network(width), action_shape=int(space.n), softmax_output=False
        )
        return DiscreteActorPolicy(actor=actor, action_space=space)
    mean = ContinuousActorProbabilistic(
        preprocess_net=network(width), action_shape=space.shape, unbounded=True
    )
    return ProbabilisticActorPolicy(
        actor=mean, dist_fn=gaussian, action_space=space, action_bound_method="clip"
    )


def orthogonal(policy: ProbabilisticActorPolicy, critic: DiscreteCritic) -> None:
    """Initial weights as its own examples have them."""
    for module in (*policy.modules(), *critic.modules()):
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.orthogonal_(module.weight)
            torch.nn.init.zeros_(module.bias)


class Trainer:
    """Collects and updates by turns, as its on-policy trainer does."""

    def __init__(self, given: SimpleNamespace):
        np.random.seed(given.seed)  # noqa: NPY002, what its samplers read
        torch.manual_seed(given.seed)
        self.given, self.batch = given, given.lanes * given.fragment
        self.minibatch = self.batch // given.minibatches
        lanes = DummyVectorEnv([lambda: gymnasium.make(given.env) for _ in range(given.lanes)])
        lanes.seed(given.seed)
        policy = acting(gymnasium.make(given.env))
        critic = DiscreteCritic(preprocess_net=network(lanes.observation_space[0].shape[0]))
        orthogonal(policy, critic)
        self.algorithm: Any = PPO(
            policy=policy,
            critic=critic,
            optim=AdamOptimizerFactory(lr=given.lr, eps=given.eps),
            eps_clip=given.clip,
            advantage_normalization=given.standardise,
            vf_coef=given.value_coefficient,
            ent_coef=given.entropy,
            max_grad_norm=given.max_grad_norm,
            gae_lambda=given.lambda_,
            gamma=given.gamma,
            max_batchsize=self.batch,  # of passes without a gradient: as few as can be
        )
        buffer = VectorReplayBuffer(self.batch, given.lanes)
        self.collector = Collector[CollectStats](self.algorithm, lanes, buffer)
        self.collector.reset()

    def update(self) -> np.ndarray:
        """One update; returns the returns of the episodes that ended."""
        with policy_within_training_step(self.algorithm.policy):
            found = self.collector.collect(n_step=self.batch)
            self.algorithm.update(
                buffer=self.collector.buffer, batch_size=self.minibatch, repeat=self.given.epochs
            )
        self.collector.reset_buffer(keep_statistics=True)
        return found.returns


def speed(given: SimpleNamespace) -> None:
    """Time updates after a warm-up."""
    trainer = Trainer(given)
    timed(given, trainer.batch, trainer.update)


def solve(given: SimpleNamespace) -> None:
    """Train until the target is reached."""
    trainer = Trainer(given)
    solved(given, trainer.batch, trainer.update)


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = settings()
    {"speed": speed, "solve": solve}[asked.task](asked)
