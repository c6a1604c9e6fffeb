"""Language models: the same policy gradient, with tokens as actions and prompts as states."""

from vantage.language.conformance import Conformance, conformance
from vantage.language.generation import Completions, Decoding, Engine, generate
from vantage.language.law import SamplingLaw
from vantage.language.policy import Policy

__all__ = [
    "Completions",
    "Conformance",
    "Decoding",
    "Engine",
    "Policy",
    "SamplingLaw",
    "conformance",
    "generate",
]
