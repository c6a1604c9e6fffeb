"""Fitting V(s) to returns, for the next batch's baseline."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vantage.batch import Batch
from vantage.estimators import columns, returns
from vantage.estimators.estimator import Estimator


def value_target(
    estimator: Estimator,
    batch: Batch,
    worth: Float[Tensor, "N T"],
    log_prob: Float[Tensor, "N T"] | None = None,
) -> Float[Tensor, "N T"]:
    """What V is fitted to: the estimator's own returns where they estimate a state's value.

    V-trace has a target of its own (Espeholt et al. 2018, remark 1), and the return of a whole
    trajectory says nothing of one state: rewards-to-go take its place.

    Args:
        worth: [N, T] the estimator's returns of the batch.
        log_prob: [N, T] under the current policy, where another one sampled the batch.
    """
    column = columns.function_of(estimator.returns)
    if column is returns.vtrace:
        current = batch.log_prob if log_prob is None else log_prob
        settings = dict(getattr(estimator.returns, "keywords", {}))
        settings.pop("remainder", None)  # of the estimate of Q alone
        return returns.vtrace_target(batch, log_prob=current, **settings)
    if column is returns.total:
        return returns.to_go(batch)
    return worth


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
        `value_metrics` of the predictions that the batch was weighed with.
    """
    assert batch.value is not None
    observation, target = batch.observation[batch.mask], returns.to_go(batch)[batch.mask].float()
    metrics = value_metrics(batch.value[batch.mask], target)
    for _ in range(epochs):
        for index in torch.randperm(len(target), generator=generator).split(minibatch):
            optimizer.zero_grad()
            nn.functional.mse_loss(value(observation[index]), target[index]).backward()
            optimizer.step()
    return metrics


def value_metrics(predicted: Float[Tensor, " M"], target: Float[Tensor, " M"]) -> dict[str, float]:
    """How good predictions of V were.

    Returns:
        value_loss: their mean squared error.
        explained_variance: 1 − Var(R − V)/Var(R), R the target; 1 is perfect, 0 is what a constant
            gets, NaN where targets do not vary.
    """
    residual = target - predicted
    spread = target.var(correction=0).item()
    explained = 1 - residual.var(correction=0).item() / spread if spread > 0 else float("nan")
    return {"value_loss": residual.square().mean().item(), "explained_variance": explained}
