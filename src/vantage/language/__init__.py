"""Language models: the same policy gradient, with tokens as actions and prompts as states."""

import vantage
from vantage.language import tiny, tiny_tasks, verifiers
from vantage.language.auditing import audit
from vantage.language.checking import RewardCheck, check_reward
from vantage.language.conformance import Conformance, conformance
from vantage.language.continuous_batching import ContinuousBatching
from vantage.language.enumeration import enumerated
from vantage.language.evaluation import Evaluation, evaluate
from vantage.language.generation import Completions, Decoding, Engine, generate
from vantage.language.group_size import GroupSize, GroupSizes, group_sizes
from vantage.language.law import SamplingLaw
from vantage.language.policy import Policy
from vantage.language.rewards import RewardError, Rewards
from vantage.language.rollout import Rollout, rollout
from vantage.language.supervised import warm_up
from vantage.language.task import Task
from vantage.language.training import train
from vantage.language.transcripts import read_transcripts, recorder
from vantage.language.value_head import ValueHead

# `vantage.train` and `vantage.audit` take a Task wherever they take an environment.
vantage.train.register(Task, train)
vantage.audit.register(Task, audit)

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
    "generate",
    "group_sizes",
    "read_transcripts",
    "recorder",
    "rollout",
    "tiny",
    "tiny_tasks",
    "train",
    "verifiers",
    "warm_up",
]
