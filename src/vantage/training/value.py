"""Fitting V(s) to returns, for the next batch's baseline."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage import returns
from vantage.batch import Batch


def fit_value(
    value: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    epochs: int,
    minibatch: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """Regress V(s_t) on the rewards-to-go of a batch, by least squares in minibatches.

    Called after the policy's step: the baseline of a batch is then a function of earlier batches
    only, which is what keeps it unbiased.

    Args:
        epochs: passes over the batch.
        minibatch: steps per optimiser step.
        generator: shuffles the steps.

    Returns:
        value_loss: mean squared error of the predictions the batch was weighed with.
        explained_variance: 1 − Var(R − V)/Var(R) of the same predictions; 1 is perfect, 0 is what a
            constant gets, NaN where the returns do not vary.
    """
    assert batch.value is not None
    observation, target = batch.observation[batch.mask], returns.to_go(batch)[batch.mask].float()
    residual = target - batch.value[batch.mask]
    for _ in range(epochs):
        for index in torch.randperm(len(target), generator=generator).split(minibatch):
            optimizer.zero_grad()
            nn.functional.mse_loss(value(observation[index]), target[index]).backward()
            optimizer.step()
    return {
        "value_loss": residual.square().mean().item(),
        "explained_variance": _explained(residual, target),
    }


def _explained(residual: Tensor, target: Tensor) -> float:
    spread = target.var(correction=0).item()
    return 1 - residual.var(correction=0).item() / spread if spread > 0 else float("nan")
