"""Language models: the same policy gradient, with tokens as actions and prompts as states."""

from vantage.language.law import SamplingLaw
from vantage.language.policy import Policy

__all__ = ["Policy", "SamplingLaw"]
