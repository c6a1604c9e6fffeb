"""Episodes of several turns: the policy says something, an environment answers, and so on.

Token ids that the policy chose stay as they are. Between two turns of a conversation stands what
the chat template puts there: the end of the answer, the environment's messages, the next header.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from vantage.environments.limits import LateError, limited
from vantage.errors import InputError, refuse_unless
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Engine
from vantage.language.sampling.sequences import Sequences
from vantage.language.tasks.prompts import Message, Prompt, decoded, is_message

Answer = str | Message | list[Message] | None
# (what the policy said this turn, number of the turn from 0, the episode's own copy of the data
# row) -> what the model reads next, or None at the end
Environment = Callable[[str, int, dict[str, Any]], Answer]

HERE = "\x00the answer\x00"  # stands for the policy's words in a template


@dataclass
class Episode:
    """One conversation as it goes on.

    Attributes:
        label: the label of its data row, in messages.
        prompt: as the task has it.
        row: a copy of the data row, which the environment may keep its state in.
        tokens, sampled, log_prob: of each token so far: prompt, policy and environment.
        messages: what followed the prompt, by role; of a conversation.
        truncated: cut by a limit: on length, on turns, or of the model's positions.
    """

    label: str
    prompt: Prompt
    row: dict[str, Any]
    tokens: list[int]
    sampled: list[bool] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    truncated: bool = False

    def __post_init__(self) -> None:
        self.sampled, self.log_prob = [False] * len(self.tokens), [0.0] * len(self.tokens)

    def add(self, tokens: list[int], log_prob: list[float] | None) -> None:
        """Tokens that the policy chose with these log-probabilities, or that it hears."""
        self.tokens += tokens
        self.sampled += [log_prob is not None] * len(tokens)
        self.log_prob += log_prob if log_prob is not None else [0.0] * len(tokens)


def episodes(
    policy: Policy,
    engine: Engine,
    begun: list[Episode],
    prompts: list[list[int]],
    environment: Environment,
    turns: int,
    room: float,
    skip_special_tokens: bool,
    generator: torch.Generator,
) -> Sequences:
    """Turn by turn, all episodes that go on together; `begun` holds them at their end.

    Args:
        begun: as many for each of the prompts.
        turns: after which an episode is cut.
        room: positions of the model.
        skip_special_tokens: from what the environment and rewards are told that the policy said.
    """
    going = list(range(len(begun)))
    for turn in range(turns):
        if turn == 0:  # the prompt of a group is the same for all: compute it once
            drawn = engine.generate(policy, prompts, len(begun) // len(prompts), generator)
        else:
            drawn = engine.generate(policy, [begun[n].tokens for n in going], 1, generator)
        answers = decoded(policy.tokenizer, drawn.ids(), skip_special_tokens)
        for place, n in enumerate(going):
            length = int(drawn.length[place])
            episode = begun[n]
            episode.add(
                drawn.tokens[place, :length].tolist(), drawn.log_prob[place, :length].tolist()
            )
            episode.truncated = bool(drawn.truncated[place])
            episode.messages.append({"role": "assistant", "content": answers[place]})
        asked = list(zip(going, answers, strict=True))
        going = []
        for n, words in asked:
            episode = begun[n]
            answer = _answer(environment, words, turn, episode, n)
            if answer is None:
                continue
            heard = _heard(policy, episode, answer)
            longest = len(episode.tokens) + len(heard) + policy.max_completion_length
            if turn + 1 == turns or longest > room:
                episode.truncated = True  # it would have gone on
                continue
            episode.add(heard, None)
            episode.messages += [] if isinstance(answer, str) else answer
            going.append(n)
        if not going:
            break
    return _stacked(begun, policy.pad_id)


def begin(
    labels: Iterable[str],
    prompts: Iterable[Prompt],
    rows: Iterable[dict[str, Any]],
    tokens: Iterable[list[int]],
) -> list[Episode]:
    """Episodes at their prompts, each with a copy of its row."""
    each = zip(labels, prompts, rows, tokens, strict=True)
    return [Episode(a, b, copy.deepcopy(c), list(d)) for a, b, c, d in each]


def _answer(
    environment: Environment, text: str, turn: int, episode: Episode, number: int
) -> str | list[Message] | None:
    """What the environment answers: text after a plain prompt, messages in a conversation.

    Raises:
        InputError: it raised, or returned something else, naming row, episode and turn.
    """
    where = f"at {episode.label}, episode {number} of the batch, turn {turn}, after {text!r}"
    try:
        answer: Any = limited(environment, environment)(text, turn, episode.row)
    except LateError as error:
        raise InputError(f"{error} This was {where}.") from None
    except Exception as error:
        raise InputError(f"The environment raised {error!r} {where}.") from error
    if inspect.iscoroutine(answer):
        answer.close()
        raise InputError(
            f"The environment returned a coroutine {where}; make it a plain function, which may "
            "call asyncio.run."
        )
    if answer is None:
        return None
    if isinstance(episode.prompt, str):
        refuse_unless(
            isinstance(answer, str),
            f"The environment returned {answer!r} {where}; it returns the text that the model "
            "reads next, or None at the end.",
        )
        return answer
    if isinstance(answer, str):
        answer = {"role": "user", "content": answer}
    messages = answer if isinstance(answer, list) else [answer]
    refuse_unless(
        messages and all(is_message(item) for item in messages),
        f"The environment returned {answer!r} {where}; in a conversation it returns text (of the "
        "role user), one or several {'role': ..., 'content': ...} messages, or None at the end.",
    )
    return messages


def _heard(policy: Policy, episode: Episode, answer: str | list[Message]) -> list[int]:
    """Token ids from the policy's last token to where it speaks again.

    Raises:
        InputError: a chat template that refuses the messages, or leaves out what the policy said.
    """
    tokenizer = policy.tokenizer
    if isinstance(answer, str):
        return list(tokenizer.encode(answer, add_special_tokens=False))
    assert not isinstance(episode.prompt, str)
    before = [*episode.prompt, *episode.messages[:-1]]
    words = {"role": "assistant", "content": HERE}
    if len(episode.messages) == 1 and before[-1]["role"] == "assistant":
        words["content"] = before.pop()["content"] + HERE  # which the policy carried on
    try:
        text = tokenizer.apply_chat_template(
            [*before, words, *answer], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates raise what they like
        roles = ", ".join(message["role"] for message in [*before, words, *answer])
        raise InputError(
            f"The chat template refuses a conversation of {roles} ({error}); let the environment "
            "answer in roles that the template knows."
        ) from error
    _, there, after = text.rpartition(HERE)
    refuse_unless(
        there,
        "The chat template leaves out what the assistant said before the last message; take one "
        "that keeps it.",
    )
    ids = list(tokenizer.encode(after, add_special_tokens=False))
    ended = ids and episode.tokens[-1] in policy.end_ids and ids[0] == episode.tokens[-1]
    return ids[1:] if ended else ids


def _stacked(episodes: list[Episode], pad_id: int) -> Sequences:
    width = max(len(episode.tokens) for episode in episodes)
    tokens = torch.full((len(episodes), width), pad_id)
    mask = torch.zeros(len(episodes), width, dtype=torch.bool)
    log_prob = torch.zeros(len(episodes), width)
    for n, episode in enumerate(episodes):
        end = len(episode.tokens)
        tokens[n, :end] = torch.tensor(episode.tokens)
        mask[n, :end] = torch.tensor(episode.sampled)
        log_prob[n, :end] = torch.tensor(episode.log_prob)
    return Sequences(
        tokens, mask, log_prob, torch.tensor([episode.truncated for episode in episodes])
    )
