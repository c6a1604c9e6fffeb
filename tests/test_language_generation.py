"""Claims of sampling and scoring: one law, the right frequencies, the same numbers either way."""

from dataclasses import replace

import pytest
import torch
from language_models import ARCHITECTURES, END, VOCABULARY, policy
from scipy import stats

import vantage as vt
from vantage import language
from vantage.language import generate
from vantage.language.model.head import Head, score_directly, score_hidden
from vantage.language.model.law import SamplingLaw, draw
from vantage.language.sampling.sequences import as_batch, joined
from vantage.language.scoring.scoring import Passes, score_batch, scored_passes

PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 15, 16, 17, 18], [3]]
LAWS = [
    SamplingLaw(),
    SamplingLaw(0.7),
    SamplingLaw(1.3, top_k=5),
    SamplingLaw(top_p=0.8),
    SamplingLaw(0.9, min_p=0.1),
    SamplingLaw(0.9, top_k=20, top_p=0.9, min_p=0.02),
]


def batch_of(own, prompts=PROMPTS, size=4, seed=0):
    drawn = generate(own, prompts, size, torch.Generator().manual_seed(seed))
    repeated = [prompt for prompt in prompts for _ in range(size)]
    reward = torch.randn(len(repeated), generator=torch.Generator().manual_seed(seed + 1))
    group = torch.arange(len(prompts)).repeat_interleave(size)
    return as_batch(joined(repeated, drawn, own.pad_id), reward, group).check()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampled_equals_scored_and_sharing_changes_nothing(name):
    found = language.conformance(policy(name, max_completion_length=12, temperature=0.8))
    assert max(found.sampled, found.scored, found.shared) < 1e-5
    assert found.gradient < 1e-5


def test_conformance_refuses_a_policy_scored_under_another_law():
    own = policy(max_completion_length=6)

    class Warmer:
        def generate(self, policy, *args):
            other = language.Policy(policy.model, temperature=1.5, max_completion_length=6)
            return language.Decoding().generate(other, *args)

    with pytest.raises(vt.InputError, match="sampled log-probabilities differ"):
        language.conformance(own, engine=Warmer())


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_law_is_that_of_transformers(law):
    import transformers as tf

    logits = 2 * torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    warpers = [tf.TemperatureLogitsWarper(law.temperature)]
    if law.top_k:
        warpers.append(tf.TopKLogitsWarper(law.top_k))
    if law.top_p:
        warpers.append(tf.TopPLogitsWarper(law.top_p))
    if law.min_p:
        warpers.append(tf.MinPLogitsWarper(law.min_p))
    theirs = logits
    for warper in warpers:
        theirs = warper(None, theirs)
    torch.testing.assert_close(law.log_probs(logits), theirs.log_softmax(-1))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_draws_follow_the_law(law):
    """χ² of 20,000 draws; the six tests reject a right law with probability 0.6 % together."""
    logs = law.log_probs(2 * torch.randn(30, generator=torch.Generator().manual_seed(3)))
    n = 20_000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    token, log_prob = draw(logs.expand(n, -1), uniform)
    assert torch.equal(log_prob, logs[token])
    count = torch.bincount(token, minlength=30)
    assert count[logs == -torch.inf].sum() == 0
    seen = logs > -torch.inf
    expected = (n * logs[seen].double().exp() / logs[seen].double().exp().sum()).numpy()
    assert stats.chisquare(count[seen].numpy(), expected).pvalue > 1e-3


def test_a_draw_never_leaves_the_support():
    logs = torch.tensor([[0.5, 0.5, 0.0]]).log()
    for u in (0.0, 0.5 - 1e-9, 0.5, 1 - 1e-16):
        token, log_prob = draw(logs, torch.tensor([u], dtype=torch.float64))
        assert token.item() in (0, 1)
        assert log_prob.isfinite().all()


def test_generated_frequencies_are_the_exact_ones():
    """Two tokens deep, against enumerated probabilities; the test rejects wrongly in 0.1 %."""
    own = policy(max_completion_length=2, temperature=0.6)
    prompt = [5, 6, 7]
    n = 4000
    drawn = generate(own, [prompt], n, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = own.law.log_probs(own.model(torch.tensor([prompt])).logits[0, -1])
        after = torch.tensor([[*prompt, a] for a in range(VOCABULARY)])
        second = own.law.log_probs(own.model(after).logits[:, -1])
    exact = (first[:, None] + second).exp()
    exact[END] = 0
    exact[END, 0] = first[END].exp()  # ended: what follows is padding
    pair = drawn.tokens[:, 0] * VOCABULARY + torch.where(drawn.length == 2, drawn.tokens[:, 1], 0)
    count = torch.bincount(pair, minlength=VOCABULARY**2).double()
    expected = n * exact.flatten().double()
    common = expected >= 5
    observed = [*count[common], count[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    scale = sum(observed) / sum(wanted)
    assert abs(scale - 1) < 1e-4
    found = stats.chisquare([float(x) for x in observed], [float(x) * float(scale) for x in wanted])
    assert found.pvalue > 1e-3


def test_completions_do_not_depend_on_the_rest_of_the_batch():
    own = policy("qwen2", max_completion_length=10)
    one = generate(own, PROMPTS[1:2], 4, torch.Generator().manual_seed(0))
    with_others = generate(own, PROMPTS[1:] + PROMPTS[:1], 4, torch.Generator().manual_seed(0))
    assert torch.equal(one.tokens, with_others.tokens[:4])
    few_rows = language.Decoding(rows=4)
    apart = few_rows.generate(own, PROMPTS, 4, torch.Generator().manual_seed(0))
    whole = generate(own, PROMPTS, 4, torch.Generator().manual_seed(0))
    assert torch.equal(apart.tokens, whole.tokens)
    again = generate(own, PROMPTS, 4, torch.Generator().manual_seed(0))
    assert torch.equal(again.log_prob, whole.log_prob)


def test_completions_end_at_the_first_end_token():
    own = policy(max_completion_length=30, temperature=2.0)
    drawn = generate(own, PROMPTS, 16, torch.Generator().manual_seed(1))
    assert 0 < drawn.truncated.sum() < len(drawn.truncated)
    for row, ids in enumerate(drawn.ids()):
        end = int(drawn.length[row])
        assert END not in ids
        assert len(ids) == (end if drawn.truncated[row] else end - 1)
        assert drawn.truncated[row] or drawn.tokens[row, end - 1] == END
        assert (drawn.tokens[row, end:] == own.pad_id).all()
        assert (drawn.log_prob[row, end:] == 0).all()


def test_greedy_takes_the_likeliest():
    own = policy(max_completion_length=5)
    found = generate(own, [[5, 6]], 1, torch.Generator(), greedy=True)
    row = torch.tensor([[5, 6, *found.tokens[0].tolist()]])
    assert torch.equal(own.mode(row[:, :-1])[0, 1:], row[0, 2:])


@pytest.mark.parametrize("prompts", [[], [[]], [[2] * 125]])
def test_prompts_that_cannot_work_are_refused(prompts):
    with pytest.raises(vt.InputError, match="generate"):
        generate(policy(max_completion_length=12), prompts, 2, torch.Generator())


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_chunked_scores_equal_whole_ones(law, softcap):
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(8, 50).double()
    head = Head(layer, softcap)
    hidden = torch.randn(23, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        logs = law.log_probs(head.logits(hidden))
        uniform = torch.rand(23, generator=generator, dtype=torch.float64)
        tokens, _ = draw(logs, uniform)
    u, v = torch.randn(2, 23, generator=generator, dtype=torch.float64)
    found = []
    for scored in (
        score_directly(head, law, hidden, tokens),
        score_hidden(head, law, hidden, tokens, chunk_numbers=50 * 7),
        score_hidden(head, law, hidden, tokens),
    ):
        value = (u * scored.log_prob + v * scored.entropy).sum()
        grads = torch.autograd.grad(value, [hidden, *layer.parameters()])
        found.append([scored.log_prob, scored.entropy, *grads])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradient_does_not_depend_on_the_passes():
    own = policy("qwen2", max_completion_length=9, dtype=torch.float64)
    batch = batch_of(own)
    weights = vt.estimators.grpo().weights(batch)
    whole = vt.gradient(own, batch, vt.estimators.grpo())
    for passes in (Passes(1, 10**6), Passes(1, 30), Passes(4, 10**6), Passes(3, 40)):
        total = torch.zeros_like(whole)
        for found in scored_passes(own, batch, passes):
            value = (weights[found.rows][found.mask] * found.log_prob).sum()
            total += vt.gradients.flat_gradient(value, own)
        # not 1e-10: the models normalise in float32 whatever their weights are
        assert (total - whole).norm() < 1e-6 * whole.norm()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gemma3"])
def test_a_batch_serves_the_gradients_of_the_rest_of_the_package(name):
    own = policy(name, max_completion_length=6, dtype=torch.float64)
    batch = batch_of(own)
    weights = vt.estimators.rloo().weights(batch)
    whole = vt.gradient(own, batch, vt.estimators.rloo())
    by_row = vt.row_gradients(own, batch, weights)
    torch.testing.assert_close(by_row.sum(0), whole)
    loop = vt.gradients.row_gradients_by_loop(own, batch, weights)
    torch.testing.assert_close(by_row, loop)
    # padding and prompts are nothing: other tokens there change nothing
    junk = torch.where(batch.mask.cumsum(1) == batch.mask.sum(1, keepdim=True), 7, 0)
    past = (junk > 0) & ~batch.mask
    changed = replace(batch, observation=torch.where(past, 7, batch.observation))
    torch.testing.assert_close(vt.gradient(own, changed, vt.estimators.rloo()), whole)


def test_the_score_has_zero_mean_over_every_completion():
    """Enumerated: Σ π(τ) ∇ log π(τ) = 0, and ∇J by [4] equals autograd of J."""
    own = policy("gpt2", max_completion_length=2, temperature=0.7, dtype=torch.float64)
    pairs = [(END,)] + [(a, b) for a in range(VOCABULARY) if a != END for b in range(VOCABULARY)]
    from vantage.language.sampling.generation import finished

    tokens = torch.tensor([p + (0,) * (2 - len(p)) for p in pairs])
    drawn = finished(tokens, torch.zeros(len(pairs), 2, dtype=torch.float64), (END,), 0)
    reward = torch.sin(torch.arange(len(pairs)).double())
    sequences = joined([[5, 6, 7]] * len(pairs), drawn, 0)
    batch = as_batch(sequences, reward, torch.zeros(len(pairs), dtype=torch.long))
    log_prob = own.log_prob(batch.observation, batch.action)
    probability = torch.where(batch.mask, log_prob, 0).sum(1).exp()
    torch.testing.assert_close(probability.sum(), torch.ones((), dtype=torch.float64))
    by_autograd = vt.gradients.flat_gradient((probability * reward).sum(), own)
    weighed = replace(batch, weight=probability.detach(), log_prob=log_prob.detach())
    by_scores = vt.gradient(own, weighed, vt.estimators.reinforce())
    torch.testing.assert_close(by_scores, by_autograd, rtol=1e-8, atol=1e-10)


def test_lora_and_checkpointing_change_no_number():
    plain = policy("llama", max_completion_length=5)
    recomputed = policy("llama", max_completion_length=5, gradient_checkpointing=True)
    batch = batch_of(plain)
    rloo = vt.estimators.rloo()
    torch.testing.assert_close(
        vt.gradient(plain, batch, rloo), vt.gradient(recomputed, batch, rloo)
    )
    adapted = policy("llama", max_completion_length=5, lora=2)
    torch.testing.assert_close(
        adapted.log_prob(batch.observation, batch.action),
        plain.log_prob(batch.observation, batch.action),
    )
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < 5000
    with torch.no_grad():
        for p in trained:
            p.add_(0.1)
    passes = Passes(1, 10**6)
    moved, _ = score_batch(adapted, batch, passes)
    assert (moved - batch.log_prob).abs().max() > 0.01
    with adapted.without_adapter():
        back, _ = score_batch(adapted, batch, passes)
    torch.testing.assert_close(back, batch.log_prob, rtol=1e-4, atol=1e-4)


def test_a_saved_policy_loads_in_transformers_by_path(tmp_path):
    import transformers as tf

    own = policy("qwen2", max_completion_length=5, lora=2)
    own.save_pretrained(tmp_path)
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again(tokens).logits, own.model(tokens).logits)
    loaded = language.Policy(tmp_path, max_completion_length=5)
    assert loaded.end_ids == own.end_ids


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "gemma2"])
def test_continuous_batching_draws_from_the_policys_law(name):
    own = policy(name, max_completion_length=8, temperature=0.8, top_k=20)
    found = language.conformance(own, engine=language.ContinuousBatching())
    assert found.sampled < 1e-5


def test_continuous_batching_sees_the_adapter():
    own = policy("llama", max_completion_length=8, lora=4)
    with torch.no_grad():
        for parameter in own.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    assert language.conformance(own, engine=language.ContinuousBatching()).sampled < 1e-5


def test_continuous_batching_has_the_right_frequencies():
    """4,000 first tokens against the law, by χ²: rejects wrongly in 0.1 %."""
    own = policy(max_completion_length=1, temperature=0.7)
    generator = torch.Generator().manual_seed(0)
    drawn = language.ContinuousBatching().generate(own, [[5, 6, 7]], 4000, generator)
    with torch.no_grad():
        logits = own.model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    wanted = own.law.log_probs(logits).exp().double()
    wanted = wanted / wanted.sum()
    count = torch.bincount(drawn.tokens[:, 0], minlength=len(wanted)).numpy()
    assert stats.chisquare(count, 4000 * wanted.numpy()).pvalue > 1e-3


def test_continuous_batching_is_a_function_of_its_generator():
    """And of nothing else: the global generator is as it was, whatever it was."""
    own, engine = policy(max_completion_length=6), language.ContinuousBatching()

    def drawn(seed, elsewhere):
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        found = engine.generate(own, PROMPTS, 3, torch.Generator().manual_seed(seed)).tokens
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert torch.equal(drawn(0, 1), drawn(0, 2))
    assert not torch.equal(drawn(0, 1), drawn(3, 1))


def test_continuous_batching_refuses_what_it_would_get_wrong():
    with pytest.raises(vt.InputError, match="bound on attention logits"):
        language.ContinuousBatching().generate(
            policy("gemma2"), PROMPTS, 2, torch.Generator().manual_seed(0)
        )


def test_training_with_continuous_batching_learns_on_the_same_scale():
    """Its log-probabilities are those that training scores: nothing for a ratio to correct."""
    task = language.tiny_tasks.addition(num_generations=4)
    own = language.tiny.policy(hidden=32, layers=1, heads=2, max_completion_length=3)
    run = language.train(
        task, own, vt.estimators.grpo(), updates=2, batch=16, lr=1e-3,
        engine=language.ContinuousBatching(), progress=False,
    )  # fmt: skip
    assert all(row["sampling/log_prob_difference_max"] < 1e-4 for row in run.history)
