"""What the monitor costs and where its interval can be trusted: writes results/monitor.json.

    python benchmarks/monitor_cost.py

Cost: steps of four accumulation passes of a multilayer perceptron, plain and watched, by turns, one
thread; medians. A pass computes on `rows` examples, so that the share falls with them: hooks read
every gradient once, whatever it cost to make. `least_per_cent` is what one reading of each pass's
gradient takes by itself, of a step: squared norms of as many numbers as the model has, by turns
with the steps. `inside_per_cent` is the time within the monitor's own functions: less noisy than a
difference of two steps, and without what the steps lose to the caches that it fills.

Coverage: windows of N̂ and v̂ drawn from worlds with exact answers, how often the 95 % interval of
the SNR holds, and how often it is trusted.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machines import machine
from numpy.typing import NDArray
from torch import nn

import vantage as vt
from vantage.monitor.contributions import squares_of
from vantage.statistics.pieces import is_trusted, window_snr

OUT = Path(__file__).parent / "results" / "monitor.json"
PASSES = 4
WARM = 2  # turns that are not counted: the first step of a monitor reads more
# width of two square layers, rows of a pass, rounds
SIZES = ((700, 64, 60), (700, 512, 20), (700, 2048, 6), (7000, 64, 5))
Windows = tuple[NDArray[np.float64], NDArray[np.float64], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "command": "python benchmarks/monitor_cost.py",
        "machine": machine(),
        "torch": torch.__version__,
        "cost": [cost(*size) for size in SIZES],
        "coverage": coverage(),
    }
    given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cost(width: int, rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step, plain and watched, by turns: processor time, which others do not take."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
    models = {"plain": model, "watched": deepcopy(model)}
    optimizers = {k: torch.optim.AdamW(m.parameters(), lr=1e-4) for k, m in models.items()}
    monitors: dict[str, Any] = {"plain": None, "watched": vt.Monitor(models["watched"])}
    inside = clocked(monitors["watched"])
    inputs = torch.randn(PASSES, rows, width)
    seconds: dict[str, list[float]] = {"plain": [], "watched": [], "read": [], "inside": []}
    for turn in range(rounds + WARM):
        for name in list(models)[:: 1 if turn % 2 else -1]:
            began = time.process_time()
            step(models[name], inputs, monitors[name])
            optimizers[name].step()
            optimizers[name].zero_grad()
            seconds[name].append(time.process_time() - began)
        began = time.process_time()
        for parameter in model.parameters():
            squares_of(parameter.detach())
        seconds["read"].append(time.process_time() - began)
        seconds["inside"].append(sum(inside))
        inside.clear()
    seconds = {name: each[WARM:] for name, each in seconds.items()}
    plain, watched, read, within = (statistics.median(seconds[name]) for name in seconds)
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["watched"], strict=True)]
    numbers = sum(p.numel() for p in model.parameters())
    return {
        "parameters": numbers,
        "rows_of_a_pass": rows,
        "rounds": rounds,
        "plain_s": round(plain, 5),
        "watched_s": round(watched, 5),
        "more_per_cent": round(100 * (watched / plain - 1), 2),
        "median_of_more": round(100 * (statistics.median(ratios) - 1), 2),
        "quartiles_of_more": [round(100 * (q - 1), 2) for q in np.quantile(ratios, [0.25, 0.75])],
        "inside_per_cent": round(100 * within / plain, 2),
        "least_per_cent": round(100 * PASSES * read / plain, 2),
        "read_gb_per_s": round(4 * numbers / read / 1e9, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def clocked(monitor: vt.Monitor) -> list[float]:
    """A list to which every call of what the monitor does in a step adds its seconds."""
    inside: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                inside.append(time.process_time() - began)

        return call

    for owner, names in (
        (monitor.contributions, ("arriving", "lands", "open_piece", "close_piece")),
        (monitor, ("step",)),
    ):
        for name in names:
            setattr(owner, name, timed(getattr(owner, name)))
    return inside


def step(model: nn.Module, inputs: torch.Tensor, monitor: vt.Monitor | None) -> None:
    for piece in inputs:
        if monitor is None:
            model(piece).square().mean().div(PASSES).backward()
        else:
            with monitor.piece():
                model(piece).square().mean().div(PASSES).backward()
    if monitor is not None:
        monitor.step()


def coverage() -> list[dict[str, Any]]:
    """Every world at three lengths of window, 1,000 windows each."""
    worlds = {
        "Gaussian, 2 numbers": lambda w: gaussian(w, 2, 0.5),
        "Gaussian, 50 numbers": lambda w: gaussian(w, 50, 1.0),
        "no signal, 5 numbers": lambda w: gaussian(w, 5, 0.0),
        "rare reward, 64 samples a piece": lambda w: rare(w, 64),
        "rare reward, 16 samples a piece": lambda w: rare(w, 16),
        "rare reward, 1 sample a piece": lambda w: rare(w, 1),
    }
    return [
        {"world": name, "window": window, **held(draw(window))}
        for name, draw in worlds.items()
        for window in (40, 100, 400)
    ]


def held(windows: Windows) -> dict[str, float]:
    """Shares of windows: the interval holds the SNR; is trusted; is trusted and does not hold."""
    norms, variances, snr = windows
    found = [window_snr(n, v) for n, v in zip(norms, variances, strict=True)]
    inside = np.array([each.low <= snr <= each.high for each in found])
    trusted = np.array([is_trusted(each) for each in found])
    return {
        "snr": round(snr, 4),
        "holds": round(float(inside.mean()), 3),
        "trusted": round(float(trusted.mean()), 3),
        "trusted_and_wrong": round(float((trusted & ~inside).mean()), 3),
    }


def gaussian(window: int, size: int, mean: float, windows: int = 1000) -> Windows:
    """Four pieces, normal with unit variance around a mean in one of `size` numbers."""
    noise = np.random.default_rng(0).normal(size=(windows, window, PASSES, size))
    noise[..., 0] += mean
    return signal(noise / PASSES, PASSES * mean**2 / size)


def rare(window: int, samples: int, windows: int = 1000) -> Windows:
    """REINFORCE of a bandit at even odds: one arm pays 10 with probability .05, the other 0.3."""
    generator = np.random.default_rng(0)
    shape = (windows, window, PASSES)
    arm = generator.binomial(samples, 0.5, shape)
    wins = generator.binomial(arm, 0.05)
    half = 0.5 * (10 * wins - 0.3 * (samples - arm)) / samples / PASSES
    mean, second = 0.25 * (0.5 - 0.3), 0.125 * (0.05 * 100 + 0.09)
    exact = PASSES * samples * mean**2 / (second - mean**2)
    return signal(np.stack([half, -half], -1), exact)


def signal(pieces: NDArray[np.float64], snr: float) -> Windows:
    """N̂ and v̂ of steps, from contributions [windows, steps, pieces, P]."""
    total, squares = (pieces.sum(2) ** 2).sum(-1), (pieces**2).sum((-1, -2))
    norms = (total - squares) / (1 - 1 / PASSES)
    return norms, total - norms, snr


if __name__ == "__main__":
    main()
