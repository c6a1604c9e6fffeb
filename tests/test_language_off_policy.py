"""Language models that learn from samples of an older policy: who sampled, and what is measured."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import vantage as vt
from vantage import language as vl
from vantage.gradients.parameters import flat_parameters
from vantage.language.scoring.scoring import Passes, score_batch
from vantage.language.training.ascent import Weighed, backward
from vantage.language.training.inputs import valued

E = vt.estimators


def task() -> vl.Task:
    rows = [{"prompt": f"{a}>", "answer": str(a)} for a in range(8)]

    def digits(completions: list[str], answer: list[str]) -> list[float]:
        return [
            sum(c in "01234" for c in text) - 0.3 * len(text) + 0.5 * text.startswith(gold)
            for text, gold in zip(completions, answer, strict=True)
        ]

    return vl.Task(rows, digits, num_generations=4, held_out=0)


def policy() -> vl.Policy:
    return vl.tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=3)


def trained(estimator: vt.Estimator, updates: int = 4, **settings: Any) -> tuple[vt.Run, list]:
    """A run, with each update's rollout, the policy as it was after it, and the advantages."""
    seen: list[tuple[Any, vl.Policy, Tensor]] = []
    learning = policy()

    def watch(update: int, drawn: Any, advantage: Tensor) -> None:
        seen.append((drawn, copy.deepcopy(learning), advantage))

    given = {"batch": 32, "lr": 3e-2, "progress": False, "watch": watch} | settings
    run = vl.train(task(), learning, estimator, updates=updates, **given)
    return run, seen


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_the_policy_that_samples_is_so_many_updates_old(delay: int) -> None:
    run, seen = trained(E.tis(), delay=delay)
    policies = [policy(), *(after for _, after, _ in seen)]
    for update, (drawn, _, _) in enumerate(seen):
        sampler = policies[max(0, update - delay)]
        batch = drawn.batch
        scored = score_batch(sampler, batch, Passes(1, 1 << 20))[0]
        torch.testing.assert_close(scored, batch.log_prob * batch.mask, atol=2e-5, rtol=1e-4)
        now = score_batch(policies[update], batch, Passes(1, 1 << 20))[0]
        apart = (now - batch.log_prob)[batch.mask].double()
        row = run.history[update]
        for name, want in (
            ("log_prob_difference_mean", apart.abs().mean()),
            ("log_prob_difference_max", apart.abs().max()),
            ("k3", (apart.exp() - 1 - apart).mean()),
        ):
            assert row[f"sampling/{name}"] == pytest.approx(float(want), rel=1e-2, abs=5e-5)
        weight = torch.where(batch.mask, now - batch.log_prob, 0).double().sum(1).exp()
        ess = float(weight.sum() ** 2 / (weight.square().sum() * len(weight)))
        assert row["sampling/ess"] == pytest.approx(ess, rel=1e-3)
    assert (run.history[-1]["sampling/k3"] > 1e-4) == (delay > 0)


def test_a_delayed_run_is_resumed_to_the_same_bits(tmp_path: Any) -> None:
    whole, _ = trained(E.tis(), delay=2, out=tmp_path / "whole")

    def enough(state: Any, row: dict[str, Any]) -> bool:
        return row["update"] == 3

    trained(E.tis(), delay=2, out=tmp_path / "parts", callbacks=[enough])
    run, _ = trained(E.tis(), delay=2, out=tmp_path / "parts", resume=True)
    assert len(run.history) == 4
    assert torch.equal(flat_parameters(run.policy), flat_parameters(whole.policy))


def test_several_steps_compare_with_the_policy_that_the_update_began_with() -> None:
    """On policy an importance is 1 throughout an update, however far its steps have come."""
    plain, _ = trained(E.grpo(), minibatches=2, num_iterations=2)
    weighed, _ = trained(E.tis(maximum=100.0), minibatches=2, num_iterations=2)
    for one, other in zip(plain.history, weighed.history, strict=True):
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    torch.testing.assert_close(
        flat_parameters(weighed.policy), flat_parameters(plain.policy), atol=2e-3, rtol=1e-2
    )
    assert weighed.history[-1]["clip_ratio/high"] + weighed.history[-1]["clip_ratio/low"] > 0


def test_what_no_ratio_corrects_is_refused() -> None:
    with pytest.raises(vt.InputError, match=r"delay=-1"):
        trained(E.rloo(), delay=-1)


def with_value(learning: vl.Policy) -> vl.ValueHead:
    head = vl.ValueHead(learning)
    torch.nn.init.normal_(head.linear.weight, 0, 0.1, generator=torch.Generator().manual_seed(2))
    return head


@pytest.mark.parametrize("lambda_", [1.0, 0.6])
def test_vtrace_is_weighed_by_the_policy_that_the_update_begins_with(lambda_: float) -> None:
    """Espeholt et al. 2018, remark 1 and section 4.2, one token after the other; V fits v."""
    own, older, generator = policy(), policy(), torch.Generator().manual_seed(1)
    value = with_value(own)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    batch = vl.rollout(task(), older, [0, 1, 2], torch.Generator().manual_seed(0)).batch
    passes = Passes(1, 1 << 20)
    batch = valued(batch, own, value, passes)
    begun = score_batch(own, batch, passes)[0]
    row = E.vtrace(rho_max=0.9, c_max=0.8, lambda_=lambda_)
    weighed = Weighed(row, batch, {}, passes, begun)
    assert batch.value is not None
    assert weighed.target is not None
    cut = 0
    for n in range(batch.rows):
        following = excess = 0.0  # v and v - V of the next token
        for t in reversed(batch.mask[n].nonzero().flatten().tolist()):
            ratio = float((begun[n, t] - batch.log_prob[n, t]).exp())
            cut += ratio > 0.9
            now, reward = float(batch.value[n, t]), float(batch.reward[n, t])
            ahead = following - excess
            want = reward + following - now
            assert float(weighed.advantage[n, t]) == pytest.approx(want, abs=1e-5)
            excess = min(0.9, ratio) * (reward + ahead - now) + lambda_ * min(0.8, ratio) * excess
            following = now + excess
            assert float(weighed.target[n, t]) == pytest.approx(following, abs=1e-5)
    assert 0 < cut < batch.steps


def test_delayed_vtrace_trains_on_advantages_of_the_policy_as_it_is() -> None:
    learning, seen = policy(), []
    value = with_value(learning)
    before = [(copy.deepcopy(learning), copy.deepcopy(value))]

    def watch(update: int, drawn: Any, advantage: Tensor) -> None:
        seen.append((drawn.batch, advantage))
        before.append((copy.deepcopy(learning), copy.deepcopy(value)))

    settings: dict[str, Any] = {"batch": 32, "updates": 3, "lr": 3e-2, "delay": 1, "minibatches": 2}
    vl.train(
        task(), learning, E.vtrace(), value=value, watch=watch, progress=False, **settings
    )  # fmt: skip
    passes, apart = Passes(1, 1 << 20), 0.0
    for (own, head), (batch, got) in zip(before, seen, strict=False):
        known = valued(batch, own, head, passes)
        begun = score_batch(own, batch, passes)[0]
        torch.testing.assert_close(got, E.vtrace().advantage(known, begun), atol=1e-4, rtol=1e-3)
        apart = max(apart, float((got - E.vtrace().advantage(known)).abs().max()))
    assert apart > 1e-3


def test_vtrace_on_policy_learns_as_the_actor_and_critic_do() -> None:
    """With c̄ = ρ̄ = λ = 1 its target is the reward-to-go, and its ratio 1."""
    ends = []
    for row in (E.vtrace(), E.actor_critic(lambda_=1.0)):
        learning = policy()
        value = with_value(learning)
        vl.train(
            task(), learning, row, value=value, batch=32, updates=3, lr=1e-2, progress=False
        )  # fmt: skip
        ends.append(torch.cat([flat_parameters(learning), flat_parameters(value)]))
    torch.testing.assert_close(*ends, atol=2e-4, rtol=1e-3)


class Apart(vl.Decoding):
    """An engine with weights of its own, as a server has them."""

    def __init__(self) -> None:
        super().__init__()
        vars(self).update(own=policy(), handed=[])

    def generate(self, policy: vl.Policy, *arguments: Any, **settings: Any) -> vl.Completions:
        return super().generate(vars(self)["own"], *arguments, **settings)


class Synchronised(Apart):
    def update(self, policy: vl.Policy) -> None:
        vars(self)["handed"].append(flat_parameters(policy).clone())
        vars(self)["own"] = copy.deepcopy(policy)


def test_an_engine_is_handed_the_policy_after_every_update() -> None:
    engine = Synchronised()
    run, seen = trained(E.rloo(), engine=engine)
    policies = [policy(), *(after for _, after, _ in seen)]
    handed = vars(engine)["handed"]
    assert len(handed) == 5
    for given, expected in zip(handed, policies, strict=True):
        assert torch.equal(given, flat_parameters(expected))
    assert max(row["sampling/log_prob_difference_max"] for row in run.history) < 1e-5
    # without the method the engine stays where it was
    run, _ = trained(E.rloo(), engine=Apart())
    apart = [row["sampling/log_prob_difference_max"] for row in run.history]
    assert apart[0] < 1e-5
    assert min(apart[1:]) > 1e-2


def test_an_engine_is_handed_the_policy_that_is_to_sample() -> None:
    engine = Synchronised()
    _, seen = trained(E.tis(), engine=engine, delay=1)
    policies = [policy(), *(after for _, after, _ in seen)]
    for update, given in enumerate(vars(engine)["handed"][:4]):
        assert torch.equal(given, flat_parameters(policies[max(0, update - 1)]))
    assert torch.equal(vars(engine)["handed"][4], flat_parameters(policies[4]))


def test_conformance_and_evaluations_ask_of_the_policy_as_it_is() -> None:
    engine, other = Synchronised(), policy()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert vl.conformance(other, engine=engine).sampled < 1e-5
    with pytest.raises(vt.InputError, match="sampled log-probabilities differ"):
        vl.conformance(other, engine=Apart())
    fresh = Synchronised()
    settings: dict[str, Any] = {"greedy": False, "num_generations": 4}
    found = vl.evaluate(task(), other, [0, 1, 2], engine=fresh, **settings)
    assert torch.equal(found.rewards, vl.evaluate(task(), other, [0, 1, 2], **settings).rewards)


def test_an_engine_that_would_have_to_be_awaited_is_refused() -> None:
    class Later(Apart):
        async def update(self, policy: vl.Policy) -> None:
            raise AssertionError("never awaited")

    with pytest.raises(vt.InputError, match=r"Later\.update is asynchronous"):
        trained(E.rloo(), engine=Later())


ROWS = {
    "forking_tokens": E.forking_tokens(fraction=0.3),
    "clip_cov": E.clip_cov(fraction=0.1, low=0.1),
    "m2po": E.m2po(threshold=1e-4),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_selection_looks_at_the_policy_that_the_update_begins_with(name: str) -> None:
    """Advantages of every update, from the policy scored by hand; samples are an update old."""
    row = ROWS[name]
    _, seen = trained(row, delay=1, updates=3, minibatches=2)
    policies, out = [policy(), *(after for _, after, _ in seen)], 0
    for update, (drawn, _, got) in enumerate(seen):
        batch = drawn.batch
        begun, entropy = score_batch(policies[update], batch, Passes(1, 1 << 20))
        given = {"entropy": entropy} if "entropy" in row.needs else {}
        torch.testing.assert_close(got, row.advantage(batch, begun, **given), atol=1e-5, rtol=1e-4)
        whole = row.replace(selection=vt.selections.none).advantage(batch)
        out += int((got[batch.mask] != whole[batch.mask]).sum())
    assert out > 0


def test_an_update_scores_its_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropies and log-probabilities are of one pass, also where later steps compare with it."""
    from vantage.language.training import inputs, learner

    calls = []

    def counted(*arguments: Any) -> tuple[Tensor, Tensor]:
        calls.append(arguments)
        return score_batch(*arguments)

    for module in (inputs, learner):
        monkeypatch.setattr(module, "score_batch", counted)
    row = E.forking_tokens(fraction=0.3).replace(
        restraint=E.kl_cov(fraction=0.3).restraint, importance=vt.importance.truncated
    )
    trained(row, updates=2, delay=1, minibatches=2)
    assert len(calls) == 2


def test_a_restraint_is_part_of_a_language_models_gradient() -> None:
    """Passes of a few rows, with what is restrained found before: the gradient of the whole."""
    own, older, generator = policy(), policy(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    batch = vl.rollout(task(), older, [0, 1, 2], torch.Generator().manual_seed(0)).batch
    passes = Passes(1, 12)
    begun = score_batch(own, batch, passes)[0]
    row = E.kl_cov(fraction=0.3)
    found = []
    for each in (row, row.replace(restraint=None)):
        own.zero_grad()
        backward(own, Weighed(each, batch, {}, passes, begun), torch.arange(batch.rows))
        got = -torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
        torch.testing.assert_close(got, vt.gradient(own, batch, each), rtol=1e-3, atol=1e-5)
        found.append(got)
    assert not torch.allclose(*found, atol=1e-3)
