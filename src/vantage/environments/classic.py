"""The classic control tasks of Gymnasium as tensor code: the same dynamics, to rounding.

Each task is a pair of pure functions and a record of constants. Equations and constants are those
of gymnasium.envs.classic_control (1.x), which names the papers; tests hold the two equal step for
step.
"""

import math

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.environments.tensor import Dynamics, TensorEnvironment

# state, reward, terminated
Transition = tuple[Float[Tensor, "d lanes"], Float[Tensor, " lanes"], Bool[Tensor, " lanes"]]
State = Float[Tensor, "d lanes"]
Uniform = Float[Tensor, "k lanes"]


def box(high: list[float], low: list[float] | None = None) -> Box:
    """A Box of vectors between `low` (by default −high) and `high`."""
    top = np.array(high, np.float32)
    return Box(-top if low is None else np.array(low, np.float32), top, dtype=np.float32)


def columns(state: State) -> Float[Tensor, "lanes d"]:
    """The state itself as an observation."""
    return state.T


# --- CartPole-v1: Barto, Sutton & Anderson 1983 ---------------------------------------------------

FALLEN, OUTSIDE = 12 * 2 * math.pi / 360, 2.4  # |θ| in radians and |x| that end an episode
GRAVITY, FORCE, SECONDS = 9.8, 10.0, 0.02
POLE, TOTAL, HALF_LENGTH = 0.1, 1.1, 0.5  # masses of pole, and of cart and pole
SWING = POLE * HALF_LENGTH / (2 * FORCE)


def _cart_pole_start(uniform: Uniform) -> State:
    return uniform * 0.1 - 0.05


def _cart_pole(state: State, action: Int[Tensor, " lanes"], noise: Uniform) -> Transition:
    """State (x, ẋ, θ, θ̇); Euler's method. Florian 2007, equations 23 and 24, without friction.

    With f = ±F, M and m the masses, l half the pole:
        p = (f + m l θ̇² sin θ) / M,  θ̈ = (g sin θ − p cos θ) / (l (4/3 − m cos² θ / M)),
        ẍ = p − m l θ̈ cos θ / M.
    """
    x, speed, angle, spin = state.unbind()
    sine, cosine = angle.sin(), angle.cos()
    # Constants are drawn into the factors that one operation can take: where lanes are few, each
    # operation with a bare number costs as much as two.
    push = torch.addcmul(action.to(state.dtype) - 0.5, spin.square(), sine, value=SWING)
    turn = torch.sub(sine, push * cosine, alpha=2 * FORCE / TOTAL / GRAVITY)
    turn = turn / (cosine.square() - TOTAL / POLE * 4 / 3)
    speeding = torch.addcmul(speed, turn, cosine, value=SECONDS * GRAVITY)
    x = x.add(speed, alpha=SECONDS)
    speed = speeding.add(push, alpha=SECONDS * 2 * FORCE / TOTAL)
    angle = angle.add(spin, alpha=SECONDS)
    spin = spin.add(turn, alpha=-SECONDS * GRAVITY * TOTAL / (POLE * HALF_LENGTH))
    terminated = _beyond(x, OUTSIDE) | _beyond(angle, FALLEN)
    return torch.stack([x, speed, angle, spin]), torch.ones_like(x), terminated


def _beyond(value: Float[Tensor, " lanes"], limit: float) -> Bool[Tensor, " lanes"]:
    """|value| > limit."""
    return value.clamp(-limit, limit) != value


class CartPole(TensorEnvironment):
    """Gymnasium's CartPole-v1: balance a pole on a cart; reward 1 a step, 500 steps at most.

    >>> env = CartPole(lanes=2)
    >>> env.reset(seed=0).shape
    torch.Size([2, 4])
    >>> env.step(torch.tensor([0, 1])).reward
    tensor([1., 1.])
    """

    dynamics = Dynamics(
        name="tensor/CartPole-v1",
        initial=_cart_pole_start,
        transition=_cart_pole,
        observe=columns,
        observations=box([2 * OUTSIDE, np.inf, 2 * FALLEN, np.inf]),
        actions=Discrete(2),
        starts=4,
        horizon=500,
    )


# --- Pendulum-v1 ----------------------------------------------------------------------------------

MAX_SPEED, MAX_TORQUE, TICK = 8.0, 2.0, 0.05
FALL = 3 * 10.0 / 2  # 3 g / (2 l)


def _pendulum_start(uniform: Uniform) -> State:
    angle, speed = uniform.unbind()
    return torch.stack([angle * (2 * math.pi) - math.pi, speed * 2 - 1])


def _pendulum(state: State, action: Float[Tensor, "lanes 1"], noise: Uniform) -> Transition:
    """State (θ, θ̇), θ = 0 upright and never wrapped; the cost is that of the state acted in."""
    angle, speed = state.unbind()
    torque = action.squeeze(-1)
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    cost = wrapped.square() + 0.1 * speed.square() + 0.001 * torque.square()
    faster = (speed + TICK * (FALL * angle.sin() + 3 * torque)).clamp(-MAX_SPEED, MAX_SPEED)
    never = torch.zeros_like(speed, dtype=torch.bool)
    return torch.stack([angle + faster * TICK, faster]), -cost, never


def _pendulum_seen(state: State) -> Float[Tensor, "lanes 3"]:
    angle, speed = state.unbind()
    return torch.stack([angle.cos(), angle.sin(), speed]).T


class Pendulum(TensorEnvironment):
    """Gymnasium's Pendulum-v1: swing up and stay up with little torque; 200 steps, no other end."""

    dynamics = Dynamics(
        name="tensor/Pendulum-v1",
        initial=_pendulum_start,
        transition=_pendulum,
        observe=_pendulum_seen,
        observations=box([1.0, 1.0, MAX_SPEED]),
        actions=box([MAX_TORQUE]),
        starts=2,
        horizon=200,
    )


# --- MountainCar-v0 and MountainCarContinuous-v0: Moore 1990 --------------------------------------

LEFT, RIGHT, FASTEST, SLOPE = -1.2, 0.6, 0.07, 0.0025
GOAL, THRUST = 0.5, 0.001
CONTINUOUS_GOAL, POWER = 0.45, 0.0015


def _mountain_car_start(uniform: Uniform) -> State:
    position = uniform[0] * 0.2 - 0.6
    return torch.stack([position, torch.zeros_like(position)])


def _drive(state: State, acceleration: Float[Tensor, " lanes"]) -> State:
    """State (position, velocity) after one step; the left wall stops the car."""
    position, velocity = state.unbind()
    velocity = (velocity + acceleration).sub((3 * position).cos(), alpha=SLOPE)
    velocity = velocity.clamp(-FASTEST, FASTEST)
    position = (position + velocity).clamp(LEFT, RIGHT)
    return torch.stack([position, torch.where(position <= LEFT, velocity.clamp(min=0), velocity)])


def _arrived(state: State, goal: float) -> Bool[Tensor, " lanes"]:
    position, velocity = state.unbind()
    return (position >= goal) & (velocity >= 0)


def _mountain_car(state: State, action: Int[Tensor, " lanes"], noise: Uniform) -> Transition:
    following = _drive(state, (action - 1).to(state.dtype) * THRUST)
    return following, torch.full_like(following[0], -1.0), _arrived(following, GOAL)


def _mountain_car_continuous(
    state: State, action: Float[Tensor, "lanes 1"], noise: Uniform
) -> Transition:
    thrust = action.squeeze(-1)
    following = _drive(state, thrust * POWER)
    arrived = _arrived(following, CONTINUOUS_GOAL)
    return following, arrived * 100.0 - 0.1 * thrust.square(), arrived


class MountainCar(TensorEnvironment):
    """Gymnasium's MountainCar-v0: a weak car must swing out of a valley; −1 a step, 200 at most."""

    dynamics = Dynamics(
        name="tensor/MountainCar-v0",
        initial=_mountain_car_start,
        transition=_mountain_car,
        observe=columns,
        observations=box([RIGHT, FASTEST], low=[LEFT, -FASTEST]),
        actions=Discrete(3),
        starts=1,
        horizon=200,
    )


class MountainCarContinuous(TensorEnvironment):
    """Gymnasium's MountainCarContinuous-v0: 100 on arrival less 0.1 u² a step, 999 steps at most.

    u is the clipped force, as `vantage.Gymnasium` has it; Gymnasium alone moves the car by the
    clipped force and charges for the raw one.
    """

    dynamics = Dynamics(
        name="tensor/MountainCarContinuous-v0",
        initial=_mountain_car_start,
        transition=_mountain_car_continuous,
        observe=columns,
        observations=box([RIGHT, FASTEST], low=[LEFT, -FASTEST]),
        actions=box([1.0]),
        starts=1,
        horizon=999,
    )
