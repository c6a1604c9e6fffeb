"""An example in numbers that a person can check: every batch, its weights, and their average."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vantage.conformance.losses.expected import Expected

SHOWN = 12  # batches that are printed


@dataclass(frozen=True)
class Example:
    """A problem on which the expected step of a loss is not ∇J.

    Attributes:
        problem: its prompts, as text.
        num_generations: completions per prompt.
        batches: every batch with its probability, and each row's prompt, rewards and weights: the
            weight of log π at a step is −∂loss/∂log π. No weights where the loss reads logits.
        decisions: names of the decisions.
        step, gradient: E[step] and ∇J at each decision, by action.
        angle: between them, in degrees.
    """

    problem: str
    num_generations: int
    batches: tuple[str, ...]
    decisions: tuple[str, ...]
    step: tuple[tuple[float, ...], ...]
    gradient: tuple[tuple[float, ...], ...]
    angle: float

    def __str__(self) -> str:
        lines = [f"{self.problem}; {self.num_generations} completions per prompt"]
        lines += [f"  {line}" for line in self.batches[:SHOWN]]
        if len(self.batches) > SHOWN:
            lines.append(f"  … and {len(self.batches) - SHOWN} more batches, in `.batches`")
        lines.append(
            "  the score of an action is 1 − π at its logit and −π at the others; so, on average,"
        )
        for name, step, gradient in zip(self.decisions, self.step, self.gradient, strict=True):
            lines.append(f"  {name:24} E[step] = {_vector(step)}   ∇J = {_vector(gradient)}")
        apart = f"{self.angle:.4g}° apart" if self.angle > 1e-3 else "in one direction"
        lines.append(f"  which are {apart}")
        return "\n".join(lines)


def example_of(cell: Expected) -> Example:
    """The cell in words."""
    problem = cell.problem
    labels = problem.process.labels
    actions = problem.policy.logits.shape[1]
    return Example(
        problem=str(problem),
        num_generations=cell.size,
        batches=tuple(_batch(cell, number) for number in range(len(cell.batches.members))),
        decisions=labels,
        step=_by_decision(cell.mean, len(labels), actions),
        gradient=_by_decision(cell.gradient, len(labels), actions),
        angle=cell.angle,
    )


def _batch(cell: Expected, number: int) -> str:
    """One batch as a line: probability, then reward and weights of each row."""
    every, members = cell.problem.every, cell.batches.members[number]
    rows = []
    for place, row in enumerate(members.tolist()):
        mask = every.mask[row]
        reward = float(torch.where(mask, every.reward[row], 0).sum())
        prompt = f"prompt {int(every.group[row]) + 1} " if len(cell.problem.prompts) > 1 else ""
        did = "".join(str(int(a) + 1) for a in every.action[row][mask])
        if cell.weight is None:
            rows.append(f"{prompt}actions {did} reward {reward:g}")
            continue
        weights = cell.weight[number, place]
        counted = ", ".join(_number(float(w)) for w in weights[mask])
        stray = [float(w) for w in weights[~mask] if w != 0]
        outside = f" and {', '.join(map(_number, stray))} on padding" if stray else ""
        rows.append(f"{prompt}actions {did} reward {reward:g} weight {counted}{outside}")
    return f"probability {float(cell.batches.probability[number]):.4g}: " + "; ".join(rows)


def _by_decision(
    flat: Float[Tensor, " P"], decisions: int, actions: int
) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in flat.view(-1, actions)[:decisions].tolist())


def _vector(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(_number(x) for x in values) + ")"


def _number(x: float) -> str:
    return "0" if abs(x) < 1e-12 else f"{x:.4g}"
