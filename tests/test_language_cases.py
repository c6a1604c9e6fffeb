"""What people bring to language-model training, each with its right value."""

import asyncio
import copy
from dataclasses import replace

import pytest
import torch
import transformers
from peft import LoraConfig
from transformers import AutoModelForCausalLM

import vantage
from vantage import language
from vantage.errors import InputError
from vantage.estimators import ppo, reinforce, reinforce_leave_one_out, remax, rloo
from vantage.language.training.masters import Masters

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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_of_weights_in_half_precision_are_those_of_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4096, generator=generator).to(dtype)
    half, lost = (torch.nn.Parameter(start.clone()) for _ in range(2))
    wide = torch.nn.Parameter(start.float())
    masters = Masters([half])
    stepped = [(half, masters.parameters), (lost, [lost]), (wide, [wide])]
    optimizers = [torch.optim.AdamW(own, lr=1e-5, weight_decay=0.0) for _, own in stepped]
    masters.attach(optimizers[0])
    for _ in range(30):
        slope = (torch.randn(4096, generator=generator) + 1).to(dtype).float()
        for (parameter, _), optimizer in zip(stepped, optimizers, strict=True):
            optimizer.zero_grad()
            (parameter.float() * slope).sum().backward()
            optimizer.step()
    assert torch.equal(masters.of(half), wide)
    assert torch.equal(half, wide.to(dtype))
    assert (lost != start).double().mean() < 0.5 < (wide != start).double().mean()
    masters.detach()
    half.float().sum().backward()
    assert half.grad is not None


def test_runs_in_half_precision_resume_to_the_bit(tmp_path):
    def start():
        return policy(model().to(torch.bfloat16))

    whole, again = start(), start()
    settings = {"lr": 1e-4, "batch": 32}
    train(task(), whole, rloo(), updates=6, **settings)
    train(task(), start(), rloo(), updates=3, out=tmp_path / "run", **settings)
    train(task(), again, rloo(), updates=6, out=tmp_path / "run", resume=True, **settings)
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


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
    assert set(turns) == {0, 1}


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


def perturbed(of, scale=0.2, seed=1, trained=False):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in of.parameters():
            if p.requires_grad or not trained:
                p.add_(torch.randn(p.shape, generator=generator) * scale)
    return of


def log_prob(own):
    tokens = torch.arange(3, 13)[None]
    with torch.no_grad():
        return own.log_prob(tokens[:, :-1], tokens[:, 1:])


def same_law(own, other):
    return torch.allclose(log_prob(own), log_prob(other), atol=1e-4)


@pytest.fixture
def adapter_folder(tmp_path):
    """A base model in a folder, and in another an adapter on it that a supervised run has moved."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    policy(perturbed(model())).save_pretrained(base)
    own = policy(AutoModelForCausalLM.from_pretrained(base), lora=4)
    perturbed(own.model, trained=True)
    own.model.peft_config["default"].base_model_name_or_path = str(base)
    own.model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder, own, base


def test_the_adapter_that_a_folder_holds_is_trained_on(adapter_folder):
    folder, own, _ = adapter_folder
    again = language.Policy(folder, max_completion_length=3)
    assert same_law(again, own)
    run = train(task(), again, rloo(beta=0.5), updates=2, lr=1e-2)
    assert abs(run.history[0]["kl"]) < 1e-6  # to the policy as it was given
    assert run.history[1]["kl"] > 1e-6
    assert not same_law(again, own)


def test_a_new_adapter_begins_where_the_one_in_the_folder_ended(adapter_folder, tmp_path):
    folder, own, base = adapter_folder
    again = language.Policy(folder, max_completion_length=3, lora=2)
    assert same_law(again, own)
    assert not same_law(again, language.Policy(base))
    train(task(), again, rloo(), updates=2, lr=1e-2, out=tmp_path / "run")
    assert same_law(language.Policy(tmp_path / "run" / "model"), again)


def test_a_second_adapter_on_a_model_object_is_refused():
    with pytest.raises(InputError, match="has an adapter already"):
        policy(policy(lora=2).model, lora=2)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "targets",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"]},
    ],
)
def test_what_is_saved_is_the_policy(tmp_path, tied, targets):
    of = model()
    if tied:
        of.config.tie_word_embeddings = True
        of.tie_weights()
    lora = LoraConfig(r=4, task_type="CAUSAL_LM", **targets)
    own = policy(perturbed(of), lora=lora)
    perturbed(own.model, 0.3, trained=True)
    own.save_pretrained(tmp_path)
    assert same_law(language.Policy(tmp_path), own)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_new_adapters_are_drawn_from_their_seed():
    first = [
        torch.nn.utils.parameters_to_vector(policy(model(), lora=2, seed=seed).parameters())
        for seed in (1, 1, 2)
    ]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_what_cannot_be_saved_is_refused_before_training(tmp_path):
    of = model()
    of.generation_config.do_sample, of.generation_config.temperature = False, 0.6
    with pytest.raises(InputError, match="GenerationConfig of the policy cannot be saved"):
        train(task(), policy(of), rloo(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lora", [None, 2])
def test_a_run_resumes_to_its_own_reference(tmp_path, lora):
    def start(of=None):
        return policy(of or perturbed(model()), lora=lora)

    settings = {"batch": 32, "lr": 1e-2}
    whole = train(task(), start(), rloo(beta=0.5), updates=4, **settings)
    settings["out"] = tmp_path / "run"
    train(task(), start(), rloo(beta=0.5), updates=2, **settings)
    settings["resume"] = True
    moved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    with pytest.raises(InputError, match="began with other weights"):
        train(task(), start(moved), rloo(beta=0.5), updates=4, **settings)
    again = train(task(), start(), rloo(beta=0.5), updates=4, **settings)
    assert [row["kl"] for row in again.history] == [row["kl"] for row in whole.history]
    assert whole.history[-1]["kl"] > 1e-3


def test_what_is_trained_as_a_whole_resumes_from_any_weights(tmp_path):
    settings = {"out": tmp_path / "run"}
    train(task(), policy(), rloo(), updates=1, **settings)
    moved = language.Policy(tmp_path / "run" / "model", max_completion_length=3)
    assert len(train(task(), moved, rloo(), updates=2, resume=True, **settings).history) == 2


@pytest.mark.parametrize("estimator", [rloo(), reinforce_leave_one_out()])
def test_an_update_with_nothing_to_learn_from_is_skipped_and_said(estimator, capsys, tmp_path):
    own = policy()
    own.end_ids = ()  # every completion is cut
    before = torch.nn.utils.parameters_to_vector(own.parameters()).clone()
    settings = {"mask_truncated_completions": True, "out": tmp_path / "run"}
    run = train(task(), own, estimator, updates=3, **settings)
    assert [row["skipped"] for row in run.history] == [True] * 3
    assert [row["completions"] for row in run.history] == [0] * 3
    assert torch.equal(torch.nn.utils.parameters_to_vector(own.parameters()), before)
    assert capsys.readouterr().err.count("update 1 is skipped: no prompt has two completions") == 1
    with pytest.raises(InputError, match="5 updates in a row had nothing to learn from"):
        train(task(), own, estimator, updates=8, resume=True, **settings)


def test_a_run_goes_on_after_an_update_that_was_skipped():
    calls = []

    def sometimes(completions, **_):
        calls.append(1)
        return [None if len(calls) == 2 else float(len(c)) for c in completions]

    run = train(task(sometimes), policy(), rloo(), updates=3)
    assert ["skipped" in row for row in run.history] == [False, True, False]
    assert run.history[2]["grad_norm"] > 0


def test_lengths_are_of_all_completions_whatever_counts():
    rows = [
        train(
            task(), policy(), reinforce_leave_one_out(), batch=64, mask_truncated_completions=mask
        ).history[0]
        for mask in (False, True)
    ]
    for name in ("length", "completions/mean_length", "completions/max_length"):
        assert rows[0][name] == rows[1][name]
    assert rows[1]["completions"] < rows[0]["completions"]
    assert rows[1]["completions/mean_terminated_length"] < rows[1]["completions/mean_length"]


def test_special_tokens_reach_rewards_unless_left_out():
    words = language.tiny.tokenizer("0123456789+=")
    words.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    names = ("<think>", "1", "</think>", "2", "<eos>", "<pad>")
    ids = [words.convert_tokens_to_ids(name) for name in names]
    form = language.verifiers.format(r"<think>.*</think>.*")
    for skip, reward in ((False, 1), (True, 0)):
        own = language.Task([{"prompt": "1"}], form, held_out=0, skip_special_tokens=skip)
        assert own.score_ids([0], [ids], words).total.tolist() == [reward]


def test_a_learning_rate_for_each_group_of_parameters():
    own, optimizers = policy(), []
    value = language.ValueHead(own)
    apart = {id(p) for p in value.parameters()}

    def made(parameters):
        groups = [
            {"params": [p for p in parameters if id(p) not in apart], "lr": 1e-6},
            {"params": list(value.parameters()), "lr": 1e-3},
        ]
        optimizers.append(torch.optim.AdamW(groups))
        return optimizers[0]

    train(task(), own, ppo(), value=value, optimizer=made)
    assert [group["lr"] for group in optimizers[0].param_groups] == [1e-6, 1e-3]


@pytest.mark.parametrize("gap", ["{,}", r"\,", r"\!", r"\;", r",\!", ","])
def test_numbers_as_latex_groups_them(gap):
    number = language.verifiers.number()
    assert number([f"so 1{gap}234"], answer=["1234"]) == [1]
    assert number(["234"], answer=[f"1{gap}234"]) == [0]
    assert number([rf"\$1{gap}234.50"], answer=["1234.5"]) == [1]


def test_a_comma_between_numbers_stays_one():
    assert language.verifiers.number()([r"(1,\ 234)", r"1\, 2"], answer=["234", "2"]) == [1, 1]


def test_a_verifier_of_a_column_that_is_not_there_is_refused_at_the_door():
    with pytest.raises(InputError, match=r"'number' reads the column 'gold', and the data has ans"):
        task(language.verifiers.number(answer="gold"))


def test_a_sampler_that_is_not_the_trainer_is_said(capsys):
    class Noisy(language.Decoding):
        def generate(self, *arguments, **settings):
            drawn = super().generate(*arguments, **settings)
            noise = torch.randn(drawn.log_prob.shape, generator=torch.Generator().manual_seed(0))
            return replace(drawn, log_prob=drawn.log_prob + 0.3 * noise * (drawn.log_prob != 0))

    train(task(), policy(), rloo(), updates=2, engine=Noisy())
    assert capsys.readouterr().err.count("the engine's log-probabilities differ") == 1
    train(task(), policy(), rloo(), updates=2)
    assert "differ" not in capsys.readouterr().err


def opt():
    return transformers.OPTConfig(
        layerdrop=0.3, dropout=0.1, attention_dropout=0.1, vocab_size=len(TOKENIZER),
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, ffn_dim=64,
        max_position_embeddings=64, word_embed_proj_dim=32, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip


def mixtral():
    return transformers.MixtralConfig(
        router_jitter_noise=0.1, attention_dropout=0.1, vocab_size=len(TOKENIZER), hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64,
        num_local_experts=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip


def falcon():
    return transformers.FalconConfig(
        hidden_dropout=0.2, attention_dropout=0.2, vocab_size=len(TOKENIZER), hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


@pytest.mark.parametrize("config", [opt, mixtral, falcon])
def test_recomputing_layers_adds_no_noise(config):
    of = perturbed(AutoModelForCausalLM.from_config(config()), 0.1).eval()
    gradients = []
    for recompute in (False, True):
        own = policy(of, gradient_checkpointing=recompute)
        tokens = torch.arange(3, 13)[None]
        own.log_prob(tokens[:, :-1], tokens[:, 1:]).sum().backward()
        gradients.append([p.grad.clone() for p in own.parameters() if p.grad is not None])
        of.zero_grad()
        assert not any(module.training for module in own.model.modules())
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, atol=1e-5)


# ---- refused in a sentence, before anything is generated ---------------------------------------


def test_a_policy_of_which_nothing_is_trained_is_refused():
    frozen = model().requires_grad_(False)
    own = policy(frozen)
    value = language.ValueHead(own)
    for estimator, given in ((rloo(), None), (ppo(), value)):
        with pytest.raises(InputError, match=r"^train: no parameter of this Llama.*lora=8"):
            train(task(), own, estimator, value=given)
    with pytest.raises(InputError, match=r"^audit: no parameter"):
        vantage.audit(task(), own, [rloo()], trajectories=32, batch=16)
    with pytest.raises(InputError, match=r"^expectation: no parameter"):
        language.expectation(task(), own, rloo())
    frozen.lm_head.requires_grad_(True)
    assert train(task(), own, rloo()).history[0]["grad_norm"] > 0


def test_what_is_no_model_or_tokenizer_is_refused():
    with pytest.raises(InputError, match=r"DataParallel is no model of transformers.*\.module"):
        policy(torch.nn.DataParallel(model()))
    with pytest.raises(InputError, match=r"tokenizer='a/folder'\).*from_pretrained"):
        language.Policy(model(), "a/folder")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"device='cuda' cannot be used: .*here there is cpu"):
            policy(device="cuda")
    broken = model()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="are not finite on two tokens"):
        policy(broken)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "system", "content": "1"}, {"role": "user", "content": "2"}], "No system role"),
        ([{"role": "user", "content": [{"type": "text", "text": "2"}]}], "TypeError"),
    ],
)
def test_messages_that_a_template_refuses_are_shown(messages, said):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}"
        "{% endif %}{{ '=' + m.content }}{% endfor %}"
    )
    own = language.Policy(model(), tokenizer, max_completion_length=3)
    with pytest.raises(InputError, match=rf"refuses the messages .*{said}.*; give it roles"):
        train(task(rows=[{"prompt": messages}] * 4, held_out=0), own, rloo())


@pytest.mark.parametrize("written", ["[{'role': 'user', 'content': '1'}]",
                                     '[{""content"": ""1"", ""role"": ""user""}]'])  # fmt: skip
def test_messages_written_into_a_field_of_csv_are_refused(written, tmp_path):
    """They would be a prompt of brackets and quotes."""
    file = tmp_path / "rows.csv"
    file.write_text(f'prompt,answer\n"{written}",1\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"rows.csv, line 2: .*JSONL or Parquet"):
        language.Task(file, lengths)
    file.write_text('prompt,answer\n"[{x}] + 1=",1\n', encoding="utf-8")
    assert language.Task(file, lengths, held_out=0).rows[0]["prompt"] == "[{x}] + 1="
