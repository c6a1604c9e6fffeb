"""`verify`: what does this loss climb?"""

from collections.abc import Sequence
from inspect import signature

import torch

from vantage.conformance.losses.door import Loss, Rows, through_the_door
from vantage.conformance.losses.example import Example, example_of
from vantage.conformance.losses.expected import (
    NOTHING,
    Expected,
    RefusedError,
    expected,
    on,
    refuse_too_many,
)
from vantage.conformance.losses.factor import TOLERANCE, factor_of
from vantage.conformance.losses.invariance import PROBLEM, invariance
from vantage.conformance.losses.problems import OFF_POLICY, ON_POLICY, TEMPERED, Problem
from vantage.conformance.losses.regulariser import pull
from vantage.conformance.losses.trl import is_trl_trainer, trl_loss
from vantage.conformance.losses.verdict import Cell, Examination, Verdict
from vantage.errors import refuse_unless

STRAIGHT = 1e-3  # degrees: what rounding may turn


def verify(
    loss: object, *, num_generations: Sequence[int] = (2, 3, 4), name: str | None = None
) -> Examination:
    """Say what a loss climbs, by exact enumeration of every batch of a battery of small problems.

    The battery: one decision, several, unequal lengths, rewards of unequal scale and level, costs,
    rare success, nothing to learn, one to three prompts, groups of two to four, batches one step
    old. On each, the expected step −E[∇loss] is compared with ∇J.

    A loss is called with what its arguments are named after, in the customary ways: log_prob,
    old_log_prob [N, T]; reward [N], or advantage, the reward less the mean of the prompt's other
    completions; mask [N, T]; group [N]; ref_log_prob; verl's response_mask, token_level_rewards,
    index, advantages; or logits [N, T, A], action, temperature. Five arguments of other names are
    (log_prob, old_log_prob, reward, mask, group). A reward or advantage is [N], or [N, T] if the
    loss fails on [N].

    Args:
        loss: a function to a scalar that an optimiser lowers; a pair (advantage function, policy
            loss); an Estimator; a GRPOTrainer or RLOOTrainer of TRL, whose own code is then run; or
            a function without arguments that makes one of these.
        num_generations: completions per prompt to try.
        name: how the report calls it.

    Raises:
        InputError: a loss that cannot be called, with the first of its errors.

    >>> def loss(log_prob, old_log_prob, reward, mask, group):
    ...     return -(reward[:, None] * log_prob * mask).sum() / len(reward)
    >>> print(verify(loss).sentence)
    climbs ∇J: its expected step is ∇J on every problem
    """
    refuse_unless(
        len(num_generations) > 0 and min(num_generations) >= 1,
        f"verify(num_generations={tuple(num_generations)}): sizes of at least 1.",
    )
    if callable(loss) and not isinstance(loss, Loss) and not signature(loss).parameters:
        loss = loss()  # it makes the loss
    if is_trl_trainer(loss):
        return _examined(trl_loss(loss, name), num_generations)
    return _examined(through_the_door(loss, _probe(), name), num_generations)


def _examined(ready: Loss, num_generations: Sequence[int]) -> Examination:
    """All that is found out of a loss, in one record."""
    independent = invariance(ready)
    ordered = independent.within
    for problem in ON_POLICY:
        refuse_too_many(problem, max(num_generations), ordered)
    reads_logits = "logits" in ready.takes
    cells, refused = _evaluated(ready, ON_POLICY, num_generations, ordered)
    stale, _ = _evaluated(ready, OFF_POLICY, num_generations, ordered)
    tempered, _ = _evaluated(ready, TEMPERED if reads_logits else (), num_generations, ordered)
    refuse_unless(
        cells,
        f"verify: {ready.name} fails on every problem with {tuple(num_generations)} completions "
        f"per prompt: {refused[0] if refused else ''}",
    )
    counted = cells + (tempered if "temperature" in ready.takes else [])
    learnable = [cell for cell in counted if cell.length > NOTHING]
    return Examination(
        name=ready.name,
        verdict=_verdict(counted, learnable),
        angle=max(cell.angle for cell in counted),
        factor=factor_of(ready, learnable, ordered),
        counterexample=_smallest(counted),
        cells=tuple(map(_cell, cells)),
        off_policy=tuple(map(_cell, stale)),
        tempered=tuple(map(_cell, tempered)),
        kl=pull(ready, max(num_generations), ordered),
        invariance=independent,
        zero=tuple(dict.fromkeys(text for cell in learnable for text in _unmoved(cell))),
        refused=tuple(refused),
        shapes=ready.shapes,
    )


def _probe() -> Rows:
    """Five rows of three steps of two prompts: no two sizes are equal but that of the actions."""
    evaluation = on(PROBLEM)
    z = PROBLEM.policy.logits.detach().clone().requires_grad_()
    return evaluation.rows(torch.tensor([0, 1, 2, 3, 4, 4]), torch.tensor([0, 0, 0, 1, 1, 1]), z, 1)


def _evaluated(
    loss: Loss, problems: Sequence[Problem], sizes: Sequence[int], ordered: bool
) -> tuple[list[Expected], list[str]]:
    """The problems that the loss can be evaluated on, and on which it failed, in words."""
    cells, refused = [], []
    for problem in problems:
        for size in sizes:
            try:
                cells.append(expected(loss, problem, size, ordered=ordered))
            except RefusedError as error:
                refused.append(f"{problem.name!r}, {size} completions per prompt: {error}")
    return cells, refused


def _verdict(cells: Sequence[Expected], learnable: Sequence[Expected]) -> Verdict:
    if not all(cell.finite for cell in cells):
        return "not finite"
    if all(float(cell.mean.norm()) <= NOTHING for cell in cells):
        return "nothing"
    if all(cell.angle > 180 - STRAIGHT for cell in learnable):
        return "downhill"
    if any(cell.angle > STRAIGHT for cell in cells) or any(cell.factor <= 0 for cell in learnable):
        return "tilted"
    return "climbs" if all(abs(cell.factor - 1) < TOLERANCE for cell in learnable) else "factor"


def _smallest(cells: Sequence[Expected]) -> Example | None:
    """The example with the fewest numbers in it, of what the verdict rests on."""
    broken = [cell for cell in cells if not cell.finite]
    tilted = [cell for cell in cells if cell.angle > STRAIGHT]
    scaled = [cell for cell in cells if cell.length > NOTHING and abs(cell.factor - 1) > TOLERANCE]
    for examples in (broken, tilted, scaled):
        if examples:
            return example_of(min(examples, key=_numbers))
    return None


def _numbers(cell: Expected) -> int:
    rows = cell.batches.members
    return rows.numel() * int(cell.problem.every.mask.sum(1).max())


def _unmoved(cell: Expected) -> list[str]:
    """Decisions whose scores have weight 0 in every batch, though their part of ∇J is not 0."""
    if cell.weight is None:
        return []
    labels, every = cell.problem.process.labels, cell.problem.every
    rows = cell.batches.members
    counted = every.mask[rows] & (cell.weight != 0)
    moved = every.observation[rows][counted].unique()
    should = cell.gradient.view(-1, cell.problem.policy.logits.shape[1]).norm(dim=1) > NOTHING
    still = [i for i in should.nonzero().flatten().tolist() if i not in moved.tolist()]
    return [f"{labels[i]} of {cell.problem.name!r} never gets a weight" for i in still]


def _cell(cell: Expected) -> Cell:
    signal, squared = float(cell.mean @ cell.mean), cell.length**2
    return Cell(
        problem=cell.problem.name,
        num_generations=cell.size,
        factor=cell.factor if cell.length > NOTHING else float("nan"),
        angle=cell.angle,
        snr=_ratio(signal, cell.trace),
        reinforce_snr=_ratio(squared, cell.reinforce),
        rloo_snr=_ratio(squared, cell.rloo),
        finite=cell.finite,
    )


def _ratio(signal: float, noise: float) -> float:
    if signal <= NOTHING**2:
        return 0.0
    return signal / noise if noise > NOTHING**2 else float("inf")
