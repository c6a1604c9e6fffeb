"""The gradient of a fragment, and how much of it is signal: lanes are what is independent in it."""

import torch
from torch import Tensor

from vantage.batch import Batch
from vantage.estimators.estimator import Estimator
from vantage.gradients.passes import Passes
from vantage.gradients.weighted import policy_inputs
from vantage.statistics.signal import Signal, unit_signal

PARTS = 8  # of the lanes, at most: a backward pass each


@torch.no_grad()
def lanes_signal(
    passes: Passes, estimator: Estimator, batch: Batch, measured: bool
) -> tuple[Tensor, Signal | None]:
    """ĝ of a fragment [P], uphill, and its signal from groups of lanes as the units.

    Weights are those of the whole fragment: where an estimator standardises over it, the units
    share a mean and a deviation and are independent but for those. An entropy bonus is part of ĝ
    and not of the statistics. What a lane collects does depend on where it stood before; the signal
    is that of the gradient given where the lanes stand.

    Args:
        measured: whether to find the signal too; without it one backward pass is enough.
    """
    inputs = policy_inputs(passes.policy, batch, estimator)
    weights, share = estimator.weights(batch, **inputs), estimator.share(batch)
    units = min(PARTS, batch.rows) if measured else 1
    pieces, lanes = [], []
    for rows in torch.arange(batch.rows, device=weights.device).tensor_split(units):
        # log-probabilities at masked steps may be anything: their weight is 0
        passes.forward(batch.observation[rows], batch.action[rows])
        passes.backward(weights[rows])
        pieces.append(passes.policy_gradient().double())
        lanes.append(len(rows))
    stack = torch.stack(pieces)
    gradient, signal = stack.sum(0).to(weights.dtype), None
    if measured:
        # the pieces add up to ĝ; each by itself, per lane, is an estimate of its own
        alone = stack * (batch.rows / stack.new_tensor(lanes))[:, None]
        signal = unit_signal(alone.sum(0), float(alone.square().sum()), units, batch.rows // units)
    if estimator.entropy:
        passes.forward(batch.observation, batch.action)
        passes.backward(torch.zeros_like(weights), estimator.entropy * share)
        gradient = gradient + passes.policy_gradient()
    return gradient, signal
