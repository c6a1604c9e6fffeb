"""How soon estimators learn two-digit addition, and how good their gradients were on the way.

Every run starts from the warm-up of its seed: a million parameters that give gold answers with a
probability of 0.4. What is counted is tokens, and seconds of one core, of policy gradient until
the held-out accuracy, greedily, first reaches 90 % (looked at every 28,000 tokens, which are 10
updates of 256 completions), and the accuracy at the end of a fixed budget of tokens. The
signal-to-noise ratio of a batch's gradient is measured at start, middle and end from 8 more
batches, without a step. One learning rate serves all: none is tuned.

    python benchmarks/language_learning.py run [--seeds 5] [--tokens 1600000]
    python benchmarks/language_learning.py table

One JSON line per finished run in benchmarks/results/language_learning.jsonl: what is there is not
run again. A run is bounded by its tokens: about four minutes at the default.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

import vantage as vt
from vantage import language as vl

RESULTS = Path(__file__).parent / "results" / "language_learning.jsonl"
GOAL = 0.9
BATCH, LENGTH = 256, 4
LOOK = 10 * BATCH * 11  # tokens between evaluations; 11 are a prompt and its completion, about
PROBE = 8  # batches of BATCH that an SNR is measured from


@dataclass(frozen=True)
class Variant:
    """What is compared: an estimator and how its batch is used; all else is the same."""

    estimator: vt.Estimator
    num_generations: int = 4
    num_iterations: int = 1
    minibatches: int = 1
    batch: int | Literal["auto"] = BATCH


VARIANTS = {
    "reinforce": Variant(vt.estimators.reinforce(), num_generations=1),
    "reinforce_leave_one_out": Variant(vt.estimators.reinforce_leave_one_out(), num_generations=1),
    "rloo": Variant(vt.estimators.rloo()),
    "rloo, groups of 8": Variant(vt.estimators.rloo(), num_generations=8),
    "grpo": Variant(vt.estimators.grpo()),
    "dr_grpo": Variant(vt.estimators.dr_grpo(length=float(LENGTH))),
    "ppo": Variant(vt.estimators.ppo(), num_generations=1, num_iterations=2, minibatches=2),
    "reinforce, batch auto": Variant(vt.estimators.reinforce(), num_generations=1, batch="auto"),
    "rloo, batch auto": Variant(vt.estimators.rloo(), batch="auto"),
}


class SpentError(Exception):
    """The budget of tokens is used up."""


def run(
    seeds: int = 5,
    tokens: int = 1_600_000,
    lr: float = 1e-4,
    only: tuple[str, ...] = tuple(VARIANTS),
    out: Path = RESULTS,
) -> None:
    """Run what is not in the results yet, seed by seed.

    Args:
        seeds: 0 to seeds − 1; of the weights, the warm-up, the split, and the run.
        tokens: of prompts and completions, in each run.
        lr: learning rate of AdamW, constant, the same for all.
        only: variants.
        out: results.
    """
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    setting = {"tokens": tokens, "lr": lr, "batch": BATCH}
    finished = {_key(row) for row in read(out)}
    for seed in range(seeds):
        for name in only:
            wanted = {"variant": name, "seed": seed, **setting}
            if _key(wanted) in finished:
                continue
            row = wanted | one(VARIANTS[name], seed, tokens, lr)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            goal = row["tokens_to_goal"]
            print(
                f"{name}, seed {seed}: {GOAL:.0%} after {goal or 'more than all'} tokens, "
                f"{row['accuracy']:.1%} in the end, {row['seconds']:.0f} s of one core",
                flush=True,
            )


def one(variant: Variant, seed: int, tokens: int, lr: float) -> dict[str, Any]:
    """A run: its accuracies, what the goal cost, and the SNR at start, middle and end."""
    task, policy = started(variant.num_generations, seed)
    curve: list[tuple[int, float, float]] = []  # tokens, seconds, accuracy
    quality: dict[str, Any] = {}
    spent, used, began = 0.0, 0, time.process_time()
    first = vl.evaluate(task, policy).mean

    def watch(update: int, drawn: vl.Rollout, advantage: torch.Tensor) -> None:
        nonlocal spent, used, began
        spent += time.process_time() - began
        before, used = used, used + drawn.tokens
        for stage, tokens_at in (("start", 1), ("middle", tokens // 2), ("end", tokens)):
            if before < tokens_at <= used:
                quality[stage] = probe(variant, task, policy, seed)
        if used // LOOK > before // LOOK or used >= tokens:
            curve.append((used, spent, vl.evaluate(task, policy).mean))
        if used >= tokens:
            raise SpentError
        began = time.process_time()

    with suppress(SpentError):
        vl.train(
            task, policy, variant.estimator, updates=tokens, batch=variant.batch, lr=lr, warmup=20,
            num_iterations=variant.num_iterations, minibatches=variant.minibatches,
            value=vl.ValueHead(policy) if "value" in variant.estimator.needs else None,
            watch=watch, seed=seed, progress=False, decompose_every=0,
        )  # fmt: skip
    reached = next(((t, s) for t, s, accuracy in curve if accuracy >= GOAL), (None, None))
    return {
        "before": first,
        "tokens_to_goal": reached[0],
        "seconds_to_goal": reached[1],
        "accuracy": curve[-1][2],
        "seconds": spent,
        "quality": quality,
        "curve": curve,
    }


def started(num_generations: int, seed: int) -> tuple[vl.Task, vl.Policy]:
    """The task and the policy after its warm-up: a function of the seed alone."""
    task = vl.tiny_tasks.addition(num_generations=num_generations, seed=seed)
    policy = vl.tiny.policy(seed, max_completion_length=LENGTH)
    policy.load_state_dict(warmed(seed))
    return task, policy


@lru_cache(maxsize=1)
def warmed(seed: int) -> dict[str, torch.Tensor]:
    """The weights after the warm-up, made once a seed."""
    policy = vl.tiny.policy(seed, max_completion_length=LENGTH)
    vl.warm_up(policy, vl.tiny_tasks.addition(seed=seed), 600, seed=seed, until=0.4)
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def probe(variant: Variant, task: vl.Task, policy: vl.Policy, seed: int) -> dict[str, float]:
    """SNR of a batch's gradient, from PROBE independent batches: N̂ and tr Σ̂ / U without bias.

    The first step on a batch, as the estimator weighs it; a value baseline is 0, as it starts.
    """
    batches = []
    for number in range(PROBE):
        rows = task.stream(number * BATCH // variant.num_generations,
                           BATCH // variant.num_generations, seed + 1000)  # fmt: skip
        generator = torch.Generator().manual_seed(1_000_000 + 1000 * seed + number)
        drawn = vl.rollout(task, policy, rows, generator)
        batch = drawn.batch
        if "value" in variant.estimator.needs:
            batch = vt.Batch(**(batch.tensors() | {"value": torch.zeros_like(batch.reward)}))
        batches.append(vt.gradient(policy, batch, variant.estimator).double())
    gradients = torch.stack(batches)
    mean = gradients.mean(0)
    variance = float((gradients - mean).square().sum() / (PROBE - 1))  # of one batch
    squared = float(mean.square().sum()) - variance / PROBE
    return {"squared_norm": squared, "variance": variance, "snr": squared / variance}


def table(out: Path = RESULTS) -> None:
    """Print the results: means over seeds, and how many seeds reached the goal."""
    rows = read(out)
    shown = Table(title=f"Two-digit addition, {BATCH} completions a batch, or as said")
    for column in ("variant", "seeds", f"reached {GOAL:.0%}", "tokens", "seconds", "at the end",
                   "SNR start", "middle", "end"):  # fmt: skip
        shown.add_column(column, justify="left" if column == "variant" else "right")
    for name in VARIANTS:
        own = [row for row in rows if row["variant"] == name]
        if own:
            shown.add_row(name, *_cells(own))
    Console().print(shown)


def read(out: Path) -> list[dict[str, Any]]:
    """Finished runs."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    reached = [row for row in rows if row["tokens_to_goal"] is not None]
    every = len(reached) == len(rows)  # a mean over those that reached it would flatter

    def mean(name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    def snr(stage: str) -> str:
        parts = [row["quality"][stage] for row in rows]
        return f"{sum(p['squared_norm'] for p in parts) / sum(p['variance'] for p in parts):.2f}"

    return [
        f"{len(rows)}",
        f"{len(reached)}",
        f"{mean('tokens_to_goal'):,.0f}" if every else "–",
        f"{mean('seconds_to_goal'):.0f}" if every else "–",
        f"{mean('accuracy'):.3f}",
        *map(snr, ("start", "middle", "end")),
    ]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("variant", "seed", "tokens", "lr", "batch"))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
