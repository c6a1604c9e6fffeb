"""How soon estimators learn two-digit addition, and how good their gradients were on the way.

Every run starts from the warm-up of its seed: a million parameters that give gold answers with a
probability of 0.4. What is counted is tokens, and seconds of one core, of policy gradient until
the held-out accuracy, greedily, first reaches 90 % (looked at every 28,000 tokens, which are 10
updates of 256 completions), and the accuracy at the end of a fixed budget of tokens. The
signal-to-noise ratio of a batch's gradient is measured at start, middle and end from 8 more
batches, without a step. One learning rate serves all: none is tuned.

    python benchmarks/language_learning.py run [--seeds 5] [--tokens 1600000]
    python benchmarks/language_learning.py table
    python benchmarks/language_learning.py norms
    python benchmarks/language_learning.py group-sizes

One JSON line per finished run in benchmarks/results/language_learning.jsonl: what is there is not
run again. A run is bounded by its tokens: about four minutes at the default.
"""

import json
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from scipy.stats import spearmanr

import vantage as vt
from vantage import language as vl
from vantage.gradients.per_trajectory import by_loop
from vantage.pages.numbers import plain
from vantage.training.auto import candidates

RESULTS = Path(__file__).parent / "results" / "language_learning.jsonl"
GROUP_SIZES = RESULTS.with_name("language_group_sizes.json")
NORMS = RESULTS.with_name("language_score_norms.json")
GOAL = 0.9
BATCH, LENGTH = 256, 4
LOOK = 10 * BATCH * 11  # tokens between evaluations; 11 are a prompt and its completion, about
PROBE = 8  # batches of BATCH that an SNR is measured from
STAGES = ("start", "middle", "end")  # after the first token, half of them, all


@dataclass(frozen=True)
class Variant:
    """What is compared: an estimator and how its batch is used; all else is the same."""

    estimator: vt.Estimator
    num_generations: int = 4
    num_iterations: int = 1
    minibatches: int = 1
    batch: int | Literal["auto"] = BATCH
    baseline: Literal["auto"] | None = None


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
    "reinforce, baseline auto": Variant(
        vt.estimators.reinforce(), num_generations=1, baseline="auto"
    ),
    "rloo, baseline auto": Variant(vt.estimators.rloo(), baseline="auto"),
}


class Chosen:
    """The baseline of each update, as a tracker of the run hears of it."""

    def __init__(self, variant: Variant) -> None:
        grouped = variant.num_generations > 1
        self.rules = (
            candidates(variant.estimator, with_value=False, grouped=grouped)
            if variant.baseline == "auto"
            else {"": variant.estimator}
        )
        self.names: list[str] = []

    def log(self, row: dict[str, Any], step: int) -> None:
        """Note what an update took."""
        self.names.append(row.get("baseline", ""))

    def close(self) -> None:
        """Nothing is left to write."""

    def last(self) -> vt.Estimator:
        """What the last update took, or the first will."""
        return self.rules[self.names[-1] if self.names else next(iter(self.rules))]


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
    chosen = Chosen(variant)

    def watch(update: int, drawn: vl.Rollout, advantage: torch.Tensor) -> None:
        nonlocal spent, used, began
        spent += time.process_time() - began
        before, used = used, used + drawn.tokens
        for stage, tokens_at in zip(STAGES, (1, tokens // 2, tokens), strict=True):
            if before < tokens_at <= used:
                quality[stage] = probe(chosen.last(), task, policy, seed)
        if used // LOOK > before // LOOK or used >= tokens:
            curve.append((used, spent, vl.evaluate(task, policy).mean))
        if used >= tokens:
            raise SpentError
        began = time.process_time()

    with suppress(SpentError):
        vl.train(
            task, policy, variant.estimator, updates=tokens, batch=variant.batch,
            baseline=variant.baseline, lr=lr, warmup=20,
            num_iterations=variant.num_iterations, minibatches=variant.minibatches,
            value=vl.ValueHead(policy) if "value" in variant.estimator.needs else None,
            watch=watch, track=[chosen], seed=seed, progress=False, decompose_every=0,
        )  # fmt: skip
    reached = next(((t, s) for t, s, accuracy in curve if accuracy >= GOAL), (None, None))
    return {
        "before": first,
        "tokens_to_goal": reached[0],
        "seconds_to_goal": reached[1],
        "accuracy": curve[-1][2],
        "seconds": spent,
        "quality": quality,
        "baselines": Counter(chosen.names),
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


def probe(estimator: vt.Estimator, task: vl.Task, policy: vl.Policy, seed: int) -> dict[str, float]:
    """SNR of a batch's gradient, from PROBE independent batches: N̂ and tr Σ̂ / U without bias.

    The first step on a batch, as the estimator weighs it; a value baseline is 0, as it starts.
    """
    batches = []
    for number in range(PROBE):
        prompts = BATCH // task.num_generations
        rows = task.stream(number * prompts, prompts, seed + 1000)
        generator = torch.Generator().manual_seed(1_000_000 + 1000 * seed + number)
        drawn = vl.rollout(task, policy, rows, generator)
        batch = drawn.batch
        if "value" in estimator.needs:
            batch = vt.Batch(**(batch.tensors() | {"value": torch.zeros_like(batch.reward)}))
        batches.append(vt.gradient(policy, batch, estimator).double())
    gradients = torch.stack(batches)
    mean = gradients.mean(0)
    variance = float((gradients - mean).square().sum() / (PROBE - 1))  # of one batch
    squared = float(mean.square().sum()) - variance / PROBE
    return {"squared_norm": squared, "variance": variance, "snr": squared / variance}


def norms(seeds: int = 5, out: Path = NORMS) -> None:
    """Print and keep what [7] says of the best baseline after the warm-up, seed by seed.

    Of BATCH completions of different prompts: the mean squared norm of ∇ log π of the right and of
    the wrong ones, and the constant baseline of least variance, Σ ‖s_i‖² R_i / Σ ‖s_i‖².
    """
    torch.set_num_threads(1)
    found = []
    for seed in range(seeds):
        task, policy = started(1, seed)
        generator = torch.Generator().manual_seed(2_000_000 + seed)
        drawn = vl.rollout(task, policy, task.stream(0, BATCH, seed + 2000), generator)
        batch = drawn.batch
        reward = (batch.reward * batch.mask).sum(1)
        basis = batch.mask.to(batch.log_prob)[:, None]
        one = [slice(n, n + 1) for n in range(batch.rows)]
        squares = torch.stack(
            [by_loop(policy, batch.select(n), basis[n]).square().sum() for n in one]
        )
        right = reward == 1
        found.append(
            {
                "seed": seed,
                "mean_reward": float(reward.mean()),
                "right": float(squares[right].mean()),
                "wrong": float(squares[~right].mean()),
                "best_baseline": float((squares * reward).sum() / squares.sum()),
            }
        )
        print(found[-1], flush=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


def group_sizes(seeds: int = 2, trajectories: int = 1024, out: Path = GROUP_SIZES) -> None:
    """Print and keep what `language.group_sizes` says after the warm-up, seed by seed."""
    torch.set_num_threads(1)
    estimators = [
        vt.estimators.reinforce(),
        vt.estimators.reinforce_leave_one_out(),
        vt.estimators.rloo(),
        vt.estimators.reinforce().replace(
            baseline=partial(vt.baselines.batch_leave_one_out, fraction=0.5), name="half"
        ),
    ]
    kept = []
    for seed in range(seeds):
        task, policy = started(1, seed)
        found = vl.group_sizes(task, policy, estimators, trajectories=trajectories, seed=seed)
        print(f"seed {seed}\n{found}", flush=True)
        kept.append({"seed": seed, "trajectories": trajectories, **plain(asdict(found))})
    out.write_text(json.dumps(kept, indent=1) + "\n")


def table(out: Path = RESULTS) -> None:
    """Print the results as Markdown, and how well the SNR predicted the order on each seed."""
    rows = read(out)
    print(
        f"| estimator | tokens to {GOAL:.0%}, thousands, by seed | seconds | at the end | "
        "SNR at the start | middle | end |\n|---|---|---|---|---|---|---|"
    )
    for name in VARIANTS:
        own = sorted((r for r in rows if r["variant"] == name), key=lambda r: r["seed"])
        if own:
            print("| " + " | ".join([name, *_cells(own)]) + " |")
    for stage in STAGES:
        found = {seed: _rank_correlation(rows, seed, stage) for seed in {r["seed"] for r in rows}}
        print(f"\nSpearman's ρ between the SNR ({stage}) and how soon, by seed: ", end="")
        print(", ".join(f"{seed}: {rho:.2f} (of {n})" for seed, (rho, n) in found.items()))


def _rank_correlation(rows: list[dict[str, Any]], seed: int, stage: str) -> tuple[float, int]:
    """Of the variants run on this seed; those that did not reach the goal go by their accuracy."""
    own = [row for row in rows if row["seed"] == seed]
    late = [(row["tokens_to_goal"] or math.inf, -row["accuracy"]) for row in own]
    order = {key: place for place, key in enumerate(sorted(set(late)))}
    snr = [row["quality"][stage]["snr"] for row in own]
    return float(spearmanr(snr, [-order[key] for key in late]).statistic), len(own)


def read(out: Path) -> list[dict[str, Any]]:
    """Finished runs."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    def each(name: str, unit: float, form: str) -> str:
        return ", ".join("–" if r[name] is None else f"{r[name] / unit:{form}}" for r in rows)

    def snr(stage: str) -> str:
        parts = [row["quality"][stage] for row in rows]  # sums first: a mean of ratios is biased
        ratio = sum(p["squared_norm"] for p in parts) / sum(p["variance"] for p in parts)
        return f"{ratio:.2f}"

    accuracy = sum(row["accuracy"] for row in rows) / len(rows)
    return [
        each("tokens_to_goal", 1000, ",.0f"),
        each("seconds_to_goal", 1, ".0f"),
        f"{100 * accuracy:.1f} %",
        *map(snr, STAGES),
    ]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("variant", "seed", "tokens", "lr", "batch"))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"run": run, "table": table, "norms": norms, "group-sizes": group_sizes}
    )
