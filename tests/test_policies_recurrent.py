"""Policies with a memory: what is recorded, scored and learned through time."""

import pytest
import torch
from torch import Tensor, nn

import vantage as vt
from vantage.policies import Bernoulli, Categorical, Gaussian, Policy, Recurrent, mlp

INPUTS, MEMORY, LANES = 3, 5, 4


def heads() -> dict[str, Policy]:
    generator = torch.Generator().manual_seed(1)
    net = {n: mlp(MEMORY, (), n, gain=1.0, generator=generator) for n in (2, 3)}
    return {
        "categorical": Categorical(net[3]),
        "gaussian": Gaussian(net[2], 2),
        "bernoulli": Bernoulli(net[2]),
    }


def recurrent(head: str, encoder: bool = False) -> Recurrent:
    generator = torch.Generator().manual_seed(2)
    if not encoder:
        return Recurrent(INPUTS, heads()[head], MEMORY, generator=generator)
    net = mlp(INPUTS, (4,), 6, gain=1.0, generator=generator)
    return Recurrent(INPUTS, heads()[head], MEMORY, encoder=net, encoded=6, generator=generator)


def collect(
    policy: Policy, observation: Tensor, started: Tensor, seed: int = 3
) -> tuple[Tensor, ...]:
    """Play the collector over given observations [N, T, D]; returns seen, action, log_prob."""
    generator = torch.Generator().manual_seed(seed)
    memory = policy.begin(len(observation))
    rows = []
    for t in range(observation.shape[1]):
        seen = policy.see(observation[:, t], started[:, t], memory)
        rows.append((seen, *policy.sample(seen, generator)))
        memory = policy.remember(seen)
    seen, action, log_prob = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return seen, action, log_prob


def several_episodes(steps: int = 12) -> tuple[Tensor, Tensor]:
    """Random observations, and starts at irregular places, the first step of every row too."""
    generator = torch.Generator().manual_seed(4)
    observation = torch.randn(LANES, steps, INPUTS, generator=generator)
    started = torch.rand(LANES, steps, generator=generator) < 0.25
    started[:, 0] = True
    assert started[:, 1:].any(1).all()
    return observation, started


def by_hand(policy: Recurrent, observation: Tensor, action: Tensor, started: Tensor) -> Tensor:
    """Σ log π with torch's own GRU cell, one episode after the other."""
    total = torch.zeros(())
    for n in range(len(observation)):
        memory = torch.zeros(1, MEMORY)
        for t in range(observation.shape[1]):
            if started[n, t]:
                memory = torch.zeros(1, MEMORY)
            memory = policy.cell(policy.encoder(observation[n, t : t + 1]), memory)
            total = total + policy.head.log_prob(memory, action[n, t : t + 1]).sum()
    return total


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("head", ["categorical", "gaussian", "bernoulli"])
def test_log_prob_of_rows_is_that_of_sampling(head: str, encoder: bool) -> None:
    policy = recurrent(head, encoder)
    seen, action, log_prob = collect(policy, *several_episodes())
    torch.testing.assert_close(policy.log_prob(seen, action), log_prob, rtol=0, atol=1e-6)
    # a row may begin in the middle of an episode: its first memory is in the record
    tail = policy.log_prob(seen[:, 5:], action[:, 5:])
    torch.testing.assert_close(tail, log_prob[:, 5:], rtol=0, atol=1e-6)
    assert policy.entropy(seen).shape == log_prob.shape


@pytest.mark.parametrize("head", ["categorical", "gaussian"])
def test_gradient_is_that_of_a_gru_unrolled_by_hand(head: str) -> None:
    policy = recurrent(head, encoder=True)
    observation, started = several_episodes()
    seen, action, _ = collect(policy, observation, started)
    parameters = list(policy.parameters())
    ours = torch.autograd.grad(policy.log_prob(seen, action).sum(), parameters)
    reference = torch.autograd.grad(by_hand(policy, observation, action, started), parameters)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    # the memory matters: without it the gradient of the recurrent weights would be 0
    names = [name for name, _ in policy.named_parameters()]
    assert ours[names.index("cell.weight_hh")].abs().max() > 1e-3


def test_episodes_of_a_row_do_not_touch_each_other() -> None:
    policy = recurrent("gaussian")
    observation, started = several_episodes()
    seen, action, log_prob = collect(policy, observation, started)
    start = int(started[0, 1:].nonzero()[0]) + 1
    spoiled = seen.clone()
    spoiled[0, :start, :INPUTS] += 7
    changed = policy.log_prob(spoiled, action)
    torch.testing.assert_close(changed[0, start:], log_prob[0, start:], rtol=0, atol=1e-6)
    assert (changed[0, :start] - log_prob[0, :start]).abs().max() > 0.1


def test_memory_of_a_step_is_recorded_before_it() -> None:
    policy = recurrent("categorical")
    observation, started = several_episodes()
    seen, _, _ = collect(policy, observation, started)
    features, flag, memory = seen.split([INPUTS, 1, MEMORY], -1)
    assert torch.equal(features, observation)
    assert torch.equal(flag[..., 0] > 0, started)
    assert (memory[started] == 0).all()
    assert (memory[~started] != 0).any(-1).all()


def test_remember_does_not_depend_on_what_was_sampled_last() -> None:
    policy = recurrent("categorical")
    one, other = (
        policy.see(torch.randn(2, INPUTS), torch.tensor([True, False]), torch.randn(2, MEMORY))
        for _ in range(2)
    )
    fresh = policy.remember(one)
    policy.sample(one)
    torch.testing.assert_close(policy.remember(one), fresh)
    policy.sample(other)
    torch.testing.assert_close(policy.remember(one), fresh)


def test_ids_become_one_hot_and_bad_input_is_refused() -> None:
    policy = recurrent("categorical")
    seen = policy.see(torch.tensor([2, 0]), torch.tensor([True, True]), policy.begin(2))
    assert seen[:, :INPUTS].tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(vt.InputError, match="record what"):
        policy.sample(torch.zeros(2, INPUTS))
    with pytest.raises(vt.InputError, match="memoryless"):
        Recurrent(INPUTS, policy)
    with pytest.raises(vt.InputError, match="at least 1"):
        Recurrent(INPUTS, heads()["gaussian"], memory=0)


def test_row_gradients_go_through_time() -> None:
    """The vectorised gradients of rows are those of one backward pass a row."""
    policy = recurrent("categorical")
    observation, started = several_episodes()
    batch = as_batch(policy, observation, started, torch.randn(LANES, 12))
    weights = torch.randn(LANES, 12)
    torch.testing.assert_close(
        vt.row_gradients(policy, batch, weights),
        vt.gradients.row_gradients_by_loop(policy, batch, weights),
        rtol=1e-4,
        atol=1e-5,
    )


def as_batch(
    policy: Policy, observation: Tensor, started: Tensor, reward: Tensor, seed: int = 3
) -> vt.Batch:
    seen, action, log_prob = collect(policy, observation, started, seed)
    rows, steps = reward.shape
    last = torch.ones_like(started)
    last[:, :-1] = started[:, 1:]
    return vt.Batch(
        observation=seen,
        action=action,
        reward=reward,
        discount=1.0 - last.float(),
        boundary=last,
        bootstrap=torch.zeros(rows, steps),
        log_prob=log_prob,
        mask=torch.ones(rows, steps, dtype=torch.bool),
        episode=started.flatten().cumsum(0).reshape(rows, steps) - 1,
        group=torch.arange(rows),
        weight=torch.full((rows,), 1 / int(started.sum())),
    ).check()


def recalled(policy: Policy, updates: int) -> float:
    """Train on a recall task: a cue at step 0, nothing until step 5, then act as the cue said.

    Returns the success rate over the last 20 updates of 64 episodes each.
    """
    steps, lanes = 6, 64
    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    estimator = vt.estimators.reinforce().replace(baseline=vt.baselines.batch_leave_one_out)
    rates = []
    started = torch.zeros(lanes, steps, dtype=torch.bool)
    started[:, 0] = True
    for update in range(updates):
        cue = torch.randint(0, 2, (lanes,), generator=generator)
        observation = torch.zeros(lanes, steps, INPUTS)
        observation[torch.arange(lanes), 0, cue] = 1
        observation[:, -1, 2] = 1
        batch = as_batch(policy, observation, started, torch.zeros(lanes, steps), seed=update)
        batch.reward[:, -1] = (batch.action[:, -1] == cue).float()
        uphill = vt.gradient(policy, batch, estimator)
        position = 0
        for parameter in policy.parameters():
            piece = uphill[position : position + parameter.numel()]
            parameter.grad = -piece.view_as(parameter)
            position += parameter.numel()
        optimizer.step()
        rates.append(batch.reward[:, -1].mean().item())
    return sum(rates[-20:]) / 20


def test_a_memory_learns_to_recall_and_nothing_else_does() -> None:
    """Chance is 0.5: 20 · 64 tosses have a standard error of 0.014."""
    generator = torch.Generator().manual_seed(6)
    head = Categorical(mlp(8, (), 2, gain=0.01, generator=generator))
    assert recalled(Recurrent(INPUTS, head, memory=8, generator=generator), 120) > 0.95
    without = Categorical(mlp(INPUTS, (16,), 2, gain=0.01, generator=generator))
    assert recalled(without, 120) < 0.6


def test_weights_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    one, other = (recurrent("gaussian", encoder=True) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for gate in (*one.cell.weight_hh.chunk(3), *one.cell.weight_ih.chunk(3)):
        narrow = gate if gate.shape[0] <= gate.shape[1] else gate.T
        torch.testing.assert_close(narrow @ narrow.T, torch.eye(len(narrow)))
    assert isinstance(one.cell, nn.GRUCell)
    assert (one.cell.bias_hh == 0).all()
