"""Norms and inner products of scores, which the baselines of least variance are made of."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Scores(NamedTuple):
    """What a baseline may know of the scores s_t = ∇ log π(a_t|s_t) of a batch.

    With f_t the factor that the estimator puts on a step's advantage (its discounting and
    aggregate, per trajectory), so that the steps of a trajectory add up to ĝ = Σ_t f_t s_t (y_t −
    b_t):

    Attributes:
        norm: [N, T] f_t² ‖s_t‖².
        product: [N, T] f_t s_t·ĝ0, with ĝ0 = Σ_t' f_t' s_t' y_t' over the step's own trajectory.
    """

    norm: Float[Tensor, "N T"]
    product: Float[Tensor, "N T"]
