"""Losses of verl and of the RLHF Book, as data: what each makes of rewards, ratios and lengths.

Neither can be installed beside this package for a calculation on a few numbers, so that their rules
are written down here, in our own code, from the sources named in `SOURCES`. A recipe is an
advantage, an objective of a step, and an average over steps; `loss_of` puts them together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[Tensor], Tensor]
SOURCES = {
    "verl": "verl/trainer/ppo/core_algos.py at 012be9d9, github.com/volcengine/verl",
    "RLHF Book": (
        "code/policy_gradients/loss.py at 0c2ba9c3 and algorithms.py at 3c6ad095, "
        "github.com/natolambert/rlhf-book"
    ),
}


@dataclass(frozen=True)
class Recipe:
    """A loss.

    Attributes:
        framework: a key of `SOURCES`.
        name: as its users call it.
        advantage: of rewards [N], group [N] and lengths [N] -> [N].
        objective: of the log-ratio, advantage and mask, [N, T] each -> [N, T], to be lowered.
        average: of these and the mask -> scalar.
        kl_in_loss: of log π − log π_ref -> [N, T], added to the objective; or None.
        kl_in_reward: of the same and the mask -> [N], taken from the reward; or None.
        settings: of the framework, that select it.
    """

    framework: str
    name: str
    advantage: Callable[[Tensor, Tensor, Tensor], Tensor]
    objective: Callable[[Tensor, Tensor, Tensor], Tensor]
    average: Callable[[Tensor, Tensor], Tensor]
    kl_in_loss: Rule | None = None
    kl_in_reward: Callable[[Tensor, Tensor], Tensor] | None = None
    settings: str = ""


def loss_of(recipe: Recipe) -> Callable[..., Tensor]:
    """The recipe as a loss that `vantage.verify` takes."""

    def loss(
        log_prob: Tensor, old_log_prob: Tensor, reward: Tensor, mask: Tensor, group: Tensor
    ) -> Tensor:
        advantage = recipe.advantage(reward, group, mask.sum(1))[:, None] * mask
        return recipe.average(recipe.objective(log_prob - old_log_prob, advantage, mask), mask)

    def regularised(
        log_prob: Tensor,
        old_log_prob: Tensor,
        reward: Tensor,
        mask: Tensor,
        group: Tensor,
        ref_log_prob: Tensor,
    ) -> Tensor:
        worth = reward
        if recipe.kl_in_reward is not None:
            worth = reward - recipe.kl_in_reward((old_log_prob - ref_log_prob) * mask, mask)
        advantage = recipe.advantage(worth, group, mask.sum(1))[:, None] * mask
        steps = recipe.objective(log_prob - old_log_prob, advantage, mask)
        if recipe.kl_in_loss is not None:
            steps = steps + recipe.kl_in_loss((log_prob - ref_log_prob) * mask)
        return recipe.average(steps, mask)

    without = recipe.kl_in_loss is None and recipe.kl_in_reward is None
    return loss if without else regularised


# Advantages.


def of_groups(
    rule: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A rule for the rewards and lengths of one group, applied to each."""

    def advantage(reward: Tensor, group: Tensor, length: Tensor) -> Tensor:
        out = torch.zeros_like(reward)
        for g in group.unique():
            rows = group == g
            out[rows] = rule(reward[rows], length[rows])
        return out

    return advantage


def raw(reward: Tensor, group: Tensor, length: Tensor) -> Tensor:
    return reward


def above_mean(reward: Tensor, length: Tensor) -> Tensor:
    return reward - reward.mean()


def alone_as_is(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """verl leaves the reward of a group of one as it is."""
    return lambda reward, length: rule(reward, length) if len(reward) > 1 else reward


def standardised(epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Bessel's standard deviation, as torch.std has it."""
    return lambda reward, length: (reward - reward.mean()) / (reward.std() + epsilon)


def leave_one_out(reward: Tensor, length: Tensor) -> Tensor:
    return (reward - reward.mean()) * len(reward) / (len(reward) - 1)


def length_weighted(reward: Tensor, length: Tensor) -> Tensor:
    return reward - (length * reward).sum() / length.sum()


def best_alone(reward: Tensor, length: Tensor) -> Tensor:
    """pass@k: the best gets its lead over the second, by the standard deviation; others nothing."""
    top = reward.topk(2)
    out = torch.zeros_like(reward)
    out[top.indices[0]] = (top.values[0] - top.values[1]) / (reward.std() + 1e-6)
    return out


def whitened(
    first: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Centred and scaled over the tokens of the batch, each completion as often as it is long."""

    def advantage(reward: Tensor, group: Tensor, length: Tensor) -> Tensor:
        above = first(reward, group, length)
        tokens = above.repeat_interleave(length)
        # Bessel's correction by the number of tokens
        spread = tokens.var() if len(tokens) > 1 else tokens.new_zeros(())
        return (above - tokens.mean()) * (spread + 1e-8).rsqrt()

    return advantage


def by_nonzero(reward: Tensor, group: Tensor, length: Tensor) -> Tensor:
    """GPG: above the group's mean, times rows per reward that is not 0."""
    share = len(reward) / reward.count_nonzero().clamp(min=1)
    return share * of_groups(alone_as_is(above_mean))(reward, group, length)


# Objectives of a step, to be lowered.


def clipped(
    low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Callable[..., Tensor]:
    """PPO's; with `dual`, verl's bound on the loss of a bad step."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        steps = torch.maximum(-ratio * advantage, -ratio.clamp(1 - low, 1 + high) * advantage)
        if dual is None:
            return steps
        return torch.where(advantage < 0, torch.minimum(steps, -dual * advantage), steps)

    return objective


def plain(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    return -log_ratio * advantage


def clipped_by_sequence(low: float, high: float) -> Callable[..., Tensor]:
    """GSPO: one ratio for a completion, the geometric mean of its steps'."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        mean = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        return clipped(low, high)(mean.expand_as(log_ratio), advantage, mask)

    return objective


def clipped_by_token_in_sequence(low: float, high: float) -> Callable[..., Tensor]:
    """GSPO in verl: the completion's ratio by value, the step's own by gradient."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        mean = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        return clipped(low, high)(log_ratio - log_ratio.detach() + mean.detach(), advantage, mask)

    return objective


def geometric(low: float = 0.2, high: float = 0.2) -> Callable[..., Tensor]:
    """GMPO: clipped log-ratios, averaged over the completion, whose exponential weighs it once."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        sign = advantage.sign()
        held = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-low, high))
        mean = (held * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return -advantage * mean.exp() * mask

    return objective


def detached_ratio(low: float, high: float) -> Callable[..., Tensor]:
    """CISPO: the bounded ratio weighs the score and has no gradient."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        return -log_ratio.exp().clamp(1 - low, 1 + high).detach() * advantage * log_ratio

    return objective


def soft_gate(good: float = 1.0, bad: float = 1.05) -> Callable[..., Tensor]:
    """SAPO: a sigmoid of the ratio in the place of clipping."""

    def objective(log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        steep = torch.where(advantage > 0, good, bad)
        return -torch.sigmoid(steep * (log_ratio.exp() - 1)) * 4 / steep * advantage

    return objective


# Averages over steps.


def token_mean(steps: Tensor, mask: Tensor) -> Tensor:
    return (steps * mask).sum() / mask.sum()


def token_mean_of_each(steps: Tensor, mask: Tensor) -> Tensor:
    return ((steps * mask).sum(1) / mask.sum(1)).mean()


def token_sum_of_each(steps: Tensor, mask: Tensor) -> Tensor:
    return (steps * mask).sum(1).mean()


def sum_over_width(steps: Tensor, mask: Tensor) -> Tensor:
    return (steps * mask).sum() / mask.shape[1]


# Log-ratios l = log π − log π_ref, as the RLHF Book has them.


def book_kl1(log_ratio: Tensor) -> Tensor:
    return -log_ratio


def book_kl2(log_ratio: Tensor) -> Tensor:
    return log_ratio.square() / 2


def book_kl3(log_ratio: Tensor) -> Tensor:
    return torch.expm1(log_ratio) - log_ratio


def _times(beta: float, rule: Rule) -> Rule:
    return lambda log_ratio: beta * rule(log_ratio)


def _mean_in_reward(beta: float, rule: Rule) -> Callable[[Tensor, Tensor], Tensor]:
    """Averaged over the completion's tokens, whatever its length."""
    return lambda log_ratio, mask: beta * (rule(log_ratio) * mask).sum(1) / mask.sum(1)


VERL_GRPO = of_groups(alone_as_is(standardised(1e-6)))
VERL_CENTRED = of_groups(alone_as_is(above_mean))
VERL_RLOO = of_groups(alone_as_is(leave_one_out))
VERL_OPO = of_groups(alone_as_is(length_weighted))
VERL_PPO = clipped(dual=3.0)
VERL_GSPO = clipped_by_token_in_sequence(3e-4, 4e-4)
BY_TOKEN = "loss_agg_mode=token-mean (default)"
NO_STD = "norm_adv_by_std_in_grpo=False"


def _verl(
    name: str,
    settings: str,
    advantage: Callable[[Tensor, Tensor, Tensor], Tensor],
    average: Callable[[Tensor, Tensor], Tensor] = token_mean,
    objective: Callable[[Tensor, Tensor, Tensor], Tensor] = VERL_PPO,
) -> Recipe:
    return Recipe("verl", name, advantage, objective, average, settings=settings)


VERL = (
    _verl("grpo", BY_TOKEN, VERL_GRPO),
    _verl("grpo, by sequence", "loss_agg_mode=seq-mean-token-mean", VERL_GRPO, token_mean_of_each),
    _verl("grpo, summed", "loss_agg_mode=seq-mean-token-sum", VERL_GRPO, token_sum_of_each),
    _verl("grpo without std", f"{NO_STD}, {BY_TOKEN}", VERL_CENTRED),
    _verl("Dr. GRPO", f"{NO_STD}, seq-mean-token-sum-norm", VERL_CENTRED, sum_over_width),
    _verl("rloo", BY_TOKEN, VERL_RLOO),
    _verl("rloo, summed", "loss_agg_mode=seq-mean-token-sum", VERL_RLOO, token_sum_of_each),
    _verl("opo", BY_TOKEN, VERL_OPO),
    _verl("opo, summed", "loss_agg_mode=seq-mean-token-sum", VERL_OPO, token_sum_of_each),
    _verl("reinforce_plus_plus", "gamma=1", whitened(raw)),
    _verl("reinforce_plus_plus_baseline", BY_TOKEN, whitened(VERL_CENTRED)),
    _verl("gpg", "loss_mode=gpg", by_nonzero, token_mean, plain),
    _verl("grpo_passk", BY_TOKEN, of_groups(best_alone)),
    _verl("grpo, gspo", "loss_mode=gspo", VERL_GRPO, token_mean_of_each, VERL_GSPO),
    _verl("grpo, gmpo", "loss_mode=geo_mean", VERL_GRPO, token_mean_of_each, geometric()),
)

BOOK_GRPO = of_groups(standardised(1e-8))
BOOK_RLOO = of_groups(leave_one_out)
BETA = 0.1


def _book(
    name: str,
    advantage: Callable[[Tensor, Tensor, Tensor], Tensor],
    objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    average: Callable[[Tensor, Tensor], Tensor] = token_mean_of_each,
    **kl: Any,
) -> Recipe:
    return Recipe("RLHF Book", name, advantage, objective, average, **kl)


def _with_kl(name: str, estimator: str, in_loss: Rule | None, in_reward: Rule | None) -> Recipe:
    """GRPO with the KL in the loss, or RLOO with it in the reward."""
    settings = f"beta={BETA}, kl_estimator={estimator}"
    if in_loss is not None:
        term = _times(BETA, in_loss)
        return _book(name, BOOK_GRPO, clipped(), settings=settings, kl_in_loss=term)
    assert in_reward is not None
    penalty = _mean_in_reward(BETA, in_reward)
    return _book(name, BOOK_RLOO, plain, settings=settings, kl_in_reward=penalty)


BOOK = (
    _book("reinforce", raw, plain),
    _book("rloo", BOOK_RLOO, plain),
    _book("grpo", BOOK_GRPO, clipped()),
    _book("drgrpo", of_groups(above_mean), clipped()),
    _book("gspo", BOOK_GRPO, clipped_by_sequence(3e-4, 4e-4)),
    _book("cispo", BOOK_GRPO, detached_ratio(0.2, 0.2)),
    _book("sapo", BOOK_GRPO, soft_gate()),
    _book("dapo", BOOK_GRPO, clipped(0.2, 0.28), token_mean),
    _with_kl("grpo, KL", "kl3 (default)", book_kl3, None),
    _with_kl("grpo, KL", "kl2", book_kl2, None),
    _with_kl("grpo, KL", "kl1", book_kl1, None),
    _with_kl("rloo, KL", "kl3 (default)", None, book_kl3),
    _with_kl("rloo, KL", "kl2", None, book_kl2),
    _with_kl("rloo, KL", "kl1", None, book_kl1),
)
RECIPES = (*VERL, *BOOK)
