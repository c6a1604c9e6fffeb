"""First light of a language model: two-digit addition by policy gradient on exact match.

A Llama of a million parameters with random weights is warmed up on gold answers until it gives them
four times in ten. RLOO does the rest: it sees rewards, never an answer. Sums that are held out are
in neither stage. Prints both accuracies, how much of the gradient was signal, and what was still
wrong in the end. About five minutes on one core; `vantage train addition` does the same.

    python examples/language_first_light.py [--updates 600] [--seed 0] [--out runs/addition]
"""

import shutil
from pathlib import Path

import tyro
from rich.console import Console

import vantage as vt
from vantage import language as vl
from vantage.language.transcripts.records import selected
from vantage.language.transcripts.view import show
from vantage.runs.progress import windowed_snr


def main(updates: int = 600, seed: int = 0, out: Path = Path("runs/addition")) -> None:
    """Warm up, train, evaluate, read.

    Args:
        updates: of 256 completions each: 64 sums, 4 answers to each.
        seed: of everything random.
        out: run folder; what an earlier run left there is replaced.
    """
    console = Console(highlight=False)
    task = vl.tiny_tasks.addition(num_generations=4, seed=seed)
    console.print(str(vl.check_reward(task)))

    policy = vl.tiny.policy(seed, max_completion_length=4)
    warm = vl.warm_up(policy, task, steps=600, seed=seed, until=0.4)
    console.print(f"\nWarm-up, {warm['steps']:.0f} steps. Held out: {vl.evaluate(task, policy)}")

    shutil.rmtree(out, ignore_errors=True)
    run = vl.train(
        task,
        policy,
        vt.estimators.rloo(),
        updates=updates,
        batch=256,
        lr=2e-4,
        schedule="linear",
        warmup=20,
        watch=vl.recorder(out, task, policy.tokenizer, every=50),
        seed=seed,
        out=out,
    )
    console.print(f"\nPolicy gradient, {updates} updates. Held out: {vl.evaluate(task, policy)}")
    tenth = max(1, updates // 10)
    first, last = (windowed_snr(part) for part in (run.history[:tenth], run.history[-tenth:]))
    console.print(f"SNR of a batch's gradient: {first:.2f} at first, {last:.2f} at last.")

    written = vl.read_transcripts(out)
    wrong = [r for r in written if r["update"] == written[-1]["update"] and r["reward"] == 0]
    console.print(f"\nStill wrong at update {written[-1]['update']}, 3 of {len(wrong)}:\n")
    show(selected(wrong, first=3), console)


if __name__ == "__main__":
    tyro.cli(main)
