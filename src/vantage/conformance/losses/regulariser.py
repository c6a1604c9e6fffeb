"""What the KL term of a loss pulls towards, where a loss is given a reference policy."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.conformance.losses.door import Loss
from vantage.conformance.losses.expected import Expected, RefusedError, expected
from vantage.conformance.losses.problems import LEVELS

STRAIGHT = 0.01  # degrees
# probabilities of the reference policy at the two prompts of LEVELS; the policy has 1/2 and 1/4
REFERENCE = ((0.75, 0.25), (0.6, 0.4))
AIMS = {
    "exact": "it climbs −β KL(π‖π_ref), as k1 in the reward and k2 in the loss do",
    "reverse": "it climbs −β KL(π_ref‖π), the reverse KL, as k3 in the loss does",
    "none": "it has no gradient on average, as k1 in the loss: it does nothing but add noise",
    "wrong sign": "it climbs the KL: the policy is pushed away from the reference",
    "beside": "it pulls towards the reference, but along the gradient of neither KL",
}


class Pull(NamedTuple):
    """The part of the mean step that comes from the reference policy.

    Attributes:
        aim: a key of `AIMS`.
        beta: its length in gradients of the KL it climbs.
        angle: between it and −∇KL(π‖π_ref), in degrees.
    """

    aim: str
    beta: float
    angle: float

    def __str__(self) -> str:
        size = f" with β = {self.beta:.4g}" if self.aim in ("exact", "reverse") else ""
        return f"KL: {AIMS[self.aim]}{size} ({self.angle:.3g}° beside −∇KL(π‖π_ref))"


def pull(loss: Loss, size: int, ordered: bool) -> Pull | None:
    """What the loss's KL term does on one decision; None without a reference."""
    if "reference_log_prob" not in loss.takes:
        return None
    policy = LEVELS.policy.logits.detach()
    reference = policy.clone()
    reference[: len(REFERENCE)] = torch.tensor(REFERENCE, dtype=policy.dtype).log()
    try:
        apart = expected(loss, LEVELS, size, ordered=ordered, reference=reference)
        together = expected(loss, LEVELS, size, ordered=ordered)
    except RefusedError:
        return None
    difference = apart.mean - together.mean
    forward, reverse = _gradients(policy, reference)
    return _read(difference, -forward, -reverse, together)


def _gradients(
    policy: Tensor, reference: Tensor
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """∇KL(π‖π_ref) and ∇KL(π_ref‖π), of the mean over prompts."""
    z = policy.clone().requires_grad_()
    p, q = z.log_softmax(-1), reference.log_softmax(-1)
    forward = (p.exp() * (p - q)).sum() / len(REFERENCE)
    backward = (q.exp() * (q - p)).sum() / len(REFERENCE)
    return (
        torch.autograd.grad(forward, z, retain_graph=True)[0].flatten(),
        torch.autograd.grad(backward, z)[0].flatten(),
    )


def _read(difference: Tensor, forward: Tensor, reverse: Tensor, alone: Expected) -> Pull:
    if difference.norm() < 1e-9 * alone.length:
        return Pull("none", 0.0, 0.0)
    angle = _degrees(difference, forward)
    if angle < STRAIGHT:
        return Pull("exact", float(difference @ forward / (forward @ forward)), angle)
    if _degrees(difference, reverse) < STRAIGHT:
        return Pull("reverse", float(difference @ reverse / (reverse @ reverse)), angle)
    return Pull("wrong sign" if angle > 90 else "beside", float("nan"), angle)


def _degrees(one: Tensor, other: Tensor) -> float:
    along = one @ other / other.norm()
    beside = (one - along * other / other.norm()).norm()
    return float(torch.rad2deg(torch.atan2(beside, along)))
