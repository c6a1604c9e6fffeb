"""Language models: the same policy gradient, with tokens as actions and prompts as states."""

from vantage.auditing.audit import audit as audit_environment
from vantage.auditing.draws import gradient_draws as draws_of_environment
from vantage.language.auditing.audit import audit
from vantage.language.auditing.draws import gradient_draws
from vantage.language.auditing.expectation import expectation
from vantage.language.auditing.group_size import GroupSize, GroupSizes, group_sizes
from vantage.language.model import tiny
from vantage.language.model.law import SamplingLaw
from vantage.language.model.policy import Policy
from vantage.language.model.value_head import ValueHead
from vantage.language.sampling.continuous_batching import ContinuousBatching
from vantage.language.sampling.generation import Completions, Decoding, Engine, generate
from vantage.language.sampling.rollout import Rollout, rollout, without_long_prompts
from vantage.language.scoring.conformance import Conformance, conformance
from vantage.language.scoring.enumeration import enumerated
from vantage.language.tasks import tiny_tasks, verifiers
from vantage.language.tasks.checking import RewardCheck, check_reward
from vantage.language.tasks.reward_models import reward_model
from vantage.language.tasks.rewards import RewardError, Rewards
from vantage.language.tasks.task import Task
from vantage.language.training.evaluation import Evaluation, evaluate
from vantage.language.training.load import load_language
from vantage.language.training.supervised import warm_up
from vantage.language.training.train import train
from vantage.language.transcripts.records import read_transcripts, recorder
from vantage.training.load import LOADERS
from vantage.training.loop import train as train_environment

# `vantage.train` and `vantage.audit` take a Task wherever they take an environment, and
# `vantage.load` opens runs of both.
train_environment.register(Task, train)
audit_environment.register(Task, audit)
draws_of_environment.register(Task, gradient_draws)
LOADERS["task"] = load_language

__all__ = [
    "Completions",
    "Conformance",
    "ContinuousBatching",
    "Decoding",
    "Engine",
    "Evaluation",
    "GroupSize",
    "GroupSizes",
    "Policy",
    "RewardCheck",
    "RewardError",
    "Rewards",
    "Rollout",
    "SamplingLaw",
    "Task",
    "ValueHead",
    "audit",
    "check_reward",
    "conformance",
    "enumerated",
    "evaluate",
    "expectation",
    "generate",
    "group_sizes",
    "read_transcripts",
    "recorder",
    "reward_model",
    "rollout",
    "tiny",
    "tiny_tasks",
    "train",
    "verifiers",
    "warm_up",
    "without_long_prompts",
]
