"""PPO of rejax on gymnax's CartPole: training compiled whole, on the CPU.

gymnax 1.0 reports termination and truncation apart, rejax 0.1 wants both as one `done`: `Joined`
stands between them. What rejax does otherwise than the other trainers is made equal in `Equal`:
it clips every gradient element, has Adam's ε of 10⁻⁸ and clips the value.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
from clock import Clock, Returns, Solved, settings
from flax.training.train_state import TrainState
from gymnax.environments.classic_control.cartpole import CartPole
from jax import numpy as jnp
from rejax.algos.algorithm import register_init
from rejax.algos.ppo import PPO


class Joined(CartPole):
    """gymnax's CartPole whose step says `done`."""

    def step(self, key: Any, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Observation, state, reward, done, info."""
        seen, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return seen, state, reward, terminated | truncated, info


class Equal(PPO):
    """PPO with the optimiser and the value loss of the comparison."""

    @register_init
    def initialize_network_params(self, rng: Any) -> dict[str, TrainState]:
        """Both networks with clipping by norm and Adam's ε of 10⁻⁵."""
        made = super().initialize_network_params(rng)
        adam = optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate, eps=1e-5)
        )
        return {
            name: TrainState.create(apply_fn=(), params=state.params, tx=adam)
            for name, state in made.items()
        }

    def update_critic(self, ts: Any, batch: Any) -> Any:
        """One step on the value's loss, nothing clipped."""

        def loss(params: Any) -> Any:
            error = self.critic.apply(params, batch.trajectories.obs) - batch.targets
            return self.vf_coef * jnp.square(error).mean()

        grads = jax.grad(loss)(ts.critic_ts.params)
        return ts.replace(critic_ts=ts.critic_ts.apply_gradients(grads=grads))


def trainer(given: SimpleNamespace, kind: type[PPO], total: int) -> PPO:
    """The trainer with the settings of the work; it evaluates nothing."""
    assert given.env == "CartPole-v1", f"{given.env}: rejax is measured on CartPole alone"
    made = kind.create(
        env=Joined(),
        agent_kwargs={"activation": "tanh"},
        num_envs=given.lanes,
        num_steps=given.fragment,
        num_epochs=given.epochs,
        num_minibatches=given.minibatches,
        learning_rate=given.lr,
        max_grad_norm=given.max_grad_norm,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        gamma=given.gamma,
        gae_lambda=given.lambda_,
        clip_eps=given.clip,
        ent_coef=given.entropy,
        vf_coef=given.value_coefficient,
    )
    return made.replace(eval_callback=lambda algorithm, state, rng: ())


def speed(given: SimpleNamespace) -> None:
    """Time all updates in one compiled program, compilation included: there is no warm-up."""
    clock = Clock(given.started)
    clock.begin()
    steps = given.updates * given.lanes * given.fragment
    ppo = trainer(given, Equal, steps)
    state, _ = jax.jit(ppo.train)(jax.random.PRNGKey(given.seed))
    jax.block_until_ready(state)
    assert int(state.global_step) == steps, f"{state.global_step} steps were taken, not {steps}"
    clock.end(steps)


def solve(given: SimpleNamespace) -> None:
    """Train until the target is reached, one compiled update at a time, as published."""
    returns = Returns(given.target, given.started)
    ppo = trainer(given, PPO, given.steps)
    batch = given.lanes * given.fragment

    def update(state: Any) -> tuple[Any, Any, Any]:
        rollouts = []

        class Watched(PPO):
            """Keeps what it collects."""

            def collect_trajectories(self, ts: Any) -> Any:
                ts, trajectories = super().collect_trajectories(ts)
                rollouts.append(trajectories)
                return ts, trajectories

        fields = {field.name: getattr(ppo, field.name) for field in dataclasses.fields(ppo)}
        state = Watched(**fields).train_iteration(state)
        return state, rollouts[0].reward, rollouts[0].done

    compiled, steps = jax.jit(update), 0
    state = jax.jit(ppo.init_state)(jax.random.PRNGKey(given.seed))
    running = np.zeros(given.lanes)
    while steps < given.steps:
        state, reward, done = compiled(state)
        steps += batch
        ended = []
        for gained, over in zip(np.asarray(reward), np.asarray(done), strict=True):
            running += gained
            ended.extend(running[over])
            running[over] = 0
        try:
            returns.add(ended, steps)
        except Solved:
            return
    returns.report(steps, solved=False)


if __name__ == "__main__":
    asked = settings()
    {"speed": speed, "solve": solve}[asked.task](asked)
