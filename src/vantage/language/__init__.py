"""Language models: the same policy gradient, with tokens as actions and prompts as states."""

from vantage.language import tiny
from vantage.language.conformance import Conformance, conformance
from vantage.language.evaluation import Evaluation, evaluate
from vantage.language.generation import Completions, Decoding, Engine, generate
from vantage.language.law import SamplingLaw
from vantage.language.policy import Policy
from vantage.language.rollout import Rollout, rollout
from vantage.language.task import Task
from vantage.language.training import train
from vantage.language.value_head import ValueHead

__all__ = [
    "Completions",
    "Conformance",
    "Decoding",
    "Engine",
    "Evaluation",
    "Policy",
    "Rollout",
    "SamplingLaw",
    "Task",
    "ValueHead",
    "conformance",
    "evaluate",
    "generate",
    "rollout",
    "tiny",
    "train",
]
