"""A monitor for any PyTorch loop: SNR and noise scale of its gradient while it trains."""

import math
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.monitor.contributions import Contributions, added
from vantage.monitor.ranks import Ranks
from vantage.statistics.estimate import Estimate, mapped
from vantage.statistics.intervals import inverted
from vantage.statistics.pieces import is_trusted, piece_signal, window_snr

ONE_PIECE = (
    "the step was one piece, and one piece says nothing of its noise. Split the batch into two "
    "accumulation passes or more, each of whole independent units (all completions of a prompt in "
    "one pass), and wrap each pass in `with monitor.piece(weight=its share of the batch)`; or give "
    "the monitor a DistributedDataParallel model, whose ranks are pieces"
)
OVERFLOW = "its gradient is not finite"
UNTRUSTED = (
    "few steps of the window carry the estimate, and its interval may be far too short "
    "(row['trusted'] is 0): widen the window, or put more independent units in a piece."
)


@checked
class Monitor:
    """Says how good the gradient of each optimiser step is, from the independent pieces it has.

    The step's gradient must be the sum of its pieces (accumulation passes; under
    `DistributedDataParallel` the passes of all ranks), a piece's expected gradient in proportion to
    its weight. Pieces must be independent: completions that are compared with one another belong
    in one piece. What looks across pieces (a batch mean, a standardised advantage) makes them
    dependent; a division of all of them by one number does no harm.

        monitor = vt.Monitor(model)
        for pieces in loader:
            for piece in pieces:
                with monitor.piece(weight=len(piece) / total):
                    loss(piece).backward()
            row = monitor.step()
            optimizer.step()
            optimizer.zero_grad()

    Hooks on the parameters take squared norms; no copy of the gradient is made, and memory is a few
    scalars for every parameter and piece until the step ends. (A parameter whose gradient comes in
    several parts within one piece, by two backward passes, costs a copy until the piece ends.) The
    first step that has fewer pieces than any before it is left out.
    Parameters may be shared, frozen, unfrozen later, checkpointed, adapted by LoRA, of any floating
    dtype.

    Args:
        model: the module that learns. `DistributedDataParallel` is given a communication hook that
            averages as it would by itself. Hooks that change a parameter's gradient must be there
            before.
        window: how many of the latest steps the ratios are averaged over.
        scaler: the loop's `torch.amp.GradScaler`, if it has one: its scale is divided out. Steps
            that overflow are left out, as the scaler does.

    Raises:
        InputError: no parameter learns; gradients are sharded, sparse or complex; another
            communication hook is there already; window < 8.

    Source: McCandlish et al. 2018, appendix A, for two pieces; here for any number and weights.
    """

    def __init__(self, model: nn.Module, *, window: int = 100, scaler: Any = None) -> None:
        refuse_unless(window >= 8, f"Monitor(window={window}): 8 steps at least.")
        _refuse_models(model)
        self.model, self.scaler = model, scaler
        self.ranks = Ranks.of(model)
        self.contributions = Contributions(reduced=self.ranks is not None)
        self.contributions.watch(model.parameters())
        self.latest: deque[tuple[float, float, float]] = deque(maxlen=window)
        self.skipped = 0
        self._said: set[str] = set()

    @contextmanager
    def piece(self, weight: float = 1.0) -> Iterator[None]:
        """Around the backward pass, or passes, of one independent piece.

        Args:
            weight: its share of the step; only the shares relative to one another matter, so that
                pieces of equal size need none.

        Raises:
            InputError: weight is not above 0; another piece is open.
        """
        self.open_piece(weight)
        try:
            yield
        finally:
            self.close_piece()

    def open_piece(self, weight: float = 1.0) -> None:
        """As `piece`, where a pass begins and ends in different functions; see `close_piece`."""
        good = math.isfinite(weight) and weight > 0
        refuse_unless(good, f"piece(weight={weight}): give its share of the step, above 0.")
        refuse_unless(self.contributions.weight is None, "piece: another piece is still open.")
        self.contributions.open_piece(weight)

    def close_piece(self) -> None:
        """Ends the piece that `open_piece` began."""
        self.contributions.close_piece()

    def leave_out(self) -> None:
        """Instead of `step`: the pieces since the last call count for nothing."""
        self.skipped += 1
        self.contributions.begin()
        self.contributions.watch(self.model.parameters())

    def step(self, batch: float | None = None) -> dict[str, float]:
        """What the pieces since the last call say; call it once a step, before `scaler.update()`.

        Args:
            batch: how many independent units (prompts, examples) the step has, over all ranks; the
                noise scale is in these. By default the number of pieces.

        Returns:
            `snr` of the step's gradient, N / tr Cov(ĝ), over the window, and `noise_scale`, the
            batch at which it would be 1, each with the ends `_low` and `_high` of its 95 %
            interval; `trusted`, 1 where that interval may be relied on and 0 where few steps carry
            it, as where rewards are rare (`snr.note` says why); `squared_norm` and `variance`,
            unbiased for ‖G‖² and tr Cov(ĝ), of this step alone (nan where it could not be
            measured); `pieces`, and `steps` in the window. Values are never clamped: one below 0
            says that signal was not told from noise.
        """
        now = self.contributions
        squares, weights = added(now.squares), np.array(now.weights or [0.0])
        problem, total = now.problem(), added(now.total)
        sums = [squares, weights.sum(), np.square(weights).sum(), float(len(now.weights))]
        flags = [float(now.unseen_parts), float(bool(problem))]
        if self.ranks is not None:
            total, (*sums, unseen, wrong) = self.ranks.reduced(sums + flags)
            flags = [unseen, wrong]
            problem = problem or ("another rank could not measure it" if wrong else "")
        now.expect()
        now.begin()
        self.contributions.watch(self.model.parameters())
        scale = float(self.scaler.get_scale()) if self.scaler is not None else 1.0
        squares, weight, square, pieces = map(float, sums)
        share = square / weight**2 if weight else 1.0
        if not problem and not math.isfinite(total + squares):
            problem = OVERFLOW
        elif not problem and share >= 1 - 1e-9:
            problem = ONE_PIECE
        row = {"squared_norm": math.nan, "variance": math.nan}
        if problem or flags[0]:
            self.skipped += 1
            self._say(problem)
        else:
            units = pieces if batch is None else float(batch)
            signal = piece_signal(total / scale**2, squares / scale**2, share)
            row = dict(zip(row, signal, strict=True))
            self.latest.append((*signal, units * signal[1]))
        return self._row() | row | {"pieces": pieces, "steps": float(len(self.latest))}

    @property
    def snr(self) -> Estimate:
        """N / tr Cov(ĝ) over the window: of the gradient of one step, as steps are now."""
        norms, variances, _ = self._window()
        return window_snr(norms, variances)

    @property
    def noise_scale(self) -> Estimate:
        """The batch, in units of `step(batch=...)`, at which the SNR would be 1.

        Its interval has no upper end where the signal cannot be told from 0; the note says so.
        """
        return self.batch_for(1.0)

    def batch_for(self, snr: float) -> Estimate:
        """The batch, in units of `step(batch=...)`, at which the step would have this SNR.

        Raises:
            InputError: snr is not above 0.
        """
        refuse_unless(snr > 0, f"batch_for(snr={snr}): a target above 0.")
        norms, _, unit_variances = self._window()
        return mapped(_batch_for_one(norms, unit_variances), lambda units: snr * units)

    def close(self) -> None:
        """Takes the hooks away."""
        self.contributions.close()

    def _window(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = np.array(self.latest, dtype=np.float64).reshape(-1, 3).T
        return columns[0], columns[1], columns[2]

    def _row(self) -> dict[str, float]:
        norms, variances, unit_variances = self._window()
        estimates = {
            "snr": window_snr(norms, variances),
            "noise_scale": _batch_for_one(norms, unit_variances),
        }
        ends = {"": "value", "_low": "low", "_high": "high"}
        row = {
            k + end: getattr(e, name) for k, e in estimates.items() for end, name in ends.items()
        }
        trusted = is_trusted(estimates["snr"])
        if not trusted and len(self.latest) == self.latest.maxlen:
            self._say_once(f"{UNTRUSTED} Now: {estimates['snr'].note}.", UNTRUSTED)
        return row | {"trusted": float(trusted)}

    def _say(self, problem: str) -> None:
        if problem:
            self._say_once(f"a step was left out: {problem}.", problem)

    def _say_once(self, text: str, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"vantage.Monitor: {text} (Said once.)", stacklevel=4)


def _batch_for_one(norms: np.ndarray, unit_variances: np.ndarray) -> Estimate:
    """The units of which a step would have an SNR of 1."""
    one = window_snr(norms, unit_variances)
    plain = 1 / one.value if one.value else math.nan
    return replace(inverted(one), value=plain)


def _refuse_models(model: nn.Module) -> None:
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    refuse_unless(bool(learning), "Monitor: no parameter of the model learns (requires_grad).")
    for name, parameter in learning:
        refuse_unless(
            not hasattr(parameter, "placements") and "Fully" not in type(model).__name__,
            f"Monitor: parameter {name!r} is sharded, and a rank sees only its part of a piece; "
            "measure with DistributedDataParallel, or on one process.",
        )
        refuse_unless(not parameter.is_complex(), f"Monitor: parameter {name!r} is complex.")
    for name, module in model.named_modules():
        refuse_unless(
            not (isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse),
            f"Monitor: module {name!r} has sparse gradients; make it with sparse=False.",
        )
    devices = {p.device.type for _, p in learning}
    refuse_unless("meta" not in devices, "Monitor: parameters are on the meta device; load them.")
