"""Rollout: prompts of a task, completions of a policy, rewards, as one Batch.

With an environment a completion is a turn of an episode: a function sees what the policy said and
answers with what it reads next, or with None when the episode is over. What it reads is part of the
text and not of the loss.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.episodes import Environment, begin, episodes
from vantage.language.sampling.generation import Decoding, Engine
from vantage.language.sampling.sequences import Sequences, as_batch, joined
from vantage.language.tasks.prompts import Message
from vantage.language.tasks.rewards import Rewards
from vantage.language.tasks.task import Task
from vantage.runs.progress import note


@dataclass(frozen=True)
class Rollout:
    """N completions of the prompts of some rows of a task, and what they were worth.

    Attributes:
        rows: [N] numbers of task rows; the completions of one prompt are neighbours.
        sequences: prompts and what followed.
        batch: the record for estimators; completions that do not count have an empty mask.
        completion_ids: [N] token ids of each, without the end token; with an environment, all that
            followed the prompt.
        reward: [N] total.
        parts: rewards by function; NaN where a function could not score.
        scorable: [N] whether any function could.
        tokens: prompt and completion tokens processed, a shared prompt counted for each completion.
        environment, turns, state: as they were given to `rollout`.
        metrics: what reward functions logged by `log_metric`: name -> values.
        extra: what they logged by `log_extra`: column -> [N] values.
    """

    rows: list[int]
    sequences: Sequences
    batch: Batch
    completion_ids: list[list[int]]
    reward: Float[Tensor, " N"]
    parts: dict[str, Tensor]
    scorable: Bool[Tensor, " N"]
    tokens: int
    environment: Environment | None = None
    turns: int = 1
    state: Any = None
    metrics: Mapping[str, list[float]] = field(default_factory=dict)
    extra: Mapping[str, list[object]] = field(default_factory=dict)


@checked
def rollout(
    task: Task,
    policy: Policy,
    rows: list[int],
    generator: torch.Generator,
    *,
    engine: Engine | None = None,
    environment: Environment | None = None,
    turns: int = 8,
    mask_truncated_completions: bool = False,
    num_generations: int | None = None,
    state: Any = None,
) -> Rollout:
    """Complete the prompts of `rows`, `num_generations` times each, and score what comes.

    Args:
        task, policy: what is asked, and who answers.
        rows: numbers of task rows; one given twice makes two groups.
        generator: the source of everything random, on the CPU.
        engine: draws completions; the package's own where None.
        environment: answers each completion; a single turn where None. After a plain prompt its
            text follows as it is; in a conversation text is a message of the role user, messages
            may have any role, all go through the chat template, and rewards see a list of messages.
            Each episode has its own copy of the data row, where it may keep what it needs.
        turns: most completions of one episode; one that would have gone on counts as truncated.
        mask_truncated_completions: leave completions that were cut at the limit out, of the loss
            and of their group's baseline. The objective is then the reward of those that end.
        num_generations: completions of each prompt; the task's where None.
        state: how far training is, for reward functions that ask for `trainer_state`.

    Raises:
        InputError: a policy without tokenizer, prompts that do not fit.
        RewardError: a reward function failed.
    """
    size = task.num_generations if num_generations is None else num_generations
    engine = engine or Decoding()
    prompts = prompts_of("rollout", task, policy, rows)
    repeated = [row for row in rows for _ in range(size)]
    before = [prompt for prompt in prompts for _ in range(size)]
    if environment is None:
        drawn = engine.generate(policy, prompts, size, generator)
        sequences = joined(before, drawn, policy.pad_id)
        ids = drawn.ids()
        rewards = task.score_ids(repeated, ids, policy.tokenizer, state)
    else:
        asked = [task.prompts[row] for row in repeated]
        begun = begin(map(task.label, repeated), asked, (task.rows[r] for r in repeated), before)
        sequences = episodes(
            policy,
            engine,
            begun,
            prompts,
            environment,
            turns,
            _room(policy),
            task.skip_special_tokens,
            generator,
        )
        ends = zip(begun, before, _ends(sequences).tolist(), strict=True)
        ids = [episode.tokens[len(prompt) : end] for episode, prompt, end in ends]
        rewards = _scored(
            task, policy, repeated, ids, [episode.messages for episode in begun], state
        )
    counted = rewards.scorable
    if mask_truncated_completions:
        counted = counted & ~sequences.truncated
    group = torch.arange(len(rows)).repeat_interleave(size)
    return Rollout(
        rows=repeated,
        sequences=sequences,
        batch=as_batch(sequences, rewards.total.float(), group, counted),
        completion_ids=ids,
        reward=rewards.total.float(),
        parts=dict(rewards.parts),
        scorable=rewards.scorable,
        tokens=int(_ends(sequences).sum()),
        environment=environment,
        turns=turns,
        state=state,
        metrics=rewards.metrics,
        extra=rewards.extra,
    )


def prompts_of(caller: str, task: Task, policy: Policy, rows: Iterable[int]) -> list[list[int]]:
    """Token ids of the prompts of `rows`, all of which the policy can complete.

    Raises:
        InputError: a policy without tokenizer; a token that the model does not have, or a prompt
            that leaves no room for a completion, naming the row.
    """
    refuse_unless(
        policy.tokenizer is not None,
        f"{caller}: this policy has no tokenizer; give Policy(model, tokenizer).",
    )
    encoded = _encoded(task, policy.tokenizer)
    size, room = len(policy.base.get_input_embeddings().weight), _room(policy)
    steps = policy.max_completion_length
    for row in dict.fromkeys(rows):
        ids = encoded[row]
        refuse_unless(
            max(ids) < size,
            f"{caller}: the prompt of {task.label(row)} has token {max(ids)} "
            f"({policy.tokenizer.convert_ids_to_tokens(max(ids))!r}), and the model embeds {size}; "
            "resize it with model.resize_token_embeddings(len(tokenizer)), or take its tokenizer.",
        )
        refuse_unless(
            len(ids) + steps <= room,
            f"{caller}: the prompt of {task.label(row)} has {len(ids)} tokens, and with {steps} "
            f"more it exceeds the {room} positions of the model; lower max_completion_length, or "
            "leave such rows out with vantage.language.without_long_prompts(task, policy).",
        )
    return [encoded[row] for row in rows]


def without_long_prompts(task: Task, policy: Policy) -> Task:
    """The task without the rows whose prompts leave no room for a completion; says how many.

    Raises:
        InputError: no row is left to train on.
    """
    longest = _room(policy) - policy.max_completion_length
    lengths = [len(ids) for ids in _encoded(task, policy.tokenizer)]
    left = copy.copy(task)
    left.train = [row for row in task.train if lengths[row] <= longest]
    left.held_out = [row for row in task.held_out if lengths[row] <= longest]
    refuse_unless(
        left.train,
        f"without_long_prompts: all prompts have more than {longest} tokens; lower "
        "max_completion_length.",
    )
    dropped = len(task.train) + len(task.held_out) - len(left.train) - len(left.held_out)
    if dropped:
        note(f"{dropped} of {len(lengths)} rows have prompts of over {longest} tokens: left out.")
    return left


def _room(policy: Policy) -> float:
    """Positions of the model."""
    room = getattr(policy.base.config.get_text_config(), "max_position_embeddings", None)
    return math.inf if room is None else room


def _encoded(task: Task, tokenizer: Any) -> list[list[int]]:
    """The prompts as token ids, made once for a task and tokenizer."""
    held = getattr(task, "_encoded_prompts", None)
    if held is None or held[0] is not tokenizer:
        held = (tokenizer, task.encode(tokenizer))
        task._encoded_prompts = held  # type: ignore[attr-defined]
    return held[1]


def _scored(
    task: Task,
    policy: Policy,
    rows: list[int],
    ids: list[list[int]],
    messages: list[list[Message]],
    state: Any,
) -> Rewards:
    """Rewards of episodes: of their text after plain prompts, else of their messages by role."""
    if isinstance(task.prompts[rows[0]], str):
        return task.score_ids(rows, ids, policy.tokenizer, state)
    return task.score(rows, messages, ids, state)


def _ends(sequences: Sequences) -> Int[Tensor, " N"]:
    """One more than the last sampled token of each row: episodes end with what the policy said."""
    place = torch.arange(1, sequences.tokens.shape[1] + 1)
    return torch.where(sequences.sampled, place, 0).amax(1)


def greedy_reward(
    task: Task,
    policy: Policy,
    rows: list[int],
    environment: Environment | None = None,
    turns: int = 8,
    state: Any = None,
) -> Float[Tensor, " n"]:
    """The reward of the greedy completion of each row's prompt, or of the greedy episode: ReMax."""
    return rollout(
        task,
        policy,
        rows,
        torch.Generator(),
        engine=Decoding(greedy=True),
        environment=environment,
        turns=turns,
        num_generations=1,
        state=state,
    ).reward
