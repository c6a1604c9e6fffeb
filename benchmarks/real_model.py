"""A pretrained chat model of 135 million parameters, by LoRA on sums: trained, audited, evaluated.

    make real

makes the model's folder (SmolLM2-135M-Instruct, `examples/gguf_folder.py`) and runs

    python benchmarks/real_model.py --model .real/model

which checks sampled against scored log-probabilities, audits, trains, evaluates on sums that were
held out, audits again, and reads the merged model back. What was measured, and what the model said
before and after, is in benchmarks/results/real_model.json, written after every stage.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from machines import machine
from rich.console import Console

import vantage as vt
from vantage import language as vl
from vantage.language.sampling.rollout import prompts_of
from vantage.language.scoring.scoring import Passes, score_batch
from vantage.language.tasks.prompts import decoded
from vantage.statistics.intervals import Estimate, mean_interval

RESULTS = Path(__file__).parent / "results" / "real_model.json"
GROUP = 4  # completions of a prompt
STATISTICS = ("snr", "noise_scale", "scale", "cosine")
CONSOLE = Console(highlight=False)


def sums(seed: int) -> vl.Task:
    """a plus b for a and b from 1 to 9, a quarter of them held out, in both orders."""
    pairs = [(a, b) for a in range(1, 10) for b in range(a, 10)]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    apart = {pairs[k] for k in order[: len(pairs) // 4]}
    both = [pair for pair in pairs if pair not in apart], [pair for pair in pairs if pair in apart]
    train, held_out = ([question(*p) for q in part for p in sorted({q, q[::-1]})] for part in both)
    return vl.Task(
        train, vl.verifiers.number(), num_generations=GROUP, held_out=held_out, seed=seed
    )


def question(a: int, b: int) -> dict[str, Any]:
    """A row: a conversation of one message, and the sum."""
    asked = f"What is {a} plus {b}? Answer with a number only."
    return {"prompt": [{"role": "user", "content": asked}], "answer": str(a + b)}


def held_out(task: vl.Task, policy: vl.Policy, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Mean rewards on held-out prompts with 95 % intervals, and what was said to each, sampled."""
    drawn = vl.rollout(task, policy, list(task.held_out), torch.Generator().manual_seed(seed))
    texts = decoded(policy.tokenizer, drawn.completion_ids)
    said: dict[int, list[Any]] = {}
    for row, text, reward in zip(drawn.rows, texts, drawn.reward.tolist(), strict=True):
        said.setdefault(row, []).append([text, reward])
    each = drawn.reward.view(-1, GROUP).mean(1).tolist()
    greedy = vl.evaluate(task, policy)
    means: dict[str, Any] = {
        "sampled": asdict(mean_interval(each)),
        "greedy": {"value": greedy.mean, "low": greedy.low, "high": greedy.high},
    }
    means["completions"] = {
        "mean length": float(sum(map(len, drawn.completion_ids)) / len(texts)),
        "cut at the limit": float(drawn.sequences.truncated.float().mean()),
    }
    return means, list(said.values())


def audited(task: vl.Task, policy: vl.Policy, completions: int, batch: int, seed: int) -> Any:
    """What an audit found: value and 95 % interval of each statistic."""
    rows = (vt.estimators.rloo(), vt.estimators.grpo())
    report = vl.audit(task, policy, rows, trajectories=completions, batch=batch, seed=seed)
    CONSOLE.print(str(report))

    def numbers(estimate: Estimate) -> list[float | None]:
        values = (estimate.value, estimate.low, estimate.high)
        return [v if abs(v) < float("inf") else None for v in values]

    return {
        row.estimator: {name: numbers(getattr(row, name)) for name in STATISTICS}
        for row in report.rows
    }


def read_back(task: vl.Task, policy: vl.Policy, folder: Path) -> dict[str, Any]:
    """How far the log-probabilities of the folder that was saved are from the policy's."""
    law = asdict(policy.law)
    read = vl.Policy(folder, max_completion_length=policy.max_completion_length, **law)
    rows = list(task.held_out)[:8]
    drawn = vl.rollout(task, policy, rows, torch.Generator().manual_seed(0))
    passes = Passes(GROUP, 4096)
    own, other = (score_batch(each, drawn.batch, passes)[0] for each in (policy, read))
    prompts = [prompts_of("read_back", task, each, rows) for each in (policy, read)]
    return {
        "largest difference in log π": float((own - other).abs().max()),
        "prompts have the same tokens": prompts[0] == prompts[1],
    }


@contextmanager
def stage(name: str, found: dict[str, Any], out: Path) -> Iterator[None]:
    """Say what begins, and how long it took; write what was found so far."""
    CONSOLE.print(f"— {name}")
    start = time.perf_counter()
    yield
    found["seconds"][name] = round(time.perf_counter() - start, 1)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    CONSOLE.print(f"  {found['seconds'][name]:.0f} s, written to {out}")


def main(
    model: Path,
    updates: int = 14,
    batch: int = 16,
    lr: float = 1e-3,
    rank: int = 8,
    temperature: float = 0.7,
    length: int = 10,
    audit: int = 48,
    seed: int = 0,
    run: Path = Path("runs/real_model"),
    out: Path = RESULTS,
) -> None:
    """Train a pretrained chat model on sums and write down what happened.

    Args:
        model: folder of the model.
        updates, batch, lr: of RLOO, in groups of four.
        rank: of the adapter.
        temperature: that completions are sampled at, and scored.
        length: tokens after which a completion is cut.
        audit: completions of each audit.
        seed: of everything random.
        run: run folder; what an earlier run left there is replaced.
        out: where the numbers go.
    """
    host = machine()
    task = sums(seed)
    policy = vl.Policy(
        model, max_completion_length=length, temperature=temperature, lora=rank, seed=seed
    )
    prompt = prompts_of("real_model", task, policy, task.train)[0]
    CONSOLE.print(policy.tokenizer.decode(prompt), markup=False)
    before, after = dict[str, Any](), dict[str, Any]()
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": host,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "policy": policy.describe(),
        "task": {"prompts": len(task.train), "held out": len(task.held_out), "group": GROUP},
        "prompt": policy.tokenizer.decode(prompt),
        "end tokens": policy.tokenizer.convert_ids_to_tokens(list(policy.end_ids)),
        "seconds": {},
        "before": before,
        "after": after,
    }
    with stage("sampled against scored", found, out):
        found["conformance"] = asdict(vl.conformance(policy, [prompt], 2))
    with stage("held-out prompts before", found, out):
        before["held out"], said_before = held_out(task, policy, seed)
    with stage("audit before", found, out):
        before["audit"] = audited(task, policy, audit, batch, seed)
    shutil.rmtree(run, ignore_errors=True)
    with stage("training", found, out):
        trained = vl.train(
            task, policy, vt.estimators.rloo(), updates=updates, batch=batch, lr=lr, seed=seed,
            watch=vl.recorder(run, task, policy.tokenizer), out=run,
        )  # fmt: skip
        found["training"] = [
            {k: v for k, v in row.items() if isinstance(v, int | float) and v == v}
            for row in trained.history
        ]
    with stage("held-out prompts after", found, out):
        after["held out"], said_after = held_out(task, policy, seed)
        both = zip(task.held_out, said_before, said_after, strict=True)
        found["transcript"] = [
            {
                "prompt": task.prompts[row],
                "answer": task.rows[row]["answer"],
                "before": told,
                "after": tells,
            }
            for row, told, tells in both
        ]
    with stage("reading the merged model", found, out):
        found["merged"] = read_back(task, policy, run / "model")
    with stage("audit after", found, out):
        after["audit"] = audited(task, policy, audit, batch, seed + 1)


if __name__ == "__main__":
    tyro.cli(main)
