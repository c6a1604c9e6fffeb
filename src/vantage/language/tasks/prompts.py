"""Prompts: a string or a list of messages, and their token ids."""

from collections.abc import Sequence
from typing import Any

from vantage.errors import InputError, refuse_unless

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes are decoded to that make no character yet
LONGEST_CHARACTER = 4  # bytes, of which a token has one at least

Message = dict[str, Any]
Prompt = str | list[Message]


def check_prompt(prompt: Any, row: str, system: str | None = None) -> Prompt:
    """The prompt, with the system message put in front; `row` names it in messages.

    A plain prompt that gets a system message becomes a conversation of both.

    Raises:
        InputError: neither a string that holds something nor a list of {role, content}.

    >>> check_prompt("2+2=", "Row 0", system="Calculate.")
    [{'role': 'system', 'content': 'Calculate.'}, {'role': 'user', 'content': '2+2='}]
    """
    plain = isinstance(prompt, str) and prompt != ""
    messages = isinstance(prompt, list) and prompt and all(is_message(item) for item in prompt)
    refuse_unless(
        plain or messages,
        f"{row}: the prompt is {prompt!r}; give a string that is not empty, or a list of "
        "{'role': ..., 'content': ...} messages.",
    )
    if system is None:
        return prompt
    start = [{"role": "system", "content": system}]
    if isinstance(prompt, str):
        return [*start, {"role": "user", "content": prompt}]
    refuse_unless(
        prompt[0]["role"] != "system",
        f"{row}: the prompt has a system message of its own; leave system out.",
    )
    return [*start, *prompt]


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of prompts, as the model is to see them before the first token of the completion.

    Conversations go through the tokenizer's chat template, which opens the answer; one that ends
    with an assistant's message is carried on from there. Plain strings get the special tokens that
    the tokenizer puts in front, and no end-of-sequence token.

    Args:
        prompts: all of them strings, or all of them conversations.

    Raises:
        InputError: conversations, and the tokenizer has no chat template, or one that refuses them;
            or a prompt of no tokens.
    """
    if isinstance(prompts[0], str):
        # all at once: a call for each would take longer than a small model does
        encoded = [list(ids) for ids in tokenizer(list(prompts))["input_ids"]]
        encoded = [_opened(tokenizer, p, e) for p, e in zip(prompts, encoded, strict=True)]
    else:
        refuse_unless(
            getattr(tokenizer, "chat_template", None) is not None,
            "The prompts are conversations, and this tokenizer has no chat template; set "
            "tokenizer.chat_template, or give the prompts as strings.",
        )
        encoded = [_templated(tokenizer, prompt) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        refuse_unless(ids, f"The prompt {prompt!r} has no tokens; a model needs one to start from.")
    return encoded


def as_completion(text: str | list[Message], prompt: Prompt) -> str | list[Message]:
    """A completion in the form of its prompt: a string, or messages, of which a text makes one."""
    if isinstance(prompt, str) or not isinstance(text, str):
        return text
    return [{"role": "assistant", "content": text}]


def decoded(
    tokenizer: Any, ids: Sequence[Sequence[int]], skip_special_tokens: bool = False
) -> list[str]:
    """Texts of completions, without tokens that start, end and pad texts or stand for none.

    Args:
        ids: the ids of each completion.
        skip_special_tokens: leave all special tokens out, such as a <think> that is one.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    framing = {getattr(tokenizer, name, None) for name in names}
    inner = [[token for token in row if token not in framing] for row in ids]
    return list(tokenizer.batch_decode(inner, skip_special_tokens=skip_special_tokens))


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; joined, they are the text of all.

    A character that takes several tokens is the text of the last of them, and the others have none.
    A tokenizer may drop the space before a word that is decoded alone: here it is there.
    """
    alone = [tokenizer.decode([token]) for token in ids]
    if "".join(alone) == tokenizer.decode(list(ids)):
        return alone
    texts, start, given = [], 0, 0  # tokens from `start` on are context, before `given` are written
    for end in range(1, len(ids) + 1):
        context = tokenizer.decode(list(ids[start:given]))
        text = tokenizer.decode(list(ids[start:end]))[len(context) :]
        waits = text.endswith(UNFINISHED) and end - given < LONGEST_CHARACTER and end < len(ids)
        texts.append("" if waits else text)
        if not waits:
            start, given = given, end
    return texts


def text_of(completion: Any) -> str:
    """The policy's text of a completion in either form: that of its messages, line by line.

    >>> text_of([{"role": "assistant", "content": "4"}])
    '4'
    """
    if isinstance(completion, str):
        return completion
    try:
        texts = [message["content"] for message in completion if message["role"] == "assistant"]
        return "\n".join(texts)
    except (TypeError, KeyError) as error:
        raise InputError(
            f"The completion is {completion!r}; it must be a string or a list of messages."
        ) from error


def _opened(tokenizer: Any, prompt: Any, ids: list[int]) -> list[int]:
    """Without an end that the tokenizer added, which nothing could follow, or a second start."""
    start = getattr(tokenizer, "bos_token_id", None)
    if start is not None and ids[:2] == [start, start] and prompt.startswith(tokenizer.bos_token):
        ids = ids[1:]
    added = ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token)
    return ids[:-1] if added else ids


def _templated(tokenizer: Any, prompt: Any) -> list[int]:
    unanswered = prompt[-1]["role"] != "assistant"
    try:
        ids = tokenizer.apply_chat_template(
            prompt,
            tokenize=True,
            return_dict=False,
            add_generation_prompt=unanswered,
            continue_final_message=not unanswered,
        )
    except Exception as error:  # a template raises what it likes: roles out of turn, no system role
        raise InputError(
            f"The chat template of this tokenizer refuses the messages {prompt!r}: "
            f"{type(error).__name__}: {' '.join(str(error).split())}; give it roles in an order, "
            "and contents in a form, that it takes."
        ) from error
    return [int(token) for token in ids]


def is_message(item: Any) -> bool:
    """Whether it is a dict with a role and a content."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("role"), str)
        and isinstance(item.get("content"), str | list)
    )
