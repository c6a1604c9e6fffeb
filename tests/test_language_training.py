"""Claims of training: the step is the gradient's, whatever the passes; runs resume to the bit."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from language_models import policy
from torch.optim import SGD

import vantage as vt
from vantage import language
from vantage.language.sampling.rollout import greedy_reward, rollout
from vantage.language.sampling.sequences import as_batch
from vantage.language.scoring.scoring import plan_passes
from vantage.language.training.ascent import (
    Pieces,
    Weighed,
    baseline_variance,
    signal_of,
)
from vantage.language.training.metrics import effective_sample_size
from vantage.runs.seeds import generator_of
from vantage.training import schedules
from vantage.training.auto import candidates
from vantage.training.schedules import warmed_up

PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w2 w2", "w11 w3", "w7"]


def length_and_first(completions, completion_ids):
    """More for longer completions, and for even first tokens."""
    return [len(ids) + float(bool(ids) and ids[0] % 2 == 0) for ids in completion_ids]


def a_task(size=4, reward=length_and_first, **settings):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    return language.Task(rows, reward, num_generations=size, held_out=0, **settings)


def run(own, estimator, task=None, updates=1, **settings):
    settings = {"batch": 16, "progress": False, "max_grad_norm": None} | settings
    return language.train(task or a_task(), own, estimator, updates=updates, **settings)


def drawn_first(own, task, groups=4):
    """What the first update of seed 0 draws."""
    generator = generator_of(0, 0, 0, 0)
    return rollout(task, own, task.stream(0, groups, 0), generator)


def flat(own):
    return torch.nn.utils.parameters_to_vector([p for p in own.parameters() if p.requires_grad])


STEP = {"optimizer": partial(SGD, lr=1.0), "lr": 1.0}


@pytest.mark.parametrize("name", ["rloo", "grpo", "dapo", "gspo", "reinforce_leave_one_out"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_step_is_the_gradient(name, shared):
    own, task = policy("qwen2", max_completion_length=6), a_task()
    estimator = vt.estimators.named(name)
    before = flat(own).detach().clone()
    expected = vt.gradient(own, drawn_first(own, task).batch, estimator)
    history = run(
        own, estimator, task, shared_prompts=shared, token_budget=40, decompose_every=1, **STEP
    ).history
    moved = flat(own).detach() - before
    assert (moved - expected).norm() < 1e-4 * expected.norm()
    assert history[0]["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)
    assert history[0]["sampling/log_prob_difference_max"] < 1e-4
    assert history[0]["ess"] == pytest.approx(1)


def test_later_steps_on_a_batch_use_ratios():
    own, task = policy("llama", max_completion_length=6), a_task()
    estimator = vt.estimators.dapo(epsilon=0.05)
    step = {"optimizer": partial(SGD, lr=0.05), "lr": 0.05}
    other = copy.deepcopy(own)
    batch = drawn_first(own, task).batch
    for _ in range(3):
        ahead = vt.gradient(other, batch, estimator)
        moved = torch.nn.utils.parameters_to_vector(other.parameters()) + 0.05 * ahead
        torch.nn.utils.vector_to_parameters(moved.detach(), other.parameters())
    row = run(own, estimator, task, num_iterations=3, **step).history[0]
    torch.testing.assert_close(flat(own), flat(other), rtol=1e-3, atol=1e-5)
    assert row["clip_ratio/low"] + row["clip_ratio/high"] > 0
    assert row["ess"] < 1


def test_minibatches_are_steps_on_whole_groups():
    own, task = policy("llama", max_completion_length=5), a_task()
    estimator = vt.estimators.rloo()
    other = copy.deepcopy(own)
    batch = drawn_first(own, task).batch
    for rows in (slice(0, 8), slice(8, 16)):
        ahead = vt.gradient(other, batch.select(rows).reweighted(), estimator)
        moved = torch.nn.utils.parameters_to_vector(other.parameters()) + 0.01 * ahead
        torch.nn.utils.vector_to_parameters(moved.detach(), other.parameters())
    run(own, estimator, task, minibatches=2, optimizer=partial(SGD, lr=0.01), lr=0.01)
    torch.testing.assert_close(flat(own), flat(other), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lora", [None, 2])
@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_kl_is_to_the_policy_as_it_was_given(name, lora):
    own, task = policy("llama", max_completion_length=5, lora=lora), a_task()
    first = copy.deepcopy(own)
    estimator = vt.estimators.named(name, beta=0.5)
    history = run(own, estimator, task, updates=2, optimizer=partial(SGD, lr=0.3), lr=0.3).history
    assert history[0]["kl"] < 1e-9
    assert history[1]["kl"] > 1e-6
    # the second update, with the reference scored by the obvious route
    again = copy.deepcopy(first)
    run(again, estimator, task, updates=1, optimizer=partial(SGD, lr=0.3), lr=0.3)
    generator = generator_of(0, 1, 0, 0)
    batch = rollout(task, again, task.stream(4, 4, 0), generator).batch
    with torch.no_grad():
        reference = first.log_prob(batch.observation, batch.action)
    expected = vt.gradient(again, batch, estimator, reference_log_prob=reference)
    assert history[1]["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-3)


def test_ppo_trains_a_value_head_jointly():
    own = policy("llama", max_completion_length=5)
    value = language.ValueHead(own)
    task = a_task(size=1)
    history = run(
        own, vt.estimators.ppo(), task, updates=12, batch=12, value=value,
        lr=3e-3, num_iterations=2, minibatches=2, value_coefficient=0.5,
    ).history  # fmt: skip
    assert history[0]["explained_variance"] == pytest.approx(0, abs=1e-6)
    late = [row["value_loss"] for row in history[-3:]]
    assert sum(late) / 3 < 0.6 * history[0]["value_loss"]


def test_reward_rises():
    def first_is_even(completions, completion_ids):
        return [float(bool(ids) and ids[0] % 2 == 0) for ids in completion_ids]

    own, task = policy("qwen2", max_completion_length=2), a_task(reward=first_is_even)
    history = run(own, vt.estimators.rloo(), task, updates=25, lr=5e-3).history
    early = sum(row["reward"] for row in history[:4]) / 4
    late = sum(row["reward"] for row in history[-4:]) / 4
    assert early < 0.75 < 0.9 < late
    assert language.evaluate(task, own, list(range(6))).mean == 1


class StopError(Exception):
    pass


@pytest.mark.parametrize("valued", [False, True])
def test_a_run_that_failed_resumes_to_the_bit(tmp_path, valued):
    estimator = vt.estimators.ppo() if valued else vt.estimators.grpo(beta=0.1)
    settings = {"updates": 5, "lr": 1e-2, "schedule": "linear", "num_iterations": 2}

    def fresh():
        own = policy("llama", max_completion_length=4)
        return own, language.ValueHead(own) if valued else None

    own, value = fresh()
    whole = run(own, estimator, value=value, **settings)
    own_again, value_again = fresh()

    def stop(update, drawn, advantage):
        if update == 3:
            raise StopError

    with pytest.raises(StopError):
        run(own_again, estimator, value=value_again, out=tmp_path / "a", watch=stop, **settings)
    own_again, value_again = fresh()
    calls = {"count": 0}

    def fails(completions, completion_ids):
        calls["count"] += 1
        if calls["count"] > 2:
            raise RuntimeError("the grader is down")
        return length_and_first(completions, completion_ids)

    fails.__name__ = "length_and_first"
    broken = a_task(reward=fails)
    with pytest.raises(Exception, match="grader"):
        run(own_again, estimator, broken, value=value_again, out=tmp_path / "b", **settings)
    own_again, value_again = fresh()
    resumed = run(
        own_again, estimator, value=value_again, out=tmp_path / "b", resume=True, **settings
    )
    assert torch.equal(flat(own), flat(own_again))
    timing = ("step_time", "generation_time", "tokens_per_second")
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in a.items() if k not in timing} == {
            k: v for k, v in b.items() if k not in timing
        }
    loaded = language.Policy(tmp_path / "b" / "model", max_completion_length=4)
    assert torch.equal(flat(loaded), flat(own))


def test_an_auto_batch_is_what_held_the_target_over_the_last_updates(tmp_path):
    """Each size follows from the rows before it alone, in whole groups; resuming chooses alike."""
    settings = {"batch": "auto", "target_snr": 0.5, "lr": 1e-3, "max_grad_norm": 1.0}
    whole = run(policy("llama", max_completion_length=6), vt.estimators.rloo(), updates=8,
                **settings).history  # fmt: skip
    assert whole[0]["batch"] == 64
    for number in range(1, 8):
        recent = whole[max(0, number - 5) : number]
        signal = sum(row["gradient_squared_norm"] for row in recent)
        noise = sum(row["gradient_variance"] * row["unit"] for row in recent)
        last = whole[number - 1]["batch"]
        wanted = 0.5 * noise / signal if signal > 0 else 2 * last
        wanted = max(16, min(max(wanted, last / 2), 2 * last, 1024))
        assert abs(whole[number]["batch"] - wanted) <= 2.5  # half a group, and rounding
        assert whole[number]["batch"] % 4 == 0
        assert whole[number]["batch_reason"]
    assert len({row["batch"] for row in whole}) > 2
    out = tmp_path / "run"
    own = policy("llama", max_completion_length=6)
    with pytest.raises(language.RewardError):
        run(own, vt.estimators.rloo(), a_task(reward=fails_after(calls=5)), updates=8, out=out,
            **settings)  # fmt: skip
    again = run(policy("llama", max_completion_length=6), vt.estimators.rloo(), updates=8, out=out,
                resume=True, **settings).history  # fmt: skip
    assert [row["batch"] for row in again] == [row["batch"] for row in whole]
    assert [row["reward"] for row in again] == [row["reward"] for row in whole]


def fails_after(calls):
    """The reward of `a_task`, until it has been called so often."""
    made = []

    def failing(completions, completion_ids):
        made.append(1)
        if len(made) > calls:
            raise RuntimeError("of the reward")
        return length_and_first(completions, completion_ids)

    failing.__name__ = "length_and_first"
    return failing


def test_bfloat16_weights_train():
    """Scores are those of sampling to the rounding of 8 bits, and the step is the gradient's."""
    own = policy("llama", max_completion_length=6)
    wide = flat(own).detach().clone()
    own.model.to(torch.bfloat16)
    before = flat(own).detach().clone()
    torch.testing.assert_close(before.float(), wide, rtol=2**-8, atol=0)
    row = run(own, vt.estimators.rloo(), lr=1e-2).history[0]
    assert row["sampling/log_prob_difference_max"] < 0.2
    assert 0 < row["grad_norm"] < float("inf")
    assert flat(own).dtype == torch.bfloat16
    assert not torch.equal(flat(own), before)


def test_dead_groups_are_drawn_anew():
    def rare(completions, completion_ids):
        return [float(bool(ids) and ids[0] % 7 == 0) for ids in completion_ids]

    task = a_task(size=2, reward=rare)
    plain = run(policy(max_completion_length=2), vt.estimators.rloo(), task).history[0]
    again = run(
        policy(max_completion_length=2), vt.estimators.rloo(), task, resample_dead_groups=20
    ).history[0]
    assert plain["frac_reward_zero_std"] > 0.3
    assert again["frac_reward_zero_std"] == 0
    assert again["prompts_drawn"] > plain["prompts_drawn"] == 8


def test_truncated_completions_can_be_left_out():
    own, task = policy(max_completion_length=20, temperature=2.0), a_task(size=8)
    generator = torch.Generator().manual_seed(0)
    kept = rollout(task, own, [0, 1], generator, mask_truncated_completions=True)
    cut = kept.sequences.truncated
    assert 0 < cut.sum() < 16
    assert not kept.batch.mask[cut].any()
    assert kept.batch.weight.sum() == pytest.approx(1)
    # out of the loss, and out of the baseline of the others
    changed = kept.reward + 100 * cut
    other = as_batch(kept.sequences, changed, kept.batch.group, ~cut)
    rloo = vt.estimators.rloo()
    assert torch.equal(rloo.weights(kept.batch), rloo.weights(other))


def test_completions_that_cannot_be_scored_leave_their_group():
    def some(completions, completion_ids):
        return [None if i % 4 == 0 else float(i) for i in range(len(completions))]

    own, task = policy(max_completion_length=3), a_task(reward=some)
    found = rollout(task, own, [0, 1], torch.Generator().manual_seed(0))
    assert found.scorable.tolist() == [False, True, True, True] * 2
    weights = vt.estimators.rloo().weights(found.batch)
    assert not weights[0].any()
    assert float(found.batch.weight[1]) == pytest.approx(1 / 6)
    row = run(own, vt.estimators.rloo(), task).history[0]
    assert row["scorable"] == 0.75
    assert row["completions"] == 12


def test_an_environment_speaks_and_is_not_learned_from():
    heard = []

    def adds(said, turn, row):
        heard.append((turn, row["prompt"]))
        return "w5 w6" if turn < 2 else None

    own, task = policy("qwen2", max_completion_length=3), a_task()
    generator = torch.Generator().manual_seed(0)
    found = rollout(task, own, [0, 1], generator, environment=adds)
    batch = found.batch.check()
    assert {turn for turn, _ in heard} == {0, 1, 2}
    for n in range(batch.rows):
        tokens, chosen = found.sequences.tokens[n].tolist(), found.sequences.sampled[n].tolist()
        spoken = own.tokenizer.encode("w5 w6", add_special_tokens=False)
        begin = len(own.tokenizer.encode(PROMPTS[0 if n < 4 else 1]))
        starts = [i for i in range(begin, len(tokens) - 1) if tokens[i : i + 2] == spoken]
        assert len([i for i in starts if not chosen[i] and not chosen[i + 1]]) == 2
        assert chosen[begin]
        assert not any(chosen[:begin])
    scored = own.log_prob(batch.observation, batch.action)
    torch.testing.assert_close(scored.detach(), batch.log_prob, rtol=1e-4, atol=1e-4)
    expected = vt.gradient(own, batch, vt.estimators.rloo())
    before = flat(own).detach().clone()
    run(own, vt.estimators.rloo(), task, batch=8, environment=adds, shared_prompts=True, **STEP)
    generator = generator_of(0, 0, 0, 0)
    other = policy("qwen2", max_completion_length=3)
    batch = rollout(task, other, task.stream(0, 2, 0), generator, environment=adds).batch
    expected = vt.gradient(other, batch, vt.estimators.rloo())
    assert (flat(own).detach() - before - expected).norm() < 1e-4 * expected.norm()


def test_remax_compares_with_the_greedy_completion():
    own, task = policy("llama", max_completion_length=4), a_task(size=1)
    row = run(own, vt.estimators.remax(), task, batch=4, **STEP).history[0]
    other = policy("llama", max_completion_length=4)
    found = drawn_first(other, task)
    reward = greedy_reward(task, other, found.rows)
    greedy = reward[:, None].expand_as(found.batch.reward)
    expected = vt.gradient(other, found.batch, vt.estimators.remax(), greedy_return=greedy)
    assert row["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 10}, "whole groups"),
        ({"batch": 16, "minibatches": 3}, "equal minibatches"),
        ({"lr": 0.0}, "positive"),
        ({"updates": 0}, "at least 1"),
        ({"resume": True}, "out="),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(vt.InputError, match=said):
        run(policy(), vt.estimators.rloo(), **settings)


def test_estimators_without_what_they_need_are_refused():
    with pytest.raises(vt.InputError, match="num_generations"):
        run(policy(), vt.estimators.rloo(), a_task(size=1))
    with pytest.raises(vt.InputError, match="value"):
        run(policy(), vt.estimators.ppo())


def test_a_truncated_law_is_refused_where_no_ratio_corrects_it():
    own = policy(max_completion_length=3, top_k=5)
    run(own, vt.estimators.grpo())
    with pytest.raises(vt.InputError, match="support"):
        run(own, vt.estimators.grpo(), num_iterations=2)
    with pytest.raises(vt.InputError, match="infinite"):
        run(own, vt.estimators.grpo(beta=0.1))


def test_the_signal_is_unbiased_and_splits_the_noise():
    """Pieces made of vectors with known moments; means of 4,000 draws within 4 standard errors."""
    generator = torch.Generator().manual_seed(0)
    size, prompts, each, between, within = 5, 6, 4, 0.5, 2.0
    mean = torch.full((size,), 0.3)
    rows = []
    for _ in range(4000):
        m = mean + between * torch.randn(prompts, 1, size, generator=generator)
        g = (m + within * torch.randn(prompts, each, size, generator=generator)) / (prompts * each)
        own = [half.sum((0, 1)) for part in (g[:2], g[2:]) for half in part.chunk(2, 1)]
        pieces = Pieces(
            [float(p @ p) for p in own],
            [4, 4, 8, 8],
            [float(own[0] @ own[1]), float(own[2] @ own[3])],
        )
        rows.append(signal_of(pieces, float(sum(own).norm())))
    truth = {
        "gradient_squared_norm": float(mean @ mean),
        "noise/between_prompts": size * between**2 / prompts,
        "noise/within_prompts": size * within**2 / (prompts * each),
    }
    for name, value in truth.items():
        found = torch.tensor([row[name] for row in rows])
        assert abs(float(found.mean()) - value) < 4 * float(found.std()) / 4000**0.5, name


def test_effective_sample_size():
    assert effective_sample_size(torch.zeros(8)) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([0.0, -1e3])) == pytest.approx(0.5)


def test_learning_rates_follow_the_schedule():
    assert warmed_up(schedules.cosine, 0, 10, 0) == pytest.approx(1.0)
    assert warmed_up(schedules.cosine, 5, 10, 0) == pytest.approx(0.5)
    assert [warmed_up(schedules.constant, u, 10, 4) for u in (0, 3, 9)] == [0.25, 1.0, 1.0]


def test_weights_of_a_replaced_batch():
    """A batch is a record: the sum over passes is that of the batch it is given."""
    own, task = policy("llama", max_completion_length=4), a_task()
    batch = drawn_first(own, task).batch
    half = replace(batch, weight=batch.weight / 2)
    whole = vt.gradient(own, batch, vt.estimators.rloo())
    torch.testing.assert_close(2 * vt.gradient(own, half, vt.estimators.rloo()), whole)


def test_the_variance_of_a_baseline_is_that_of_independent_batches():
    """Against the scatter of the gradients of 60 independent batches of 8 prompts.

    What is measured within each and the scatter between them are of the same batches, and differ
    by about 2 %; 8 % are allowed.
    """
    own, task = policy("llama", max_completion_length=3), a_task(size=2)
    rules = candidates(vt.estimators.reinforce(), with_value=False, grouped=True)
    rules = {name: rules[name] for name in ("leave_one_out", "batch_leave_one_out", "none")}
    optimizer = SGD([p for p in own.parameters() if p.requires_grad], lr=1.0)
    gradients = {name: [] for name in rules}
    measured = dict.fromkeys(rules, 0.0)
    for number in range(60):
        generator = torch.Generator().manual_seed(number)
        rows = torch.randint(len(PROMPTS), (8,), generator=generator).tolist()
        batch = rollout(task, own, rows, generator).batch
        passes = plan_passes(batch, own)
        weighed = Weighed(vt.estimators.reinforce(), batch, {}, passes)
        found = baseline_variance(own, rules, weighed, optimizer, pieces=3)
        for name, rule in rules.items():
            measured[name] += found[name] / 60
            gradients[name].append(vt.gradient(own, batch, rule))
    for name, every in gradients.items():
        scatter = 16 * float(torch.stack(every).double().var(0).sum())
        assert measured[name] == pytest.approx(scatter, rel=0.08), name
    assert measured["none"] > 2 * measured["batch_leave_one_out"]


def test_an_auto_baseline_is_the_one_of_least_variance_and_resumes(tmp_path):
    """Where rewards are far from 0 it is never none; a resumed run chooses alike."""
    settings = {"baseline": "auto", "baseline_every": 2, "lr": 1e-3, "updates": 6}
    whole = run(policy("llama", max_completion_length=6), vt.estimators.reinforce(),
                **settings).history  # fmt: skip
    assert whole[0]["baseline"] == "leave_one_out"
    assert "nothing measured" in whole[0]["baseline_reason"]
    for number, row in enumerate(whole):
        assert ("baseline_variance" in row) == (number % 2 == 0)
        before = [r["baseline_variance"] for r in whole[:number] if "baseline_variance" in r]
        if before:
            total = {name: sum(each[name] for each in before) for name in before[0]}
            assert row["baseline"] == min(total, key=total.get) != "none"
    out = tmp_path / "run"
    with pytest.raises(language.RewardError):
        run(policy("llama", max_completion_length=6), vt.estimators.reinforce(),
            a_task(reward=fails_after(calls=4)), out=out, **settings)  # fmt: skip
    again = run(policy("llama", max_completion_length=6), vt.estimators.reinforce(), out=out,
                resume=True, **settings).history  # fmt: skip
    assert [row["baseline"] for row in again] == [row["baseline"] for row in whole]
    assert again[4]["baseline_variance"] == whole[4]["baseline_variance"]


def test_measuring_baselines_changes_no_step():
    """The step of the first update is the same to the bit, with a baseline given or chosen."""
    fixed, chosen = (
        policy("llama", max_completion_length=5),
        policy("llama", max_completion_length=5),
    )
    run(fixed, vt.estimators.rloo(), **STEP)
    row = run(chosen, vt.estimators.rloo(), baseline="auto", **STEP).history[0]
    assert torch.equal(flat(fixed), flat(chosen))
    assert set(row["baseline_variance"]) == {
        "leave_one_out",
        "leave_one_out(fraction=0.5)",
        "batch_leave_one_out",
        "batch_leave_one_out(fraction=0.5)",
        "none",
    }


def test_an_auto_baseline_is_refused_where_it_cannot_be_chosen():
    own = policy("llama", max_completion_length=3)
    with pytest.raises(vt.InputError, match="no baseline leaves 'grpo' unbiased"):
        run(own, vt.estimators.grpo(), baseline="auto")
    with pytest.raises(vt.InputError, match="batch of 8 or more"):
        run(own, vt.estimators.rloo(), baseline="auto", batch=4)


def test_a_missing_value_head_is_named_with_its_remedy():
    with pytest.raises(vt.InputError, match=r"'ppo' needs a value head.*ValueHead\(policy\)"):
        run(policy("llama", max_completion_length=3), vt.estimators.ppo(), a_task(size=1))


def test_an_entropy_bonus_is_no_part_of_a_baselines_variance():
    own, task = policy("llama", max_completion_length=3), a_task(size=2)
    batch = drawn_first(own, task).batch
    rule = vt.estimators.rloo()
    rules = {"with": rule.replace(entropy=5.0), "without": rule}
    optimizer = SGD([p for p in own.parameters() if p.requires_grad], lr=1.0)
    weighed = Weighed(rule, batch, {}, plan_passes(batch, own))
    found = baseline_variance(own, rules, weighed, optimizer)
    assert found["with"] == found["without"] > 0
