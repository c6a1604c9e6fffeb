"""The KL of the row that a configuration of TRL is, against TRL's loss written out here.

Off policy, where a KL that is weighed by the importance ratio differs from one that is not. A
trainer here is a record of settings; `make peers` holds rows to TRL's own code.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vantage.conformance.losses.door import Loss, Rows, through_the_door
from vantage.conformance.losses.expected import Evaluation
from vantage.conformance.losses.problems import Problem, choice
from vantage.peers.trl_rows import estimator

BETA, LONGEST = 0.3, 5


def configured(**settings: Any) -> Any:
    """What `estimator` reads of a GRPOTrainer, by default as TRL's configuration has it."""
    names = ("_generate", "_calculate_rewards", "_get_per_token_logps_and_entropies",
             "_generate_and_score_completions", "_compute_loss")  # fmt: skip
    own = {
        "loss_type": "dapo", "scale_rewards": "group", "importance_sampling_level": "token",
        "epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0, "max_completion_length": LONGEST,
    }  # fmt: skip
    arguments = {
        "use_bias_correction_kl": False, "delta": None, "off_policy_mask_threshold": None,
        "gradient_accumulation_steps": 1, "steps_per_generation": 1,
        "top_entropy_quantile": 1.0, "multi_objective_aggregation": "sum_then_normalize",
        "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05,
        "vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0,
    }  # fmt: skip
    for name, value in settings.items():
        (arguments if name in arguments else own)[name] = value
    return SimpleNamespace(**dict.fromkeys(names), **own, args=SimpleNamespace(**arguments))


PROBLEM = Problem(
    "unequal lengths, the sampler a step behind",
    (choice(0.5, 1.0, choice(0.25, 3.0, 0.0)), choice(0.6, choice(0.5, 1.0, 2.0), 0.5)),
    behaviour=4.0,
)
MEMBERS, GROUP = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 0, 0, 1, 1, 1])
REFERENCE = PROBLEM.policy.logits.detach() + torch.tensor([0.7, -0.4])


def mean_of(loss_type: str, mask: Tensor, per_token: Tensor) -> Tensor:
    """The average over tokens and completions that TRL takes of a loss [N, T]."""
    per_token = torch.where(mask, per_token, 0)
    if loss_type in ("grpo", "sapo"):
        return (per_token.sum(1) / mask.sum(1)).mean()
    if loss_type == "dr_grpo":
        return per_token.sum() / (len(mask) * LONGEST)
    return per_token.sum() / mask.sum()


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "vespo"])
def test_the_kl_of_a_configuration_is_that_of_trls_loss(loss_type: str, corrected: bool) -> None:
    """β k3, times the ratio with its gradient under `use_bias_correction_kl`, averaged as TRL does.

    The other of the two is told from it by a tenth of its length at least.
    """
    evaluation = Evaluation(PROBLEM, REFERENCE)

    def step(loss: Any) -> Tensor:
        probe = evaluation.rows(MEMBERS, GROUP, PROBLEM.policy.logits.detach())
        return evaluation.step(through_the_door(loss, probe), MEMBERS, GROUP)[0]

    def penalty(rows: Rows, weighed: bool) -> Tensor:
        apart = rows.reference_log_prob - rows.log_prob
        kl = torch.exp(apart) - apart - 1
        if weighed:
            kl = kl * torch.exp(rows.log_prob - rows.batch.log_prob)
        return BETA * mean_of(loss_type, rows.mask, kl)

    settings = {"loss_type": loss_type, "use_bias_correction_kl": corrected}
    found, plain = (step(estimator(configured(beta=beta, **settings))) for beta in (BETA, 0.0))
    want, other = (
        step(Loss("", partial(penalty, weighed=weighed), frozenset({"reference_log_prob"})))
        for weighed in (corrected, not corrected)
    )
    torch.testing.assert_close(found - plain, want)
    assert (want - other).norm() > 0.1 * want.norm()
