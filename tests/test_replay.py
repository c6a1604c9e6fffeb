"""Actor-critic with experience replay: its parts against their definitions, and whole runs."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import minimize
from small import Chain
from torch.optim import SGD

import vantage as vt
from vantage.environments.fragments import Fragments
from vantage.estimators.returns import retrace_target
from vantage.gradients.passes import AutogradPasses
from vantage.policies import ActionValue
from vantage.training.replay import AVERAGE, Replay, remembered, replayed, slopes, within

TIMES = ("step_time", "steps_per_second")


def world(name: str = "tensor/CartPole-v1", lanes: int = 4) -> tuple[Any, Any, Any]:
    env = vt.make(name, lanes=lanes)
    policy = env.policy(hidden=(8,), seed=1)
    return env, policy, env.value(hidden=(8,), seed=2, under=policy)


def flat(*modules: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()]).clone()


def collected(env: Any, passes: Any, steps: int = 24) -> vt.Batch:
    lanes = Fragments(env, passes)
    lanes.restart(seed=0)
    return lanes.collect(steps, seed=1)[0]


# ---- Retrace -----------------------------------------------------------------------------------


def in_sums(
    batch: vt.Batch, q: torch.Tensor, log_prob: torch.Tensor, lambda_: float
) -> torch.Tensor:
    """Q_t + Σ_{k≥t} γ^{k−t} (Π_{t<i≤k} c_i) (r_k + γ V(s_{k+1}) − Q_k), step by step and row by
    row, up to the boundary."""
    assert batch.value is not None
    trace = lambda_ * (log_prob - batch.log_prob).exp().clamp(max=1)
    out = torch.zeros_like(q)
    for n in range(batch.rows):
        for t in range(q.shape[1]):
            out[n, t], factor = q[n, t], 1.0
            for k in range(t, q.shape[1]):
                if k > t:
                    factor = factor * trace[n, k]
                end = bool(batch.boundary[n, k])
                following = batch.bootstrap[n, k] if end else batch.value[n, k + 1]
                delta = batch.reward[n, k] + batch.discount[n, k] * following - q[n, k]
                out[n, t] += factor * delta
                factor = factor * batch.discount[n, k]
                if end:
                    break
    return out


@pytest.mark.parametrize("lambda_", [1.0, 0.7])
def test_retrace_is_its_sum(lambda_: float) -> None:
    """On fragments with ends, cuts and dummy reset steps, under another policy than sampled."""
    env, policy, value = world("CartPole-v1")
    generator = torch.Generator().manual_seed(0)
    batch = collected(env, AutogradPasses(policy, value), 60)
    assert (batch.boundary & (batch.discount == 0)).sum() > 2
    noise = partial(torch.randn, batch.reward.shape, generator=generator)
    batch = replace(batch, value=noise())
    q, log_prob = noise(), batch.log_prob + noise()
    target = retrace_target(batch, action_value=q, log_prob=log_prob, lambda_=lambda_)
    expected = in_sums(batch, q, log_prob, lambda_)
    torch.testing.assert_close(target[batch.mask], expected[batch.mask], rtol=1e-4, atol=1e-4)


def chain() -> tuple[Chain, Any, Any, torch.Tensor]:
    """A problem, the policy to be known, the one that samples, and Q of the former [3, 2]."""
    generator = torch.Generator().manual_seed(3)
    problem = Chain(torch.randn(3, 2, generator=generator, dtype=torch.float64), discount=0.8)
    policies = [vt.SoftmaxTable(3, 2) for _ in range(2)]
    for policy in policies:
        policy.logits.data = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    worth = torch.cat([problem.value(policies[0]).detach(), torch.zeros(1).double()])
    following = torch.tensor([[1, 3], [2, 3], [3, 3]])
    return problem, *policies, problem.reward + 0.8 * worth[following]


def expected_at_start(batch: vt.Batch, target: torch.Tensor) -> torch.Tensor:
    """E[y_0 | a_0] over all trajectories, [2]."""
    first = batch.action[:, 0]
    return torch.stack(
        [(batch.weight * target[:, 0])[first == a].sum() / batch.weight[first == a].sum()
         for a in range(2)]
    )  # fmt: skip


@pytest.mark.parametrize("on_policy", [True, False])
def test_retrace_is_the_return_in_expectation(on_policy: bool) -> None:
    """On policy whatever Q is; off policy where Q is that of the policy: by enumeration."""
    problem, policy, other, true = chain()
    batch = problem.batch(policy if on_policy else other)
    wrong = true + torch.randn(3, 2, generator=torch.Generator().manual_seed(5)).double()
    assumed = wrong if on_policy else true
    probability = torch.softmax(policy.logits.detach(), -1)
    batch = replace(batch, value=(probability * assumed).sum(-1)[batch.observation])
    log_prob = policy.log_prob(batch.observation, batch.action).detach()
    q = assumed[batch.observation, batch.action]
    target = retrace_target(batch, action_value=q, log_prob=log_prob)
    torch.testing.assert_close(expected_at_start(batch, target), true[0])
    if on_policy:  # where Q has no say, it is the return of the trajectory itself
        same = batch.value
        target = retrace_target(batch, action_value=same, log_prob=log_prob)
        returns = vt.returns.to_go(batch)
        torch.testing.assert_close(target[batch.mask], returns[batch.mask])


# ---- the slope ---------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [0.5, 1.0, 10.0])
def test_truncation_and_correction_add_up_to_the_whole_gradient(maximum: float) -> None:
    """E_{a~μ} g = Q(s, ·) − V(s), the slope of Σ_a π(a) Q(a) but for V: by enumeration."""
    generator = torch.Generator().manual_seed(0)
    log_prob, law = (
        torch.log_softmax(3 * torch.randn(20, 4, generator=generator).double(), -1)
        for _ in range(2)
    )
    q = torch.randn(20, 4, generator=generator).double()
    assert ((log_prob - law).exp() > maximum).any()
    drawn = [
        law[:, a : a + 1].exp() * slopes(log_prob, law, torch.full((20,), a), q[:, a], q, maximum)
        for a in range(4)
    ]
    value = (log_prob.exp() * q).sum(-1, keepdim=True)
    torch.testing.assert_close(sum(drawn), q - value)


def test_the_step_within_the_trust_region_is_the_nearest_one() -> None:
    """min ½‖z − g‖² with k·z ≤ δ, by a solver; k by differentiation of the KL."""
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        logits, average = (torch.randn(3, generator=generator).double() for _ in range(2))
        slope = 3 * torch.randn(3, generator=generator).double()
        log_prob, law = torch.log_softmax(logits, -1), torch.log_softmax(average, -1)
        probability = log_prob.exp().requires_grad_()
        kl = (law.exp() * (law - probability.log())).sum()
        (k,) = torch.autograd.grad(kl, probability)
        wished, along = slope.numpy(), k.numpy()
        solved = minimize(
            lambda z, wished=wished: ((z - wished) ** 2).sum() / 2,
            torch.zeros(3).double().numpy(),
            constraints={"type": "ineq", "fun": lambda z, along=along: 0.1 - along @ z},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        held = within(slope, log_prob, law, 0.1)
        torch.testing.assert_close(held, torch.from_numpy(solved.x), rtol=1e-5, atol=1e-5)
        assert number or not torch.equal(held, slope)  # the first one is beyond
        assert torch.equal(within(slope, log_prob, law, None), slope)


# ---- the rule ----------------------------------------------------------------------------------


def published(
    policy: Any, value: Any, average: Any, batch: vt.Batch, law: torch.Tensor, rule: Replay,
    entropy: float,
) -> torch.Tensor:  # fmt: skip
    """Algorithm 2 of Wang et al., from the last step of every row to its first; a loss."""
    pieces, beta = [], entropy
    for n in range(batch.rows):
        following = torch.zeros(())
        for i in reversed(range(batch.mask.shape[1])):
            if not batch.mask[n, i]:
                continue
            state, action = batch.observation[n, i], batch.action[n, i]
            if batch.boundary[n, i]:
                following = batch.bootstrap[n, i]
            logits, q = policy.net(state), value.net(state)
            f = torch.softmax(logits, -1)
            phi = f.detach().clone().requires_grad_()
            rho = phi.detach() / law[n, i].exp()
            worth = (phi * q).sum().detach()
            target = batch.reward[n, i] + batch.discount[n, i] * following
            log_f = phi.log()
            weight = rho[action].clamp(max=rule.maximum) * (target - worth)
            surplus = (1 - rule.maximum / rho).clamp(min=0) * phi.detach() * (q.detach() - worth)
            (g,) = torch.autograd.grad(weight * log_f[action] + (surplus * log_f).sum(), phi)
            behind = torch.softmax(average.net(state), -1)
            phi_2 = f.detach().clone().requires_grad_()
            (k,) = torch.autograd.grad((behind * (behind.log() - phi_2.log())).sum(), phi_2)
            over = ((k @ g - rule.trust_region) / (k @ k)).clamp(min=0)
            h = -(f * f.log()).sum()
            pieces.append(
                -((g - over * k) * f).sum() - beta * h
                + rule.value_coefficient * (target - q[action]) ** 2
            )  # fmt: skip
            following = rho[action].clamp(max=1) * (target - q[action].detach()) + worth
    return torch.stack(pieces).mean()


@pytest.mark.parametrize("trust_region", [100.0, 0.01])
def test_a_step_is_the_published_one(trust_region: float) -> None:
    """On samples of another policy, near an average that is neither."""
    env, policy, value = world("CartPole-v1")
    passes = AutogradPasses(policy, value)
    batch = collected(env, passes, 40)
    rule = Replay(trust_region=trust_region, maximum=1.2, max_grad_norm=None)
    average = rule.memory(passes, torch.Generator()).modules[AVERAGE]
    law = policy.distribution(batch.observation).detach()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*policy.parameters(), *value.net.parameters(), *average.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        value.net[-1].bias += 8  # actions better and worse than V
    before, q_before = flat(policy), flat(value.net)
    loss = published(policy, value, average, batch, law, rule, entropy=0.05)
    parameters = [*policy.parameters(), *value.net.parameters()]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    row, lagging = vt.estimators.a2c(entropy=0.05), flat(average)
    metrics, _ = rule._step(passes, SGD(passes.parameters, lr=0.1), row, average, batch, law)
    moved = torch.cat([flat(policy) - before, flat(value.net) - q_before])
    torch.testing.assert_close(moved, -0.1 * gradient, rtol=1e-3, atol=1e-5)
    assert metrics["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-3)
    assert 0 < metrics["truncated"] < 1
    assert (metrics["held"] > 0) == (trust_region < 1)
    expected = 0.99 * lagging + 0.01 * flat(policy)
    torch.testing.assert_close(flat(average), expected)


def test_the_memory_holds_the_latest_rows_and_gives_them_back() -> None:
    """Rows of 24 steps, of which 10 fit; a replayed one ends with V of its last observation."""
    env, policy, value = world()
    passes = AutogradPasses(policy, value)
    batch, tensors = collected(env, passes), {}
    for number in range(4):
        marked = replace(batch, reward=torch.full_like(batch.reward, float(number)))
        law = policy.distribution(batch.observation).detach()
        tensors = remembered(tensors, marked, law, capacity=250)
    assert tensors["reward"][:, 0].tolist() == [1.0] * 2 + [2.0] * 4 + [3.0] * 4
    rows = torch.tensor([9, 2, 3])
    given, law_of = replayed(tensors, rows, passes)
    assert given.check().rows == 3
    assert law_of.shape == (3, 23, 2)
    assert given.reward[:, 0].tolist() == [3.0, 2.0, 2.0]
    source = batch.select(torch.tensor([3, 0, 1]))
    assert torch.equal(given.observation, source.observation[:, :-1])
    goes_on = ~source.boundary[:, -2]
    assert goes_on.any()
    worth = value(source.observation[:, -1]).detach()
    torch.testing.assert_close(given.bootstrap[goes_on, -1], worth[goes_on])
    assert bool(given.boundary[:, -1].all())
    assert torch.equal(given.boundary[:, :-1], source.boundary[:, :-2])


def test_v_is_the_mean_of_q_under_the_policy() -> None:
    env, policy, value = world()
    observation = collected(env, AutogradPasses(policy, value)).observation
    every = torch.softmax(policy.net(observation), -1) * value.action_values(observation)
    torch.testing.assert_close(value(observation), every.sum(-1))


def run(out: Path | None, updates: int, **more: Any) -> vt.Run:
    rule = vt.algorithms.acer(fragment=8, begin=64, capacity=200)
    return vt.train(
        "tensor/CartPole-v1", rule, lanes=4, updates=updates, out=out, signal_every=None,
        progress=False, **more,
    )  # fmt: skip


def test_a_run_resumes_with_its_memory_and_loads(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", 12), run(tmp_path / "parts", 5)
    parts = run(tmp_path / "parts", 12, resume=True)
    plain = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in each.history]
        for each in (whole, parts)
    ]
    assert plain[0] == plain[1]
    assert plain[0][0]["replayed"] == 0 < sum(row["replayed"] for row in plain[0])
    assert plain[0][-1]["remembered"] == 200
    for file in (tmp_path / "whole/checkpoint").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "parts/checkpoint" / file.name).read_bytes()
    env, policy, value = vt.load(tmp_path / "whole")
    assert isinstance(value, ActionValue)
    assert value.policy is policy
    assert torch.equal(flat(policy, value), flat(whole.policy, whole.value))
    assert vt.evaluate(env, policy, episodes=4).mean > 0


@pytest.mark.parametrize("algorithm", ["ppo", "acer"])
def test_runs_on_tables_load(tmp_path: Path, algorithm: str) -> None:
    """Networks of ids are tables, whatever hidden layers were asked for."""
    run = vt.train(
        "FrozenLake-v1", algorithm, lanes=4, fragment=32, updates=1, out=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    _, policy, value = vt.load(tmp_path / "run")
    assert torch.equal(flat(policy), flat(run.policy))
    assert torch.equal(flat(value.net), flat(run.value.net))  # type: ignore[union-attr]


def test_refusals() -> None:
    env, policy, value = world()
    tried = {"updates": 2, "fragment": 8, "progress": False}
    row = vt.estimators.a2c()
    for name in ("Pendulum-v1", "tensor/Pendulum-v1"):
        with pytest.raises(vt.InputError, match=r"value\(under=Gaussian\)"):
            vt.train(name, "acer", updates=1, progress=False)
    for actor in (env.policy(recurrent=4), vt.MaskedCategorical(policy.net, 0)):
        with pytest.raises(vt.InputError, match=rf"value\(under={type(actor).__name__}\)"):
            env.value(under=actor)
    with pytest.raises(vt.InputError, match=r"give value=env\.value\(under=policy\)"):
        vt.train(env, policy, row, value=env.value(), update=Replay(), **tried)
    with pytest.raises(vt.InputError, match=r"'vtrace' would change nothing"):
        vt.train(env, policy, vt.estimators.vtrace(), value=value, update=Replay(), **tried)
    at_the_door = tried | {"dry_run": True}
    with pytest.raises(vt.InputError, match="train with delay=0"):
        vt.train(env, policy, row, value=value, update=Replay(), delay=1, **at_the_door)
    for fragment, batch, words in ((1, None, "of one step"), (None, 8, "whole episodes")):
        lengths = at_the_door | {"fragment": fragment, "batch": batch}
        with pytest.raises(vt.InputError, match=f"batches are .*{words}: give fragment="):
            vt.train(env, policy, row, value=value, update=Replay(), **lengths)
    for setting, wrong in (("maximum", 0.0), ("ratio", -1.0), ("decay", 1.5), ("capacity", 5)):
        with pytest.raises(vt.InputError, match=rf"Replay\({setting}={wrong}"):
            Replay(**{setting: wrong})


def test_on_a_table_it_finds_the_best_policy() -> None:
    """Five states, three actions, γ = 0.9: within 3 % of the optimum from a uniform policy.

    The range of J is from the uniform policy's to the best one's; chance does not get there.
    """
    mdp = vt.MDP.garnet(5, 3, 2, seed=0, termination=0.1, discount=0.9)
    env = vt.Tabular(mdp, lanes=16)
    policy = env.policy()
    value = env.value(under=policy)
    first = vt.exact.objective(mdp, policy).item()
    best = vt.exact.objective(mdp, optimal(mdp, env.policy())).item()
    rule = Replay(begin=320, lr=0.02)
    vt.train(
        env, policy, vt.estimators.a2c(), value=value, update=rule, fragment=20, updates=80,
        signal_every=None, progress=False,
    )  # fmt: skip
    last = vt.exact.objective(mdp, policy).item()
    assert (last - first) / (best - first) > 0.97


def optimal(mdp: Any, policy: Any) -> Any:
    """The best policy, by policy iteration; its table is all but deterministic."""
    for _ in range(20):
        greedy = vt.exact.value(mdp, policy).Q.detach().argmax(-1)
        policy.logits.data = 60.0 * torch.nn.functional.one_hot(greedy, policy.logits.shape[-1]).to(
            policy.logits
        )
    return policy


def test_the_average_is_a_copy_that_nothing_else_trains() -> None:
    _, policy, value = world()
    passes = AutogradPasses(policy, value)
    average = Replay().memory(passes, torch.Generator()).modules[AVERAGE]
    assert torch.equal(flat(average), flat(policy))
    assert not any(p.requires_grad for p in average.parameters())
    trained = {
        id(p) for p in Replay().optimizers(passes, None, None)["policy"].param_groups[0]["params"]
    }
    assert trained == {id(p) for p in (*policy.parameters(), *value.net.parameters())}
    assert copy.deepcopy(average) is not average


@pytest.mark.long
def test_acer_learns_cartpole() -> None:
    """16,000 steps, in which the pole is up for 22 steps at first, with a deviation of 12.

    The mean of 100 episodes of a policy that has learned nothing is above 60 in less than one run
    of a billion: that is thirty of its deviations away.
    """
    run = vt.train(
        "tensor/CartPole-v1", vt.algorithms.acer(begin=2000, lr=2e-3), updates=50,
        signal_every=None, progress=False,
    )  # fmt: skip
    assert run.history[0]["return"] < 30
    assert run.history[-1]["return_100"] > 60
