"""Gymnasium's Acrobot-v1 as tensor code: two links, torque at the joint between them.

Sutton 1996, with the equations of Sutton & Barto's book ("book" dynamics), no torque noise. Links
have length 1, mass 1, moment of inertia 1 and their centre of mass in the middle; the numbers below
are those constants multiplied out.
"""

import math

import torch
from gymnasium.spaces import Discrete
from jaxtyping import Float, Int
from torch import Tensor

from vantage.environments.classic import State, Transition, Uniform, box
from vantage.environments.tensor import Dynamics, TensorEnvironment

GRAVITY, SECONDS = 9.8, 0.2
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi


def _start(uniform: Uniform) -> State:
    return uniform * 0.2 - 0.1


def _slope(state: State, torque: Float[Tensor, " lanes"]) -> State:
    """d/dt of (θ₁, θ₂, θ̇₁, θ̇₂); cos(θ − π/2) of the book is written sin θ."""
    angle_1, angle_2, speed_1, speed_2 = state.unbind()
    cosine, sine = angle_2.cos(), angle_2.sin()
    hanging = (angle_1 + angle_2).sin()
    d1, d2 = cosine + 3.5, cosine * 0.5 + 1.25
    share = d2 / d1
    coupling = sine * speed_2 * speed_1.add(speed_2, alpha=0.5)
    phi = coupling.sub(hanging.add(angle_1.sin(), alpha=3), alpha=GRAVITY / 2)  # −φ₁
    pull = torch.addcmul(torque.sub(hanging, alpha=GRAVITY / 2), share, phi, value=-1)
    pull = torch.addcmul(pull, sine, speed_1.square(), value=-0.5)
    turn_2 = pull / (1.25 - d2 * share)
    turn_1 = torch.addcmul(phi, d2, turn_2, value=-1) / d1
    return torch.stack([speed_1, speed_2, turn_1, turn_2])


def _wrapped(angle: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The angle in [−π, π]; rounding half to even leaves both ends where they are."""
    return angle - (2 * math.pi) * (angle * (0.5 / math.pi)).round()


def _transition(state: State, action: Int[Tensor, " lanes"], noise: Uniform) -> Transition:
    """One step of Runge–Kutta, fourth order."""
    torque = (action - 1).to(state.dtype)
    k1 = _slope(state, torque)
    k2 = _slope(state.add(k1, alpha=SECONDS / 2), torque)
    k3 = _slope(state.add(k2, alpha=SECONDS / 2), torque)
    k4 = _slope(state.add(k3, alpha=SECONDS), torque)
    moved = state.add((k1 + k4).add(k2 + k3, alpha=2), alpha=SECONDS / 6)
    angles = _wrapped(moved[:2])
    speed_1 = moved[2].clamp(-MAX_SPEED_1, MAX_SPEED_1)
    speed_2 = moved[3].clamp(-MAX_SPEED_2, MAX_SPEED_2)
    following = torch.stack([angles[0], angles[1], speed_1, speed_2])
    height = -(angles[0].cos() + (angles[0] + angles[1]).cos())
    terminated = height > 1.0
    return following, terminated.to(state.dtype) - 1, terminated


def _shown(state: State) -> Float[Tensor, "lanes 6"]:
    cosine, sine = state[:2].cos(), state[:2].sin()
    return torch.stack([cosine[0], sine[0], cosine[1], sine[1], state[2], state[3]]).T


class Acrobot(TensorEnvironment):
    """Gymnasium's Acrobot-v1: swing the tip above the line; −1 a step, 0 the last; 500 at most."""

    dynamics = Dynamics(
        name="tensor/Acrobot-v1",
        initial=_start,
        transition=_transition,
        observe=_shown,
        observations=box([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2]),
        actions=Discrete(3),
        starts=4,
        horizon=500,
    )
