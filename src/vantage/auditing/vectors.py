"""Audits of gradients from elsewhere: vectors in hand, draws of another trainer, losses.

The statistics, intervals, sketches and pages are those of `vantage.audit`, by the same functions.
What is unknown here is where a gradient came from: nothing is claimed of it by theory, and its
bias is measured against the exact gradient, or against another of those given.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vantage.arguments import checked
from vantage.auditing import measure
from vantage.auditing.record import UNDECLARED, Row
from vantage.auditing.report import Report
from vantage.auditing.reporting import refuse_namesakes, reported
from vantage.auditing.sizes import size_in_bytes
from vantage.auditing.sources import listed, vector
from vantage.auditing.units import FEWEST_UNITS, Design, Units, plan_units, sketch_of
from vantage.errors import refuse_unless
from vantage.gradients.per_trajectory import Choice
from vantage.gradients.sketch import Sketch
from vantage.runs.progress import counting
from vantage.runs.run import versions
from vantage.runs.threads import torch_threads

Loss = Callable[[nn.Module, Any], Tensor]
NOWHERE = Choice("given", {}, {})  # how these gradients were formed is not known


@dataclass(frozen=True)
class Given:
    """A gradient from elsewhere, as a report names it; see `vantage.auditing.record.Measured`."""

    name: str
    couples: str
    bias: str = "unknown"
    unbiased: str = UNDECLARED
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Vectors:
    """What was looked at: how many vectors, of how many numbers, and whether all of them are 0."""

    sentence: str
    alike: bool
    several: str
    examples: list[str]

    def __str__(self) -> str:
        return self.sentence

    def nothing_to_learn(self) -> str:
        """Why there is no signal."""
        return f"All {self.several} are 0 throughout: there is no gradient to measure."


@checked
def audit_draws(
    sources: Mapping[str, Any],  # of `Source`; what is none is told so below
    *,
    draws: int = 256,
    reference: Float[Tensor, " P"] | str | None = None,
    batch: int = 1,
    seed: int = 0,
    target_snr: float = 4.0,
    memory: int | str = "4GB",
    threads: int = 1,
    progress: bool = True,
    counted: tuple[str, str] | None = None,
) -> Report:
    """How good are these gradients, whatever drew them? Bias, SNR and more, each with an interval.

    A draw is the gradient of one optimiser step, at parameters that do not change, and draws are
    independent. Parameters lie in one order in all sources, and all point uphill.

    Args:
        sources: by name: a function `draw(seed) -> [P]`; an iterable of such vectors; a tensor or
            array of them, [n, P]; or a folder of .npy and .safetensors files, in the order of their
            names. `vantage.gradient_draws` makes a source of any estimator.
        draws: the draws of each source. Where there are more than 256 neighbours are averaged.
        reference: the exact gradient [P]; or the name of a source that is known to be unbiased; or
            None, and then no bias is measured.
        batch: trajectories that one draw averages over, so that noise scale, variance and cost
            count trajectories; where 1, they count draws.
        seed: draw n of a function is asked for with seed + n.
        target_snr: what the plan is made for.
        memory: bytes for all vectors, or a size such as "500MB"; longer ones are sketched.
        threads: torch threads.
        progress: show progress.
        counted: what `batch` counts, one and several of it.

    Raises:
        InputError: sizes or sources that cannot work; a source ends early, or gives a vector of
            another length, or one that is not finite.
    """
    refuse_unless(sources, "audit_draws({}): give at least one source of gradients.")
    refuse_unless(
        draws >= FEWEST_UNITS,
        f"audit_draws(draws={draws}): an interval needs {FEWEST_UNITS} draws of each source.",
    )
    refuse_unless(batch >= 1, f"audit_draws(batch={batch}): a draw averages at least 1 trajectory.")
    words = counted or (("draw", "draws") if batch == 1 else ("trajectory", "trajectories"))
    design = plan_units([], draws * batch, batch, batch, shared=batch)
    named = {name: listed(name, source, seed) for name, source in sources.items()}
    every = (
        {name: (lambda draw=draw, n=n: draw(n)) for name, draw in named.items()}
        for n in range(design.trajectories // batch)
    )
    settings = {"environment": "gradient draws", "draws": design.trajectories // batch}
    return _audited(every, list(named), design, batch, reference, seed, target_snr, memory,
                    threads, progress, settings, words)  # fmt: skip


@checked
def audit_gradients(
    gradients: Any,
    *,
    reference: Float[Tensor, " P"] | str | None = None,
    batch: int = 1,
    target_snr: float = 4.0,
    memory: int | str = "4GB",
    progress: bool = True,
) -> Report:
    """The audit of vectors in hand: one gradient [P] of each of U independent units.

    Args:
        gradients: [U, P], or a mapping of names to such; the units of different names may be the
            same or others, but are in the same order where they are the same.
        reference: the exact gradient [P]; or the name of one of those given; or None.
        batch: units that one gradient step averages over, whose quality is reported.
        target_snr, memory, progress: as in `audit_draws`.

    Raises:
        InputError: shapes that do not fit, or fewer than 8 units.
    """
    given = dict(gradients) if isinstance(gradients, Mapping) else {"gradient": gradients}
    refuse_unless(given, "audit_gradients({}): give at least one set of gradients.")
    lengths = {name: len(rows) for name, rows in given.items()}
    refuse_unless(
        len(set(lengths.values())) == 1,
        f"audit_gradients: numbers of units differ, {lengths}; give as many of each.",
    )
    units = next(iter(lengths.values()))
    design = plan_units([], units, batch, 1)
    named = {name: listed(name, torch.as_tensor(rows), 0) for name, rows in given.items()}
    every = (
        {name: (lambda draw=draw, n=n: draw(n)) for name, draw in named.items()}
        for n in range(design.trajectories)
    )
    settings = {"environment": "gradients in hand", "units": design.trajectories}
    return _audited(every, list(named), design, 1, reference, 0, target_snr, memory, 1, progress,
                    settings, ("unit", "units"), timed=False)  # fmt: skip


@checked
def audit_loss(
    losses: Loss | Mapping[str, Loss],
    model: nn.Module,
    units: Sequence[Any],
    *,
    batch: int = 8,
    reference: Float[Tensor, " P"] | str | None = None,
    target_snr: float = 4.0,
    memory: int | str = "4GB",
    threads: int = 1,
    progress: bool = True,
) -> Report:
    """The audit of losses as they are written: `loss(model, unit) -> scalar`.

    The gradient measured is that of descent on the loss, −∇ loss; a batch's is the mean over its
    units. Every loss sees the same units, so that biases are differences on the same data. Losses
    are called in the order given, with the model in the mode it is in.

    Args:
        losses: one, or several by name.
        model: whose parameters that require a gradient are differentiated; they are not changed.
        units: independent pieces of data, such as a prompt with its completions: whatever `loss`
            takes. What makes them independent is the caller's to know.
        batch: units of one gradient step, whose quality is reported.
        reference: the name of a loss that is known to be right, the exact gradient [P], or None.
        target_snr, memory, threads, progress: as in `audit_draws`.

    Raises:
        InputError: no parameters to differentiate, a loss that is no scalar with a graph, sizes.
    """
    given = dict(losses) if isinstance(losses, Mapping) else {_title(losses): losses}
    refuse_unless(given, "audit_loss({}): give at least one loss.")
    trained = [p for p in model.parameters() if p.requires_grad]
    refuse_unless(trained, "audit_loss: no parameter of the model requires a gradient.")
    design = plan_units([], len(units), batch, 1)
    every = (
        {n: (lambda n=n, loss=loss, u=u: _descent(n, loss, model, trained, u))
         for n, loss in given.items()}
        for u in units[: design.trajectories]
    )  # fmt: skip
    settings = {
        "environment": "losses",
        "policy": type(model).__name__,
        "units": design.trajectories,
    }
    return _audited(every, list(given), design, 1, reference, 0, target_snr, memory, threads,
                    progress, settings, ("unit", "units"))  # fmt: skip


def _title(loss: Loss) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _descent(
    name: str, loss: Loss, model: nn.Module, trained: list[nn.Parameter], unit: Any
) -> Float[Tensor, " P"]:
    """−∇ loss, in the order of the parameters."""
    with torch.enable_grad():
        value = loss(model, unit)
        refuse_unless(
            isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad,
            f"audit_loss: {name!r} returned {_shape(value)}; return one number, a tensor that "
            "depends on the model's parameters.",
        )
        pieces = torch.autograd.grad(value.sum(), trained, allow_unused=True)
    return -torch.cat([
        torch.zeros_like(p).flatten() if piece is None else piece.flatten()
        for p, piece in zip(trained, pieces, strict=True)
    ])  # fmt: skip


def _shape(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor of shape {tuple(value.shape)}" + ("" if value.requires_grad else ", detached")


def _audited(
    every: Iterable[Mapping[str, Callable[[], Any]]],
    names: list[str],
    design: Design,
    step: int,
    reference: Tensor | str | None,
    seed: int,
    target_snr: float,
    memory: int | str,
    threads: int,
    progress: bool,
    settings: dict[str, Any],
    counted: tuple[str, str],
    timed: bool = True,
) -> Report:
    """What all doors share, once their gradients are functions to call in turn."""
    couples = "batch" if step > 1 else "none"
    given = [Given(name, couples) for name in names]
    refuse_namesakes(given)
    limit = memory if isinstance(memory, int) else size_in_bytes(memory)
    refuse_unless(
        not isinstance(reference, str) or reference in names,
        f"reference={reference!r}: not among those given, {', '.join(names)}.",
    )
    with torch_threads(threads):
        rounds, word = design.trajectories // step, "draws" if step > 1 else counted[1]
        with counting("audit", rounds, progress, word) as done:
            units, sketch = _collected(every, given, design, step, seed, limit, timed, done)
        star: Tensor | tuple[str, Units] | None = None
        against = "none"
        if isinstance(reference, str):
            star, against = (reference, units), f"{reference}, taken to be unbiased"
        elif reference is not None:
            exact = vector("the reference", reference, units.parameters)
            # in the numbers that the vectors are kept in, as their sketch is
            exact = exact.to(next(iter(units.gradients.values())))
            star, against = (exact if sketch is None else sketch(exact)), "the exact gradient"
        why = measure.undetermined("gradients from elsewhere: their starts are not known")
        apart = dict.fromkeys(names, (why, why))
        rows: list[Row] = []
        with counting("statistics", len(names), progress, "gradients") as done:
            for row in measure.rows(None, given, units, star, apart):
                rows.append(row)
                done(len(rows))
    judged = [_judged(each, row) for each, row in zip(given, rows, strict=True)]
    settings |= {
        "counted": counted,
        "parameters": units.parameters,
        "trajectories": design.trajectories,
        "batch": design.batch,
        "pool": design.pool,
        "seed": seed,
        "versions": versions(),
    }
    looked = _looked(units, names, step, counted)
    return reported(rows, judged, units, against, settings, target_snr, looked, {})


def _collected(
    every: Iterable[Mapping[str, Callable[[], Any]]],
    given: list[Given],
    design: Design,
    step: int,
    seed: int,
    memory: int,
    timed: bool,
    progress: Callable[[int], None],
) -> tuple[Units, Sketch | None]:
    """Ask for every gradient in turn and reduce it to units; the first says how long they are."""
    units: Units | None = None
    sketch: Sketch | None = None
    for n, round_ in enumerate(every):
        for each in given:
            began = time.perf_counter()
            drawn = round_[each.name]()
            elapsed = time.perf_counter() - began
            label = f"{each.name!r}, gradient {n}"
            flat = vector(label, drawn, None if units is None else units.parameters)
            if units is None:
                units, sketch = _empty(given, design, flat, memory, seed)
            stored = flat if sketch is None else sketch(flat)
            place, size = n * step // design.unit(each), design.unit(each)
            units.gradients[each.name][place] += stored.to(units.gradients[each.name]) * (
                step / size
            )
            if timed:
                units.weighing[each.name].append(elapsed / step)
        progress(n + 1)
    assert units is not None
    rounds = len(next(iter(units.weighing.values())))
    units.counts, units.sampling, units.passes = [step] * rounds, [0.0] * rounds, [0.0] * rounds
    return units, sketch


def _empty(
    given: list[Given], design: Design, first: Tensor, memory: int, seed: int
) -> tuple[Units, Sketch | None]:
    count = sum(design.trajectories // design.unit(each) for each in given)
    sketch = sketch_of(len(first), first.element_size(), count, memory, seed)
    size = len(first) if sketch is None else sketch.size
    zeros = {
        each.name: first.new_zeros(design.trajectories // design.unit(each), size) for each in given
    }
    units = Units(design, zeros, len(first), None if sketch is None else size, NOWHERE, None)
    units.weighing = {each.name: [] for each in given}
    return units, sketch


def _judged(given: Given, row: Row) -> Given:
    """With the bias that was measured, for the plan: whether a tilt is seen."""
    if row.cosine.note == measure.NO_REFERENCE:
        return given
    tilted = not row.cosine.high > 1 - 1e-9
    return Given(given.name, given.couples, "direction" if tilted else "scale")


def _looked(units: Units, names: list[str], step: int, counted: tuple[str, str]) -> Vectors:
    number = units.design.trajectories // step
    several = "gradients" if step > 1 else counted[1]
    each = f", of {step} {counted[1]} each" if step > 1 else ""
    sentence = (
        f"{number:,} {'draws' if step > 1 else several}{each}, {units.parameters:,} parameters."
    )
    alike = all(not vectors.any() for vectors in units.gradients.values())
    return Vectors(sentence, bool(alike), several, [])
