"""What a loss must not look at: how a batch is split, how it is padded, in what order it comes."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vantage.conformance.losses.door import Loss
from vantage.conformance.losses.expected import Evaluation, RefusedError, on
from vantage.conformance.losses.problems import ON_POLICY

TOLERANCE = 1e-6
# four groups of two completions of two prompts, of unequal lengths and rewards
PROBLEM = next(problem for problem in ON_POLICY if problem.name == "lengths of two prompts")
MEMBERS = torch.tensor([0, 1, 1, 2, 3, 4, 0, 2])
GROUP = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


class Invariance(NamedTuple):
    """What the step of a batch depends on and should not. Empty words: on none of it.

    Attributes:
        passes: a batch split into two passes of whole groups, whose steps are averaged or added.
        padding: masked steps more, and what they hold.
        order: the order of rows: inside a group, of groups, or of all rows.
        within: whether the order inside a group matters.
        single: what becomes of a group of one completion.
    """

    passes: str
    padding: str
    order: str
    within: bool
    single: str


def invariance(loss: Loss) -> Invariance:
    """Try all of them on one batch."""
    evaluation = on(PROBLEM)
    every = torch.arange(8)

    def step(rows: Int[Tensor, " n"], padding: int = 0) -> Float[Tensor, " P"] | str:
        try:
            return evaluation.step(loss, MEMBERS[rows], GROUP[rows], padding)[0]
        except RefusedError as error:
            return str(error)

    whole = step(every)
    if isinstance(whole, str):
        return Invariance(whole, whole, whole, within=True, single=_single(evaluation, loss))
    orders = {
        "inside a group": every.view(4, 2).flip(1).flatten(),
        "of the groups": every.view(4, 2).flip(0).flatten(),
        "of rows across groups": torch.tensor([0, 2, 4, 6, 1, 3, 5, 7]),
    }
    moved = [name for name, order in orders.items() if not _same(step(order), whole)]
    return Invariance(
        passes="" if loss.counted_before else _passes(whole, step(every[:4]), step(every[4:])),
        padding=_padding(whole, step(every, 3)),
        order=_order(moved),
        within="inside a group" in moved,
        single=_single(evaluation, loss),
    )


def _passes(whole: Tensor, first: Tensor | str, second: Tensor | str) -> str:
    if isinstance(first, str) or isinstance(second, str):
        return f"half of the batch is refused: {first if isinstance(first, str) else second}"
    together = (first + second) / 2
    if _same(together, whole) or _same(2 * together, whole):
        return ""
    angle = torch.atan2((together - whole * (together @ whole) / (whole @ whole)).norm(),
                        together @ whole / whole.norm())  # fmt: skip
    return (
        "the step of a batch is neither the mean nor the sum of the steps of two passes over half "
        f"of its groups each; it lies {float(torch.rad2deg(angle)):.3g}° beside their mean"
    )


def _padding(whole: Tensor, padded: Tensor | str) -> str:
    if isinstance(padded, str):
        return f"a batch with masked steps more is refused: {padded}"
    if _same(whole, padded):
        return ""
    scale = float(padded @ whole / (whole @ whole))
    if _same(padded, scale * whole):
        return f"three masked steps more multiply the step by {scale:.4g}"
    return "three masked steps more turn the step: what padding holds is weighed"


def _order(moved: list[str]) -> str:
    if moved == ["of rows across groups"]:
        return "rows of a group must be neighbours: `group` is not looked at"
    return f"the step depends on the order {' and '.join(moved)}" if moved else ""


def _single(evaluation: Evaluation, loss: Loss) -> str:
    """A prompt of which one completion is left, beside a group of three."""
    members, group = torch.tensor([0, 3, 4, 4]), torch.tensor([0, 1, 1, 1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.std, which says what is said below
            step, _ = evaluation.step(loss, members, group)
    except RefusedError as error:
        return f"refused, {error}"
    return "" if bool(step.isfinite().all()) else "the step is not finite"


def _same(one: Float[Tensor, " P"] | str, other: Float[Tensor, " P"]) -> bool:
    if isinstance(one, str):
        return False
    if bool(one.isnan().any() and other.isnan().any()):
        return True
    return bool((one - other).norm() <= TOLERANCE * other.norm().clamp(min=1e-12))
