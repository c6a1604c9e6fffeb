"""Claims of exact values on language models: they are those of every tuple, and of samples."""

import itertools
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as tf
from language_models import tokenizer

import vantage as vt
from vantage import language
from vantage.gradients.weighted import weighted_products
from vantage.language.sampling.rollout import greedy_reward, rollout
from vantage.language.scoring.scoring import Passes
from vantage.language.training.inputs import valued

END, WORDS, LENGTH = 1, 4, 2


def policy(seed: int = 0, words: int = WORDS, length: int = LENGTH) -> language.Policy:
    """A GPT-2 of a few words: a completion is one of 13, by default.

    Its layers compute in float64 throughout; a Llama's norms compute in float32 whatever they are
    given, and two routes through it agree to 1e-8 only.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.AutoModelForCausalLM.from_config(
            tf.GPT2Config(
                vocab_size=words, n_embd=8, n_layer=1, n_head=2, n_positions=16,
                eos_token_id=END, bos_token_id=END, pad_token_id=0,
            )
        )  # fmt: skip
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.normal_(0, 0.5)
    return language.Policy(model.double(), tokenizer(), max_completion_length=length)


def reward(completion_ids: list[list[int]], scale: list[float], **_: Any) -> list[float]:
    """Two or three values, of unequal scale between prompts; `w0` is a word worth saying."""
    return [s * (ids.count(3) + 0.5 * (len(ids) == 0)) for ids, s in zip(completion_ids, scale)]  # noqa: B905


@lru_cache
def task(prompts: int = 2) -> language.Task:
    rows = [{"prompt": "w0 w0", "scale": 1.0}, {"prompt": "<unk>", "scale": 0.1}]
    return language.Task(rows[:prompts], reward_of, num_generations=3, held_out=0)


def reward_of(completions: list[str], completion_ids: list[list[int]], scale: list[float]) -> Any:
    return reward(completion_ids, scale)


class Listed(NamedTuple):
    """Of one prompt, everything by hand: [n, P] score sums, and [n] each."""

    scores: np.ndarray
    probability: np.ndarray
    reward: np.ndarray
    length: np.ndarray


def listed(own: language.Policy, row: int) -> Listed:
    """Every completion, its score by one backward pass of the transformers model's own logits."""
    prompt = task().encode(own.tokenizer)[row]
    going = [i for i in range(WORDS) if i != END]
    every = [
        [*before, END] for size in range(LENGTH) for before in itertools.product(going, repeat=size)
    ] + [list(whole) for whole in itertools.product(going, repeat=LENGTH)]
    parameters = list(own.parameters())
    out = []
    for tokens in every:
        logits = own.base(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        log_prob = logits.log_softmax(-1)[range(len(tokens)), tokens].sum()
        score = torch.autograd.grad(log_prob, parameters, allow_unused=True)
        flat = torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(score, parameters)]  # noqa: B905
        )
        said = [i for i in tokens if i != END]
        worth = reward([said], [task().rows[row]["scale"]])[0]
        out.append((flat.numpy(), float(log_prob.detach().exp()), worth, len(tokens)))
    columns = zip(*out, strict=True)
    return Listed(*(np.array(column) for column in columns))


def advantages(name: str, R: np.ndarray, L: np.ndarray) -> np.ndarray:
    """[M, K] by the formulas as published, not by the package's columns."""
    K = R.shape[1]
    mean = R.mean(1, keepdims=True)
    std = R.std(1, keepdims=True)
    scaled = np.where(std > 1e-9, (R - mean) / (std + 1e-4), 0)
    return {
        "reinforce": R,
        "rloo": (R - mean) * K / (K - 1),
        "dr_grpo": R - mean,
        "grpo": scaled / L,
        "gspo": scaled / L,
        "dapo": scaled,
        "opo": R - (L * R).sum(1, keepdims=True) / L.sum(1, keepdims=True),
        "maxrl": np.divide(R - mean, mean, out=np.zeros_like(R), where=mean > 0),
    }[name]


def brute_force(name: str, prompts: list[Listed], K: int) -> tuple[np.ndarray, float]:
    """Mean and trace over all tuples of K completions of every prompt."""
    found = []
    for one in prompts:
        tuples = np.array(list(itertools.product(range(len(one.reward)), repeat=K)))
        A = advantages(name, one.reward[tuples], one.length[tuples])
        estimates = np.einsum("mk,mkp->mp", A, one.scores[tuples])
        found.append((one.probability[tuples].prod(1), estimates, one.length[tuples].sum(1)))
    if name != "dapo":
        means, traces = [], []
        for chance, estimates, _ in found:
            mean = chance @ estimates / K
            means.append(mean)
            traces.append(chance @ ((estimates / K - mean) ** 2).sum(1))
        return np.mean(means, 0), float(np.sum(traces)) / len(prompts) ** 2
    # every pair of tuples: the number of tokens of both divides both
    last = zip(*found[1], strict=True) if len(found) == 2 else [(1.0, 0.0, 0)]
    mean, square = np.zeros(prompts[0].scores.shape[1]), 0.0
    for (p, first, few), (q, second, more) in itertools.product(zip(*found[0], strict=True), last):
        estimate = (first + second) / (few + more)
        mean += p * q * estimate
        square += p * q * float(estimate @ estimate)
    return mean, square - float(mean @ mean)


NAMES = ("reinforce", "rloo", "dr_grpo", "grpo", "gspo", "opo", "maxrl")


@pytest.mark.parametrize("K", [2, 3])
def test_exact_values_are_those_of_all_tuples(K):
    own = policy()
    prompts = [listed(own, row) for row in range(2)]
    assert prompts[0].probability.sum() == pytest.approx(1, abs=1e-12)
    for name in NAMES:
        found = language.expectation(task(), own, vt.estimators.named(name), K)
        mean, trace = brute_force(name, prompts, K)
        assert np.abs(found.mean.numpy() - mean).max() < 1e-10, name
        assert float(found.trace) == pytest.approx(trace, abs=1e-10), name


def test_a_mean_over_tokens_couples_the_prompts_and_is_exact():
    own = policy()
    prompts = [listed(own, row) for row in range(2)]
    dapo = vt.estimators.dapo()
    for rows, K in (([0], 3), ([0, 1], 2)):
        found = language.expectation(task(), own, dapo, K, rows=rows)
        mean, trace = brute_force("dapo", [prompts[row] for row in rows], K)
        assert np.abs(found.mean.numpy() - mean).max() < 1e-10
        assert float(found.trace) == pytest.approx(trace, abs=1e-10)


def by_tuples(
    estimator: vt.Estimator,
    own: language.Policy,
    rows: list[int],
    behaviour: language.Policy | None = None,
    **inputs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and trace over all pairs of completions, every batch weighed by itself."""
    every = language.enumerated(task(), behaviour or own, rows)
    if "value" in inputs:
        every = valued(every, own, inputs.pop("value"), Passes(1, 4096))
    scores = vt.gradients.step_scores(own, every)
    log_prob = own.log_prob(every.observation, every.action).detach()
    own_rows = [(every.group == g).nonzero().flatten() for g in range(len(rows))]
    pairs = [torch.cartesian_prod(part, part) for part in own_rows]
    batches = pairs[0]
    if len(rows) == 2:
        first, second = torch.cartesian_prod(*(torch.arange(len(p)) for p in pairs)).unbind(1)
        batches = torch.cat([pairs[0][first], pairs[1][second]], 1)
    size = batches.shape[1]
    chance = (every.weight * len(rows))[batches].prod(1)
    mean, square = torch.zeros_like(scores[0, 0]), torch.zeros(())
    for members, p in zip(batches, chance, strict=True):
        batch = replace(
            every.select(members),
            episode=torch.arange(size)[:, None].expand(size, every.mask.shape[1]).clone(),
            weight=torch.full((size,), 1 / size, dtype=torch.float64),
        )
        given = {name: tensor[members] for name, tensor in inputs.items()}
        if "scores" in estimator.needs:
            given["scores"] = weighted_products(scores[members], batch, estimator)
        weights = estimator.weights(batch, log_prob[members], **given)
        estimate = torch.einsum("nt,ntp->p", weights, scores[members])
        mean, square = mean + p * estimate, square + p * estimate @ estimate
    return mean, square - mean @ mean


def agrees(found: Any, by_hand: tuple[torch.Tensor, torch.Tensor]) -> bool:
    mean, trace = by_hand
    close = torch.allclose(found.mean, mean, atol=1e-10, rtol=1e-9)
    return close and abs(float(found.trace - trace)) < 1e-9


def small_value(own: language.Policy) -> language.ValueHead:
    """V of every state, at random."""
    head = language.ValueHead(own).double()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        head.linear.weight.normal_(0, 0.3)
    return head


ALL = [name for name in vt.estimators.TABLE if name not in ("shrinkage_baseline",)]


@pytest.mark.parametrize("name", ALL)
def test_every_row_of_the_table_is_weighed_as_on_its_tuples(name):
    own, estimator = policy(length=1), vt.estimators.named(name)
    inputs: dict[str, Any] = {}
    if "value" in estimator.needs:
        inputs["value"] = small_value(own)
    reference = None
    if "reference_log_prob" in estimator.needs:
        reference = policy(seed=9, length=1)
        every = language.enumerated(task(), own, [0])
        given = reference.log_prob(every.observation, every.action).detach()
        inputs["reference_log_prob"] = given
    if "reward_parts" in estimator.needs:  # the task has one function
        reward = language.enumerated(task(), own, [0]).reward[..., None]
        inputs |= {"reward_parts": reward, "reward_weights": torch.ones_like(reward)}
    if "entropy" in estimator.needs:
        inputs["entropy"] = own.entropy(language.enumerated(task(), own, [0]).observation).detach()
    found = language.expectation(
        task(), own, estimator, 2, rows=[0], value=inputs.get("value"), reference_policy=reference
    )
    if "greedy_return" in estimator.needs:
        greedy = greedy_reward(task(), own, [0])
        every = language.enumerated(task(), own, [0])
        inputs["greedy_return"] = greedy.double().expand(every.mask.T.shape).T
    assert agrees(found, by_tuples(estimator, own, [0], **inputs))


def test_estimators_that_couple_a_batch_are_weighed_on_whole_batches():
    own = policy(length=1)
    for name in ("reinforce_leave_one_out", "reinforce_pp", "dapo", "cispo", "reinforce_mean"):
        estimator = vt.estimators.named(name)
        found = language.expectation(task(), own, estimator, 2)
        assert agrees(found, by_tuples(estimator, own, [0, 1])), name


@pytest.mark.parametrize(
    "estimator",
    [
        vt.estimators.grpo(epsilon=0.05),
        vt.estimators.gspo(epsilon=0.02, epsilon_high=0.02),
        vt.estimators.dapo(epsilon=0.1, epsilon_high=0.02),
        vt.estimators.cispo(epsilon_high=0.02),
        vt.estimators.rloo().replace(ratio=vt.ratios.trajectory),
    ],
)
def test_off_policy_it_is_exact_and_clipping_depends_on_the_sign(estimator):
    own, behaviour = policy(), policy()
    with torch.no_grad():
        for p in own.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)).double()
    found = language.expectation(task(), own, estimator, 2, rows=[0], behaviour=behaviour)
    assert agrees(found, by_tuples(estimator, own, [0], behaviour))
    on_policy = language.expectation(task(), own, estimator, 2, rows=[0])
    assert float(found.trace) != pytest.approx(float(on_policy.trace), rel=1e-3)


@pytest.mark.parametrize(
    "estimator",
    [
        vt.estimators.m2po(threshold=0.01),
        vt.estimators.clip_cov(fraction=0.4, low=0.0, epsilon=0.02),
        vt.estimators.forking_tokens(fraction=0.4),
    ],
    ids=lambda row: row.name,
)
def test_selections_are_weighed_off_policy_on_whole_batches(estimator):
    """Completions are told apart by what a selection ranks: log-probabilities of both policies."""
    own, behaviour = policy(), policy()
    with torch.no_grad():
        for p in own.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)).double()
    every = language.enumerated(task(), behaviour, [0])
    inputs = {"entropy": own.entropy(every.observation).detach()}
    given = {name: each for name, each in inputs.items() if name in estimator.needs}
    found = language.expectation(task(), own, estimator, 2, rows=[0], behaviour=behaviour)
    assert agrees(found, by_tuples(estimator, own, [0], behaviour, **given))
    plain = estimator.replace(selection=vt.selections.none)
    assert not agrees(found, by_tuples(plain, own, [0], behaviour))


def test_a_restraint_off_policy_is_refused_with_its_reason():
    own, behaviour = policy(length=1), policy(seed=4, length=1)
    with pytest.raises(vt.InputError, match=r"'kl_cov' restrains the policy .*restraint=None"):
        language.expectation(
            task(), own, vt.estimators.kl_cov(), 2, rows=[0], behaviour=behaviour
        )  # fmt: skip


def test_importance_weights_recover_the_gradient_from_another_policy():
    own, behaviour = policy(), policy(seed=4)
    weighted = vt.estimators.rloo().replace(ratio=vt.ratios.trajectory)
    unbiased = vt.estimators.reinforce().replace(ratio=vt.ratios.trajectory)
    gradient = language.expectation(task(), own, vt.estimators.reinforce(), 1).mean
    found = language.expectation(task(), own, unbiased, 4, behaviour=behaviour).mean
    assert torch.allclose(found, gradient, atol=1e-12)
    # leave-one-out means of the behaviour's rewards are no baseline of the weighted reward, but
    # E ρ s = 0 all the same
    assert torch.allclose(
        language.expectation(task(), own, weighted, 4, behaviour=behaviour).mean,
        gradient,
        atol=1e-12,
    )


@pytest.mark.parametrize("length", [1, 2])
def test_vtrace_without_bounds_is_the_gradient_on_the_states_of_the_behaviour(length):
    """Its ratios mend actions and what follows them, not the way there: ∇J for one token.

    With the bound of the paper a token whose ratio exceeds it counts for less: of one token, the
    gradient lacks E_μ[max(ρ − 1, 0) (R − V) s] exactly.
    """
    own, behaviour = policy(length=length), policy(seed=4, length=length)
    value = language.ValueHead(own).double()
    torch.nn.init.normal_(value.linear.weight, generator=torch.Generator().manual_seed(3))
    free = vt.estimators.vtrace(rho_max=float("inf"), c_max=float("inf"))
    given = {"behaviour": behaviour, "value": value}
    got = language.expectation(task(), own, free, 1, **given).mean
    every = language.enumerated(task(), own, [0, 1])
    scores = vt.gradients.step_scores(own, every)
    older = behaviour.log_prob(every.observation, every.action).detach()
    apart = torch.where(every.mask, older - every.log_prob, 0)
    arrived = (apart.cumsum(1) - apart).exp()  # Π_{u<t} μ/π
    worth = (every.weight * torch.where(every.mask, every.reward, 0).sum(1))[:, None]
    want = torch.einsum("nt,ntp->p", worth * torch.where(every.mask, arrived, 0), scores)
    torch.testing.assert_close(got, want, atol=1e-10, rtol=0)
    exactly = language.expectation(task(), own, vt.estimators.reinforce(), 1).mean
    assert ((got - exactly).norm() < 1e-10) == (length == 1)
    bounded = language.expectation(task(), own, vt.estimators.vtrace(), 1, **given).mean
    tuples = [by_tuples(vt.estimators.vtrace(), own, [row], behaviour, value=value)
              for row in (0, 1)]  # fmt: skip
    torch.testing.assert_close(bounded, (tuples[0][0] + tuples[1][0]) / 2, atol=1e-10, rtol=0)
    if length == 1:
        known = valued(every, own, value, Passes(1, 4096))
        lost = every.weight[:, None] * (1 - apart.exp()).clamp(min=0) * (known.reward - known.value)
        lost = torch.einsum("nt,ntp->p", torch.where(every.mask, lost, 0), scores)
        torch.testing.assert_close(bounded, exactly - lost, atol=1e-10, rtol=0)
        assert lost.norm() > 0.01 * exactly.norm()


def test_a_kl_in_the_loss_is_a_feature_of_its_own():
    own, reference = policy(), policy(seed=9)
    estimator = vt.estimators.grpo(beta=0.3)
    every = language.enumerated(task(), own, [0])
    given = reference.log_prob(every.observation, every.action).detach()
    found = language.expectation(
        task(), own, estimator, 2, rows=[0], reference_policy=reference
    )  # fmt: skip
    assert agrees(found, by_tuples(estimator, own, [0], reference_log_prob=given))
    in_reward = vt.estimators.rloo(beta=0.3)
    found = language.expectation(task(), own, in_reward, 2, rows=[0], reference_policy=reference)
    assert agrees(found, by_tuples(in_reward, own, [0], reference_log_prob=given))


def test_prompts_are_drawn_as_training_draws_them():
    """One of two prompts a batch: between prompts is the rest of the variance."""
    own, estimator = policy(), vt.estimators.grpo()
    one = [language.expectation(task(), own, estimator, 3, rows=[row]) for row in range(2)]
    both = language.expectation(task(), own, estimator, 3)
    drawn = language.expectation(task(), own, estimator, 3, prompts=1)
    apart = (one[0].mean - one[1].mean) / 2
    assert torch.allclose(both.mean, drawn.mean, atol=1e-14)
    assert float(both.trace) == pytest.approx(float(one[0].trace + one[1].trace) / 4, abs=1e-14)
    whole = (one[0].trace + one[1].trace) / 2 + apart @ apart
    assert float(drawn.trace) == pytest.approx(float(whole), abs=1e-14)
    dapo = [
        language.expectation(task(), own, vt.estimators.dapo(), 3, rows=[row]) for row in range(2)
    ]
    alone = language.expectation(task(), own, vt.estimators.dapo(), 3, prompts=1)
    assert torch.allclose(alone.mean, (dapo[0].mean + dapo[1].mean) / 2, atol=1e-14)


def test_it_foretells_the_mean_and_variance_of_samples_at_eight():
    """800 batches of 2 × 8 completions: six z-scores of means, rejecting wrongly in 0.04 %;
    variances within 18 %, more than three of their standard errors."""
    own = policy(length=3)
    names, batches, size = ("grpo", "dapo", "rloo"), 800, 8
    generator = torch.Generator().manual_seed(0)
    drawn = rollout(task(), own, [0, 1] * batches, generator, num_generations=size).batch
    said = torch.cat([drawn.observation, drawn.action], 1)
    _, place = said.unique(dim=0, return_inverse=True)
    first = torch.empty(int(place.max()) + 1, dtype=torch.long)
    first[place] = torch.arange(drawn.rows)
    different = drawn.select(first)
    scores = vt.row_gradients(own, different, torch.ones_like(different.reward))[place]
    for name in names:
        estimator = vt.estimators.named(name)
        found = language.expectation(task(), own, estimator, size)
        weights = torch.cat(
            [
                estimator.weights(drawn.select(rows).reweighted())
                for rows in torch.arange(drawn.rows).split(2 * size)
            ]
        )
        # all steps of a completion weigh the same
        weights = torch.where(weights.amax(1) > 0, weights.amax(1), weights.amin(1))
        estimates = (weights[:, None] * scores).view(batches, 2 * size, -1).sum(1)
        assert float(estimates.var(0).sum()) == pytest.approx(float(found.trace), rel=0.18), name
        direction = torch.stack([found.mean, torch.randn(len(found.mean), generator=generator)])
        along = estimates @ direction.T.double()
        error = along.std(0) / batches**0.5
        z = (along.mean(0) - direction.double() @ found.mean) / error
        assert z.abs().max() < 4, name


def test_cost_is_that_of_kinds_and_too_many_are_refused():
    own = policy(length=3)  # 40 completions: 40⁸ tuples of eight
    found = language.expectation(task(), own, vt.estimators.grpo(), 8)
    assert found.batches < 10_000
    kl = vt.estimators.rloo(beta=0.1)  # whose rewards differ between all completions
    with pytest.raises(vt.InputError, match=r"40 kinds .* groups of 8 .* 314,457,495 ways"):
        language.expectation(task(), own, kl, 8, reference_policy=policy(seed=2, length=3))
    cases: dict[str, Any] = {
        "at least one": {"num_generations": 0},
        "1 to 2 different": {"prompts": 3},
        "groups of at least two": {"num_generations": 1},
    }
    for message, settings in cases.items():
        with pytest.raises(vt.InputError, match=message):
            language.expectation(task(), own, vt.estimators.grpo(), **settings)
    with pytest.raises(vt.InputError, match="entropy bonus"):
        language.expectation(task(), own, vt.estimators.a2c(entropy=0.1), value=small_value(own))
    square = vt.estimators.grpo().replace(clip=lambda ratio, advantage: ratio * advantage**2)
    with pytest.raises(vt.InputError, match="size of the advantage"):
        language.expectation(task(), own, square, 2)


def test_a_column_that_looks_at_tokens_has_kinds_of_its_own():
    """A user's baseline that reads what was said is not taken for one that reads rewards."""

    def said(batch: vt.Batch, returns: torch.Tensor) -> torch.Tensor:
        every = torch.where(batch.mask, batch.action, 0).sum(1, keepdim=True).to(returns)
        return vt.averages.mean_of_trajectories(
            batch, every.expand_as(returns), vt.averages.by_group(batch), leave_out=False
        )

    said.couples = "group"  # type: ignore[attr-defined]
    own, estimator = policy(length=1), vt.Estimator(baseline=said, name="looks")
    found = language.expectation(task(), own, estimator, 2, rows=[0])
    assert found.batches == 4 * 5 // 2
    assert agrees(found, by_tuples(estimator, own, [0]))


def test_unscorable_completions_are_refused():
    def some(completion_ids: list[list[int]]) -> list[float | None]:
        return [None if not ids else 1.0 for ids in completion_ids]

    def reward(completions: list[str], completion_ids: list[list[int]]) -> list[float | None]:
        return some(completion_ids)

    unsure = language.Task([{"prompt": "w0"}], reward, num_generations=2, held_out=0)
    with pytest.raises(vt.InputError, match="worth None"):
        language.expectation(unsure, policy(), vt.estimators.rloo())
