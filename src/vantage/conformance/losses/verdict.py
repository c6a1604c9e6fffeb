"""What `verify` says of a loss, as a record and as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vantage.conformance.losses.example import Example
from vantage.conformance.losses.factor import Factor, listed
from vantage.conformance.losses.invariance import Invariance
from vantage.conformance.losses.regulariser import Pull

Verdict = Literal["climbs", "factor", "tilted", "downhill", "nothing", "not finite"]


@dataclass(frozen=True)
class Cell:
    """A problem at one number of completions per prompt, K.

    Attributes:
        problem: its name.
        num_generations: K.
        factor: E[step]·∇J/‖∇J‖².
        angle: between E[step] and ∇J, in degrees.
        snr, reinforce_snr, rloo_snr: ‖E ĝ‖²/tr Cov ĝ of one batch: of the loss and, on the same
            batches, of REINFORCE and of RLOO.
        finite: whether the step is finite on every batch.
    """

    problem: str
    num_generations: int
    factor: float
    angle: float
    snr: float
    reinforce_snr: float
    rloo_snr: float
    finite: bool


@dataclass(frozen=True)
class Examination:
    """What a loss climbs, by exact enumeration.

    Attributes:
        name: the name of the loss.
        verdict: "climbs": E[step] is ∇J on every problem; "factor": a positive multiple of it;
            "tilted": not along it somewhere; "downhill": against it everywhere; "nothing": 0
            everywhere; "not finite".
        angle: the largest between E[step] and ∇J, in degrees.
        factor: the multiple, and what it depends on. Where the loss is tilted, `depends_on` says
            what pulls prompts apart.
        counterexample: the smallest problem on which E[step] is not ∇J; None where there is none.
        cells: every problem on policy.
        off_policy: problems whose batches are one step old.
        tempered: problems whose sampling law has a temperature, where the loss reads logits.
        kl: what its KL term does, if it has one.
        invariance: what it depends on and should not.
        zero: decisions whose scores never get a weight, though ∇J is not 0 there.
        refused: problems on which the loss fails, with its error; the verdict is on the others.
        shapes: how the loss was called.
    """

    name: str
    verdict: Verdict
    angle: float
    factor: Factor
    counterexample: Example | None
    cells: tuple[Cell, ...]
    off_policy: tuple[Cell, ...]
    tempered: tuple[Cell, ...]
    kl: Pull | None
    invariance: Invariance
    zero: tuple[str, ...]
    refused: tuple[str, ...]
    shapes: str

    @property
    def unbiased(self) -> bool:
        """Whether the expected step is ∇J on every problem."""
        return self.verdict == "climbs"

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong beside bias: everything that a loss should not depend on or do."""
        faults = [
            ("passes", self.invariance.passes),
            ("padding", self.invariance.padding),
            ("order", self.invariance.order),
            ("a group of one", self.invariance.single),
            ("no gradient", "; ".join(self.zero)),
        ]
        if self.kl is not None and self.kl.aim in ("wrong sign", "none", "beside"):
            faults.append(("KL", str(self.kl).removeprefix("KL: ")))
        return tuple(f"{what}: {text}" for what, text in faults if text)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        worst = max(self.cells + self.tempered, key=lambda cell: cell.angle)
        where = f"{worst.problem!r}, {worst.num_generations} completions per prompt"
        return {
            "climbs": "climbs ∇J: its expected step is ∇J on every problem",
            "factor": f"climbs ∇J up to a factor, {self.factor}",
            "tilted": f"is tilted against ∇J, by up to {self.angle:.3g}° ({where})",
            "downhill": "goes downhill: its expected step points against ∇J on every problem",
            "nothing": "does nothing: its expected step is 0 on every problem",
            "not finite": "is not finite on some batch",
        }[self.verdict]

    def to_dict(self) -> dict[str, object]:
        """Numbers and words as JSON can hold them."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "angle": self.angle,
            "factor": {
                "low": self.factor.low,
                "high": self.factor.high,
                "formula": self.factor.formula,
                "depends_on": list(self.factor.depends_on),
            },
            "faults": list(self.faults),
            "kl": None if self.kl is None else self.kl._asdict(),
            "counterexample": None if self.counterexample is None else str(self.counterexample),
            "cells": [vars(cell) for cell in self.cells],
            "off_policy": [vars(cell) for cell in self.off_policy],
            "tempered": [vars(cell) for cell in self.tempered],
            "refused": list(self.refused),
            "shapes": self.shapes,
        }

    def __str__(self) -> str:
        lines = [f"{self.name} {self.sentence}."]
        if self.verdict == "tilted":
            on = listed(self.factor.depends_on) or "nothing that was tried by itself"
            lines.append(f"How far it climbs one decision depends on {on}.")
        lines += [_variance(self.cells)]
        if self.off_policy:
            stale = max(self.off_policy, key=lambda cell: cell.angle)
            lines.append(
                f"One step off policy: up to {stale.angle:.3g}° beside ∇J ({stale.problem!r})."
            )
        if self.kl is not None:
            lines.append(f"{self.kl}.")
        lines += [f"Beware of {fault}." for fault in self.faults if not fault.startswith("KL")]
        checked = {"passes": "passes", "padding": "padding", "order": "the order of rows"}
        fine = [text for name, text in checked.items() if not getattr(self.invariance, name)]
        if fine:
            lines.append(f"It does not depend on {listed(fine, 'or')}.")
        if self.refused:
            lines.append(f"It fails on {len(self.refused)} problems, such as {self.refused[0]}.")
        if self.counterexample is not None:
            lines += ["", "The smallest counterexample:", str(self.counterexample)]
        return "\n".join(lines)


def _variance(cells: Sequence[Cell]) -> str:
    """The noise of the step, beside that of the two estimators that everyone knows."""
    shown = []
    for name, field in (("REINFORCE", "reinforce_snr"), ("RLOO", "rloo_snr")):
        pairs = [(getattr(cell, field), cell.snr) for cell in cells]
        ratios = [
            other / ours for other, ours in pairs if 0 < other < math.inf and 0 < ours < math.inf
        ]
        if ratios:
            middle = math.exp(sum(map(math.log, ratios)) / len(ratios))
            shown.append(f"{middle:.3g} times {name}'s ({min(ratios):.3g} to {max(ratios):.3g})")
    return f"Variance at one length of the expected step: {', '.join(shown) or 'there is no step'}."
