"""Rollout: prompts of a task, completions of a policy, rewards, as one Batch.

With an environment a completion is a turn of a conversation: a function sees what the policy said
and answers with the next observation, or with None when the episode is over. Observations are part
of the text and not of the loss.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Decoding, Engine
from vantage.language.sampling.sequences import Sequences, as_batch, joined
from vantage.language.tasks.task import Task
from vantage.runs.progress import note

# (what the policy said this turn, number of the turn from 0, the data row) -> observation or None
Environment = Callable[[str, int, dict[str, Any]], str | None]


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
        environment, turns: as they were given to `rollout`.
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
) -> Rollout:
    """Complete the prompts of `rows`, `num_generations` times each, and score what comes.

    Args:
        task, policy: what is asked, and who answers.
        rows: numbers of task rows; one given twice makes two groups.
        generator: the source of everything random, on the CPU.
        engine: draws completions; the package's own where None.
        environment: answers each completion; a single turn where None.
        turns: most completions of one episode, with an environment.
        mask_truncated_completions: leave completions that were cut at the limit out, of the loss
            and of their group's baseline. The objective is then the reward of those that end.
        num_generations: completions of each prompt; the task's where None.

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
    else:
        records = [task.rows[row] for row in repeated]
        sequences = _episodes(policy, engine, prompts, size, records, environment, turns, generator)
        ids = [
            row[len(prompt) : int(end)].tolist()
            for row, prompt, end in zip(sequences.tokens, before, _ends(sequences), strict=True)
        ]
    rewards = task.score_ids(repeated, ids, policy.tokenizer)
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


def _ends(sequences: Sequences) -> Int[Tensor, " N"]:
    """One more than the last chosen token of each row: episodes end with what the policy said."""
    place = torch.arange(1, sequences.tokens.shape[1] + 1)
    return torch.where(sequences.chosen, place, 0).amax(1)


@dataclass
class _Episode:
    tokens: list[int]
    chosen: list[bool]
    log_prob: list[float]
    truncated: bool = False

    def add(self, tokens: list[int], log_prob: list[float] | None) -> None:
        self.tokens += tokens
        self.chosen += [log_prob is not None] * len(tokens)
        self.log_prob += log_prob if log_prob is not None else [0.0] * len(tokens)


def _episodes(
    policy: Policy,
    engine: Engine,
    prompts: list[list[int]],
    size: int,
    records: list[dict[str, Any]],
    environment: Environment,
    turns: int,
    generator: torch.Generator,
) -> Sequences:
    """Turn by turn, all episodes that go on together."""
    episodes = [
        _Episode(list(p), [False] * len(p), [0.0] * len(p)) for p in prompts for _ in range(size)
    ]
    room = _room(policy)
    going = list(range(len(episodes)))
    for turn in range(turns):
        if turn == 0:  # the prompt of a group is the same for all: compute it once
            drawn = engine.generate(policy, prompts, size, generator)
        else:
            drawn = engine.generate(policy, [episodes[n].tokens for n in going], 1, generator)
        said = policy.tokenizer.batch_decode(drawn.ids(), skip_special_tokens=True)
        for place, n in enumerate(going):
            length = int(drawn.length[place])
            own = episodes[n]
            own.add(drawn.tokens[place, :length].tolist(), drawn.log_prob[place, :length].tolist())
            own.truncated = bool(drawn.truncated[place])
        if turn + 1 == turns:
            break
        answers = {n: environment(said[i], turn, records[n]) for i, n in enumerate(going)}
        going = []
        for n, answer in answers.items():
            if answer is None:
                continue
            heard = policy.tokenizer.encode(answer, add_special_tokens=False)
            longest = len(episodes[n].tokens) + len(heard) + policy.max_completion_length
            if longest > room:
                episodes[n].truncated = True  # no room for another turn
            else:
                episodes[n].add(heard, None)
                going.append(n)
        if not going:
            break
    return _stacked(episodes, policy.pad_id)


def _stacked(episodes: list[_Episode], pad_id: int) -> Sequences:
    width = max(len(own.tokens) for own in episodes)
    tokens = torch.full((len(episodes), width), pad_id)
    chosen = torch.zeros(len(episodes), width, dtype=torch.bool)
    log_prob = torch.zeros(len(episodes), width)
    for n, own in enumerate(episodes):
        end = len(own.tokens)
        tokens[n, :end] = torch.tensor(own.tokens)
        chosen[n, :end] = torch.tensor(own.chosen)
        log_prob[n, :end] = torch.tensor(own.log_prob)
    return Sequences(tokens, chosen, log_prob, torch.tensor([own.truncated for own in episodes]))


def greedy_reward(
    task: Task,
    policy: Policy,
    rows: list[int],
    environment: Environment | None = None,
    turns: int = 8,
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
    ).reward
