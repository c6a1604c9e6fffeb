"""The regulariser columns: three sample forms of KL(π‖π_ref), in the reward or in the loss.

All are functions of l = log π(a|s) − log π_ref(a|s) on actions from π. In the reward, the return
loses β k(l). In the loss, the gradient of −β k(l) is −β k'(l) ∇log π: a weight on the score as
well. Which of them has, on policy, the gradient of the KL it estimates:

    form   k(l)              in the reward                  in the loss
    k1     l                 ∇KL(π‖π_ref), exact            0 in expectation: it does nothing
    k2     l²/2              E[l²/2 ∇log π], no KL's        ∇KL(π‖π_ref), exact per decision
    k3     exp(−l) − 1 + l   ∇KL(π‖π_ref) − ∇KL(π_ref‖π)    ∇KL(π_ref‖π), of the reverse KL

"In the loss" is the gradient of the KL of each visited state's distribution; how the policy changes
which states it visits enters only in the reward.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.batch import Batch, sum_by_episode
from vantage.estimators.columns import declares


@declares(needs=("reference_log_prob",))
def k1(log_ratio: Float[Tensor, "N T"], *, beta: float) -> Float[Tensor, "N T"]:
    """β l, subtracted from the reward.

    Equation: β l, E l = KL(π‖π_ref).
    Shapes: [N, T].
    Source: Schulman 2020, Approximating KL divergence.
    Unbiased when: always, for the objective J − β E Σ_t l_t, the KL of the trajectories.
    """
    return beta * log_ratio


@declares(needs=("reference_log_prob",), bias="direction")
def k2(log_ratio: Float[Tensor, "N T"], *, beta: float) -> Float[Tensor, "N T"]:
    """β l²/2, subtracted from the reward.

    Equation: β l²/2, which estimates KL(π‖π_ref) to second order in l only.
    Shapes: [N, T].
    Source: Schulman 2020, Approximating KL divergence.
    Unbiased when: never for the KL: its gradient is E[l²/2 ∇log π], of third order in l where that
        of the KL is of first.
    """
    return beta * log_ratio.square() / 2


@declares(needs=("reference_log_prob",), bias="direction")
def k3(log_ratio: Float[Tensor, "*grid"], *, beta: float) -> Float[Tensor, "*grid"]:
    """β (exp(−l) − 1 + l), subtracted from the reward.

    Equation: β (exp(−l) − 1 + l) ≥ 0, of expectation KL(π‖π_ref).
    Shapes: [N, T]; any other grid will do.
    Source: Schulman 2020, Approximating KL divergence.
    Unbiased when: never for the KL, though its value is: for one decision its gradient is that of
        KL(π‖π_ref) − KL(π_ref‖π), the term E[k3'(l) ∇log π] being absent.
    """
    return beta * (torch.expm1(-log_ratio) + log_ratio)


@declares(needs=("reference_log_prob",), bias="direction")
def k1_in_loss(log_ratio: Float[Tensor, "N T"], *, beta: float) -> Float[Tensor, "N T"]:
    """The weight on the score of β k1 as a term of the loss.

    Equation: β · 1, whose expected gradient is 0: E ∇log π = 0.
    Shapes: [N, T].
    Source: Schulman 2020; Tang & Munos 2025.
    Unbiased when: never: on policy it has no effect in expectation and adds noise.
    """
    return torch.full_like(log_ratio, beta)


@declares(needs=("reference_log_prob",))
def k2_in_loss(log_ratio: Float[Tensor, "N T"], *, beta: float) -> Float[Tensor, "N T"]:
    """The weight on the score of β k2 as a term of the loss.

    Equation: β l, E[l ∇log π] = ∇KL(π‖π_ref) in each state.
    Shapes: [N, T].
    Source: Schulman 2020; Tang & Munos 2025.
    Unbiased when: always on policy, for the KL of the visited states' distributions.
    """
    return beta * log_ratio


@declares(needs=("reference_log_prob",), bias="direction")
def k3_in_loss(log_ratio: Float[Tensor, "N T"], *, beta: float) -> Float[Tensor, "N T"]:
    """The weight on the score of β k3 as a term of the loss.

    Equation: β (1 − exp(−l)), of expected gradient −β E[(π_ref/π) ∇log π] = β ∇KL(π_ref‖π).
    Shapes: [N, T].
    Source: Shao et al. 2024, GRPO, equation 4; Tang & Munos 2025.
    Unbiased when: never for KL(π‖π_ref): it is the gradient of the reverse KL(π_ref‖π).
    """
    return -beta * torch.expm1(-log_ratio)


@declares(needs=("reference_log_prob", "batch", "log_prob"))
def weighted_k3_in_loss(
    log_ratio: Float[Tensor, "N T"],
    *,
    beta: float,
    batch: Batch,
    log_prob: Float[Tensor, "N T"],
) -> Float[Tensor, "N T"]:
    """The weight on the score of β ρ k3 as a term of the loss, ρ = π/μ the ratio of the step.

    Equation: β ρ l: the slope of ρ k3(l) is ρ (k3 + k3') = ρ l, exactly ρ times that of k2.
    Shapes: [N, T]; log_prob [N, T] under the current policy, batch.log_prob under μ that sampled.
    Source: DeepSeek-AI 2025, DeepSeek-V3.2, the unbiased estimate of the KL.
    Unbiased when: always, also off policy, for the KL of the distributions of the states that were
        visited.
    """
    ratio = torch.where(batch.mask, log_prob - batch.log_prob, 0).exp()
    return beta * ratio * log_ratio


@declares(needs=("reference_log_prob", "batch"))
def trajectory_k2_in_loss(
    log_ratio: Float[Tensor, "N T"], *, beta: float, batch: Batch
) -> Float[Tensor, "N T"]:
    """The weight on the score of β k2 of the whole trajectory, (β/2) (Σ_t l_t)², in the loss.

    Equation: β Σ_t l_t, at every step of the trajectory.
    Shapes: [N, T].
    Source: Richemond et al. 2024, DRO.
    Unbiased when: always on policy, for the KL of the trajectories: E[Σ l Σ ∇log π] is its
        gradient.
    """
    return beta * sum_by_episode(batch, log_ratio)[batch.episode]
