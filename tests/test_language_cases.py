"""What people bring to language-model training, each with its right value."""

import asyncio
import copy

import pytest
import torch

import vantage
from vantage import language
from vantage.errors import InputError
from vantage.estimators import reinforce, remax, rloo

TOKENIZER = language.tiny.tokenizer("0123456789+=")
ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(10) for b in range(4)]


def model():
    return language.tiny.model(TOKENIZER, hidden=32, layers=2, heads=2, intermediate=64)


def policy(of=None, **settings):
    return language.Policy(of or model(), TOKENIZER, max_completion_length=3, **settings)


def lengths(completions, **_):
    return [float(len(c)) for c in completions]


def task(reward=lengths, rows=ROWS, **settings):
    return language.Task(rows, reward, num_generations=4, **settings)


def train(of, own, estimator, **settings):
    settings = {"batch": 16, "updates": 1, "progress": False} | settings
    return vantage.train(of, own, estimator, **settings)


def test_weights_stored_in_half_precision_move_as_those_in_float32(tmp_path):
    model().to(torch.bfloat16).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    moved = {}
    for dtype in (None, torch.float32):
        own = language.Policy(tmp_path, max_completion_length=3, dtype=dtype)
        before = torch.nn.utils.parameters_to_vector(own.parameters()).detach().double()
        train(task(), own, rloo(), updates=5, lr=1e-6)
        after = torch.nn.utils.parameters_to_vector(own.parameters()).detach().double()
        moved[dtype] = after - before
    assert (moved[torch.float32] != 0).double().mean() > 0.9
    share = moved[None] @ moved[torch.float32] / moved[torch.float32].norm() ** 2
    assert abs(share - 1) < 0.05


def test_evaluation_goes_through_the_environment():
    three = task(lambda completions, **_: [float(c.count("+") >= 3) for c in completions])
    row = train(
        three,
        policy(),
        reinforce(),
        environment=lambda said, turn, row: "+++" if turn == 0 else None,
        turns=2,
        evaluate_every=1,
    ).history[0]
    assert row["reward"] == 1
    assert row["eval/return"] == 1


def test_the_greedy_baseline_goes_through_the_environment():
    advantages = []
    train(
        task(lambda completions, **_: [float(c.count("+") >= 3) for c in completions]),
        policy(),
        remax(),
        environment=lambda said, turn, row: "+++" if turn == 0 else None,
        turns=2,
        watch=lambda update, drawn, advantage: advantages.append(advantage),
    )
    assert (advantages[0] == 0).all()


def test_audits_take_as_many_turns_as_training():
    turns = []

    def environment(said, turn, row):
        turns.append(turn)
        return "+"

    own = task(rows=ROWS[:4], held_out=0)
    settings = {"environment": environment, "turns": 2, "batch": 8, "progress": False}
    language.audit(own, policy(), [reinforce(), rloo()], trajectories=64, **settings)
    language.group_sizes(own, policy(), [rloo()], sizes=(2,), trajectories=64, **settings)
    assert set(turns) == {0}


def test_a_kl_is_measured_under_the_law_of_the_policy():
    row = train(
        task(), policy(temperature=0.5), rloo(beta=0.5), lr=1e-9, reference=policy()
    ).history[0]
    assert abs(row["kl"]) < 1e-9


@pytest.mark.parametrize("lora", [None, 4])
def test_a_reference_that_would_move_with_the_policy_is_refused(lora):
    of = model()
    reference = policy(of)
    with pytest.raises(InputError, match="shares weights"):
        train(task(), policy(of, lora=lora), rloo(beta=0.5), reference=reference)
    train(task(), policy(copy.deepcopy(of)), rloo(beta=0.5), reference=policy(of))


def test_asynchronous_rewards_have_one_event_loop():
    turnstile = asyncio.Semaphore(4)

    async def judge(completions, **_):
        async def one(completion):
            async with turnstile:
                await asyncio.sleep(0)
                return float(len(completion))

        return list(await asyncio.gather(*map(one, completions)))

    assert len(train(task(judge), policy(), rloo(), updates=3).history) == 3


def test_a_prompt_that_begins_with_its_start_token_gets_no_second():
    ids = task(rows=[{"prompt": "<bos>1+1="}, {"prompt": "1+1="}], held_out=0).encode(TOKENIZER)
    assert ids[0] == ids[1]
    assert ids[0].count(TOKENIZER.bos_token_id) == 1


def test_rows_after_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8-sig", "utf-16", "utf-8"):
        for name, text in (("rows.jsonl", '{"prompt": "é"}\r\n'), ("rows.csv", "prompt\né\n")):
            file = tmp_path / name
            file.write_bytes(text.encode(encoding))
            assert task(rows=file, held_out=0).prompts == ["é"]


def test_rows_in_another_encoding_are_refused_by_line(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes("prompt\n1\né\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"rows\.csv, line 3 holds b'\\xe9', not UTF-8"):
        task(rows=file, held_out=0)
