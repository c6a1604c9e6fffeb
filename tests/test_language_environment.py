"""Episodes of several turns: roles, token ids, limits, state, and who is to blame."""

import re

import pytest
import torch

import vantage
from vantage import language
from vantage.errors import InputError
from vantage.estimators import rloo
from vantage.language.sampling.generation import finished

PLAIN = language.tiny.tokenizer("0123456789+=")
CHAT = language.tiny.tokenizer("0123456789+=", chat=True)


class Scripted:
    """An engine that says what it is told: one list of token ids a turn."""

    def __init__(self, *says):
        self.says, self.turn, self.read = says, 0, []

    def generate(self, policy, prompts, num_generations, generator, max_length=None):
        said = self.says[self.turn]
        self.turn += 1
        self.read.append(prompts)
        tokens = torch.tensor([said] * (len(prompts) * num_generations))
        return finished(tokens, torch.zeros(tokens.shape), policy.end_ids, policy.pad_id)


def policy(tokenizer, length=4):
    model = language.tiny.model(tokenizer, hidden=32, layers=1, heads=2, intermediate=64)
    return language.Policy(model, tokenizer, max_completion_length=length)


def ids(tokenizer, text, end=True):
    return [tokenizer.convert_tokens_to_ids(c) for c in text] + [tokenizer.eos_token_id] * end


def converse(prompt, engine, environment, turns=2, reward=None, size=2, **settings):
    given = []

    def keep(completions, **_):
        given.append(completions)
        return [0.0] * len(completions)

    chat = not isinstance(prompt, str)
    own = policy(CHAT if chat else PLAIN)
    task = language.Task(
        [{"prompt": prompt, "answer": "7", "tries": 0}], reward or keep, num_generations=size,
        held_out=0,
    )  # fmt: skip
    drawn = language.rollout(
        task, own, [0], torch.Generator(), engine=engine, environment=environment, turns=turns,
        **settings,
    )  # fmt: skip
    return drawn, given, task


ASKED = [{"role": "user", "content": "3+4="}]


def test_every_turn_of_a_conversation_goes_through_the_chat_template():
    said = ids(CHAT, "5"), ids(CHAT, "6")
    drawn, given, _ = converse(ASKED, Scripted(*said), lambda *_: "1")
    whole = [*ASKED, {"role": "assistant", "content": "5"}, {"role": "user", "content": "1"}]
    expected = CHAT.apply_chat_template(whole, add_generation_prompt=True, tokenize=False)
    # the template writes no end after an answer; the policy's own end token stays where it stood
    expected = expected.replace("5", f"5{CHAT.eos_token}", 1) + f"6{CHAT.eos_token}"
    assert CHAT.decode(drawn.sequences.tokens[0]) == expected
    chosen = drawn.sequences.tokens[0][drawn.sequences.sampled[0]].tolist()
    assert chosen == [*said[0], *said[1]]
    assert given[0][0] == [
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "6"},
    ]


def test_an_environment_answers_in_roles_of_its_own():
    answer = [{"role": "system", "content": "8"}, {"role": "user", "content": "9"}]
    drawn, given, _ = converse(ASKED, Scripted(ids(CHAT, "5"), ids(CHAT, "6")), lambda *_: answer)
    assert re.search(r"5<eos><system>8<user>9<assistant>6", CHAT.decode(drawn.sequences.tokens[0]))
    assert [message["role"] for message in given[0][0]] == [
        "assistant",
        "system",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize("end", [True, False])
def test_the_end_that_a_template_writes_stands_once(end, monkeypatch):
    closing = "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    monkeypatch.setattr(CHAT, "chat_template", CHAT.chat_template.replace("{% endfor %}", closing))
    said = ids(CHAT, "5", end), ids(CHAT, "6")
    drawn, _, _ = converse(ASKED, Scripted(*said), lambda *_: "1")
    text = "<bos><user>3+4=<assistant>5<eos><user>1<assistant>6<eos>"
    assert CHAT.decode(drawn.sequences.tokens[0]) == text
    # where the answer was cut the template closes it, which the policy did not choose
    assert int(drawn.sequences.sampled[0].sum()) == 3 + end


def test_an_answer_that_was_begun_in_the_prompt_is_carried_on():
    begun = [*ASKED, {"role": "assistant", "content": "0"}]
    engine = Scripted(ids(CHAT, "5"), ids(CHAT, "6"))
    drawn, _, _ = converse(begun, engine, lambda *_: "1")
    text = CHAT.decode(drawn.sequences.tokens[0])
    assert text.count("<assistant>") == 2
    assert "<assistant>05" in text


def test_verifiers_read_the_policy_and_not_the_environment():
    engine = Scripted(ids(CHAT, "5"), ids(CHAT, "6"))
    number = language.verifiers.number()
    drawn, _, _ = converse(ASKED, engine, lambda said, turn, row: row["answer"], reward=number)
    assert drawn.reward.tolist() == [0, 0]
    engine = Scripted(ids(CHAT, "5"), ids(CHAT, "7"))
    drawn, _, _ = converse(ASKED, engine, lambda *_: "3", reward=number)
    assert drawn.reward.tolist() == [1, 1]


def test_plain_prompts_are_carried_on_as_text():
    engine = Scripted(ids(PLAIN, "5", end=False), ids(PLAIN, "6"))
    _, given, _ = converse("3+4=", engine, lambda *_: "+")
    assert given[0] == ["5+6", "5+6"]


def test_an_episode_that_is_cut_by_its_turns_is_truncated():
    def says(*_):
        return "="

    drawn, _, _ = converse(
        "1", Scripted(ids(PLAIN, "5"), ids(PLAIN, "6")), says, mask_truncated_completions=True
    )
    assert drawn.sequences.truncated.tolist() == [True, True]
    assert not drawn.batch.mask.any()
    drawn, _, _ = converse(
        "1",
        Scripted(ids(PLAIN, "5"), ids(PLAIN, "6")),
        lambda said, turn, row: "=" if turn == 0 else None,
        mask_truncated_completions=True,
    )
    assert drawn.sequences.truncated.tolist() == [False, False]
    assert drawn.batch.mask.any(1).all()


def test_an_episode_keeps_its_state_in_a_row_of_its_own():
    seen = []

    def environment(said, turn, row):
        row["tries"] += 1
        seen.append((turn, row["tries"]))
        return "="

    engine = Scripted(ids(PLAIN, "5"), ids(PLAIN, "6"))
    _, _, task = converse("1", engine, environment, size=4)
    assert seen == [(0, 1)] * 4 + [(1, 2)] * 4
    assert task.rows[0]["tries"] == 0


async def asynchronous(said, turn, row):
    return "="


def broken(said, turn, row):
    raise KeyError("board")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (broken, r"raised KeyError\('board'\) at row 0, episode 0 of the batch, turn 0, after '5'"),
        (lambda *_: 3, r"returned 3 at row 0, episode 0"),
        (asynchronous, r"returned a coroutine at row 0"),
        (lambda *_: [], r"returned \[\] at row 0"),
    ],
)
@pytest.mark.parametrize("prompt", ["1", ASKED])
def test_an_environment_that_fails_is_named_with_row_turn_and_episode(prompt, environment, message):
    tokenizer = PLAIN if isinstance(prompt, str) else CHAT
    with pytest.raises(InputError, match=message):
        converse(prompt, Scripted(ids(tokenizer, "5")), environment)


def test_conversations_train():
    rows = [{"prompt": [{"role": "user", "content": f"{a}+1="}], "answer": "3"} for a in range(8)]
    task = language.Task(rows, language.verifiers.number(), num_generations=4, held_out=0)
    own = policy(CHAT)
    run = vantage.train(
        task, own, rloo(), environment=lambda *_: "2", turns=2, batch=16, updates=2, progress=False
    )
    assert run.history[-1]["sampling/log_prob_difference_max"] < 1e-4
