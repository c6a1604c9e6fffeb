"""Gradients: of a batch, of every row, of every trajectory; passes over networks."""

from vantage.gradients.weighted import (
    flat_gradient,
    gradient,
    log_prob_change,
    row_gradients,
    row_gradients_by_loop,
    scores,
    step_scores,
    weighted_entropy,
    weighted_products,
    weighted_score,
)

__all__ = [
    "flat_gradient",
    "gradient",
    "log_prob_change",
    "row_gradients",
    "row_gradients_by_loop",
    "scores",
    "step_scores",
    "weighted_entropy",
    "weighted_products",
    "weighted_score",
]
