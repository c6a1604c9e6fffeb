"""The exact world: objective, gradient, variance and best baselines of a tabular MDP."""

from vantage.exact.chain import action_log_probability
from vantage.exact.enumeration import Expectation, enumerate, expectation, unfinished
from vantage.exact.every_action import every_action
from vantage.exact.gaussian import LQR, GaussianMoments, OneStepGaussian
from vantage.exact.moments import Moments, moments
from vantage.exact.scores import score_table
from vantage.exact.solve import (
    Values,
    discounting_angle,
    gradient,
    objective,
    occupancy,
    value,
)

__all__ = [
    "LQR",
    "Expectation",
    "GaussianMoments",
    "Moments",
    "OneStepGaussian",
    "Values",
    "action_log_probability",
    "discounting_angle",
    "enumerate",
    "every_action",
    "expectation",
    "gradient",
    "moments",
    "objective",
    "occupancy",
    "score_table",
    "unfinished",
    "value",
]
