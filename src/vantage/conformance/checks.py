"""Is an estimator what it says it is? `check` is for the built-in rows and for your own.

>>> import vantage as vt
>>> mine = vt.Estimator(baseline=vt.baselines.batch_leave_one_out, name="mine")
>>> vt.conformance.check(mine)

What is checked: weights are finite, without a graph, and zero where the mask is False; they do not
depend on padding, on the order of the rows, or on how the batch is split into passes; they depend
on other rows only as far as `couples` says; the batch is left as it was; and the claim of no bias
holds, by enumeration of every batch of small problems. Regularisers are taken off for that last
check: they change the objective, not the estimate of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vantage.batch import Batch
from vantage.conformance.claims import PROBLEMS, expected_gradient
from vantage.estimators.columns import CONDITIONS
from vantage.estimators.estimator import Estimator
from vantage.estimators.scores import Scores
from vantage.gradients.weighted import policy_inputs
from vantage.policies import SoftmaxTable

Inputs = dict[str, Any]
TOLERANCE = 1e-9


class ConformanceError(AssertionError):
    """An estimator breaks a rule. The message says which, where and what to do."""


def check(estimator: Estimator, seed: int = 0) -> None:
    """Check every rule; silent if all hold.

    Args:
        estimator: any row, built in or your own.
        seed: the seed of the random batch the rules are tried on.

    Raises:
        ConformanceError: listing every rule that is broken, and the remedy.
    """
    # weights of the wrong shape or kind would make nonsense of the other rules
    broken = list(weights_are_sound(estimator, seed))
    if not broken:
        broken = [message for rule in RULES for message in rule(estimator, seed)]
    if broken:
        raise ConformanceError(
            f"Estimator {estimator.name!r} breaks {len(broken)} rule(s):\n- " + "\n- ".join(broken)
        )


def weights_are_sound(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """Shape, finiteness, no graph, zero where masked, the batch untouched, 1 pass = on policy."""
    batch, inputs = random_batch(estimator, seed)
    before = {name: tensor.clone() for name, tensor in batch.tensors().items()}
    weights = estimator.weights(batch, **inputs)
    for name, tensor in batch.tensors().items():
        if not torch.equal(tensor, before[name]):
            yield f"it changes batch.{name} in place; columns must be pure: return new tensors."
    if weights.shape != batch.reward.shape:
        shape = tuple(batch.reward.shape)
        yield f"weights have shape {tuple(weights.shape)}, not [N, T] = {shape}."
        return
    if not weights.isfinite().all():
        row, step = weights.isfinite().logical_not().nonzero()[0].tolist()
        value = weights[row, step].item()
        yield f"the weight at row {row}, step {step} is {value}; guard divisions."
    if estimator.weights(batch, batch.log_prob.clone().requires_grad_(), **inputs).requires_grad:
        yield "weights carry a graph; they are coefficients: detach what they are made of."
    if (weights[~batch.mask] != 0).any():
        yield "weights are not 0 where batch.mask is False; use torch.where(batch.mask, ..., 0)."
    again = estimator.weights(batch, batch.log_prob.clone(), **inputs)
    if not _close(weights, again):
        yield (
            "weights(batch) and weights(batch, batch.log_prob) differ; a ratio must be 1 where the "
            "policy is the one that sampled."
        )


def padding_is_invisible(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """Steps whose mask is False, before or after the rest, whatever they hold, change nothing."""
    batch, inputs = random_batch(estimator, seed)
    weights = estimator.weights(batch, **inputs)
    for left, right in ((0, 2), (2, 0)):
        padded = batch.map(lambda tensor: _pad(tensor, left, right))  # noqa: B023
        more: Inputs = {
            name: Scores(*(_pad(field, left, right) for field in value))
            if isinstance(value, Scores)
            else _pad(value, left, right)
            for name, value in inputs.items()
        }
        inside = estimator.weights(padded, **more)[:, left : left + batch.reward.shape[1]]
        if not _close(inside, weights):
            side = "left" if left else "right"
            yield (
                f"weights change when masked steps are added on the {side}; read rewards, values "
                "and counts only where batch.mask is True."
            )


def order_is_irrelevant(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """Rows in another order get the same weights."""
    batch, inputs = random_batch(estimator, seed)
    order = torch.arange(batch.rows).flip(0)
    shuffled = estimator.weights(batch.select(order), **_rows(inputs, order))
    if not _close(shuffled, estimator.weights(batch, **inputs)[order]):
        yield "weights change with the order of the rows; sums must run over groups or the batch."


def passes_add_up(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """Weights of parts, given their rows of advantage and share, are those of the whole."""
    batch, inputs = random_batch(estimator, seed)
    whole = estimator.weights(batch, **inputs)
    advantage, share = estimator.advantage(batch, **inputs), estimator.share(batch)
    inputs |= {"restrained": estimator.restrained(batch, advantage, **inputs)}
    for rows in torch.arange(batch.rows).split(2):
        piece = batch.select(rows)
        weights = estimator.weights(
            piece, piece.log_prob, advantage[rows], share[rows], **_rows(inputs, rows)
        )
        if not _close(weights, whole[rows]):
            yield (
                "a pass over some rows gets other weights than in the whole batch; what needs the "
                "whole batch belongs into advantage or aggregate, not into ratio or clip."
            )
            return


def coupling_is_declared(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """A row's weights change with another row only as far as `couples` says."""
    batch, inputs = random_batch(estimator, seed)
    weights = estimator.weights(batch, **inputs)
    for perturb in (_other_rewards, _shorter):
        changed = _moved(estimator, perturb(batch, 0), inputs, weights)
        apart = batch.group != batch.group[0]
        other = torch.arange(batch.rows) != 0
        if estimator.couples == "none" and (changed & other).any():
            row = int((changed & other).nonzero()[0])
            yield (
                f"the weights of row {row} change with row 0 ({perturb.__doc__}), but couples is "
                "'none'; mark the column @declares(couples='group') or 'batch'."
            )
        elif estimator.couples == "group" and (changed & apart).any():
            row = int((changed & apart).nonzero()[0])
            yield (
                f"the weights of row {row} change with row 0 of another group ({perturb.__doc__}), "
                "but couples is 'group'; mark the column @declares(couples='batch')."
            )


def claim_holds(estimator: Estimator, seed: int = 0) -> Iterator[str]:
    """`bias`, under its conditions, by enumeration of every batch of small problems."""
    if estimator.bias not in ("none", "scale"):
        return
    bare = replace(estimator, kl_in_reward=None, kl_in_loss=None, entropy=0.0)
    for problem in PROBLEMS:
        if "undiscounted" in bare.provided and problem.mdp.discount < 1:
            continue
        mean, exact = expected_gradient(bare, problem)
        along = (mean @ exact / (exact @ exact)) * exact
        target = exact if estimator.bias == "none" else along
        error = float((mean - target).norm() / exact.norm())
        if error > TOLERANCE:
            given = "".join(f", {CONDITIONS[c]}" for c in sorted(bare.provided))
            kind = "∇J" if estimator.bias == "none" else "a multiple of ∇J"
            yield (
                f"it claims E ĝ = {kind}{given}, but on the problem {problem.name!r} E ĝ = "
                f"{_short(mean)} and ∇J = {_short(exact)}: a relative bias of {error:.3g}. "
                "Mark the column @declares(bias='direction'), or leave the step's own return out."
            )
            return


Rule = Callable[[Estimator, int], Iterator[str]]
RULES: tuple[Rule, ...] = (
    padding_is_invisible,
    order_is_irrelevant,
    passes_add_up,
    coupling_is_declared,
    claim_holds,
)


def random_batch(estimator: Estimator, seed: int) -> tuple[Batch, Inputs]:
    """Three groups of three trajectories of one to four steps, and whatever `estimator` needs."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    rows, steps = 9, 4
    policy = SoftmaxTable(3, 2)
    policy.logits.data = random(3, 2)
    length = torch.randint(1, steps + 1, (rows,), generator=generator)
    length[:2] = torch.tensor([steps, steps - 1])
    mask = torch.arange(steps) < length[:, None]
    boundary = torch.arange(steps) == length[:, None] - 1
    cut = boundary & (torch.arange(rows)[:, None] % 3 == 2)  # a third of the rows is truncated
    observation = torch.randint(0, 3, (rows, steps), generator=generator)
    action = torch.randint(0, 2, (rows, steps), generator=generator)
    batch = Batch(
        observation=observation,
        action=action,
        reward=torch.where(mask, random(rows, steps), 0),
        discount=torch.where(boundary & ~cut, 0, 0.9).double(),
        boundary=boundary,
        bootstrap=torch.where(cut, random(rows, steps), 0),
        log_prob=policy.log_prob(observation, action).detach(),
        mask=mask,
        episode=torch.arange(rows)[:, None].expand(rows, steps).clone(),
        group=torch.arange(rows) // 3,
        weight=torch.full((rows,), 1 / rows, dtype=torch.float64),
        value=random(rows, steps),
    ).check()
    inputs: Inputs = {
        "greedy_return": random(rows, 1).expand(rows, steps),
        "reference_log_prob": -random(rows, steps),
        "reward_parts": torch.where(mask[..., None], random(rows, steps, 2), 0),
        "reward_weights": 0.2 + random(2).expand(rows, steps, 2),
    }
    inputs = {name: value for name, value in inputs.items() if name in estimator.needs}
    return batch, policy_inputs(policy, batch, estimator, **inputs)


def _rows(inputs: Inputs, rows: Tensor) -> Inputs:
    return {
        name: Scores(value.norm[rows], value.product[rows])
        if isinstance(value, Scores)
        else value[rows]
        for name, value in inputs.items()
    }


def _pad(tensor: Tensor, left: int, right: int) -> Tensor:
    """Masked steps of garbage around a [N, T] or [N, T, K] tensor; a [N] one as it is."""
    if tensor.ndim == 1:
        return tensor
    if tensor.is_floating_point():
        garbage = float("nan")
    else:
        garbage = 0
    last = (0, 0) * (tensor.ndim - 2)
    filled = torch.nn.functional.pad(tensor.double(), (*last, left, right), value=garbage)
    return filled.to(tensor.dtype)


def _other_rewards(batch: Batch, row: int) -> Batch:
    """when its rewards do"""
    reward = batch.reward.clone()
    reward[row] += torch.where(batch.mask[row], 0.7, 0)
    return replace(batch, reward=reward)


def _shorter(batch: Batch, row: int) -> Batch:
    """when it is a step shorter"""
    last = int(batch.mask[row].sum()) - 1
    mask, boundary, discount = batch.mask.clone(), batch.boundary.clone(), batch.discount.clone()
    mask[row, last] = boundary[row, last] = False
    boundary[row, last - 1] = True
    discount[row, last - 1] = 0
    return replace(batch, mask=mask, boundary=boundary, discount=discount)


def _moved(estimator: Estimator, batch: Batch, inputs: Inputs, weights: Tensor) -> Tensor:
    """[N] which rows have other weights now."""
    difference = (estimator.weights(batch, **inputs) - weights).abs()
    return difference.amax(1) > TOLERANCE * weights.abs().amax().clamp(min=1e-3)


def _close(one: Tensor, other: Tensor) -> bool:
    # NaN only equals NaN in padding that should not be there: let it fail
    return bool(((one - other).abs() <= TOLERANCE * (1 + other.abs())).all())


def _short(vector: Tensor) -> str:
    return "[" + ", ".join(f"{x:.4g}" for x in vector.tolist()) + "]"
