"""`beta`, the weight of a KL penalty: every row has it, and adds that KL's gradient times β."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import table
from test_estimators import autograd, off_policy
from torch import Tensor

import vantage as vt
from vantage.estimators import columns

E = vt.estimators
ROWS = list(E.TABLE)
BETA = 0.3
# k(l), of which a row in the loss has −β times the gradient; ρ is π/μ.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k2_in_loss": lambda kl, ratio: kl.square() / 2,
    "k3_in_loss": lambda kl, ratio: torch.exp(-kl) - 1 + kl,
    "weighted_k3_in_loss": lambda kl, ratio: ratio * (torch.exp(-kl) - 1 + kl),
}


def gradient(policy: vt.SoftmaxTable, batch: vt.Batch, row: vt.Estimator) -> Tensor:
    """ĝ of a batch that another policy sampled, with all that any row asks for."""
    greedy = 0.2 + 0.1 * batch.reward if "greedy_return" in row.needs else None
    inputs: dict[str, Any] = {} if greedy is None else {"greedy_return": greedy}
    if "reward_parts" in row.needs:
        inputs |= {"reward_parts": batch.reward[..., None], "reward_weights": torch.ones(1)}
    if "reference_log_prob" in row.needs:
        inputs["reference_log_prob"] = reference_of(batch)
    return vt.gradient(policy, batch, row, **inputs)


def reference_of(batch: vt.Batch) -> Tensor:
    return table(7).log_prob(batch.observation, batch.action).detach()


def name_of(column: Callable[..., Tensor] | None) -> str:
    return "" if column is None else columns.describe(column).partition("(")[0]


def test_every_row_has_beta_and_it_is_off() -> None:
    """0 by default, but for DRO, whose squared log-ratio is the method."""
    for name in ROWS:
        default = inspect.signature(E.TABLE[name]).parameters["beta"].default
        assert default == (1.0 if name == "dro" else 0.0), name
        shown = E.named(name, beta=BETA).columns()
        assert sum(f"beta={BETA}" in text for text in shown.values()) == 1, name
        assert E.named(name, beta=0.0).columns() == (
            E.named(name).replace(kl_in_loss=None, name=name).columns()
        )
        with pytest.raises(vt.InputError, match=r"beta=-0.1: the coefficient of a KL penalty"):
            E.named(name, beta=-0.1)


@pytest.mark.parametrize("name", ROWS)
def test_beta_adds_the_gradient_of_its_penalty(name: str) -> None:
    """Off policy, by autograd of β k(l) over the row's own average; exactly nothing at 0."""
    policy, batch = off_policy()
    plain = E.named(name).replace(kl_in_loss=None, kl_in_reward=None)
    assert torch.equal(
        gradient(policy, batch, E.named(name, beta=0.0)), gradient(policy, batch, plain)
    )
    row = E.named(name, beta=BETA)
    got = gradient(policy, batch, row) - gradient(policy, batch, plain)
    assert got.norm() > 1e-4
    reference, share = reference_of(batch), row.share(batch)
    if row.kl_in_reward is not None:
        # from the rewards, of the policy that sampled: the row itself, on other rewards
        divergence = torch.where(batch.mask, batch.log_prob - reference, 0)
        dearer = replace(batch, reward=batch.reward - BETA * divergence)
        want = _on_rewards(policy, dearer, batch, plain)
        torch.testing.assert_close(got, want - gradient(policy, batch, plain))
        return

    def penalty(log_prob: Tensor) -> Tensor:
        log_ratio = torch.where(batch.mask, log_prob - reference, 0)
        if name_of(row.kl_in_loss) == "trajectory_k2_in_loss":
            whole = log_prob.new_zeros(int(batch.episode.max()) + 1)
            whole = whole.index_add(0, batch.episode.flatten(), log_ratio.flatten())
            part = torch.zeros_like(whole)
            part[batch.episode[batch.mask]] = share[batch.mask]
            return -BETA * (part * whole.square() / 2).sum()
        ratio = torch.where(batch.mask, log_prob - batch.log_prob, 0).exp()
        return -BETA * (share * LOSSES[name_of(row.kl_in_loss)](log_ratio, ratio)).sum()

    torch.testing.assert_close(got, autograd(policy, batch, penalty))


def _on_rewards(
    policy: vt.SoftmaxTable, dearer: vt.Batch, batch: vt.Batch, row: vt.Estimator
) -> Tensor:
    """ĝ on other rewards, the greedy return that of the rewards as they were."""
    if "greedy_return" not in row.needs:
        return gradient(policy, dearer, row)
    return vt.gradient(policy, dearer, row, greedy_return=0.2 + 0.1 * batch.reward)


@pytest.mark.parametrize("name", ["rloo", "remax"])
def test_a_penalty_in_the_reward_is_linear(name: str) -> None:
    """β times what the row makes of the penalty alone; a greedy return is not penalised."""
    policy, batch = off_policy()
    log_ratio = torch.where(batch.mask, batch.log_prob - reference_of(batch), 0)
    alone = replace(batch, reward=log_ratio, bootstrap=torch.zeros_like(log_ratio))
    inputs = {"greedy_return": torch.zeros_like(log_ratio)} if name == "remax" else {}
    want = -BETA * vt.gradient(policy, alone, E.named(name), **inputs)
    got = gradient(policy, batch, E.named(name, beta=BETA)) - gradient(policy, batch, E.named(name))
    torch.testing.assert_close(got, want)


def test_where_there_is_no_reference_beta_is_refused(tmp_path: Path) -> None:
    """Training and audits on environments say why, before a folder is made."""
    world = vt.make("CartPole-v1", lanes=8)
    for name in ("reinforce", "ppo", "grpo"):
        row = E.named(name, beta=BETA)
        message = rf"'{name}' has a KL penalty .*an environment has no reference policy.*beta=0"
        with pytest.raises(vt.InputError, match=message):
            vt.train("CartPole-v1", row, updates=1, out=tmp_path / "run", progress=False)
        with pytest.raises(vt.InputError, match=message):
            vt.audit(world, world.policy(), [row], trajectories=512, batch=16, progress=False)
    assert not list(tmp_path.iterdir())
