"""From weights to gradients: ĝ of a batch, and the gradient of every row by itself.

Flat vectors follow `torch.nn.utils.parameters_to_vector`, over the parameters that require a
gradient. All gradients point uphill: θ ← θ + α ĝ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.batch import Batch
from vantage.estimators.estimator import Estimator
from vantage.estimators.scores import Scores
from vantage.policies import Policy


def gradient(
    policy: Policy, batch: Batch, estimator: Estimator, **inputs: Any
) -> Float[Tensor, " P"]:
    """ĝ = Σ_n Σ_t w_nt ∇ log π(a_nt|s_nt), plus the entropy's gradient: the estimate of ∇J.

    Ratios compare the policy as it is now with `batch.log_prob`. What the estimator needs of the
    policy and is not given, entropies or scores, is found: see `policy_inputs`.

    Equation: [5], [6] or [8], as the estimator's columns say.
    Shapes: [P], P the number of parameters that require a gradient.

    Args:
        policy, batch, estimator: as sampled, whole.
        **inputs: what `estimator.needs` and the batch does not hold; see `Estimator.advantage`.

    Raises:
        InputError: an input is missing.
    """
    inputs = policy_inputs(policy, batch, estimator, **inputs)
    log_prob = policy.log_prob(batch.observation, batch.action)
    weights = estimator.weights(batch, log_prob, **inputs)  # which are constants
    # where, not a product: padding may hold observations whose log-probability is not finite
    surrogate = torch.where(batch.mask, weights * log_prob, 0).sum()
    if estimator.entropy:
        entropy = policy.entropy(batch.observation)
        bonus = estimator.entropy_weights(batch)
        surrogate = surrogate + torch.where(batch.mask, bonus * entropy, 0).sum()
    return flat_gradient(surrogate, policy)


def policy_inputs(
    policy: Policy, batch: Batch, estimator: Estimator, **inputs: Any
) -> dict[str, Any]:
    """The inputs given, and what the estimator needs of the policy beside them.

    That is the entropy of every step, and the norms and products of the scores, of which one vector
    a step is formed: for small policies.
    """
    if "entropy" in estimator.needs and inputs.get("entropy") is None:
        inputs["entropy"] = policy.entropy(batch.observation).detach()
    if "scores" in estimator.needs and inputs.get("scores") is None:
        inputs["scores"] = scores(policy, batch, estimator, **inputs)
    return inputs


def weighted_score(
    policy: Policy, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, " P"]:
    """Σ_n Σ_t w_nt ∇ log π(a_nt|s_nt) for given weights, in one backward pass."""
    return torch.cat(weighted_pieces(policy, batch, weights))


def weighted_pieces(
    policy: Policy, batch: Batch, weights: Float[Tensor, "N T"]
) -> list[Float[Tensor, " _"]]:
    """`weighted_score` parameter by parameter, so that no second copy of it is made."""
    log_prob = policy.log_prob(batch.observation, batch.action)
    return gradient_pieces(torch.where(batch.mask, weights * log_prob, 0).sum(), policy)


def weighted_entropy(
    policy: Policy, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, " P"]:
    """Σ_n Σ_t w_nt ∇H(π(·|s_nt)) for given weights: what an entropy bonus adds to ĝ."""
    entropy = policy.entropy(batch.observation)
    return flat_gradient(torch.where(batch.mask, weights * entropy, 0).sum(), policy)


def row_gradients(
    policy: Policy,
    batch: Batch,
    weights: Float[Tensor, "N T"],
    only: Sequence[str] | None = None,
) -> Float[Tensor, "N P"]:
    """Σ_t w_nt ∇ log π(a_nt|s_nt) of every row n: they add up to `weighted_score`.

    One vectorised backward pass over all rows; `row_gradients_by_loop` is the reference.

    Args:
        only: names of the parameters to differentiate; None for all.
    """
    return torch.cat(row_pieces(policy, batch, weights, only), 1)


def row_pieces(
    policy: Policy,
    batch: Batch,
    weights: Float[Tensor, "N T"],
    only: Sequence[str] | None = None,
) -> list[Float[Tensor, "N _"]]:
    """`row_gradients` parameter by parameter, so that no second copy of them is made."""
    log_prob_of = _log_prob_as_function(policy)

    def surrogate(
        parameters: dict[str, Tensor], observation: Tensor, action: Tensor, w: Tensor, mask: Tensor
    ) -> Tensor:
        return torch.where(mask, w * log_prob_of(parameters, observation, action), 0).sum()

    by_row = torch.func.vmap(torch.func.grad(surrogate), in_dims=(None, 0, 0, 0, 0))
    parameters = _parameters(policy)
    if only is not None:
        parameters = {name: parameters[name] for name in only}
    pieces = by_row(parameters, batch.observation, batch.action, weights, batch.mask)
    # detached: parameters that `only` leaves out would keep a graph alive
    return [pieces[name].detach().reshape(batch.rows, -1) for name in parameters]


def row_gradients_by_loop(
    policy: Policy, batch: Batch, weights: Float[Tensor, "N T"]
) -> Float[Tensor, "N P"]:
    """`row_gradients` the slow and obvious way: one backward pass a row."""
    parts = [slice(n, n + 1) for n in range(batch.rows)]
    return torch.stack(
        [weighted_score(policy, batch.select(rows), weights[rows]) for rows in parts]
    )


def log_prob_change(
    policy: Policy, batch: Batch, direction: Float[Tensor, " P"]
) -> Float[Tensor, "N T"]:
    """∇ log π(a_nt|s_nt) · direction: how log-probabilities change along it, to first order.

    Two backward passes: Σ v_nt ∇ log π_nt · direction is linear in v, and its slope is the answer.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    log_prob = policy.log_prob(batch.observation, batch.action)
    v = torch.zeros_like(log_prob, requires_grad=True)
    scores = torch.autograd.grad(log_prob, parameters, v, create_graph=True, allow_unused=True)
    pieces = direction.to(log_prob.dtype).split([p.numel() for p in parameters])
    along = [
        (score * piece.view_as(score)).sum()
        for score, piece in zip(scores, pieces, strict=True)
        if score is not None
    ]
    return torch.autograd.grad(torch.stack(along).sum(), v)[0]


def step_scores(policy: Policy, batch: Batch) -> Float[Tensor, "N T P"]:
    """∇ log π(a_nt|s_nt) of every step, 0 where the mask is False: N·T·P numbers."""
    log_prob_of = _log_prob_as_function(policy)

    def counted(
        parameters: dict[str, Tensor], observation: Tensor, action: Tensor, mask: Tensor
    ) -> Tensor:
        return torch.where(mask, log_prob_of(parameters, observation, action), 0)

    by_row = torch.func.vmap(torch.func.jacrev(counted), in_dims=(None, 0, 0, 0))
    parameters = _parameters(policy)
    pieces = by_row(parameters, batch.observation, batch.action, batch.mask)
    return torch.cat([pieces[name].flatten(2) for name in parameters], 2)


def scores(policy: Policy, batch: Batch, estimator: Estimator, **inputs: object) -> Scores:
    """Norms and inner products of the scores as `estimator` weighs them, for its baseline.

    Forms the score of every step: N·T·P numbers.

    Args:
        policy: the policy that sampled the batch.
        batch, estimator: as in `gradient`.
        **inputs: what else the estimator's returns need.
    """
    return weighted_products(step_scores(policy, batch), batch, estimator, **inputs)


def weighted_products(
    steps: Float[Tensor, "N T P"], batch: Batch, estimator: Estimator, **inputs: Any
) -> Scores:
    """`scores` from the score of every step, as `step_scores` gives it."""
    # per unit of weight of the row: a mean with those weights is then an expectation, sampled or
    # enumerated
    rows = batch.weight[:, None]
    factor = torch.where(rows > 0, estimator.share(batch) / rows, 0)
    contributions = steps * factor[..., None]
    worth = torch.where(batch.mask, estimator.worth(batch, **inputs), 0)
    flat = (contributions * worth[..., None]).flatten(0, 1)
    raw = flat.new_zeros(int(batch.episode.max()) + 1, flat.shape[1])
    raw = raw.index_add(0, batch.episode.flatten(), flat)
    return Scores(
        norm=contributions.square().sum(-1), product=(contributions * raw[batch.episode]).sum(-1)
    )


def flat_gradient(scalar: Tensor, policy: nn.Module) -> Float[Tensor, " P"]:
    """The gradient of a scalar over the policy's parameters that require one, flat."""
    return torch.cat(gradient_pieces(scalar, policy))


def gradient_pieces(
    scalar: Tensor, policy: nn.Module, retain_graph: bool = False
) -> list[Float[Tensor, " _"]]:
    """`flat_gradient` parameter by parameter, so that no second copy of it is made."""
    parameters = [p for p in policy.parameters() if p.requires_grad]
    pieces = torch.autograd.grad(scalar, parameters, retain_graph=retain_graph, allow_unused=True)
    return [
        (torch.zeros_like(p) if piece is None else piece).reshape(-1)
        for p, piece in zip(parameters, pieces, strict=True)
    ]


def _parameters(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in policy.named_parameters() if p.requires_grad}


def _log_prob_as_function(policy: Policy) -> Callable[..., Tensor]:
    """(parameters, observation, action) -> log π, which function transforms can differentiate."""
    module = _LogProb(policy)

    def log_prob(parameters: dict[str, Tensor], observation: Tensor, action: Tensor) -> Tensor:
        parameters_ = {f"policy.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(module, parameters_, (observation, action))

    return log_prob


class _LogProb(nn.Module):
    """`policy.log_prob` as a module's forward, which is what `functional_call` can call."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.policy.log_prob(observation, action)
